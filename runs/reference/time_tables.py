"""Tables of accuracy at equal time, in Markdown, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from result_tables import percent

Row = Mapping[str, Any]


def equal_time_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Networks that decide beside dedicated static networks of the same time, in Markdown.

    What static networks reach in that time is a mixture of the two neighbours among them and the dense network; empty
    where all of them take longer.

    Args:
        measured: what `rlprune bench --static` wrote, by the name of the network; its static rows have folders' names.
    """
    lines = [
        "| network | backend | batch | ours, ms per image | accuracy | static in that time | ahead by "
        "| ours in int8, ms | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for network, bench in measured.items():
        known = {(row["name"], row["batch"]): row for row in bench["rows"]}
        for backend, suffix in (("pytorch", ""), ("onnxruntime", " onnxruntime")):
            for name, batch in known:
                if name == f"dynamic{suffix}":
                    rivals = [row for row in bench["rows"] if _is_rival(row, backend, batch)]
                    int8 = known.get(("dynamic int8 onnxruntime", batch)) if suffix else None
                    cells = _cells(known[name, batch], rivals, int8)
                    lines.append(f"| {network} | {backend} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_rival(row: Row, backend: str, batch: int) -> bool:
    """Whether a row is of a network for all images, dense or pruned, in float32."""
    is_static = row["name"].startswith(("static ", "dense"))
    return is_static and "int8" not in row["name"] and (row["backend"], row["batch"]) == (backend, batch)


def _cells(own: Row, rivals: list[Row], int8: Row | None) -> list[str]:
    """Time and accuracy of ours, what rivals reach in that time, and what int8 makes of it, if it was timed."""
    points = sorted((row["ms"], row["accuracy"]) for row in rivals)
    ms, accuracies = zip(*points, strict=True)
    reached = float(np.interp(own["ms"], ms, np.maximum.accumulate(accuracies)))
    is_known = own["ms"] >= ms[0]
    cells = [f"{own['ms'] / own['batch']:.3f}", percent(own["accuracy"])]
    cells += [percent(reached), f"{100 * (own['accuracy'] - reached):+.2f}"] if is_known else ["", ""]
    return cells + ([f"{int8['ms'] / int8['batch']:.3f}", percent(int8["accuracy"])] if int8 else ["", ""])
