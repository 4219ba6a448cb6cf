from __future__ import annotations

import io
from dataclasses import replace

import pytest
from optimized import RESULT, make_result, make_row, missed
from rich.console import Console

from rlprune.optimization.reports.screen import print_check, print_verdict, verdict_table
from rlprune.optimization.result import OptimizeResult

MARKUP = "[/bold] [red]x[/] [1, 2] :smile: \\[y]"


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def verdict(result: OptimizeResult, folder: str | None = None, width: int = 80) -> str:
    on = console(width)
    print_verdict(on, result, folder)
    return printed(on)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_table_has_a_line_for_each_row_in_80_columns() -> None:
    on = console()
    on.print(verdict_table(RESULT))
    lines = printed(on).splitlines()
    assert max(map(len, lines)) <= 80
    for row in RESULT.rows:
        (line,) = [line for line in lines if f"  {row.title}  " in line]
        assert (line.lstrip()[0] == ">") == (row.name == "rlprune")
    (deployed,) = [line for line in lines if line.lstrip().startswith(">  ")]
    assert words(deployed) == "> rlprune 92.17 0.33 (-0.44 to 1.11) 42.0 0.840 2.12 yes"


def test_no_word_is_cut_whatever_the_figures_are() -> None:
    figures = (1.0, -12.34, -56.78, -12.34, 1.236, 123456.0, 1234.5)
    titles = ("yours (onnxruntime)", "a_name_without_any_room_in_it, and more", "rlprune")
    rows = tuple(make_row(title, title, "dynamic", figures, True) for title in titles)
    text = verdict(make_result(rows=rows, goal=replace(RESULT.goal, batch=4096)))
    for word in (
        "(onnxruntime)",
        "100.00",
        "-12.34",
        "(-56.78",
        "to",
        "-12.34)",
        "123.6",
        "123,456",
        "1234.50",
        "4096",
    ):
        assert word in text.split(), word
    assert max(map(len, text.splitlines())) <= 80


def test_the_sentences_follow_and_the_files_are_named_last() -> None:
    text = verdict(RESULT, "runs/a folder of a name so long that it fits on no line of a terminal by far, far, far")
    for sentence in RESULT.sentences:
        assert sentence in words(text)
    assert "left out: rlprune int8: its accuracy" in text
    *_, report, figures, deploy = text.splitlines()
    assert report.startswith("report   runs/a folder") and report.endswith("far/report.html")
    assert figures.endswith("far/report.json") and deploy.endswith("far/deploy/dynamic.onnx")
    assert "report.html" not in verdict(RESULT)


def test_advice_is_given_where_the_goal_is_missed() -> None:
    text = verdict(missed(), "runs/mine")
    assert all(f"- {line}" in words(text) for line in missed().advice)
    assert text.splitlines()[-1] == "deploy   runs/mine/deploy"
    assert missed().advice[0] not in verdict(replace(missed(), reached=True))


def test_what_was_found_first_is_printed_with_its_warnings() -> None:
    on = console()
    print_check(on, RESULT.check)
    text = words(printed(on))
    assert all(line in text for line in RESULT.check.lines)
    assert f"warning: {RESULT.check.warnings[0]}" in text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_texts_are_printed_as_they_are(encoding: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    on = Console(file=file, width=80, color_system=None)
    print_check(on, replace(RESULT.check, lines=(MARKUP,), warnings=(MARKUP,)))
    rows = (make_row("rlprune", "[b]mine[/]", "dynamic", (0.9, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0)),)
    print_verdict(on, make_result(rows=rows, sentences=(MARKUP,), left_out={MARKUP: MARKUP}), MARKUP)
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    text = words(file.buffer.getvalue().decode(encoding))
    assert text.count(MARKUP) == 8 and "[b]mine[/]" in text


def test_the_goal_is_said_once() -> None:
    said = make_result(sentences=(f"Goal reached: {RESULT.goal.text}; nothing is lost.",))
    for result in (RESULT, said):
        assert words(verdict(result)).count(RESULT.goal.text) == 1
