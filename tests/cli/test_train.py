"""What `rlprune train` starts from, learns with, and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from pets import DATA, EXPORT, NEW, QUICK_ROWS, TRAIN, run_json

import rlprune
from rlprune import data
from rlprune.cli.main import main
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy

CALLBACK = """
from pathlib import Path
from stable_baselines3.common.callbacks import BaseCallback

class Counting(BaseCallback):
    def _on_step(self):
        Path("counted.txt").write_text(str(self.n_calls))
        return True
"""


def test_a_policy_for_a_range_of_penalties_is_measured_at_any_of_them(project: Path) -> None:
    main([*NEW[:-1], "ranged", "--penalty-range", "0.01", "1"])
    main([*EXPORT[:-3], "ranged", "--out", "ranged-bundle", "--onnx", "--penalty", "0.5", "--triton", "models"])
    model = project / "models" / "rlprune" / "1" / "model.onnx"
    assert model.read_bytes() == (project / "ranged-bundle" / "dynamic.onnx").read_bytes()
    assert rlprune.load(project / "ranged-bundle").metadata["penalty"] == [0.01, 1.0]
    results = [
        run_json(project, "evaluate", "ranged-bundle", *DATA, "--n-candidates", "6", *price)
        for price in (("--penalty", "1"), (), ("--penalty", "0.01"))
    ]
    assert [figures["penalty"] for figures in results] == pytest.approx([1.0, 0.1, 0.01])
    assert results[0]["macs_cut"] >= results[1]["macs_cut"] >= results[2]["macs_cut"]
    _, most = rlprune.load(project / "ranged-bundle").source_policy.limits
    rows = run_json(project, "predict", "ranged-bundle", "pets/cat/0.png", "--budget", str(most))
    assert 0 < rows[0]["macs_share"]
    least, dear = (
        run_json(project, "bench", "ranged-bundle", *DATA, *QUICK_ROWS, "--batch", "4", "--penalty", penalty)
        for penalty in ("1", "0.01")
    )
    assert least["macs_ratio"]["4"] >= dear["macs_ratio"]["4"]


def test_train_starts_from_another_run_with_its_codebook(project: Path) -> None:
    main([*NEW[:-1], "lower", "--start", "run", "--penalty", "0.1", "--n-candidates", "2"])
    books = [(project / name / "codebook.json").read_text() for name in ("run", "lower")]
    assert books[0] == books[1]
    main([*NEW[:-1], "lower", "--start", "run", "--penalty", "0.1", "--n-candidates", "2", "--extend", "32"])
    assert load_policy(project / "lower" / "policy").metadata["steps"] == 96


def test_train_takes_the_codebook_of_a_network_that_is_specialised_to_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_network(project / "network")
    book = torch.stack([saved.network.uniform(level) for level in (1, 2, 4)])
    saved.network.specialise(book)
    save_network(project / "specialised", saved.network, data.load("pets").network, saved.metadata)
    main([*TRAIN[:1], "--network", "specialised", *TRAIN[3:-1], "own"])
    assert json.loads((project / "own" / "codebook.json").read_text()) == book.tolist()
    with pytest.raises(SystemExit, match="2"):
        main([*TRAIN[:1], "--network", "specialised", *TRAIN[3:-1], "other", "--start", "run"])
    assert "another codebook than the network is specialised to" in " ".join(capsys.readouterr().err.split())


def test_train_takes_another_algorithm_with_objects_by_their_names(project: Path) -> None:
    (project / "counting.py").write_text(CALLBACK)
    arguments = ("--arguments", '{"buffer_size": 40}', "--policy-kwargs", '{"activation_fn": "Tanh"}')
    call = [*NEW[:-1], "dqn", "--algorithm", "dqn", *arguments, "--callbacks", "counting:Counting"]
    main(call)
    before = (project / "dqn" / "policy" / "manifest.json").read_bytes()
    main([*call, "--resume"])
    notes = json.loads((project / "dqn" / "settings.json").read_text())
    assert notes["algorithm"] == "dqn" and "Tanh" in notes["arguments"]
    assert (project / "dqn" / "policy" / "manifest.json").read_bytes() == before
    assert (project / "counted.txt").read_text() == "8"


def test_train_does_not_start_from_what_is_not_there(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--start", "nothing"])
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--extend", "9"])
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--track", "mlflow"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "rror" in line]
    assert len(lines) == 3 and "nothing/policy" in lines[0]
    assert lines[1] == "rlprune: error: --extend=9: begun has no run that could be extended; train one there first"
    assert lines[2].endswith("'mlflow', which is not installed; install it with: pip install 'rlprune[mlflow]'")
    assert not (project / "begun").exists()
