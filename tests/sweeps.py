"""Sweeps on two cores: as fast as they should be, the same policies, and the same whatever is killed.

    python tests/sweeps.py                        `make sweeps`
    python tests/sweeps.py --steps 200000 --kills 10

Eight policies (four penalties, two seeds) are trained one after the other by `rlprune train`, then by `rlprune sweep`
X that trains a policy, and the command itself, are killed by SIGKILL at random moments
of further sweeps, which go on. A line for each bar; the exit status is the number of those that are missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kills import DATA, figures, results

LEAST = 1.6
"""How many times as fast two processors have to be."""
PENALTIES, SEEDS = (0.05, 0.1, 0.2, 0.3), (0, 1)
_TESTS = Path(__file__).parent


def rlprune(*words: str, folder: Path, **how: Any) -> subprocess.Popen[str]:
    """Start a command in a folder, on one thread a process."""
    path = os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlprune", *words]
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )


def done(process: subprocess.Popen[str]) -> float:
    """Wait for a command, which has to end well: seconds that it took from now on."""
    begun = time.monotonic()
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(map(str, process.args))} fails: {said}")
    return time.monotonic() - begun


def trials(folder: Path) -> dict[str, Any]:
    """What the trainings below a folder have left, by their names; events are compared, too."""
    return {path.name: results(path) for path in sorted(folder.iterdir()) if path.is_dir()}


def rows(out: Path) -> Any:
    """What a sweep's table says, but for times."""
    return figures(out / "results.json")


def killed(
    command: list[str],
    folder: Path,
    whom: Callable[[Path, subprocess.Popen[str]], bool],
    n: int,
    rng: random.Random,
    seconds: float,
) -> int:
    """Run a sweep with kills at random moments until it ends; how many there were."""
    kills, resume = 0, []
    out = folder / command[command.index("--out") + 1]
    while True:
        process = rlprune(*command, *resume, folder=folder)
        until = time.monotonic() + rng.uniform(0.1, 0.6) * seconds
        while process.poll() is None:
            if kills < n and time.monotonic() > until and whom(out, process):
                kills += 1
                until = time.monotonic() + rng.uniform(0.1, 0.5) * seconds
            time.sleep(0.01)
        if process.returncode == 0:
            return kills
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"a killed sweep does not go on: {process.communicate()[0]}")
        resume = ["--resume"] if (out / "sweep.json").exists() else []


def worker(out: Path, process: subprocess.Popen[str]) -> bool:
    """Kill one process that trains a policy, if there is any."""
    owners = list(out.glob("trials/*/.lock.owner.json"))
    random.shuffle(owners)
    for owner in owners:
        with suppress(OSError, ValueError, ProcessLookupError):
            os.kill(json.loads(owner.read_text())["process"], signal.SIGKILL)
            return True
    return False


def driver(out: Path, process: subprocess.Popen[str]) -> bool:
    """Kill the command itself."""
    process.kill()
    return True


def bars(folder: Path, steps: int, n_kills: int, seed: int) -> Iterator[tuple[bool, str]]:
    """Whether each bar is met, in words."""
    model = ("--model", "digits_cnn", *DATA, "--batch-size", "64", "--epochs", "4")
    done(rlprune("pretrain", *model, "--out", "x.safetensors", folder=folder))
    done(rlprune("adapt", *model, "--weights", "x.safetensors", "--out", "net", folder=folder))
    learn = ["--network", "net", "--data", "kills:digits", "--pool", "0", "--n-candidates", "6", "--n-profiles", "3"]
    learn += ["--total-steps", str(steps), "--validate-every", str(max(steps // 8, 1)), "--begin", "random"]
    alone = 0.0
    for penalty in PENALTIES:
        for number in SEEDS:
            name = f"penalty={penalty},seed={number}"
            words = ["--penalty", str(penalty), "--seed", str(number), "--out", f"alone/{name}"]
            alone += done(rlprune("train", *learn, *words, folder=folder))
    over = ["--over", f"penalty={','.join(map(str, PENALTIES))}", f"seed={','.join(map(str, SEEDS))}"]
    sweep = ["sweep", *learn, *over, "--at-once", "2", "--out"]
    together = done(rlprune(*sweep, "whole", folder=folder))
    whole = trials(folder / "whole" / "trials")
    same = trials(folder / "alone") == whole
    yield same, f"8 policies are {'' if same else 'NOT '}those of rlprune train, to the last digit"
    faster = alone / together
    yield (
        faster >= LEAST,
        f"sweep: {alone:.0f} s one after the other, {together:.0f} s on two cores: {faster:.2f}x (>= {LEAST})",
    )
    if not n_kills:
        return
    rng = random.Random(seed)
    for name, whom, most in (("a worker", worker, 3), ("the driver", driver, n_kills)):  # a trial is retried so often
        out = f"killed-{name.rpartition(' ')[2]}"
        kills = killed([*sweep, out], folder, whom, min(n_kills, most), rng, together)
        equal = trials(folder / out / "trials") == whole and rows(folder / out) == rows(folder / "whole")
        how = "equal to" if equal else "NOT equal to"
        yield equal and kills > 0, f"kill: {name}, {kills} times with -9: results {how} the uninterrupted sweep's"


def main() -> int:
    """Try every bar, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each policy")
    parser.add_argument("--kills", type=int, default=3, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as place:
        for met, words in bars(Path(place).resolve(), options.steps, options.kills, options.seed):
            missed += not met
            print(f"{'met   ' if met else 'MISSED'} {words}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
