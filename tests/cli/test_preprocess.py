"""`--preprocess` from pretraining to prediction: it stays with the network, and every verb prepares pictures alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlprune
from rlprune.cli.main import main
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import parse
from rlprune.storage.networks import load_network

NETWORKS = """
from torch import nn

def small():
    def block(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(block(3, 8), block(8, 16), block(16, 16), *head)

def mirror(image):
    return image.resize((10, 8)).transpose(0)
"""
TEXT = "resize=10,crop=8x10,interpolation=bicubic,bgr,range=0..255,mean=100,120,140,std=60,50,40"
MODEL = ("--model", "preprocessed.nets:small", "--data", "pets")
ONE_EPOCH = ("--epochs", "1", "--batch-size", "8", "--padding", "1", "--bf16", "False", "--no-channels-last")
LEARN = ("--total-steps", "64", "--n-envs", "8", "--n-steps", "4", "--batch-size", "8", "--n-candidates", "6")


def make(text: str, *more: str) -> None:
    """Every verb from `pretrain` to `export`, in the current folder."""
    main(["pretrain", *MODEL, *ONE_EPOCH, "--preprocess", text, "--out", "dense.safetensors"])
    again = ["--preprocess", text] if ":" in text else []  # the rest stands with the weights and the network
    main(["adapt", *MODEL, *ONE_EPOCH, *again, "--weights", "dense.safetensors", "--out", "network"])
    main(["train", "--network", "network", "--data", "pets", *again, *LEARN, "--n-profiles", "2", "--out", "run"])
    main(["export", "--network", "network", "--policy", "run", *more, "--out", "bundle"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pictures of many sizes; what every verb makes of them."""
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("preprocessed_pets")
    (root / "preprocessed").mkdir()
    (root / "preprocessed" / "nets.py").write_text(NETWORKS)
    generator = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 128)):
        (root / "pets" / name).mkdir(parents=True)
        for number in range(20):
            shape = (10 + number % 3, 12 + number % 4, 3)
            pixels = generator.integers(low, low + 128, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pets" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RLPRUNE_DATA", raising=False)
        patch.chdir(root)
        patch.syspath_prepend(root)
        make(TEXT, "--onnx")
        yield root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def by_hand(path: Path) -> torch.Tensor:
    """A picture as this network takes it, done by Pillow and NumPy alone."""
    picture = Image.open(path)
    scale = 10 / min(picture.size)
    size = (int(picture.width * scale), 10) if picture.width > picture.height else (10, int(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left = round((picture.width - 10) / 2)
    top = round((picture.height - 8) / 2)
    values = np.asarray(picture.crop((left, top, left + 10, top + 8)), np.float32)[:, :, ::-1]
    normalised = (values - np.float32([100, 120, 140])) / np.float32([60, 50, 40])
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy())[None]


def test_it_stays_with_the_network(folder: Path) -> None:
    expected = Preprocessing(10, (8, 10), "bicubic", "bgr")
    saved = load_network("network")
    assert saved.data.preprocessing == expected
    assert saved.network.image_shape == (3, 8, 10)
    dynamic = rlprune.load("bundle")
    assert dynamic.preprocessing == expected
    assert torch.allclose(torch.tensor(dynamic.mean), torch.tensor([100, 120, 140]) / 255)
    manifest = json.loads(Path("bundle/manifest.json").read_text())["data"]
    assert manifest["preprocessing"] == {"resize": 10, "crop": [8, 10], "interpolation": "bicubic", "channels": "bgr"}
    assert rlprune.deployment.OnnxCNN("bundle/dynamic.onnx").preprocessing == expected


def test_every_way_in_prepares_a_picture_alike(folder: Path) -> None:
    dynamic = rlprune.load("bundle")
    paths = [folder / "pets" / "cat" / "1.png", folder / "pets" / "dog" / "5.png"]
    pixels = rlprune.data.read_images(paths, dynamic.image_shape, dynamic.preprocessing)
    prepared = torch.cat([by_hand(path) for path in paths])
    assert torch.allclose(dynamic.normalise(pixels), prepared, atol=1e-5)
    probabilities = dynamic(pixels).probabilities
    again = rlprune.deployment.OnnxCNN("bundle/dynamic.onnx")(pixels).probabilities
    assert torch.allclose(probabilities, again, atol=1e-5)
    for way in (["bundle", *map(str, paths)], ["--onnx", "bundle/dynamic.onnx", *map(str, paths)]):
        main(["predict", *way, "--json", "predicted.json"])
        rows = json.loads(Path("predicted.json").read_text())
        assert [row["probability"] for row in rows] == pytest.approx(probabilities.max(1).values.tolist(), abs=1e-5)


def test_evaluate_and_bench_take_it_from_the_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "bundle", "--data", "pets", "--n-candidates", "6", "--json", "figures.json"])
    found = json.loads(Path("figures.json").read_text())["accuracy"]
    dense = ("--weights", "dense.safetensors", "--json", "dense.json")
    main(["evaluate", *MODEL, *dense])
    assert (
        "prepared as dense.safetensors was trained: resize=10,crop=8x10,interpolation=bicubic"
        in capsys.readouterr().err
    )
    splits = rlprune.data.load("pets", preprocess=TEXT)
    dynamic = rlprune.load("bundle")
    assert found == float((dynamic(splits.test.images).labels == splits.test.labels).double().mean())
    main(["bench", "bundle", "--rows", "dynamic", "--seconds", "0.1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("evaluate", "bundle", "--data", "pets", "--preprocess", "imagenet"),
            "preprocess='imagenet' is not what the network was trained with .resize=10,crop=8x10",
        ),
        (
            ("evaluate", "bundle", "--data", "pets", "--image-size", "8"),
            "--image-size is 8, and the network says itself",
        ),
        (("predict", "bundle", "pets/cat/1.png", "--preprocess", "crop=4"), "is not what the network was trained with"),
        (
            ("predict", "--onnx", "bundle/dynamic.onnx", "pets/cat/1.png", "--preprocess", "crop=4"),
            "is not what the network was trained with",
        ),
        (("adapt", *MODEL, "--preprocess", "resize=a", "--out", "x"), "resize is 'a'; give pixels"),
        (
            ("adapt", *MODEL, "--preprocess", "timm", "--out", "x"),
            "preprocess says timm, which has no pre",
        ),
    ],
)
def test_another_preprocessing_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    assert message in capsys.readouterr().err.replace("(", ".")
    assert not Path("x").exists()


