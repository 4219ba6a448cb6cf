"""A network under load: threads, forked and spawned workers, many calls and many reloads. Some minutes on two cores.

    python tests/load.py
    python tests/load.py forks reloads    some of it

Prints a line per bar, with its figures; the exit status counts what fails.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

SUPPORT = str(Path(__file__).parent / "support")
sys.path.append(SUPPORT)

from loads import (  # noqa: E402
    Bar,
    Work,
    controller_in_threads,
    forks,
    in_threads,
    memory_of,
    reload,
    reopen,
    workers,
)
from ranged import DATA, DYNAMIC  # noqa: E402

from rlprune.deployment.onnx.cnn import OnnxCNN  # noqa: E402
from rlprune.deployment.onnx.export import save_onnx  # noqa: E402
from rlprune.storage.bundle import load, save_bundle  # noqa: E402

BUDGETS = (0.3, 0.45, 0.6)


def bars(root: Path) -> Iterator[tuple[str, Callable[[str], Bar]]]:
    """Every bar by its name, one after the other."""
    folder, path = root / "bundle", root / "dynamic.onnx"
    save_bundle(folder, DYNAMIC.elastic, DYNAMIC.source_policy, DATA)
    save_onnx(path, DYNAMIC)
    kinds = {
        "prepared slices": Work(load(folder), DATA.images, BUDGETS),
        "shared weights": Work(load(folder, memory=0.0), DATA.images, BUDGETS),
        "ONNX": Work(OnnxCNN(path, 1), DATA.images),
    }
    fewer = {"shared weights": 5}  # one caller at a time, and slowly
    for kind, work in kinds.items():
        yield f"threads, {kind}", partial(in_threads, work=work, n_threads=16, n_calls=500 // fewer.get(kind, 1))
    yield (
        "threads, one controller",
        partial(controller_in_threads, dynamic=DYNAMIC, images=DATA.images, target=0.45, n_threads=16, n_calls=100),
    )
    for kind, work in kinds.items():
        yield f"forks, {kind}", partial(forks, work=work, n_forks=100)
    torch.set_num_threads(2)
    yield "forks, two threads of torch", partial(forks, work=kinds["prepared slices"], n_forks=100)
    torch.set_num_threads(1)
    for method in ("fork", "spawn"):
        for kind, work in kinds.items():
            yield f"workers, {kind}", partial(workers, work=work, method=method, n_workers=4, n_calls=50)
    for kind, work in kinds.items():
        n_times = 10_000 // fewer.get(kind, 1)
        yield f"calls, {kind}", partial(memory_of, once=work.wrong, n_times=n_times, n_before=n_times // 10)
    for kind, once in (("bundle", reload(folder, DATA.images)), ("ONNX", reopen(path, DATA.images))):
        yield f"reloads, {kind}", partial(memory_of, once=once, n_times=1000, n_before=200)


def main() -> int:
    """Print a line for each that is asked for; return how much was wrong."""
    torch.set_num_threads(1)
    n_faults = 0
    with tempfile.TemporaryDirectory() as root:
        for name, run in bars(Path(root)):
            if all(asked not in name for asked in sys.argv[1:] or [""]):
                continue
            start = time.monotonic()
            bar = run(name)
            n_faults += bar.n_faults
            seconds = time.monotonic() - start
            print(f"{'FAULT' if bar.n_faults else 'ok   '} {name:30} {bar.figures} ({seconds:.0f} s)", flush=True)
    print(f"{n_faults} faults")
    return min(n_faults, 255)


if __name__ == "__main__":
    sys.exit(main())
