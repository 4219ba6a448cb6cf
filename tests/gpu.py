"""Everything that takes a device, on a graphics card: trainings, bundles, measurements, the one command. A few minutes.

    python tests/gpu.py                      on the first card
    python tests/gpu.py --only verbs bench   some of it
    python tests/gpu.py --device cpu         where there is none, to try the script

Prints a line per bar, with its figures; the exit status counts what fails. Tables of times go to build/gpu.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rlprune
from rlprune.cli.main import main as rlprune_main
from rlprune.data.image_set import ImageSet
from rlprune.models import registry
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings, adapt

ROOT = Path("build/gpu")
BUNDLES = tuple(Path("runs/reference", name, "bundle") for name in ("resnet20", "m_cifarnet", "resnet56"))
DIGITS = ("--model", "digits_cnn", "--data", "mnist5k")
QUICK = ("--epochs", "1", "--no-flip")
LEARN = ("--total-steps", "8192", "--n-candidates", "16", "--pool", "0", "--penalty", "0.01")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
Figures = tuple[bool, str]
"""Whether a bar holds, and what was found."""


def noise(n: int, n_classes: int = 10, side: int = 32) -> ImageSet:
    """Images of smooth noise, so that networks answer differently."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 8, 8, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(torch.uint8)
    labels = torch.randint(0, n_classes, (n,), generator=generator)
    return ImageSet(images, labels, tuple(f"class {i}" for i in range(n_classes)), MEAN, STD)


def elastic_network(name: str, side: int) -> rlprune.ElasticCNN:
    """An elastic network with statistics of its own, on the processor."""
    torch.manual_seed(0)
    network = rlprune.ElasticCNN.from_model(registry.build(name), (3, side, side))
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, side, side))
    return network.eval()


