"""What is saved where time is the price, and where multiply-adds are: whole blocks, or widths.

    python runs/reference/compare_prices.py runs/resnet56/network resnet56

takes a network that `rlprune adapt` made elastic, searches it under either price (time at batch 1, on this machine),
and looks at the best profile that costs no more than half of the dense network's price, and three quarters. It writes
prices.json into the folder named here. Accuracies are of images that the network has not learnt from, without further
training. Times are measured in turns, in one process.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rlprune.bundle import load_network
from rlprune.conditions import conditions
from rlprune.cost import Cost
from rlprune.files import write_json
from rlprune.folding import to_run
from rlprune.latency import Latency
from rlprune.options import DataOptions
from rlprune.search import best_within, search
from rlprune.timing import interleaved

BUDGETS, N_CANDIDATES, N_IMAGES, SECONDS = (0.5, 0.75), 160, 500, 20.0
HERE = Path(__file__).parent


@torch.inference_mode()
def main() -> None:
    """Search, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("folder")
    named = parser.parse_args()
    saved = load_network(named.network)
    elastic, images = saved.network, DataOptions(**saved.about["source"]).load().policy.subset(slice(0, N_IMAGES))
    latency, cost = Latency.measure(elastic), Cost(elastic)
    droppable, rows = (elastic.min_level == 0).cpu() & (elastic.keep_ratios[0] == 0), []
    for paid, price in (("multiply-adds", None), ("time", latency)):
        found = search(elastic, images, N_CANDIDATES, latency=price)
        for budget in BUDGETS:
            profile = best_within(elastic, found, [budget])[0]
            kept = profile[profile > 0]
            row: dict[str, Any] = {
                "paid": paid,
                "budget": budget,
                "profile": profile.tolist(),
                "accuracy": float(found.accuracy[(found.profiles == profile).all(1)].max()),
                "macs": float(cost.of(profile).macs / cost.dense.macs),
                "blocks_dropped": float((profile[droppable] == 0).double().mean()),
                "width_of_the_others": float(torch.tensor(elastic.keep_ratios)[kept].mean()),
            }
            rows.append(row)
    image = torch.randn(1, *elastic.image_shape).to(memory_format=torch.channels_last)
    bodies = [to_run(elastic.slice(torch.tensor(row["profile"]))) for row in rows]
    turns = {"dense": partial(to_run(elastic.slice(elastic.full)), image)}
    times = interleaved(turns | {str(k): partial(body, image) for k, body in enumerate(bodies)}, SECONDS)
    dense = median(times["dense"])
    for k, row in enumerate(rows):
        print(row := row | {"time": median(times[str(k)]) / dense}, flush=True)
        rows[k] = row
    found_out = {"rows": rows, "errors": latency.errors, "n_images": len(images), **conditions()}
    write_json(HERE / named.folder / "prices.json", found_out)


if __name__ == "__main__":
    main()
