"""`predict`: files, folders, pictures and pixels, in batches, prepared as the network was trained."""

from __future__ import annotations

import copy
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ranged import DATA, DYNAMIC, NETWORK, make_ranged

import rlprune
from rlprune import DynamicCNN
from rlprune.data import decoding
from rlprune.data.decoding import read_images
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.inputs import batches
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.errors import DataError, RLPruneError

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHAPE = DYNAMIC.image_shape
PREPARING = DynamicCNN(
    NETWORK, make_ranged(), DATA.mean, DATA.std, DATA.classes, preprocessing=Preprocessing(resize=20, crop=(16, 16))
)


def noise(height: int, width: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


ARRAYS = [noise(16 + 5 * i, 40 - 3 * i, i) for i in range(5)]
PICTURES = [Image.fromarray(array) for array in ARRAYS]
NAMES = ["a.png", "b/10.png", "b/2.PNG", "b/c/x.bmp", "z.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, some in folders, and what is none beside them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "b" / "c").mkdir(parents=True)
    for name, picture in zip(NAMES, PICTURES, strict=True):
        picture.save(root / name)
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Up to what the size of a batch changes in the last digits."""
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def expected(network: DynamicCNN = PREPARING) -> torch.Tensor:
    return network(read_images(PICTURES, SHAPE, network.preprocessing)).probabilities


def test_whatever_holds_the_same_pictures_gives_the_same(folder: Path) -> None:
    files = [folder / name for name in NAMES]
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in ARRAYS]
    forms: list[Any] = [files, tuple(map(str, files)), np.array([str(file) for file in files]), folder, str(folder)]
    forms += [iter(files), (file for file in files), [folder / "a.png", folder / "b", folder / "z.png"]]
    forms += [PICTURES, ARRAYS, tensors, iter(ARRAYS), [files[0], PICTURES[1], ARRAYS[2], tensors[3], str(files[4])]]
    forms += [[tensor.float() / 255 for tensor in tensors]]
    for images in forms:
        assert same(PREPARING.predict(images, batch_size=2).probabilities, expected()), type(images)
    assert same(DYNAMIC.predict(folder).probabilities, expected(DYNAMIC))


def test_names_and_classes_say_which_picture_is_what(folder: Path) -> None:
    found = PREPARING.predict([folder, PICTURES[0]], budget=0.5)
    assert found.names == (*(str(folder / name) for name in NAMES), "picture 1")
    assert found.classes == tuple(PREPARING.classes[label] for label in found.labels)
    assert torch.equal(found.confidence, found.probabilities.max(1).values)
    assert torch.allclose(found.macs_share, found.macs.double() / PREPARING.prices.dense.macs)
    assert len(found) == 6 and PREPARING(DATA.images[:2]).names == ()


def test_one_picture_is_a_batch(folder: Path) -> None:
    for image in (folder / "a.png", str(folder / "a.png"), PICTURES[0], ARRAYS[0], [PICTURES[0]]):
        assert same(PREPARING.predict(image).probabilities, expected()[:1])
    grey = ARRAYS[0][:, :, 0]
    alike = [np.repeat(grey[:, :, None], 3, 2), grey, Image.fromarray(grey), torch.from_numpy(grey)[None]]
    first, *others = (PREPARING.predict(image).probabilities for image in alike)
    assert all(same(other, first) for other in others)


def test_pixels_of_the_networks_size_are_taken_as_they_are_and_stacks_of_others_are_pictures() -> None:
    pixels = DATA.images[:5]
    for images in (pixels, pixels.numpy(), [*pixels], list(pixels.numpy())):
        assert same(PREPARING.predict(images, batch_size=2).labels, PREPARING(pixels).labels)
    assert same(PREPARING.predict(pixels.float() / 255).labels, PREPARING(pixels.float() / 255).labels)
    assert same(PREPARING.predict(pixels[0]).probabilities, PREPARING(pixels[:1]).probabilities)
    stack = np.stack([noise(30, 25, seed) for seed in range(3)])
    assert same(PREPARING.predict(stack).probabilities, PREPARING([*map(Image.fromarray, stack)]).probabilities)
    channels_first = torch.from_numpy(stack).permute(0, 3, 1, 2)
    assert same(PREPARING.predict(channels_first).probabilities, PREPARING.predict(stack).probabilities)


def test_prices_are_those_of_a_call() -> None:
    for price in ({"budget": 0.5}, {"penalty": 0.05}):
        assert torch.equal(DYNAMIC.predict(DATA.images, **price).macs, DYNAMIC(DATA.images, **price).macs)
    with pytest.raises(RLPruneError, match=r"penalty is 9\.0; the policy was trained for 0.01 to 1"):
        DYNAMIC.predict(DATA.images, penalty=9.0)


def test_no_more_pictures_are_in_memory_than_a_batch_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = decoding.read_picture
    monkeypatch.setattr(decoding, "read_picture", lambda name, *rest: (read.append(name), real(name, *rest))[1])
    found = PREPARING.predictions(folder, batch_size=2)
    assert read == []
    assert [(len(next(found)), len(read)) for _ in range(2)] == [(2, 2), (2, 4)]


def test_an_onnx_file_predicts_alike(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with tarfile.open(FIXTURES / "v0_1_0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    network, bundle = OnnxCNN(tmp_path / "v0_1_0/dynamic.onnx"), rlprune.load(tmp_path / "v0_1_0/bundle")
    found, expected = (each.predict([folder, ARRAYS[0]], batch_size=4) for each in (network, bundle))
    assert same(found.probabilities, expected.probabilities) and torch.equal(found.macs, expected.macs)
    assert found.names == expected.names and found.classes == expected.classes
    assert repr(network).replace("OnnxCNN", "DynamicCNN").rstrip(")") in repr(bundle)


# What cannot be


def broken(folder: Path) -> Path:
    """A folder with a picture, an empty file, and a picture that was cut off."""
    PICTURES[0].save(folder / "good.png")
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:200])
    return folder


def test_a_file_that_cannot_be_read_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    ran = copy.copy(PREPARING)
    with pytest.raises(DataError, match=r"empty\.jpg cannot be read as an image \(it is empty: .*give skip_unreadable"):
        next(ran.predictions(broken(tmp_path), batch_size=1))
    missing = [str(tmp_path / f"{i}.png") for i in range(7)]
    with pytest.raises(
        DataError, match=r"0\.png cannot.*2\.png cannot.*; and 4 more of 8 cannot; replace or remove them"
    ):
        ran.predict([tmp_path / "good.png", *missing])
    with pytest.raises(DataError, match=r"cut\.png cannot be read as an image .*, or give skip_unreadable=True"):
        ran.predict(tmp_path / "cut.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png cannot be read as an image \(it is no regular file\)"):
        ran.predict(tmp_path / "pipe.png")


def test_it_is_left_out_and_named_if_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = PREPARING.predict(broken(tmp_path), skip_unreadable=True)
    assert found.names == (str(tmp_path / "good.png"),)
    assert same(found.probabilities, expected()[:1])
    assert [line.split("left out: ")[1].split(" cannot")[0] for line in capsys.readouterr().err.splitlines()] == [
        str(tmp_path / "cut.png"),
        str(tmp_path / "empty.jpg"),
    ]
    with pytest.raises(DataError, match=r"empty\.jpg cannot be read as an image"):
        PREPARING.predict(tmp_path / "empty.jpg", skip_unreadable=True)
    with pytest.raises(DataError, match=r"picture 0 has 0x0 pixels"):
        PREPARING.predict(Image.new("L", (0, 0)), skip_unreadable=True)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images; name at least one file"),
        (iter(()), "there are no images"),
        (np.zeros((0, 9, 9, 3), np.uint8), "there are no images"),
        (None, "images are NoneType; name files or folders, or give pictures"),
        (3, "images are int"),
        (b"a.png", "images are bytes"),
        ({"a.png": 1}, "images are dict"),
        ([PICTURES[0], 3], "picture 1 is int; name files"),
        ([b"x"], "picture 0 is bytes"),
        (np.zeros(5, np.uint8), r"picture 0 is an array of shape \(5,\)"),
        (torch.zeros(2, 3, 4, 5, 6), "picture 0 is a tensor of shape"),
        (torch.zeros(5, 9, 9), r"picture 0 is a tensor of shape \(5, 9, 9\)"),
        (torch.zeros(3, 9, 9).to_sparse(), "images are a torch.sparse_coo tensor"),
        (DATA.images.long(), r"images are torch\.int64; give uint8"),
        ([noise(9, 9, 0).astype(np.int64)], "picture 0 is an array of int64"),
        ([-torch.ones(3, 9, 9)], "picture 0 has float values from -1 to -1"),
        ("no\0name.png", "cannot be read as an image"),
        ("x" * 5000, r"^x{300}\.\.\. cannot be searched"),
    ],
)
def test_whatever_else_is_refused_by_name(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        DYNAMIC.predict(images)
    assert "\n" not in str(caught.value)


def test_folders_without_pictures_and_batches_without_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no pictures \(\.bmp \.gif .*; name a folder that has some"):
        DYNAMIC.predict(tmp_path)
    for size in (0, -1, 1.5, True, "2"):
        with pytest.raises(DataError, match=f"batch_size is {size!r}; give a whole number of 1 or more"):
            batches(PICTURES, SHAPE, Preprocessing(), batch_size=size)  # type: ignore[arg-type]


# In a few words


def test_a_network_and_a_prediction_print_as_a_line() -> None:
    costs = "3 profiles in 1 pass, 0.209 to 1.000 of the dense network's MACs"
    assert repr(DYNAMIC.at(penalty=0.05)).startswith(
        f"DynamicCNN(5 classes: a, b, c, ...; images (3, 16, 16); {costs}; penalty 0.05 of 0.01 to 1, budgets 0."
    )
    assert repr(NETWORK).startswith(
        "ElasticCNN(5 classes; images (3, 16, 16); 3 channel groups with keep ratios 0 0.25"
    )
    found = repr(DYNAMIC(DATA.images))
    assert found.startswith("Prediction(64 images: ") and found.endswith("of the dense network's MACs)")
    assert all("\n" not in text and len(text) < 250 for text in map(repr, (DYNAMIC, NETWORK, DYNAMIC(DATA.images))))
