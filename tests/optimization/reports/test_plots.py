from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from optimized import RESULT, make_result, make_row

from rlprune.optimization.reports.plots import cost_plot, macs_plot, time_plot
from rlprune.optimization.result import OptimizeResult, Point

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    """The element, given the names of spaces that a page's own parser knows."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return ElementTree.fromstring(svg.replace("<svg ", f"<svg {spaces} ", 1))


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()).strip() for each in parsed(svg).iter(f"{SVG}text")]


def shaded(svg: str) -> int:
    """How many regions are filled with the colour of the goal."""
    return len(re.findall(r"fill: var\(--good\)[^\"]*opacity", svg))


def with_goal(**changes: float | None) -> OptimizeResult:
    goal = replace(RESULT.goal, max_drop=None, min_speedup=None)
    return make_result(goal=replace(goal, **changes))  # type: ignore[arg-type]


def test_curves_and_the_goal_are_named() -> None:
    svg = macs_plot(RESULT)
    assert {"rlprune", "static", "cascade", "yours", "goal"} <= set(texts(svg))
    assert shaded(svg) == 1 and shaded(time_plot(RESULT)) == 1
    assert {row.title for row in RESULT.rows} <= set(texts(time_plot(RESULT)))


def test_the_goal_is_shaded_where_it_bounds_what_is_drawn() -> None:
    assert [shaded(draw(with_goal())) for draw in (macs_plot, time_plot)] == [0, 0]
    assert [shaded(draw(with_goal(max_ms=1.0))) for draw in (macs_plot, time_plot)] == [0, 1]
    assert [shaded(draw(with_goal(max_macs=0.5))) for draw in (macs_plot, time_plot)] == [1, 0]


def test_without_the_accuracy_of_the_network_nothing_is_shaded() -> None:
    points = tuple(point for point in RESULT.points if point.name != "dense")
    known = make_result(points=points)
    assert shaded(macs_plot(known)) == 1
    assert shaded(macs_plot(replace(known, check=replace(known.check, accuracy=None)))) == 0


def test_it_is_text_without_a_font_and_a_size_of_its_own() -> None:
    svg = time_plot(RESULT)
    assert re.match(r'<svg viewBox="[\d. ]+" aria-hidden="true">', svg)
    assert "font-family" not in svg and "<style" not in svg and "<metadata" not in svg and "<?xml" not in svg
    assert svg == time_plot(RESULT)
    assert not set(re.findall(r' id="(.*?)"', svg)) & set(re.findall(r' id="(.*?)"', macs_plot(RESULT)))


def test_titles_are_no_formulas_and_no_markup() -> None:
    rows = (make_row("rlprune", "$x_1$ <b> & $", "dynamic", (0.9, 0.1, 0.0, 0.2, 0.5, 1.0, 1.0)),)
    assert "$x_1$ <b> & $" in texts(time_plot(make_result(rows=rows)))


@pytest.mark.parametrize("shares", [[0.5], [0.0, 0.0], [0.2, 0.3, 1.4]])
def test_costs_of_any_size_are_drawn(shares: list[float]) -> None:
    found = torch.tensor(shares)
    for correct in (torch.ones(len(shares)).bool(), torch.zeros(len(shares)).bool()):
        assert f"mean {100 * float(found.double().mean()):.1f} %" in texts(cost_plot(found, correct))


def test_a_single_point_is_a_plot() -> None:
    alone = make_result(points=(Point(name="other", macs_share=0.0, accuracy=1.0),), rows=RESULT.rows[-1:])
    assert "other" in texts(macs_plot(alone)) and "rlprune" in texts(time_plot(alone))


def test_of_a_long_curve_some_points_are_drawn_and_the_chosen_one_always() -> None:
    points = tuple(
        Point(name="static", macs_share=(n + 1) / 500, accuracy=0.5 + n / 1000, chosen=n == 33) for n in range(500)
    )
    svg = macs_plot(make_result(points=points, check=replace(RESULT.check, accuracy=None)))
    assert len(re.findall(r'<use [^>]*style="fill: var\(--static\)', svg)) == 25
    assert len(svg) < 40_000
