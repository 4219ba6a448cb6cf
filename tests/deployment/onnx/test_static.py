"""Ordinary networks as files of the same contract, and what any file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import colours
from ranged import DATA, DYNAMIC
from torch import nn

import rlprune
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.static import save_static_onnx, to_static_onnx
from rlprune.errors import DataError, RLPruneError
from rlprune.profiles.cost import ComputeCost, Cost

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SHAPE = DYNAMIC.image_shape
PROFILE = DYNAMIC.codebook[1]
COST = Cost(DYNAMIC.elastic).of(PROFILE)


@pytest.mark.parametrize("int8", [False, True])
def test_a_slice_says_what_it_says_in_torch(int8: bool, tmp_path: Path) -> None:
    network = DYNAMIC.elastic.slice(PROFILE)
    more: dict[str, Any] = {"calibration": colours(32).images} if int8 else {}
    path = tmp_path / "static.onnx"
    save_static_onnx(path, network, DATA, COST, image_shape=SHAPE, dense=DYNAMIC.prices.dense, **more)
    file = OnnxCNN(path)
    with torch.inference_mode():
        expected = network(DYNAMIC.normalise(DATA.images)).softmax(1)
    found = file(DATA.images)
    assert float((found.probabilities - expected).abs().max()) < (0.1 if int8 else 1e-5)
    assert torch.equal(found.labels, expected.argmax(1)) or int8
    assert found.profiles.tolist() == [[0]] * len(DATA) and {*found.macs.tolist()} == {int(COST.macs)}
    assert {*found.params.tolist()} == {int(COST.params)} and file.limits is None
    assert int(file.prices.dense.macs) == int(DYNAMIC.prices.dense.macs)
    label, probability, _, profiles, macs = file.session.run(None, {"images": DATA.images[:3].numpy()})
    assert label.tolist() == found.labels[:3].tolist() and profiles.tolist() == [[0]] * 3
    assert probability == pytest.approx(found.probabilities[:3].amax(1).numpy(), abs=1e-6)
    assert macs.tolist() == [int(COST.macs)] * 3
    with pytest.raises(RLPruneError, match=r"budget=0\.4 cannot be chosen: this file decides at one price"):
        file(DATA.images, budget=0.4)


def test_a_file_says_what_it_is_in_onnx_s_own_fields() -> None:
    content = to_static_onnx(DYNAMIC.elastic.slice(PROFILE), DATA, COST, image_shape=SHAPE)
    model = onnx.load_from_string(content)
    assert (model.producer_name, model.producer_version) == ("rlprune", rlprune.__version__)
    assert (model.domain, model.model_version) == ("rlprune", 2) and "5 classes" in model.doc_string
    entries = [*model.graph.input, *model.graph.output]
    assert [entry.name for entry in entries] == ["images", "label", "probability", "logits", "profiles", "macs"]
    assert all(entry.doc_string for entry in entries) and "NCHW" in entries[0].doc_string
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["labels"]) == list(DATA.classes) and notes["task"] == "image-classification"
    assert "scale to cover 16x16" in notes["preprocessing"] and "mean 0.5/0.5/0.5" in notes["preprocessing"]
    stored = json.loads(notes["preprocessing.json"])
    assert stored["size"] == [16, 16] and stored["mean"] == [0.5] * 3
    assert stored["inside"] == ["channels", "scale", "normalise"]


def test_what_is_no_classifier_of_these_classes_is_refused() -> None:
    three = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(RLPruneError, match=r"gives \(2, 3\) for two images; logits of shape \(2, 5\)"):
        to_static_onnx(three, DATA, ComputeCost(torch.tensor(12), torch.tensor(9)), image_shape=SHAPE)
    with pytest.raises(DataError, match=r"calibration images are torch\.float32"):
        more: dict[str, Any] = {"image_shape": SHAPE, "calibration": DATA.images.float()}
        to_static_onnx(three, DATA, COST, **more)
    with pytest.raises(DataError, match="int8 needs calibration images, and there are none"):
        to_static_onnx(three, DATA, COST, image_shape=SHAPE, calibration=DATA.images[:0])
