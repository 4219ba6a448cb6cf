"""Alters stored folders and ONNX files in many ways, and looks for what reading them must not do.

    python tests/fuzz/run.py --n 100000 --json FILE     the inputs 0 to 99,999, and their figures
    python tests/fuzz/run.py --first 5000 --n 1         one of them again

Every number stands for one input, always the same one. Each must be refused in one line of at most 500 characters, or
be read and work at once; in 5 seconds of CPU and 1.5 GiB; and nothing may be imported, run, written, or read elsewhere.
With --resume it goes on after the inputs that the file counts. The exit status is 1 if there are faults; the file has
each in the form of corpus.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing.workers import FAULTS, Workers

from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

BLOCK = 2000
"""Inputs after which figures are written."""
COLUMNS = ("refused", "works", *FAULTS)


def fuzz(workers: Workers, numbers: range, figures: dict[str, Any], n_processes: int) -> None:
    """Judge the inputs of some numbers, and add what comes of them to the figures."""
    began = time.monotonic()
    for number, outcome in workers.run(numbers, n_processes):
        given = workers.make(number)
        counts = figures["outcomes"].setdefault(given.mutation, dict.fromkeys(COLUMNS, 0))
        counts[outcome.outcome] += 1
        figures["n"] += 1
        figures["most_seconds"] = max(figures["most_seconds"], outcome.seconds)
        figures["most_mebibytes"] = max(figures["most_mebibytes"], round(outcome.memory / 2**20, 1))
        if outcome.outcome in FAULTS:
            figures["faults"].append(asdict(given) | {"number": number, **asdict(outcome)})
            print(f"{outcome.outcome} {number} {given.seed} {given.mutation}: {outcome.detail}", flush=True)
    figures["seconds"] = round(figures["seconds"] + time.monotonic() - began, 1)


def table(outcomes: dict[str, dict[str, int]]) -> str:
    """Outcomes by kind of mutation."""
    total: Counter[str] = Counter()
    for counts in outcomes.values():
        total.update(counts)
    rows = [(name, *map(str, counts.values())) for name, counts in sorted(outcomes.items())]
    rows = [("mutation", *COLUMNS), *rows, ("all", *(str(total[column]) for column in COLUMNS))]
    return "\n".join("".join(f"{cell:>10}" for cell in row) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Alter stored folders and ONNX files, and read them.")
    parser.add_argument("--n", type=int, default=1000, help="how many inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--processes", type=int, default=2, help="how many inputs are read at once")
    parser.add_argument("--json", type=Path, help="write figures to this file")
    parser.add_argument("--resume", action="store_true", help="add to the figures that the file has")
    given = parser.parse_args()
    figures: dict[str, Any] = {"command": f"python {' '.join(sys.argv)}", "conditions": conditions()}
    figures |= {"first": given.first, "n": 0, "seconds": 0.0, "most_seconds": 0.0, "most_mebibytes": 0.0}
    figures |= {"outcomes": {}, "faults": []}
    if given.resume and given.json and given.json.exists():
        figures |= json.loads(given.json.read_text())
    workers = Workers()
    try:
        while figures["n"] < given.n:
            start = figures["first"] + figures["n"]
            fuzz(workers, range(start, min(start + BLOCK, figures["first"] + given.n)), figures, given.processes)
            print(f"{figures['n']} inputs, {figures['n'] / max(figures['seconds'], 0.1):.0f} a second", flush=True)
            if given.json:
                write_json(given.json, figures)
    finally:
        workers.close()
    print(table(figures["outcomes"]))
    print(f"{len(figures['faults'])} faults; at most {figures['most_seconds']} s, {figures['most_mebibytes']} MiB")
    return int(bool(figures["faults"]))


if __name__ == "__main__":
    sys.exit(main())
