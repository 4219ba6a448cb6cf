"""What the README says is true: its Python and its commands run, its figures are the committed ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import ROOT, blocks, command_lines
from update_readme import updated

import rlprune
from rlprune.cli.main import main

PATH = ROOT / "README.md"
README = PATH.read_text()
SMALL = {
    "pretrain": ["--epochs", "1"],
    "adapt": ["--epochs", "1"],
    "train": ["--total-steps", "2048", "--n-candidates", "8"],
    "export": [],
    "evaluate": ["--n-candidates", "5"],
}
"""What makes each verb quick."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands and the lines of Python leave what they make."""
    return tmp_path_factory.mktemp("readme")


def test_it_is_short() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    assert len(README.encode()) <= 8192
    assert max(len(table.splitlines()) - 2 for table in tables) <= 8
    assert max(map(len, README.splitlines())) <= 170


def test_its_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    commands = command_lines(PATH)
    assert [verb for verb, *_ in commands] == list(SMALL)
    for verb, *arguments in commands:
        if "--epochs" in arguments:
            arguments[arguments.index("--epochs") + 1] = "1"
        else:
            arguments += SMALL[verb]
        main([verb, *arguments])
    shown = capsys.readouterr().out
    screen = "\n".join(blocks(PATH, "text"))
    rows = re.findall(r"^│ ([a-z, ()]+?) +│", screen, re.MULTILINE)
    assert rows == [
        "dense (original)",
        "learnt, per image",
        "shuffled",
        "best static",
        "uniform ratio",
        "random profiles",
    ]
    # Dense in a bundle alone is its own full network, as nothing names the one that it was made from.
    assert [row for row in rows[1:] if row not in shown] == [] and "│ dense" in shown


def test_its_lines_of_python_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (folder / "runs" / "mine" / "bundle" / "dynamic.onnx").exists()  # as the commands left it
    code = "\n".join(blocks(PATH, "python"))
    quick = re.sub(r"epochs=\d+", "epochs=1", code).replace("pool=0", "pool=0, total_steps=2048")
    assert quick.count("epochs=1") == 2 and quick.count("total_steps=2048") == 1
    monkeypatch.chdir(folder)
    scope: dict[str, object] = {}
    exec(quick, scope)
    prediction, logits = scope["prediction"], scope["logits"]
    assert isinstance(prediction, rlprune.Prediction)
    assert prediction.labels.shape == (64,) and 1 <= int(prediction.passes.min()) <= int(prediction.passes.max()) <= 2
    assert torch.as_tensor(logits).shape == (4, 10)
    assert (folder / "runs" / "python" / "bundle" / "manifest.json").exists()


def test_its_targets_of_make_are_there() -> None:
    named = set(re.findall(r"^make (\w+)", README, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", README))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "docs"} == named and named <= targets


def test_the_figures_are_the_committed_ones() -> None:
    assert updated(README) == README
    assert updated(README.replace("92.57", "99.99")) == README


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_runs(tmp_path: Path) -> None:
    options = "--data mnist5k --model digits_cnn --epochs 1 --no-flip --steps 2048 --candidates 8".split()
    script = str(ROOT / "examples" / "train_policy.py")
    subprocess.run([sys.executable, script, *options, "--out", str(tmp_path)], check=True, capture_output=True)
    assert rlprune.load(tmp_path / "bundle").classes == tuple("0123456789")


def test_what_is_cited_is_this_version() -> None:
    assert f"version: {rlprune.__version__}" in (ROOT / "CITATION.cff").read_text()
