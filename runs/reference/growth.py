"""How time and memory grow: with the batch, the number of profiles, the number of groups, and the size of images.

    python runs/reference/growth.py runs/reference/m_cifarnet/bundle

measures on this machine and writes growth.json and growth.png beside this script. Batches are of the bundle's test
images, as noise is not what a policy is used to; the rest, which does not depend on images, takes noise.
"""

import argparse
import dataclasses
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from reference_plots import growth_plot
from reference_results import GrowthResult

import rlprune
from rlprune import models
from rlprune.data.image_set import ImageSet
from rlprune.graph.folding import optimize_for_inference
from rlprune.intake.options import DataOptions
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import random_profiles, sorted_codebook, uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions
from rlprune.utils.timing import Turns, interleaved

HERE = Path(__file__).parent


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """How long something takes once, and what it gives."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def noise(n: int, shape: tuple[int, ...]) -> ImageSet:
    """Random images of ten classes."""
    pixels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    third = (0.5,) * shape[0]
    return ImageSet(pixels, torch.arange(n) % 10, tuple("0123456789"), third, third)


def random_dynamic(elastic: rlprune.ElasticCNN, codebook: torch.Tensor) -> rlprune.DynamicCNN:
    """A network under a policy of random weights, which spreads images over all profiles."""
    data = noise(64, elastic.image_shape)
    data = dataclasses.replace(data, classes=tuple(map(str, range(elastic.n_classes))))
    observer = Observer.fit(elastic, data, pool=2)
    actions = Actions.from_network(elastic, "profiles", codebook, 1)
    policy = Policy((observer.size, 64, actions.n_outputs), "Tanh", observer, actions, codebook)
    return rlprune.DynamicCNN(elastic, policy, data.mean, data.std, data.classes)


@torch.inference_mode()
def with_batch(dynamic: rlprune.DynamicCNN, test: ImageSet) -> list[dict[str, float]]:
    """Milliseconds per image, dense and dynamic, and the most memory that the process has taken until then."""
    dense = optimize_for_inference(dynamic.elastic.slice(dynamic.elastic.full))

    def all_of(images: torch.Tensor) -> None:
        for part in dynamic.normalise(images).split(dynamic.max_batch or len(images)):
            dense(part)

    rows: list[dict[str, float]] = []
    for batch in (1, 4, 16, 64, 256, 1024):
        n = max(batch, 256)
        whole: dict[str, Callable[[torch.Tensor], object]] = {"dense": all_of, "dynamic": dynamic}
        turns = {name: Turns(network, test.images[:n], batch, n // batch) for name, network in whole.items()}
        times = interleaved(turns, 8.0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"batch": batch} | {name: median(each) / n for name, each in times.items()} | {"peak_mb": peak})
    return rows


@torch.inference_mode()
def with_profiles(elastic: rlprune.ElasticCNN) -> list[dict[str, float]]:
    """Preparing and running more and more profiles."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    for n in (2, 4, 8, 16):
        codebook = sorted_codebook(torch.stack(random_profiles(elastic, 2 * n, generator))[: 2 * n], Cost(elastic))
        codebook = codebook[torch.linspace(0, len(codebook) - 1, n).long()]
        with torch.inference_mode(False):
            prepare, dynamic = seconds(lambda codebook=codebook: random_dynamic(elastic, codebook))
        pixels = noise(64, elastic.image_shape).images
        held = dynamic.slices.n_parameters / float(dynamic.prices.dense.params)
        times = interleaved({"run": lambda dynamic=dynamic, pixels=pixels: dynamic(pixels)}, 1.0)
        rows.append({"profiles": n, "prepare_s": prepare, "held": held, "run_64_s": median(times["run"]) / 1e3})
    return rows


def with_groups() -> list[dict[str, float]]:
    """Finding groups, slicing and pricing in deeper and deeper networks."""
    rows = []
    for name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"):
        find, elastic = seconds(lambda name=name: rlprune.ElasticCNN.from_model(models.build(name), (3, 32, 32)))
        cut, _ = seconds(lambda elastic=elastic: elastic.slice(elastic.uniform(2)))
        cost = Cost(elastic)
        levels = torch.stack(random_profiles(elastic, 256, torch.Generator().manual_seed(0)))
        cost.of(levels)
        price, _ = seconds(lambda cost=cost, levels=levels: cost.of(levels))
        rows.append({"groups": elastic.n_groups, "find_s": find, "slice_s": cut, "price_256_s": price})
    return rows


def large_images() -> dict[str, float]:
    """A torchvision resnet50 at 224 pixels, step by step."""
    find, elastic = seconds(
        lambda: rlprune.ElasticCNN.from_model(models.build("torchvision.models:resnet50"), (3, 224, 224))
    )
    cut, _ = seconds(lambda: elastic.slice(elastic.uniform(2)))
    data = noise(8, (3, 224, 224))
    data = dataclasses.replace(data, classes=tuple(map(str, range(1000))))
    step, _ = seconds(
        lambda: rlprune.adapt(elastic, data, rlprune.AdaptSettings(epochs=1, batch_size=8, n_random=1, sandwich=False))
    )
    dynamic = random_dynamic(elastic, uniform_codebook(elastic, Cost(elastic))[[0, -1]])
    with tempfile.TemporaryDirectory() as folder:
        save, _ = seconds(lambda: rlprune.save_bundle(Path(folder) / "bundle", elastic, dynamic.policy, data))
        load, _ = seconds(lambda: rlprune.load(Path(folder) / "bundle"))
    predict, _ = seconds(lambda: dynamic(data.images))
    return {"find": find, "slice": cut, "one epoch of one step": step, "save": save, "load": load, "predict 8": predict}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    dynamic = rlprune.load(parser.parse_args().bundle)
    results = {
        "batch": with_batch(dynamic, DataOptions(**dynamic.metadata["network"]["source"]).load().test),
        "profiles": with_profiles(dynamic.elastic),
        "groups": with_groups(),
        "resnet50": large_images(),
        **conditions(),
    }
    write_json(HERE / "growth.json", results)
    growth_plot(HERE / "growth.png", GrowthResult.from_json(results))
