"""Kill one of two processes that train together, again and again: all must resume, and end as if nothing had happened.

    python tests/ranks_killed.py                10 kills, `make ranks`
    python tests/ranks_killed.py --kills 3 --json killed.json

torchrun starts two processes that adapt a network to tiny images; one of them, the first or the second, is killed by
SIGKILL at a random moment. The other has to end by itself, then the same command goes on with `--resume`. What is left
in the end must be, byte for byte, what an uninterrupted run of two processes leaves. The exit status is the number of
faults.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kills import DATA, differences, results
from ranks import free_port

SUPPORT = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent / "support")])
LONGEST = 400.0
"""Seconds, after which processes hang."""


def begin(words: tuple[str, ...], folder: Path) -> list[subprocess.Popen[bytes]]:
    """Two processes, each with the environment that torchrun gives; without it, so that none kills the other."""
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    told |= {"PYTHONPATH": SUPPORT, "OMP_NUM_THREADS": "1"}
    started = []
    for rank in "01":
        environment = {**os.environ, **told, "RANK": rank, "LOCAL_RANK": rank}
        with open(folder.with_name(f"{folder.name}-{rank}.txt"), "wb") as said:
            command = [sys.executable, "-m", "rlprune", *words]
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said))
    return started


def ended(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Their exit statuses; those that hang are killed, which is 99."""
    until = time.monotonic() + LONGEST
    found = []
    for process in processes:
        try:
            found.append(process.wait(max(0.1, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            found.append(99)
    return found


def killed(root: Path, n_kills: int, seed: int, epochs: int) -> tuple[float, int, int, list[str]]:
    """Kill so often; seconds of the uninterrupted run, kills, runs, and what was wrong."""
    rng, faults = random.Random(seed), []
    base, start = ("--model", "digits_cnn", *DATA, "--batch-size", "64"), str(root / "x.safetensors")
    words = ("adapt", *base, "--weights", start, "--epochs", str(epochs), "--out", "net")
    whole, folder = root / "whole", root / "killed"
    whole.mkdir()
    if any(ended(begin(("pretrain", *base, "--epochs", "1", "--out", start), whole))):
        sys.exit("pretrain fails")
    begun = time.monotonic()
    if any(ended(begin(words, whole))):
        sys.exit("the uninterrupted run fails")
    seconds, n_done, n_runs = time.monotonic() - begun, 0, 0
    while n_done < n_kills and len(faults) < 5:
        n_runs += 1
        folder.mkdir()
        again, statuses = words, [1]
        while any(statuses) and len(faults) < 5:
            processes, dies = begin(again, folder), rng.randrange(2)
            if n_done < n_kills:
                time.sleep(rng.uniform(0, 1) * seconds)
                if processes[dies].poll() is None:
                    processes[dies].send_signal(signal.SIGKILL)
                    n_done += 1
            statuses, again = ended(processes), (*words, "--resume")
            print(f"{n_done} kills, the last of process {dies}: exit {statuses}", flush=True)
            faults += ["a process hangs after the other was killed"] * (99 in statuses)
        faults += list(differences(results(folder), results(whole)))
        shutil.rmtree(folder)
    return seconds, n_done, n_runs, faults


def main() -> int:
    """Kill, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    from rlprune.utils.files import write_json
    from rlprune.utils.hardware import conditions

    with tempfile.TemporaryDirectory() as place:
        seconds, n_kills, n_runs, faults = killed(Path(place), options.kills, options.seed, options.epochs)
    print(f"{n_kills} kills in {n_runs} runs, {len(faults)} faults", *faults, sep="\n  ")
    if options.json is not None:
        said = {"kills": n_kills, "runs": n_runs, "faults": faults, "seconds": round(seconds, 1)}
        write_json(options.json, {**conditions(), "seed": options.seed, **said})
    return min(len(faults), 125)


if __name__ == "__main__":
    sys.exit(main())