def test_weights_of_an_unknown_past_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(rlprune.models.build("preprocessed.nets:small").state_dict(), "foreign.pt")
    main(["evaluate", *MODEL, "--image-size", "8", "--weights", "foreign.pt"])
    assert "if the weights were trained with others, say so: --preprocess imagenet" in capsys.readouterr().err
    main(["evaluate", *MODEL, "--image-size", "8", "--weights", "foreign.pt", "--preprocess", "imagenet"])
    assert "say so" not in capsys.readouterr().err


def test_weights_in_a_folder_bring_their_preprocessing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", *MODEL, "--weights", "bundle"])
    assert "prepared as bundle was trained: resize=10,crop=8x10" in capsys.readouterr().err


def test_an_own_transform_is_named_and_never_run_by_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").symlink_to(folder / "pets")
    make("preprocessed.nets:mirror,mean=0.5,std=0.5")
    assert rlprune.load("bundle").preprocessing.transform_name == "preprocessed.nets:mirror"
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "bundle", "pets/cat/1.png"])
    assert (
        "a transform of its user's own, preprocessed.nets:mirror, whose code is stored nowhere"
        in capsys.readouterr().err
    )
    main(["predict", "bundle", "pets/cat/1.png", "--preprocess", "preprocessed.nets:mirror"])
    assert parse("preprocessed.nets:mirror").transform_name == "preprocessed.nets:mirror"
