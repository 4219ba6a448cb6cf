"""What policies save where time is the price, and where MACs are: whole blocks, or widths.

    python runs/reference/compare_prices.py runs/resnet20/network runs/resnet20/prices resnet20

takes a network that `rlprune adapt` made elastic, and learns policies that choose a level for every group, once per
image, paid in either (time at batch 1, on this machine), for several penalties. It writes prices.json into the folder
that is named last, here. Accuracies and what is kept are of the test images; times are what the table, measured once,
says of the profiles that they run, at batch 1. A run that has some of the policies already is resumed.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from rlprune.agents import PolicySettings, train_policy
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import predict_all
from rlprune.deployment.prediction import Prediction
from rlprune.elastic.cnn import ElasticCNN
from rlprune.intake.options import DataOptions
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.networks import load_network
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

PENALTIES = (1.0, 0.7, 0.4, 0.2, 0.1)
N_STEPS = 80_000
HERE = Path(__file__).parent


def kept(elastic: ElasticCNN, found: Prediction) -> dict[str, float]:
    """Which share of the blocks that could be dropped was, and the mean keep ratio of those that were not."""
    ratios = found.keep_ratios[:, (elastic.min_level == 0).cpu()]
    return {
        "blocks_dropped": float((ratios == 0).double().mean()),
        "width_of_the_others": float(ratios[ratios > 0].mean()),
    }


@torch.inference_mode()
def main() -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder")
    named = parser.parse_args()
    saved = load_network(named.network)
    elastic = saved.network
    splits = DataOptions(**saved.metadata["source"]).load()
    test = splits.test
    table = named.run / "latency.json"
    if not table.exists():
        Latency.measure(elastic).save(table)
    latency = Latency.load(table)
    cost = Cost(elastic)
    rows = []
    for paid in ("macs", "latency"):
        for penalty in PENALTIES:
            settings = PolicySettings(
                penalty=penalty, cost=paid, action="levels", max_passes=1, total_steps=N_STEPS, entropy=0.002
            )
            folder = named.run / f"{paid}-{penalty:g}"
            with torch.inference_mode(False):
                policy = train_policy(
                    elastic,
                    splits.policy,
                    splits.validation,
                    folder,
                    settings,
                    latency=latency,
                    resume=True,
                )
            dynamic = DynamicCNN(elastic, policy, test.mean, test.std, test.classes)
            found = predict_all(dynamic, test)
            row: dict[str, Any] = {"paid": paid, "penalty": penalty, **kept(elastic, found)}
            row |= {"accuracy": float((found.labels == test.labels).double().mean())}
            row |= {"macs": float(found.macs.double().mean() / dynamic.prices.dense.macs)}
            times = latency.predict_ms(cost, dynamic.codebook[found.profiles[:, 0]])
            row |= {"time": float(times.mean() / latency.dense)}
            rows.append(row)
            print(row, flush=True)
    levels = torch.tensor(latency.table)  # milliseconds, by group and level
    saved = {"block": levels[:, -1] - levels[:, 0], "half_of_it": levels[:, -1] - levels[:, elastic.n_levels // 2]}
    shares = {what: [float(of.min() / latency.dense), float(of.max() / latency.dense)] for what, of in saved.items()}
    results = {
        "rows": rows,
        "saved_by_dropping": shares,
        "errors": latency.errors,
        "n_images": len(test),
        **conditions(),
    }
    write_json(HERE / named.folder / "prices.json", results)


if __name__ == "__main__":
    main()
