"""Networks in eight-bit integers: what they still say, how large they are, and what it takes to make them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from nets import colours, make_data, make_elastic, make_levels, make_policy, relative_error
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import export_bodies, save_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.quantisation import quantised
from rlprune.errors import DataError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings, adapt

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DATA = colours(60)


def make_dynamic() -> DynamicCNN:
    """A network that tells colours apart, under two profiles."""
    elastic = make_elastic("residual")
    book = sorted_codebook(make_levels(elastic, 2, seed=3), Cost(elastic))
    quick = AdaptSettings(epochs=8, batch_size=20, padding=0, flip=False, bf16=False, distillation=0.0)
    adapt(elastic, DATA, quick, codebook=book)
    policy = make_policy(elastic, DATA, book, max_passes=2)
    return DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)


DYNAMIC = make_dynamic()


def features(images: Tensor) -> Tensor:
    with torch.inference_mode():
        return DYNAMIC.slices.stem(DYNAMIC.normalise(images)).contiguous()


def run(model: object, inputs: Tensor) -> Tensor:
    runs = session(model.SerializeToString(), 1, spin=False)  # type: ignore[attr-defined]
    return torch.from_numpy(runs.run(None, {runs.get_inputs()[0].name: inputs.numpy()})[0])


def test_every_profile_says_nearly_the_same_with_smaller_weights(caplog: pytest.LogCaptureFixture) -> None:
    seen = features(DATA.images)
    for body in export_bodies(DYNAMIC, seen[:2]):
        before = body.SerializeToString()
        with caplog.at_level(logging.WARNING):
            small = quantised(body, seen)
        assert not [each for each in caplog.records if each.name == "root"]
        assert body.SerializeToString() == before
        assert relative_error(run(small, seen), run(body, seen)) < 0.15
        assert torch.equal(run(small, seen).argmax(1), run(body, seen).argmax(1))
        kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
        weights = [kind for name, kind in kinds.items() if "weight" in name and name.endswith("_quantized")]
        assert len(weights) >= 3 and set(weights) == {onnx.TensorProto.INT8}
        assert not any(tensor.external_data for tensor in small.graph.initializer)


def test_the_whole_file_decides_and_counts_as_before(tmp_path: Path) -> None:
    for name, calibration in (("float", None), ("int8", DATA.images)):
        save_onnx(tmp_path / name, DYNAMIC, calibration)
    before, after = (OnnxCNN(tmp_path / name)(DATA.images) for name in ("float", "int8"))
    assert torch.equal(after.labels, before.labels) and bool((after.labels == DATA.labels).double().mean() > 0.9)
    assert bool((after.profiles == before.profiles).double().mean() > 0.9)
    assert torch.equal(after.macs, DYNAMIC.prices.of_passes(after.profiles).macs)
    alone = OnnxCNN(tmp_path / "int8")(DATA.images[:1])
    assert torch.equal(alone.labels, after.labels[:1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (DATA.images[:0], "int8 needs calibration images, and there are none"),
        (
            DATA.images.float(),
            r"images are torch\.float32 of shape \(60, 3, 16, 16\); uint8 \(N, 3, 16, 16\) is needed",
        ),
        (make_data(2).images[..., :8], r"of shape \(2, 3, 16, 8\)"),
    ],
)
def test_images_that_cannot_calibrate_are_refused(images: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        save_onnx(tmp_path / "file", DYNAMIC, images)
    assert not list(tmp_path.iterdir())
