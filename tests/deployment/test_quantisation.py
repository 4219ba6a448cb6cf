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
from rlprune.deployment.onnx.pieces import export_piece, session
from rlprune.deployment.quantisation import ByteScale, give_bytes, quantised, read_bytes
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


@pytest.mark.parametrize("integers", [True, False])
def test_the_stem_gives_bytes_which_every_profile_reads(integers: bool) -> None:
    images, seen = DYNAMIC.normalise(DATA.images), features(DATA.images)
    stem = export_piece("stem", DYNAMIC.slices.stem, (images[:2],), integers=True)
    stem = quantised(stem, images) if integers else stem  # its last operator may be one that stays as it is
    scale = give_bytes(stem, seen)
    given = run(stem, images)
    assert given.dtype == torch.uint8 and given.shape == seen.permute(0, 2, 3, 1).shape
    meant = (given.permute(0, 3, 1, 2).float() - scale.zero) * scale.scale
    assert relative_error(meant, seen) < 0.05
    for body in export_bodies(DYNAMIC, seen[:2], integers=True):
        small = quantised(body, seen)
        expected = run(small, seen)
        read_bytes(small, scale)
        assert [node.op_type for node in small.graph.node if small.graph.input[0].name in node.input] == ["Transpose"]
        assert relative_error(run(small, given), expected) < 0.15
        assert torch.equal(run(small, given).argmax(1), expected.argmax(1))


def test_images_on_no_stem_at_all_are_bytes_too() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 4, 4])
    piece = onnx.helper.make_model(onnx.helper.make_graph([], "stem", [value], [value]))
    scale = give_bytes(piece, torch.tensor([0.0, 2.55]))
    assert scale == pytest.approx((0.01, 0))
    assert [node.op_type for node in piece.graph.node] == ["QuantizeLinear", "Transpose"]


def test_a_scale_holds_the_range_and_zero() -> None:
    assert ByteScale.of(torch.tensor([1.0, 5.1])) == pytest.approx((0.02, 0))
    assert ByteScale.of(torch.tensor([-1.0, 1.55])) == pytest.approx((0.01, 100))
    assert ByteScale.of(torch.zeros(3)) == (1.0, 0)


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
