"""The guide from a trained network to a verdict: its commands, its Python and the README's are run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from journey import CLASSES, here, prepare, quick_arguments
from pages import ROOT, blocks, command_lines
from PIL import Image

from rlprune.cli.main import main
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.optimization.result import OptimizeResult, load_result

GUIDE = ROOT / "docs" / "start" / "optimize.md"
LEAVES = ("report.html", "report.json", "deploy/dynamic.onnx", "deploy/static.onnx", "deploy/labels.txt", "work")
LEAVES += ("deploy/README.md", "deploy/bundle/manifest.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands and the lines of Python leave what they make."""
    return tmp_path_factory.mktemp("journey")


def test_its_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder, monkeypatch)
    optimizing, dry, *others = command_lines(GUIDE)
    assert dry == [*optimizing, "--dry-run"]
    main([*map(here, dry), *quick_arguments(), "--quiet"])
    said = capsys.readouterr().out
    assert "not your number? stop" in said and "time: about" in said and not Path("runs").exists()
    main([*map(here, optimizing), *quick_arguments(), "--quiet"])
    shown = capsys.readouterr().out
    assert "rlprune" in shown and "runs/mine/report.html" in shown
    assert [name for name in LEAVES if not (Path("runs/mine") / name).exists()] == []
    assert [verb for verb, *_ in others] == ["predict", "evaluate", "serve"]
    for arguments in others[:2]:
        main(arguments)
    assert len(Path("answers.csv").read_text().splitlines()) == 1 + len(list(Path("pictures").rglob("*.png")))


@pytest.mark.parametrize("page", [GUIDE, ROOT / "README.md"], ids=["guide", "readme"])
def test_python_runs_and_finds_what_the_command_left(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (folder / "runs" / "mine" / "report.json").exists()  # as the commands left it
    prepare(folder, monkeypatch)
    before = Path("runs/mine/report.json").stat().st_mtime_ns
    scope: dict[str, object] = {}
    exec(here("\n".join(blocks(page, "python"))), scope)
    result = scope["result"]
    assert isinstance(result, OptimizeResult) and result == load_result("runs/mine")
    assert Path("runs/mine/report.json").stat().st_mtime_ns == before
    assert result.verdict in capsys.readouterr().out
    model = scope["model"]
    assert isinstance(model, DynamicCNN) and model.classes == CLASSES
    assert np.shape(scope["logits"]) == (4, len(CLASSES))


def test_it_names_what_is_left_and_what_the_report_holds() -> None:
    text = GUIDE.read_text()
    assert [name for name in LEAVES if name.removesuffix("manifest.json") not in text] == []
    keys = {field.name for field in dataclasses.fields(OptimizeResult)}
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert {"goal", "reached", "deploy", "rows"} <= named <= keys


@pytest.mark.parametrize("name", ["report.png", "screen.png"])
def test_its_pictures_are_small_and_described(name: str) -> None:
    path = ROOT / "docs" / "pictures" / name
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert 700 <= picture.width <= 1200
    described = GUIDE.read_text().partition(f"](../pictures/{name})")[0].rpartition("![")[2]
    assert len(described.split()) >= 8
