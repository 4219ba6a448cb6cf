"""Figures and choices in words, the same on the screen, on the page and in the model card."""

from __future__ import annotations

from rlprune.evaluation.results import Interval
from rlprune.optimization.result import OptimizeResult, Row

_DEPLOYED = {
    "dynamic": "the network that decides per image",
    "static": "the small network, the same for all images",
    "int8": "the network in eight-bit integers",
    "dense": "your network as it is",
}


def what_to_deploy(deploy: str) -> str:
    """What one of the choices means, such as `the network that decides per image`."""
    return _DEPLOYED.get(deploy, deploy)


def deployed_row(result: OptimizeResult) -> Row | None:
    """The row of what is to be deployed; None if it is not in the table."""
    return result.row(result.deploy_row)


def goal_is_said(result: OptimizeResult) -> bool:
    """Whether the sentences hold the goal, so that it need not be said beside them."""
    return any(result.goal.text in sentence for sentence in result.sentences)


def percent(share: float, digits: int = 1) -> str:
    """A share as a number of percent, without the sign: 0.4821 as `48.2`."""
    return f"{100 * share:.{digits}f}"


def points(drop: float) -> str:
    """Points lost, with two digits and no negative zero."""
    return f"{round(drop, 2) + 0.0:.2f}"


def interval(ends: Interval) -> str:
    """An interval of points, such as `-0.12 to 0.74`."""
    low, high = ends
    return f"{points(low)} to {points(high)}"


def percent_interval(ends: Interval) -> str:
    """An interval of shares in percent, such as `90.6 to 91.8`."""
    low, high = ends
    return f"{percent(low)} to {percent(high)}"


def milliseconds(ms: float) -> str:
    """Up to three digits that count, never as a power of ten: `0.031`, `1.24`, `312`."""
    for bound, digits in ((1, 3), (10, 2), (100, 1)):
        if ms < bound:
            return f"{ms:.{digits}f}"
    return f"{ms:,.0f}"


def duration(seconds: float) -> str:
    """A time as people say it: `45 s`, `14 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def count(number: float) -> str:
    """Multiply-adds or parameters: `41.2 M`, `1.82 G`."""
    for unit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            of_unit = number / unit
            return f"{of_unit:,.{0 if of_unit >= 100 else 1 if of_unit >= 10 else 2}f}{letter}"
    return f"{number:.0f}"


def plain(number: float) -> str:
    """A number of the plan: whole ones without a point, others with four digits that count."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.4g}"


def spelt(name: str) -> str:
    """The name of a setting as words: `n_passes` as `number of passes`."""
    words = name.replace("_", " ")
    return f"number of {words[2:]}" if words.startswith("n ") else words
