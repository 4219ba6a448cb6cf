"""What an optimisation prints: what was found first, and the verdict as the last screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlprune.optimization.reports import words
from rlprune.optimization.result import REPORT, CheckResult, OptimizeResult, Row

_LEGEND = (
    "> to be deployed. Lost: against your network, on the same test images. Speed-up: over its fastest row in float32."
)
_LONGEST_NAME = 20


def verdict_table(result: OptimizeResult) -> Table:
    """The networks compared, in at most 80 columns: accuracy, what is lost, cost, time.

    Args:
        result: of an optimisation.
    """
    title = None if words.goal_is_said(result) else Text(f"Goal: {result.goal.text}", style="bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), title=title, title_justify="left")
    table.add_column("")
    longest_word = max((len(word) for row in result.rows for word in row.title.split()), default=1)
    table.add_column("network", min_width=min(longest_word, _LONGEST_NAME))
    table.add_column("top-1\n%", justify="right", no_wrap=True)
    table.add_column("points lost\n(95 %)", justify="right")  # the only one of figures that may need two lines
    for header in ("MACs\n%", f"ms at\n{result.goal.batch}", "speed\nup", "meets\ngoal"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in result.rows:
        deployed = row.name == result.deploy_row
        table.add_row(">" if deployed else "", Text(row.title), *_figures(row), style="bold" if deployed else "")
    table.caption = Text(_caption(result))
    table.caption_justify = "left"
    return table


def _figures(row: Row) -> tuple[str, ...]:
    return (
        words.percent(row.accuracy, 2),
        f"{words.points(row.drop)} ({words.interval(row.drop_interval)})",
        words.percent(row.macs_share),
        words.milliseconds(row.ms),
        f"{row.speedup:.2f}",
        "yes" if row.meets else "no",
    )


def _caption(result: OptimizeResult) -> str:
    """What marks and columns mean, and what times were measured with."""
    made_with = result.conditions
    threads = "1 thread" if made_with.threads == 1 else f"{made_with.threads} threads"
    n_test = result.check.n_images.get("test")
    tested = "" if n_test is None else f" {n_test:,} test images;"
    return f"{_LEGEND}{tested} {made_with.hardware}, {threads}."


def print_verdict(console: Console, result: OptimizeResult, folder: str | Path | None = None) -> None:
    """Print the last screen: table, sentences, advice where the goal is not reached, and where the files are.

    Args:
        console: to print on.
        result: of an optimisation.
        folder: that holds its files; None names none.
    """
    console.print(verdict_table(result))
    console.print()
    for name, reason in result.left_out.items():
        _print(console, f"left out: {name}: {reason}")
    console.print()
    for sentence in result.sentences:
        _print(console, sentence, style="bold" if sentence is result.sentences[0] else "")
    if not result.reached and result.advice:
        console.print()
        _print_list(console, result.advice)
    if folder is not None:
        console.print()
        _print_files(console, result, Path(folder))


def _print_files(console: Console, result: OptimizeResult, folder: Path) -> None:
    """Paths, each whole on its line so that it can be copied."""
    files = {"report": folder / "report.html", "figures": folder / REPORT, "deploy": folder / "deploy"}
    if result.deploy_file is not None:
        files["deploy"] = folder / result.deploy_file
    for name, path in files.items():
        console.print(Text(f"{name:<9}{path}"), soft_wrap=True)
    if (folder / "work").is_dir():
        console.print(Text(f"events   tensorboard --logdir {folder / 'work'}"), soft_wrap=True)


def print_check(console: Console, check: CheckResult) -> None:
    """Print what was found before anything long begins.

    Args:
        console: to print on.
        check: what was found.
    """
    for line in check.lines:
        _print(console, line)
    for warning in check.warnings:
        _print(console, f"warning: {warning}", style="yellow")


def _print_list(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        _print(console, f"- {line}")


def _print(console: Console, line: str, style: str = "") -> None:
    """Print a line, broken between words only, and shown as it is whatever it holds."""
    for part in textwrap.wrap(line, console.width, break_long_words=False, break_on_hyphens=False):
        console.print(Text(part, style=style), soft_wrap=True)
