"""Tables of where time goes, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from rlprune.evaluation.timing.profile_results import PIECES, ProfileResult, ProfileRow


def profiled(results: ProfileResult) -> Iterator[Table]:
    """For each row its pieces beside the floor, and its bodies by the size of their buckets."""
    made_with = results.conditions
    title = f"{escape(made_with.hardware)}, {made_with.threads} threads, {made_with.dtype}; medians"
    for row in results.rows:
        yield _pieces(row, title)
        if row.bodies:
            yield _bodies(row)


def _pieces(row: ProfileRow, title: str) -> Table:
    table = Table(title=f"{row.backend}, batch {row.batch}; {title}")
    for column in ("piece", "ms", "% of dense", "what it is"):
        table.add_column(column, justify="left" if column in ("piece", "what it is") else "right")

    def add(name: str, ms: float, what: str, style: str | None = None) -> None:
        table.add_row(name, f"{ms:.3f}", f"{100 * ms / row.dense_ms:.1f}", what, style=style)

    for piece in row.pieces:
        add(piece.name, piece.ms, PIECES.get(piece.name, ""))
    table.add_section()
    add("total", row.dynamic_ms, "a call, as users make it", "bold")
    add("floor", row.floor_ms, "the same slices alone on the same images, in full buckets")
    add("overhead", row.overhead_ms, "total less floor", "bold")
    add("dense", row.dense_ms, "the dense network, folded, on normalised images")
    faster = row.dense_ms / row.dynamic_ms, row.dense_ms / row.floor_ms
    table.caption = (
        f"{faster[0]:.2f} times as fast as dense; the floor is {faster[1]:.2f} times, MACs are {row.macs_ratio:.2f} "
        f"times fewer. {row.n_repeats} repeats of {row.n_images} images."
    )
    return table


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