def gap(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to what is wanted."""
    return float((found.cpu() - wanted).abs().max() / wanted.abs().max())


# Bars


def profiles(device: str) -> Figures:
    """Every profile of a network gives the processor's logits."""
    largest = 0.0
    for name in ("resnet20", "m_cifarnet", "digits_cnn"):
        network = elastic_network(name, 32)
        codebook = uniform_codebook(network, Cost(network))
        pixels = torch.randn(16, 3, 32, 32)
        with torch.inference_mode():
            wanted = [network(pixels, profile.repeat(16, 1)) for profile in codebook]
            network.to(device)
            found = [network(pixels.to(device), profile.repeat(16, 1).to(device)) for profile in codebook]
        largest = max(largest, *map(gap, found, wanted))
    return largest < 1e-3, f"3 networks, logits differ by {largest:.1e} at most"


def bundles(device: str) -> Figures:
    """Committed bundles give the processor's labels and cost, one image at a time too."""
    images = noise(512).images
    n_same = n_all = 0
    for folder in BUNDLES:
        for memory in (0.0, None):
            options: dict[str, Any] = {} if memory is None else {"memory": memory}
            slow, fast = rlprune.load(folder, **options), rlprune.load(folder, device=device, **options)
            wanted, found = slow(images), fast(images)
            n_same += int(((found.labels == wanted.labels) & (found.macs == wanted.macs)).sum())
            single = torch.cat([fast(images[i : i + 1]).labels for i in range(16)])
            n_same += int((single == wanted.labels[:16]).sum())
            n_all += len(images) + 16
    return n_same >= 0.995 * n_all, f"{n_same} of {n_all} labels and costs are the processor's"


def resumed(device: str) -> Figures:
    """A training on the card goes on from its checkpoint, on the card and on the processor."""
    data = noise(512)
    settings = AdaptSettings(epochs=2, batch_size=64)
    checkpoint = ROOT / "adapt.checkpoint.pt"
    network = elastic_network("resnet20", 32).to(device)
    with contextlib.suppress(KeyboardInterrupt):
        adapt(network, data, settings, checkpoint=checkpoint, log=stop_late)
    weights = []
    for place in (device, "cpu"):
        copy = shutil.copy(checkpoint, ROOT / f"{place[:4]}.checkpoint.pt")
        network = elastic_network("resnet20", 32).to(place)
        adapt(network, data, settings, checkpoint=Path(copy))
        weights.append([value.cpu() for value in network.state_dict().values() if value.is_floating_point()])
    gaps = [gap(one, other) for one, other in zip(*weights, strict=True) if other.abs().max() > 0]
    return max(gaps) < 0.2, f"went on on {device} and on cpu; weights differ by {max(gaps):.1e} at most"


def stop_late(n_images: int, _: Mapping[str, float]) -> None:
    """Stop a training after its first epoch of 512 images, as Ctrl-C does."""
    if n_images > 512:
        raise KeyboardInterrupt


def run(*arguments: str) -> None:
    """A command line, in this process."""
    print("$ rlprune", " ".join(arguments), flush=True)
    rlprune_main(list(arguments))


def verbs(device: str) -> Figures:
    """Each verb that has --device, one after the other."""
    out, there = str(ROOT), ("--device", device)
    weights = ("--weights", f"{out}/dense.safetensors")
    network, policy, bundle = f"{out}/network", f"{out}/policy", f"{out}/bundle"
    run("pretrain", *DIGITS, "--epochs", "3", "--no-flip", *there, "--out", f"{out}/dense.safetensors")
    run("adapt", *DIGITS, *weights, *QUICK, *there, "--out", network)
    run("train", "--network", network, "--data", "mnist5k", *LEARN, *there, "--out", policy)
    run("export", "--network", network, "--policy", policy, "--out", bundle)
    run("gate", *DIGITS, *weights, *QUICK, *there, "--out", f"{out}/gated")
    run(
        "prune", "--network", network, "--data", "mnist5k", *QUICK, *there, "--n-candidates", "8", "--out", f"{out}/cut"
    )
    accuracies = []
    for place in (device, "cpu"):
        for target in (bundle, f"{out}/gated", f"{out}/cut"):
            found = ROOT / "found.json"
            run("evaluate", target, "--data", "mnist5k", "--no-controls", "--device", place, "--json", str(found))
            accuracies.append(float(json.loads(found.read_text())["accuracy"]))
    apart = max(abs(one - other) for one, other in zip(accuracies[:3], accuracies[3:], strict=True))
    return apart <= 0.005, f"bundle, gates, static: {accuracies[:3]} there, {accuracies[3:]} on the processor"


def bench(device: str) -> Figures:
    """Times of the committed bundles beside the dense networks, for a table: missed only if it ends with an error."""
    said = []
    images = ("--data", "cifar10") if Path(os.environ.get("RLPRUNE_DATA", ""), "cifar10").is_dir() else ()  # else noise
    for folder in BUNDLES:
        file = ROOT / f"bench_{folder.parent.name}.json"
        rows = ("dense", "dense folded", "dynamic")
        run(
            *("bench", str(folder), "--device", device, "--batch", "1", "64", "1024", "--seconds", "2"),
            *("--rows", *rows, "--json", str(file), *images),
        )
        said.append(f"{folder.parent.name} in {file}")
    return True, "; ".join(said)


def pace(device: str) -> Figures:
    """Images a second that a network is adapted with, there and on the processor."""
    found = {}
    data = noise(4096)
    for place in (device, "cpu"):
        network = elastic_network("resnet20", 32).to(place)
        part = data if place != "cpu" else data.subset(torch.arange(512))
        adapt(network, data.subset(torch.arange(256)), AdaptSettings(epochs=1, batch_size=128))
        begun = time.perf_counter()
        adapt(network, part, AdaptSettings(epochs=1, batch_size=128))
        found[place] = len(part) / (time.perf_counter() - begun)
    return True, ", ".join(f"{place}: {rate:.0f} images/s" for place, rate in found.items())


def optimize(device: str) -> Figures:
    """The one command, from digits to a verdict."""
    out = ROOT / "optimized"
    run("optimize", *DIGITS, "--time-limit", "3", "--device", device, "--quiet", "--out", str(out))
    report = json.loads((out / "report.json").read_text())
    return (out / "deploy" / "bundle").is_dir(), f"deploy {report['deploy']}; {report['seconds']:.0f} s"


BARS: dict[str, Callable[[str], Figures]] = {
    "profiles": profiles,
    "bundles": bundles,
    "resumed": resumed,
    "verbs": verbs,
    "bench": bench,
    "pace": pace,
    "optimize": optimize,
}


def measured(names: list[str], device: str) -> Iterator[tuple[str, bool, str]]:
    """The bars, one after the other; an error is a bar that is missed."""
    for name in names:
        begun = time.perf_counter()
        try:
            holds, figures = BARS[name](device)
        except (Exception, SystemExit):
            traceback.print_exc()
            holds, figures = False, "ended with an error, above"
        yield name, holds, f"{figures} ({time.perf_counter() - begun:.0f} s)"


def main() -> int:
    """Measure the bars; returns how many are missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=BARS, default=list(BARS))
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no graphics card that PyTorch can use is here; --device cpu tries the script", file=sys.stderr)
        return 1
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    lines = []
    for name, holds, figures in measured(arguments.only, arguments.device):
        lines.append(f"{'met   ' if holds else 'MISSED'}  {name}: {figures}")
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))
    return sum(line.startswith("MISSED") for line in lines)


if __name__ == "__main__":
    sys.exit(main())
