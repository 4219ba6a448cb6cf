"""Tables of where time goes, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from rlprune.evaluation.timing.profile_results import ONNX_PIECES, PIECES, CallTime, OnnxRow, ProfileResult, ProfileRow


def profiled(results: ProfileResult) -> Iterator[Table]:
    """For each row its pieces beside the floor, its bodies by the size of their buckets, and onnxruntime's pieces."""
    made_with = results.conditions
    title = f"{escape(made_with.hardware)}, {made_with.threads} threads, {made_with.dtype}; medians"
    of_onnx = results.onnxruntime or (None,) * len(results.rows)
    version = escape((results.versions or {}).get("onnxruntime", ""))
    for row, other in zip(results.rows, of_onnx, strict=True):
        yield _pieces(row, title)
        if row.bodies:
            yield _bodies(row)
        if other is not None:
            yield _onnx_pieces(other, f"{other.backend} {version}, batch {other.batch}; {title}")


def _pieces(row: ProfileRow, title: str) -> Table:
    table = Table(title=f"{row.backend}, batch {row.batch}; {title}")
    for column in ("piece", "ms", "% of dense", "what it is"):
        table.add_column(column, justify="left" if column in ("piece", "what it is") else "right")

    for piece in row.pieces:
        table.add_row(piece.name, *_of_dense(piece.ms, row), PIECES.get(piece.name, ""))
    table.add_section()
    for name, ms, what, style in _beside_floor(row):
        table.add_row(name, *_of_dense(ms, row), what, style=style)
    table.caption = _compared(row)
    return table


def _onnx_pieces(row: OnnxRow, title: str) -> Table:
    table = Table(title=title)
    for column in ("piece", "% of a call", "ms", "% of dense", "what it is"):
        table.add_column(column, justify="left" if column in ("piece", "what it is") else "right")
    for piece in row.pieces:
        table.add_row(piece.name, f"{100 * piece.share:.1f}", "", "", ONNX_PIECES.get(piece.name, ""))
    table.add_section()
    for name, ms, what, style in _beside_floor(row):
        table.add_row(name, "", *_of_dense(ms, row), what, style=style)
    table.caption = (
        f"{_compared(row)} Shares are of calls under onnxruntime's profiler ({row.timed_ms:.3f} ms each), which slows "
        "small operators down."
    )
    return table


def _beside_floor(row: CallTime) -> Iterator[tuple[str, float, str, str | None]]:
    """Names, milliseconds, explanations and styles of the lines below the pieces."""
    yield "total", row.dynamic_ms, "a call, as users make it", "bold"
    yield "floor", row.floor_ms, "the same slices alone on the same images, in full buckets", None
    yield "overhead", row.overhead_ms, "total less floor", "bold"
    yield "dense", row.dense_ms, "the dense network, folded, on normalised images", None


def _of_dense(ms: float, row: CallTime) -> tuple[str, str]:
    return f"{ms:.3f}", f"{100 * ms / row.dense_ms:.1f}"


def _compared(row: CallTime) -> str:
    faster = row.dense_ms / row.dynamic_ms, row.dense_ms / row.floor_ms
    return (
        f"{faster[0]:.2f} times as fast as dense; the floor is {faster[1]:.2f} times, MACs are {row.macs_ratio:.2f} "
        f"times fewer. {row.n_repeats} repeats of {row.n_images} images."
    )


def _bodies(row: ProfileRow) -> Table:
    table = Table(title=f"slices of the profiles, batch {row.batch}")
    for column in ("profile", "bucket up to", "mean images", "runs a call", "ms an image", "in full buckets", "ratio"):
        table.add_column(column, justify="right")
    for body in row.bodies:
        table.add_row(
            str(body.profile),
            str(body.bucket),
            f"{body.mean_images:.1f}",
            f"{body.runs:.2f}",
            f"{body.image_ms:.4f}",
            f"{body.full_image_ms:.4f}",
            f"{body.image_ms / body.full_image_ms:.2f}",
        )
    return table
