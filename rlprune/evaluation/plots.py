"""Pictures of results: top-1 accuracy against MACs, of policies, their controls and other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rlprune.evaluation.figures import ACCURACY_AXIS, MACS_AXIS, Line, clip_below, dense_line, figure, name_lines
from rlprune.evaluation.image_strips import ImageStrip
from rlprune.evaluation.results import EvaluationResult, Frontier, RecipeResult
from rlprune.evaluation.timing_results import ComparisonResult, ComparisonRow


def frontier_plot(
    path: Path, results: EvaluationResult, strips: Mapping[str, ImageStrip], title: str = "Accuracy against compute"
) -> None:
    """Accuracy against MACs for one policy and its controls, above strips of images; a PNG.

    Args:
        path: the file to write.
        results: of the policy.
        strips: images by title.
        title: of the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with figure(path, 9.5, 5.5 + 1.45 * len(strips)) as drawn:
        heights = [5.5] + [1.45] * len(strips)
        axes = drawn.subplots(1 + len(strips), 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_policies(axes[0], [results], title)
        for axis, (name, strip) in zip(axes[1:], strips.items(), strict=True):
            strip.draw(axis, name)


def budgets_plot(path: Path, results: RecipeResult, title: str | None = None) -> None:
    """Accuracy against MACs of one network's policies at several budgets, beside their controls; a PNG.

    Args:
        path: the file to write.
        results: of a recipe.
        title: of the picture; the name of the recipe's network if None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    policies = sorted((each.evaluation for each in results.budgets), key=lambda policy: -policy.macs_cut)
    if title is None:
        title = f"{results.recipe.get('model', 'Network')}: policies at several budgets"
    with figure(path, 9, 6) as drawn:
        _draw_policies(drawn.subplots(), policies, title)


def compare_plot(
    path: Path, results: ComparisonResult, title: str = "Ways of deciding what an image runs through"
) -> None:
    """Accuracy against MACs, one line for each way of deciding; a PNG.

    Args:
        path: the file to write.
        results: of a comparison.
        title: of the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with figure(path, 9.5, 7) as drawn:
        chart = drawn.subplots()
        methods = dict.fromkeys(row.method for row in results.rows)
        lines = [_line_of([row for row in results.rows if row.method == method]) for method in methods]
        _draw(chart, lines, results.dense.accuracy, title, _lowest_worth_showing(results))
        if any(not row.saves_time for row in results.rows):
            chart.set_title(
                "dotted: hidden channels are computed all the same", loc="right", fontsize=8.5, weight="normal"
            )


def _line_of(rows: Sequence[ComparisonRow]) -> Line:
    points = [(row.macs_share, row.accuracy) for row in rows]
    return Line.of(rows[0].method, points, [row.accuracy_interval for row in rows])


def _lowest_worth_showing(results: ComparisonResult) -> float:
    """Where the axis begins, so that methods close to the best ones can be told apart, in percent."""
    accuracies = [row.accuracy for row in results.rows]
    best = max(accuracies)
    typical = best - 3 * (best - median(accuracies))
    learnt = [row.accuracy_interval[0] for row in results.rows if row.method.startswith("rl")]
    return 100 * max(min(accuracies), min(typical, *learnt)) - 0.3


def _draw_policies(chart: Any, policies: Sequence[EvaluationResult], title: str) -> None:
    """Policies of one network, cheapest first, and their controls."""
    lines = _frontier_lines(policies[0].frontier)
    lines.append(Line.of("shuffled", [(1 - policy.macs_cut, policy.controls.shuffled) for policy in policies]))
    if len(policies) == 1:
        (policy,) = policies
        lines.append(Line.of("random", [(1 - policy.controls_macs_cut.random, policy.controls.random)]))
    points = [(1 - policy.macs_cut, policy.accuracy) for policy in policies]
    lines.append(Line.of("learnt", points, [policy.accuracy_interval for policy in policies]))
    highest = max(policy.accuracy_interval[1] for policy in policies)
    weakest = min(min(policy.controls.shuffled, policy.controls.best_static) for policy in policies)
    weakest = min(weakest, *(policy.accuracy_interval[0] for policy in policies))
    lowest = 100 * max(0.0, weakest - 0.3 * (highest - weakest))
    _draw(chart, lines, policies[0].dense_accuracy, title, lowest)


def _frontier_lines(frontier: Frontier) -> list[Line]:
    names = ("uniform", "static", "codebook", "cascade", "static_trained")
    return [Line.of(name, points) for name in names if (points := getattr(frontier, name)) is not None]


def _draw(chart: Any, lines: Sequence[Line], dense: float, title: str, lowest: float) -> None:
    """Lines from a lowest percentage up, with their names."""
    for line in lines:
        line.draw(chart)
    chart.set(title=title, xlabel=MACS_AXIS, ylabel=ACCURACY_AXIS)
    clip_below(chart, lowest, lines)
    name_lines(chart, [dense_line(chart, dense), *lines])
