"""What the README says is true: its Python runs, its figures are the committed ones, the example works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from result_tables import between_markers, markdown_table

import rlprune

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    quick = re.sub(r"epochs=\d+", "epochs=1", code).replace("learn(100_000)", "learn(2_048)")
    assert quick.count("epochs=1") == 2 and "learn(2_048)" in quick
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(quick, scope)
    prediction = scope["prediction"]
    assert isinstance(prediction, rlprune.Prediction)
    assert prediction.labels.shape == (64,) and 1 <= int(prediction.passes.min()) <= int(prediction.passes.max()) <= 2
    assert (tmp_path / "bundle" / "manifest.json").exists()
    small, resnet = scope["small"], scope["resnet"]
    assert isinstance(small, torch.nn.Module) and isinstance(resnet, rlprune.ElasticCNN)
    assert resnet.profile.tolist() == [2] * resnet.n_groups


def test_the_figures_are_the_committed_ones() -> None:
    folder = ROOT / "runs" / "reference" / "digits"
    results, bench = (json.loads((folder / name).read_text()) for name in ("results.json", "bench.json"))
    assert between_markers(README, "digits", markdown_table(results, bench)) == README


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_runs(tmp_path: Path) -> None:
    options = "--data mnist5k --model digits_cnn --epochs 1 --no-flip --steps 2048 --candidates 8".split()
    script = str(ROOT / "examples" / "train_policy.py")
    subprocess.run([sys.executable, script, *options, "--out", str(tmp_path)], check=True, capture_output=True)
    assert rlprune.load(tmp_path / "bundle").classes == tuple("0123456789")
