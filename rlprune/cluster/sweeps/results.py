"""What a sweep has found: a row for each trial, in JSON, CSV and a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from rlprune.cluster.sweeps.space import Value
from rlprune.utils.files import atomic_write, write_json


@dataclass(frozen=True)
class SweepRow:
    """A trial of a sweep.

    Attributes:
        values: by which it differs from the others.
        penalty: price of compute that it was trained for; None where that was a range.
        seed: of the training.
        folder: of the training, below the sweep's.
        reward: mean on the validation images; None if there is none.
        accuracy: likewise, in [0, 1].
        macs_share: mean share of the dense network's multiply-adds, likewise.
        steps: environment steps that were trained.
        kept: `learnt`, or `cascade` where learning was not surely ahead of what the run began as.
        seconds: of training, since its last start.
        best: whether its validation reward is the highest of all at its penalty.
        state: `finished`, `stopped` early, or `failed`.
        reason: why it failed.
    """

    values: Mapping[str, Value]
    penalty: float | None
    seed: int
    folder: str
    reward: float | None = None
    accuracy: float | None = None
    macs_share: float | None = None
    steps: int | None = None
    kept: str | None = None
    seconds: float | None = None
    best: bool = False
    state: str = "finished"
    reason: str = ""


@dataclass(frozen=True)
class SweepResult:
    """All trials of a sweep.

    Attributes:
        rows: in the order in which settings were listed.
    """

    rows: tuple[SweepRow, ...]

    @property
    def best(self) -> tuple[SweepRow, ...]:
        """The best trial of every penalty."""
        return tuple(row for row in self.rows if row.best)

    @property
    def failed(self) -> tuple[SweepRow, ...]:
        """The trials that failed."""
        return tuple(row for row in self.rows if row.state == "failed")

    def to_json(self) -> dict[str, Any]:
        """Everything, as `SweepResult.load` reads it."""
        return {"rows": [asdict(row) for row in self.rows]}

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read `results.json`."""
        return cls(tuple(SweepRow(**row) for row in json.loads(Path(path).read_text())["rows"]))

    def write(self, folder: Path) -> None:
        """Write `results.json` and `results.csv` into a folder, each whole or not at all.

        Raises:
            WriteError: the disk is full.
        """
        write_json(folder / "results.json", self.to_json())
        rows = [row | row.pop("values") for row in map(asdict, self.rows)]  # settings that differ last
        with atomic_write(folder / "results.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def table(self) -> Table:
        """A table for the terminal; the best of every penalty are marked."""
        differing = list(self.rows[0].values)
        found = Table(title=f"{len(self.rows)} policies, by their validation images; * the best at its penalty")
        for column in (*differing, "reward", "accuracy", "MACs %", "kept", "seconds", ""):
            found.add_column(escape(column), justify="right", overflow="fold")
        for row in self.rows:
            given = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values.values()]
            kept = row.kept or "" if row.state == "finished" else row.state
            share = None if row.macs_share is None else 100 * row.macs_share
            figures = _shown(row.reward, 4), _shown(row.accuracy, 4), _shown(share, 1)
            more = (kept, _shown(row.seconds, 0), "*" if row.best else "")
            found.add_row(*map(escape, given), *figures, *more)
        return found


def with_best(rows: Sequence[SweepRow]) -> SweepResult:
    """The result of some rows: the best of every penalty are marked, the first of equal ones."""
    best: dict[float | None, tuple[float, int]] = {}
    for index, row in enumerate(rows):
        if row.reward is not None and row.state == "finished":
            best[row.penalty] = max(best.get(row.penalty, (row.reward, -index)), (row.reward, -index))
    chosen = {-index for _, index in best.values()}
    return SweepResult(tuple(SweepRow(**{**vars(row), "best": i in chosen}) for i, row in enumerate(rows)))


def _shown(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
