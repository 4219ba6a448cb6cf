"""The page `report.html`: one file that needs neither network nor scripts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.errors import DataError, MissingExtraError
from rlprune.optimization.reports import plots, running, words
from rlprune.optimization.reports.pictures import pictures
from rlprune.optimization.result import ClassCost, OptimizeResult, Row
from rlprune.utils.files import atomic_write

_HERE = Path(__file__).parent
_MOST_CLASSES = 40
_MOST_PICTURES = 12


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        svg: an element.
        alt: what it shows, in words.
        caption: below it.
    """

    svg: Markup
    alt: str
    caption: str


def write_page(path: str | Path, result: OptimizeResult, test: ImageSet, shares: Tensor, labels: Tensor) -> None:
    """Write the page; without matplotlib (the extra `plots`) it has no plots, and says so.

    Args:
        path: the file to write, whole or not at all.
        result: of an optimisation.
        test: the test images.
        shares: MACs that `rlprune` spent on each over the dense network's, float (N,).
        labels: what it answered, int64 (N,).

    Raises:
        DataError: there are other numbers of images, shares and answers, or an image is named that is not there.
        WriteError: the file cannot be written.
    """
    _check(result, test, shares, labels)
    text = render(result, test, shares.cpu(), labels.cpu())
    with atomic_write(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def _check(result: OptimizeResult, test: ImageSet, shares: Tensor, labels: Tensor) -> None:
    if not len(test) == len(shares) == len(labels):
        raise DataError(
            f"there are {len(test)} test images, {len(shares)} shares and {len(labels)} answers; give one for each"
        )
    beyond = [index for index in (*result.easiest, *result.hardest) if not 0 <= index < len(test)]
    if beyond:
        raise DataError(f"the result names test image {beyond[0]}; there are {len(test)}: give the images it is of")


def render(result: OptimizeResult, test: ImageSet, shares: Tensor, labels: Tensor) -> str:
    """The page as text; the arguments are those of `write_page`."""
    found: dict[str, Any] = {"plots": [], "histogram": None, "no_plots": None}
    try:
        found |= {"plots": _plots(result), "histogram": _histogram(shares, labels == test.labels)}
    except MissingExtraError as error:
        found["no_plots"] = str(error)
    classes = _shown_classes(result)
    found |= {
        "result": result,
        "check": result.check,
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # our own file  # nosec B704
        "deployed": words.deployed_row(result),
        "deploy_words": words.what_to_deploy(result.deploy),
        "batch": "an image" if result.goal.batch == 1 else f"a batch of {result.goal.batch}",
        "goal_said": words.goal_is_said(result),
        "advice": () if result.reached else result.advice,
        "n_test": f"{len(test):,}",
        "classes": classes,
        "n_hidden": len(result.classes) - len(classes),
        "dearest": max((each.macs_share for each in classes), default=1.0) or 1.0,
        "strips": _strips(result, test, shares, labels),
        "bounds": _bounds(result),
        "conditions": _conditions(result),
        "code_onnx": running.with_onnxruntime(result),
        "code_rlprune": running.with_rlprune(),
        "code_shell": running.on_the_command_line(),
    }
    return _environment().get_template("page.html").render(found)


def _environment() -> Environment:
    """Templates beside this module; whatever they are given is escaped, and what they lack is an error."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("percent", "points", "interval", "percent_interval", "milliseconds", "count", "plain", "spelt"):
        environment.filters[name] = getattr(words, name)
    environment.filters["kind"] = _kind_of
    return environment


def _kind_of(row: Row) -> str:
    return plots.kind_of(row.name)


def _plots(result: OptimizeResult) -> list[Plot]:
    """Accuracy against multiply-adds and against time."""
    shown = []
    if result.points:
        told = [point for point in result.points if point.chosen or point.name == "dense"] or result.points[:1]
        described = ", ".join(
            f"{point.name} {words.percent(point.accuracy)} % at {words.percent(point.macs_share)} %" for point in told
        )
        caption = "On the validation images, by which the choice was made. Ringed: what the table has."
        if result.goal.max_drop is not None or result.goal.max_macs is not None:
            caption += " Shaded: the goal" + (", but for time." if _bounds_time(result) else ".")
        if max(Counter(point.name for point in result.points).values()) > plots.MOST_POINTS:
            caption += f" Of long curves, {plots.MOST_POINTS} points are drawn."
        shown.append(Plot(_safe(plots.macs_plot(result)), f"accuracy against multiply-adds: {described}", caption))
    if result.rows:
        described = ", ".join(
            f"{row.title} {words.percent(row.accuracy)} % at {words.milliseconds(row.ms)} ms" for row in result.rows
        )
        caption = (
            "On the test images, measured once. Ringed: what to deploy. Hollow: in eight-bit integers. Bars: 95 % "
            "intervals of the points lost. Shaded: the goal."
        )
        shown.append(Plot(_safe(plots.time_plot(result)), f"accuracy against time: {described}", caption))
    return shown


def _bounds_time(result: OptimizeResult) -> bool:
    return result.goal.min_speedup is not None or result.goal.max_ms is not None


def _histogram(shares: Tensor, correct: Tensor) -> Plot | None:
    """What images cost."""
    if not len(shares):
        return None
    ends = [words.percent(float(share)) for share in (shares.min(), shares.double().mean(), shares.max())]
    alt = f"test images by their multiply-adds, in percent of your network's: {ends[0]} at least, {ends[1]} on average"
    caption = "Test images by what rlprune spends on them. Solid: right answers; hatched: wrong ones."
    return Plot(_safe(plots.cost_plot(shares, correct)), f"{alt}, {ends[2]} at most", caption)


def _safe(svg: str) -> Markup:
    """What matplotlib wrote, which escapes the texts in it."""
    return Markup(svg)  # nosec B704


def _shown_classes(result: OptimizeResult) -> list[ClassCost]:
    """The classes, dearest first; of many the dearest and the cheapest."""
    ordered = sorted(result.classes, key=lambda each: -each.macs_share)
    if len(ordered) <= _MOST_CLASSES:
        return ordered
    half = _MOST_CLASSES // 2
    return ordered[:half] + ordered[-half:]


def _strips(result: OptimizeResult, test: ImageSet, shares: Tensor, labels: Tensor) -> dict[str, Any]:
    """Easy and hard images under their titles."""
    parts = {"They cost least": result.easiest, "They cost most": result.hardest}
    return {
        title: pictures(test, shares, labels, indices[:_MOST_PICTURES]) for title, indices in parts.items() if indices
    }


def _bounds(result: OptimizeResult) -> dict[str, str]:
    """What bounds the saving, in words and figures."""
    bounds = result.bounds
    found = {
        "the first layers, which every image runs": f"{words.percent(bounds.stem_share)} % of the multiply-adds",
        "the narrowest slice": f"{words.percent(bounds.always_runs)} % of the multiply-adds",
    }
    if bounds.narrowest_ms_share is not None:
        found["the narrowest slice on the clock"] = f"{words.percent(bounds.narrowest_ms_share)} % of the time"
    if bounds.decision_ms is not None:
        found["deciding and sorting"] = f"{words.milliseconds(bounds.decision_ms)} ms"
    return found


def _conditions(result: OptimizeResult) -> dict[str, str]:
    """What times were measured with, and what else it takes to make it again."""
    made_with, check = result.conditions, result.check
    images = ", ".join(f"{n:,} {name}" for name, n in check.n_images.items())
    return {
        "processor": made_with.hardware,
        "threads": str(made_with.threads),
        "number format": made_with.dtype,
        "torch": made_with.torch,
        "rlprune": result.version,
        "date": made_with.date,
        "seed": str(result.seed),
        "images": images,
        "preprocessing": check.preprocessing or "none",
        "network": f"{words.count(check.dense_params)} parameters, {words.count(check.dense_macs)} multiply-adds",
        "time": f"{words.duration(result.seconds)}; {words.duration(result.seconds_estimated)} were estimated",
        "test images needed to tell": "these are enough" if result.n_needed is None else f"about {result.n_needed:,}",
    }
