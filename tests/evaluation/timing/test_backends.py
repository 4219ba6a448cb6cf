from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from nets import make_data, network

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.evaluation.timing import backends
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.intake.options import ElasticOptions
from rlprune.profiles.timing import PYTORCH
from rlprune.storage.networks import load_network, save_network

SHAPE = (3, 8, 8)


def test_what_widths_round_up_to_is_measured_once_and_stored_as_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def measured_step(elastic: ElasticCNN, **how: Any) -> int:
        assert elastic.round_to == 1
        asked.append(how)
        return 4

    monkeypatch.setattr(backends, "measured_step", measured_step)
    settings, path = LatencySettings(batch=8, threads=2), tmp_path / "step.json"
    options = ElasticOptions(round_to="auto", keep_ratios=(0.3, 1.0))
    for _ in range(2):
        elastic = options.build(network("plain"), SHAPE, find_step=lambda found: settings.round_to(found, path))
        assert elastic.round_to == 4
    assert asked == [{"backend": PYTORCH, "batch": 8, "threads": 2}]
    save_network(tmp_path / "network", elastic, make_data(4), {})
    assert load_network(tmp_path / "network").network.round_to == 4
    path.write_text(json.dumps({"round_to": "auto"}))
    with pytest.raises(
        RLPruneError, match=r"step\.json is damaged \(round_to is 'auto'\); remove it, and it is measured"
    ):
        settings.round_to(elastic, path)


def test_onnxruntime_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    LatencySettings().check()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        LatencySettings(backend="onnxruntime").check()
