"""Pictures of any size: a file scales and cuts them as Pillow does, but for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ranged import DATA, DYNAMIC

from rlprune import DynamicCNN
from rlprune.cli.main import main
from rlprune.data.decoding import read_images
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx, to_onnx
from rlprune.deployment.onnx.resizing import check_picture, resize_function
from rlprune.errors import DataError, RLPruneError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SIZES = [(32, 32), (40, 40), (64, 48), (51, 97), (100, 33), (37, 200), (333, 500), (33, 35), (45, 33)]
HOW = Preprocessing(resize=20, crop=(16, 16))


def picture(height: int, width: int) -> Image.Image:
    """Waves and noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width))
    planes = np.stack([127 + 120 * np.sin(x / 7 + y / 11), 127 + 120 * np.cos(x / 5), noise], -1)
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("preprocessing", "shape", "most"),
    [
        (Preprocessing(), (3, 32, 32), 1),
        (Preprocessing(resize=40, crop=(32, 32)), (3, 32, 32), 1),
        (Preprocessing(resize=(40, 36), crop=(31, 32)), (3, 31, 32), 1),
        (Preprocessing(resize=(32, 32)), (3, 32, 32), 1),
        (Preprocessing(resize=40, crop=(33, 32), interpolation="bicubic"), (3, 33, 32), 1),
        (Preprocessing(resize=40, crop=(33, 33), interpolation="nearest"), (3, 33, 33), 0),
        (Preprocessing(crop=(32, 33)), (3, 32, 33), 0),
    ],
)
def test_every_size_comes_to_what_pillow_makes_of_it(
    preprocessing: Preprocessing, shape: tuple[int, ...], most: int
) -> None:
    sizes = ",".join(map(str, shape))
    graph = f"g (uint8[B,3,h,w] images) => (uint8[B,{sizes}] pixels) {{ pixels = rlprune.resize (images) }}"
    model = onnx.helper.make_model(
        onnx.parser.parse_graph(graph),
        functions=[onnx.parser.parse_function(resize_function(preprocessing, shape))],
        opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("rlprune", 1)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    tried = 0
    for size in SIZES:
        image = picture(*size)
        try:
            expected = read_images([image], shape, preprocessing).numpy().astype(int)
        except DataError:
            with pytest.raises(DataError):
                check_picture(preprocessing, shape, *size)
            continue
        check_picture(preprocessing, shape, *size)
        (found,) = session.run(None, {"images": pixels(image)})
        assert np.abs(found.astype(int) - expected).max() <= most, size
        tried += 1
    assert tried >= 6


def prepared(preprocessing: Preprocessing) -> DynamicCNN:
    statistics = DATA.mean, DATA.std, DATA.classes
    return DynamicCNN(DYNAMIC.elastic, DYNAMIC.source_policy, *statistics, preprocessing=preprocessing)


def test_a_file_takes_pictures_of_any_size_and_a_batch_of_several(tmp_path: Path) -> None:
    dynamic = prepared(HOW)
    save_onnx(tmp_path / "any.onnx", dynamic, resize=True)
    file = OnnxCNN(tmp_path / "any.onnx")
    assert file.resizes and file.image_shape == (3, 16, 16)
    images = [picture(*size) for size in (*SIZES, *SIZES[:3])]
    found, expected = file(images), dynamic(images)
    assert torch.equal(found.labels, expected.labels)
    assert float((found.probabilities - expected.probabilities).abs().max()) < 0.05
    assert torch.equal(file.predict(images).labels, expected.labels)
    alone = file(np.concatenate([pixels(images[0]), pixels(images[len(SIZES)])]))
    assert torch.equal(alone.probabilities, found.probabilities[[0, len(SIZES)]])
    with pytest.raises(DataError, match=r"uint8 \(B, 3, 20, 30\) is needed"):
        file(torch.zeros(1, 1, 20, 30, dtype=torch.uint8))


def test_what_a_file_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match=r"a transform of its user's own, own:way, which no ONNX file can hold"):
        to_onnx(prepared(Preprocessing(transform_name="own:way")), resize=True)
    with pytest.raises(RLPruneError, match="interpolation is 'lanczos', and ONNX has bilinear, bicubic and nearest"):
        to_onnx(prepared(Preprocessing(resize=20, crop=(16, 16), interpolation="lanczos")), resize=True)
    with pytest.raises(DataError, match=r"pictures of 9x30 pixels come to 9x30 by .*, crop=16x16; it takes 16x16"):
        check_picture(Preprocessing(crop=(16, 16)), (3, 16, 16), 30, 9)


def test_the_command_line_wants_a_file_of_onnx_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["export", "--network", "a", "--policy", "b", "--out", "c", "--resize"])
    assert "--resize is for files of ONNX; add --onnx or --int8" in capsys.readouterr().err
