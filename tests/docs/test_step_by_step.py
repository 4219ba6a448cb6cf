"""The steps below `rlprune optimize`, each a verb: the commands of the page run, and its screen is what they show."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from pages import ROOT, command_lines

from rlprune.cli.main import main

SMALL = {
    "inspect": [],
    "pretrain": [],
    "adapt": ["--epochs", "1"],
    "train": ["--total-steps", "2048", "--n-candidates", "8"],
    "export": [],
    "evaluate": ["--n-candidates", "5"],
    "bench": [],
}
"""What makes each verb quick."""
QUICK = SMALL.keys() - {"bench"}  # which takes a second for each row that it times


def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    commands = command_lines(ROOT / "docs" / "start" / "step_by_step.md")
    assert [verb for verb, *_ in commands] == list(SMALL)
    for verb, *arguments in commands:
        if "--epochs" in arguments:
            arguments[arguments.index("--epochs") + 1] = "1"
        arguments = ["my_data:few_digits" if word == "mnist5k" else word for word in arguments]
        if verb in QUICK:
            main([verb, *arguments, *SMALL[verb]])
    assert Path("runs/mine/bundle/dynamic.onnx").exists()
    shown = capsys.readouterr().out
    rows = ["learnt, per image", "shuffled", "best static", "uniform ratio", "random profiles"]
    # Dense in a bundle alone is its own full network, as nothing names the one that it was made from.
    assert [row for row in rows if row not in shown] == [] and "│ dense" in shown


def test_its_screen_is_that_of_the_committed_figures() -> None:
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "docs"))
    page = importlib.import_module("generate").evaluation_screen()
    assert re.findall(r"^│ ([a-z, ()]+?) +│", page, re.MULTILINE) == [
        "dense (original)",
        "learnt, per image",
        "shuffled",
        "best static",
        "static, trained for it",
        "tuned cascade",
        "uniform ratio",
        "random profiles",
        "oracle",
    ]
