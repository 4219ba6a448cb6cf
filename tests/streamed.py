"""Large data: memory that adapting on many files takes, and the pace of streamed beside in-memory training. Minutes.

    python tests/streamed.py --pictures DIR --images CIFAR     both bars; either alone where the other is left out
    python tests/streamed.py --pictures DIR --n 20000 --steps 60

DIR holds pictures, of which hard links are made, below build/streamed, until there are ``--n`` (default 200,000).
CIFAR is any set of small images that `rlprune.data.load` takes. Prints a line per bar; the exit status counts what
fails.
Run by hand: what it measures depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import torch

from rlprune.data.image_set import ImageSet
from rlprune.data.loading import load
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.models import registry
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.timing import Deadline

T = TypeVar("T")
ROOT = Path("build/streamed")
MOST_GIB = 3.0
FLAT_GIB = 0.1
"""By which memory may grow from the first third of the steps to the last."""
LEAST_PACE = 0.9


class Enough(RLPruneError):
    """As many steps as were asked for."""


class Steps(Deadline, Generic[T]):
    """Looks at something in every step of a training, and ends it after so many."""

    def __init__(self, n: int, look: Callable[[], T]) -> None:
        super().__init__(lambda share, seconds: math.inf)
        self.found: list[T] = []
        self._n, self._look = n, look

    def stride(self, n_left: int, n_all: int) -> int:
        """Look.

        Raises:
            Enough: for the last time.
        """
        self.found.append(self._look())
        if len(self.found) == self._n:
            raise Enough
        return 1


def rss(pid: int | str = "self") -> tuple[float, float]:
    """GiB of memory that a process holds: all of it, and its own share of what several hold (PSS)."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("Rss", "Pss"):
                found[key] = int(value.split()[0]) / 2**20
    return found["Rss"], found["Pss"]


def of_all() -> tuple[float, float]:
    """GiB of this process (RSS), and of it with its children, each page counted once (PSS)."""
    here = rss()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    both = here[1]
    for child in children:
        try:
            both += rss(child)[1]
        except OSError:  # it has just ended
            continue
    return here[0], both


def linked(pictures: Path, n: int) -> Path:
    """A folder of n files in classes, hard links to some pictures."""
    root = ROOT / f"files-{n}"
    if (root / "complete").exists():
        return root
    files = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    classes = sorted({path.parent.name for path in files})
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, path in zip(range(n), itertools.cycle(files), strict=False):
        target = root / path.parent.name / f"{number:07d}{path.suffix.lower()}"
        if not target.exists():
            os.link(path, target)
    (root / "complete").touch()
    return root


def memory(pictures: Path, n: int, steps: int, model: str, workers: int) -> tuple[bool, str]:
    """Adapt on n files; memory is looked at in every step."""
    source = linked(pictures, n)
    begun = time.monotonic()
    splits = load(str(source), preprocess="resize=256,crop=224,imagenet", shares=(0.9, 0.05, 0.05), test_share=0.01)
    opened = time.monotonic() - begun
    assert splits.network.streamed
    network = registry.build(model, len(splits.network.classes))
    elastic = ElasticCNN.from_model(network, (3, 224, 224))
    how = {"batch_size": 16, "crop_scale": (0.25, 1.0), "n_random": 1, "learning_rate": 0.01, "workers": workers}
    settings = AdaptSettings(epochs=1, **how)
    looked = Steps(steps, of_all)
    begun = time.monotonic()
    with suppress(Enough):
        adapt(elastic, splits.network, settings, deadline=looked)
    found = looked.found
    parts = [found[place : place + 25] for place in range(0, len(found), 25)]
    series = " ".join(f"{statistics.median(each for _, each in part):.2f}" for part in parts)
    third = max(1, len(found) // 3)
    own = max(each for each, _ in found)
    everything = max(each for _, each in found)
    early = statistics.median(each for _, each in found[third : 2 * third] or found)
    late = statistics.median(each for _, each in found[-third:])
    text = (
        f"{n} files, {model}, {len(found)} steps of 16 in {time.monotonic() - begun:.0f} s (opened in {opened:.0f} s): "
        f"at most {own:.2f} GiB here, {everything:.2f} GiB with workers; middle third {early:.2f}, last {late:.2f}"
        f"; every 25 steps {series}"
    )
    return everything <= MOST_GIB and late - early <= FLAT_GIB, text


def pace(source: str, steps: int, workers: int, rounds: int) -> tuple[bool, str]:
    """Train ResNet-20 on the same images in memory and streamed, in turns."""
    kinds = {"in memory": load(source, memory=1e6).network, "streamed": load(source, memory=0).network}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, data in kinds.items():
            seconds[kind].append(step_seconds(data, steps, workers))
    medians = {kind: statistics.median(each) for kind, each in seconds.items()}
    ratio = medians["in memory"] / medians["streamed"]
    text = ", ".join(f"{kind} {128 / each:.0f} images/s" for kind, each in medians.items())
    return ratio >= LEAST_PACE, f"{source}, {workers} workers, {rounds} x {steps} steps: {text}: {ratio:.3f}x"


def step_seconds(data: ImageSet, steps: int, workers: int) -> float:
    """Mean seconds of a step, after ten that warm up."""
    torch.manual_seed(0)
    network = registry.build("resnet20", len(data.classes))
    looked = Steps(steps + 11, time.monotonic)
    with suppress(Enough):
        pretrain(network, data, TrainingSettings(epochs=1, workers=workers), deadline=looked)
    times = looked.found
    return (times[-1] - times[10]) / (len(times) - 11)


def bars(options: argparse.Namespace) -> Iterator[tuple[str, tuple[bool, str]]]:
    """Every bar that was asked for."""
    if options.images:
        yield "pace", pace(options.images, options.pace_steps, options.workers, options.rounds)
    if options.pictures:
        yield "memory", memory(options.pictures, options.n, options.steps, options.model, options.workers)


def main() -> int:
    """Print a line per bar; return how many fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of class folders whose files are linked")
    parser.add_argument("--n", type=int, default=200_000, help="files")
    parser.add_argument("--steps", type=int, default=300, help="of adapting")
    parser.add_argument("--model", default="torchvision:mobilenet_v2", help="that is adapted, with fresh weights")
    parser.add_argument("--images", help="small images, such as cifar10")
    parser.add_argument("--pace-steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    n_failed = 0
    for name, (holds, text) in bars(parser.parse_args()):
        n_failed += not holds
        print(f"{'holds' if holds else 'FAILS'}  {name:8} {text}", flush=True)
    return n_failed


if __name__ == "__main__":
    sys.exit(main())
