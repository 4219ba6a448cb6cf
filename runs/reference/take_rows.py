"""Write bench.json as rows of time.json: the dense and the dynamic ones, of some batches.

    python runs/reference/take_rows.py runs/reference/resnet20
    python runs/reference/take_rows.py runs/reference/m_cifarnet --batches 1 64 256 --int8

time.json is what `rlprune bench --static` wrote: as those rows were timed beside others, they need no second run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rlprune.evaluation.timing_results import BenchmarkResult
from rlprune.utils.files import write_json

ROWS = ("dense", "dense folded", "dense onnxruntime", "dynamic", "dynamic onnxruntime")
IN_INT8 = ("dense int8 onnxruntime", "dynamic int8 onnxruntime")


def taken(found: dict[str, Any], names: Collection[str], batches: Collection[int]) -> dict[str, Any]:
    """The figures of rows of these names, out of those of all."""
    of_batches = {str(batch) for batch in batches}

    def chosen(figures: dict[str, float]) -> dict[str, float]:
        return {batch: figure for batch, figure in figures.items() if batch in of_batches}

    speedups = {
        name: {row: chosen(figures) for row, figures in found[name].items() if row in names}
        for name in ("speedup", "speedup_overall")
    }
    rows = [row for row in found["rows"] if row["name"] in names and row["batch"] in batches]
    return found | speedups | {"rows": rows, "macs_ratio": chosen(found["macs_ratio"])}


def main() -> None:
    """Read, take, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with time.json")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--int8", action="store_true", help="rows in eight-bit integers, too")
    named = parser.parse_args()
    found = json.loads((named.folder / "time.json").read_text())
    rows = taken(found, (*ROWS, *(IN_INT8 if named.int8 else ())), named.batches)
    write_json(named.folder / "bench.json", BenchmarkResult.from_json(rows).to_json())


if __name__ == "__main__":
    main()
