"""What a fleet of replicas serves, by simulation from measured times, and what large data sets need on disk.

    python runs/reference/scale.py runs/reference/m_cifarnet runs/reference/resnet56

reads bench.json and results.json of each, and writes scale.json and scale.png beside this script. Each image of a
Poisson stream joins the shorter of two queues drawn at random, as Ray Serve routes; a replica is the machine of
bench.json, and runs whatever waits, up to a batch, when it becomes free. Times between measured batches lie on straight
lines. A policy's controller and an autoscaler are then left to a load that grows for ten minutes. Seed 0 throughout.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reference_results import ScaleResult
from scale_fleet import ways
from scale_tables import scale_plot

from rlprune.evaluation.results import RecipeResult
from rlprune.evaluation.timing_results import BenchmarkResult
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

HERE = Path(__file__).parent
LATE_MS = 100.0
"""In which 99 of 100 images are to be answered."""
REPLICAS = (1, 4, 16, 64)
PRICE = 0.04
"""Of a processor core for an hour, in dollars."""
BACKEND = "onnxruntime"
ROWS = {"dense": "dense onnxruntime", "dynamic": "dynamic onnxruntime"}
TITLES = {"resnet20": "ResNet-20", "m_cifarnet": "M-CifarNet", "resnet56": "ResNet-56"}
SETS = {"ImageNet-1k": (1_281_167, 1_000, 110e3), "ImageNet-21k": (14_197_122, 21_841, 92e3)}
"""Images, classes, and bytes of a picture as it is distributed (138 GB and 1.3 TB in all)."""
_N_IMAGES = 10_000
Seconds = Callable[[int], float]


@dataclass
class Replica:
    """A machine and its queue: when it becomes free, when each image that waits came, how many it is busy with."""

    waiting: deque[float]
    free_at: float = 0.0
    running: int = 0

    def advance(self, now: float, seconds: Seconds, most: int, latencies: list[float]) -> None:
        """Run what begins before a moment."""
        while self.waiting and (begins := max(self.free_at, self.waiting[0])) < now:
            batch = [came for came in list(self.waiting)[:most] if came <= begins]
            for _ in batch:
                self.waiting.popleft()
            self.running = len(batch)
            self.free_at = begins + seconds(len(batch))
            latencies.extend(self.free_at - came for came in batch)

    def held(self, now: float) -> int:
        """Images that wait or run."""
        return len(self.waiting) + (self.running if self.free_at > now else 0)


def latency(rate: float, n_replicas: int, seconds: Seconds, most: int) -> float:
    """The 99th percentile of the milliseconds that images take that come at so many a second."""
    random = np.random.default_rng(0)
    replicas = [Replica(deque()) for _ in range(n_replicas)]
    latencies: list[float] = []
    n_images = _N_IMAGES * max(1, n_replicas // 8)
    for now in np.cumsum(random.exponential(1 / rate, n_images)).tolist():
        pair = [replicas[i] for i in random.integers(n_replicas, size=2)]
        for replica in pair:
            replica.advance(now, seconds, most, latencies)
        min(pair, key=lambda replica: replica.held(now)).waiting.append(now)
    for replica in replicas:
        replica.advance(math.inf, seconds, most, latencies)
    return 1000 * float(np.quantile(latencies, 0.99))


def most_a_second(n_replicas: int, seconds: Seconds, most: int) -> float:
    """The largest rate of images that is answered in time, to two per cent."""
    low, high = 0.0, n_replicas * most / seconds(most)
    while high - low > 0.02 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if latency(middle, n_replicas, seconds, most) <= LATE_MS else (low, middle)
    return low


def seconds_of(bench: BenchmarkResult, row: str) -> Seconds:
    """Seconds that a batch takes, by its size."""
    measured = sorted((each.batch, each.ms / 1000) for each in bench.rows if each.name == row)
    sizes, times = zip(*measured, strict=True)
    return lambda batch: float(np.interp(batch, sizes, times))


def serving(bench: BenchmarkResult, title: str) -> list[dict[str, Any]]:
    """What replicas answer in time, and what a million images cost, with the best batch for each number of them."""
    rows = []
    for kind, row in ROWS.items():
        seconds = seconds_of(bench, row)
        for n_replicas in REPLICAS:
            rates = {most: most_a_second(n_replicas, seconds, most) for most in (1, 16, 64)}
            most = max(rates, key=rates.__getitem__)
            hours = 1e6 / rates[most] * n_replicas * bench.conditions.threads / 3600
            rows.append(
                {"network": title, "kind": kind, "replicas": n_replicas, "batch": most, "rate": rates[most]}
                | {"core_hours_per_million": hours, "dollars_per_million": hours * PRICE}
            )
    return rows


def storage() -> list[dict[str, Any]]:
    """Gigabytes that a set needs: as pictures, decoded, and what trainings keep of it."""
    return [
        {
            "data": name,
            "pictures": n * size / 1e9,
            "decoded": n * 3 * 224 * 224 / 1e9,
            "teacher": n * 4 * classes * 2 / 1e9,  # four views, float16
            "logits": 0.2 * n * 8 * classes * 4 / 1e9,  # a fifth for the policy, eight profiles, float32
            "labels": n * 8 / 1e9,
        }
        for name, (n, classes, size) in SETS.items()
    ]


def main() -> None:
    """Simulate, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", type=Path, nargs="+", help="folders with bench.json and results.json")
    served: list[dict[str, Any]] = []
    loads: list[dict[str, Any]] = []
    for folder in parser.parse_args().references:
        title = TITLES.get(folder.name, folder.name)
        bench = BenchmarkResult.load(folder / "bench.json")
        served += serving(bench, title)
        loads += ways(bench, RecipeResult.load(folder / "results.json"), title)
    found = {"late_ms": LATE_MS, "price": PRICE, "serving": served, "loads": loads, "storage": storage()}
    found |= {"seed": 0, **conditions()}
    write_json(HERE / "scale.json", found)
    scale_plot(HERE / "scale.png", ScaleResult.from_json(found))


if __name__ == "__main__":
    main()
