"""Preprocessing in every form: text, transforms of torchvision, transforms of the user's own."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.data.decoding import read_images
from rlprune.data.image_set import normalise
from rlprune.data.loading import load
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import IMAGENET, parse, read_preprocessing
from rlprune.errors import DataError
from rlprune.models.libraries import own_preprocessing

MEAN, STD = IMAGENET


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resize=256,crop=224,imagenet", Preprocessing(256, (224, 224), channels="rgb", mean=MEAN, std=STD)),
        ("crop=12x20", Preprocessing(crop=(12, 20))),
        ("Resize=12x20, interpolation=Bicubic", Preprocessing((12, 20), interpolation="bicubic")),
        ("mean=0.5,std=0.25", Preprocessing(mean=(0.5,), std=(0.25,))),
        ("mean=0.1,0.2,.3,std=1,2e-1,3", Preprocessing(channels="rgb", mean=(0.1, 0.2, 0.3), std=(1, 0.2, 3))),
        ("mean=0.1 0.2 0.3,std=1/2/3", Preprocessing(channels="rgb", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))),
        ("range=-1..1", Preprocessing(mean=(0.5,), std=(0.5,))),
        ("range=0..255,mean=51,std=102", Preprocessing(mean=(0.2,), std=(0.4,))),
        ("bgr,range=0..255", Preprocessing(channels="bgr", mean=(0.0,), std=(1 / 255,))),
        ("grey", Preprocessing(channels="grey")),
        ("imagenet,mean=0,std=1", Preprocessing(mean=(0.0,), std=(1.0,))),
    ],
)
def test_text_says_what_is_done(text: str, expected: Preprocessing) -> None:
    found = parse(text)
    assert found == expected
    again = parse(found.text) if found.text else Preprocessing()
    assert again.without_statistics == found.without_statistics
    assert again.mean == (found.mean and pytest.approx(found.mean, abs=1e-6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "says nothing; allowed are resize=256"),
        ("rezise=256", "'rezise' is unknown; allowed are resize=256 .the shorter side."),
        ("resize", "'resize' is unknown"),
        ("imagenet=1", "'imagenet' is unknown"),
        ("resize=big", "resize is 'big'; give pixels, such as 224, or HEIGHTxWIDTH"),
        ("resize=0", "resize is 0; give 1 to 16384 pixels"),
        ("crop=100000", "crop is .100000, 100000.; give 1 to 16384 pixels"),
        ("resize=224,crop=256", "crop 256x256 is larger than resize 224"),
        ("resize=20x30,crop=24x24", r"crop 24x24 is larger than resize \(20, 30\)"),
        ("interpolation=cubic", "interpolation is 'cubic'; give nearest or box or bilinear"),
        ("mean=0.5", "give both or neither"),
        ("range=0..255,std=2", "give mean and std, or neither"),
        ("range=0..256", r"range is '0\.\.256'; give 0\.\.1 or 0\.\.255 or -1\.\.1"),
        ("mean=half,std=1", "mean is 'half'; give a number, or one for each channel"),
        ("mean=0.5,std=0", "give finite numbers, and a std above 0"),
        ("mean=nan,std=1", "give finite numbers, and a std above 0"),
        ("mean=1,2,3,std=1,2", "mean has 3 numbers and std 2"),
        ("timm,range=0..255", "timm is for a network that is named as timm:NAME"),
        ("timm", "timm is for a network that is named as timm:NAME"),
        ("no_such_module:transform", "'no_such_module:transform' failed with ModuleNotFoundError"),
    ],
)
def test_text_that_says_something_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(text)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (97, 311), (64, 64), (33, 40)])
@pytest.mark.parametrize("text", ["resize=41,crop=32", "resize=64x48,crop=33x40,interpolation=bicubic", "crop=30x31"])
def test_sizes_are_those_of_torchvision(width: int, height: int, text: str) -> None:
    own_preprocessing("torchvision:resnet18")  # which also makes torchvision importable
    from torchvision import transforms

    given = parse(text)
    parts: list[Any] = []
    if given.resize is not None:
        size = given.resize if isinstance(given.resize, int) else list(given.resize)
        parts.append(transforms.Resize(size, transforms.InterpolationMode(given.interpolation)))
    parts.append(transforms.CenterCrop(given.crop))
    picture = noise(width, height)
    expected = np.asarray(transforms.Compose(parts)(picture))
    assert np.array_equal(np.asarray(given.apply("picture", picture)), expected)
    normalised = transforms.Compose([*parts, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    assert read_preprocessing(normalised) == replace(given, channels="rgb", mean=MEAN, std=STD)


def test_transforms_of_the_libraries_are_read() -> None:
    told = own_preprocessing("torchvision:mobilenet_v2.IMAGENET1K_V1")
    from torchvision.models import MobileNet_V2_Weights

    found = read_preprocessing(MobileNet_V2_Weights.IMAGENET1K_V1.transforms())
    assert found == parse("resize=256,crop=224,rgb,imagenet")
    assert (told["resize"], told["crop"], told["mean"]) == (256, (224, 224), MEAN)


class Mirror:
    """A transform that no library knows."""

    def __call__(self, image: Image.Image) -> Any:
        assert image.mode in ("L", "RGB")
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def test_a_transform_of_the_users_own_is_called_and_named(apart: None) -> None:
    splits = load("my_data:hundred", preprocess=lambda image: np.asarray(image)[:2, :3])
    assert splits.test.images.shape[1:] == (1, 2, 3)
    assert splits.test.preprocessing.transform_name == (
        f"{__name__}:test_a_transform_of_the_users_own_is_called_and_named.<locals>.<lambda>"
    )

    own_preprocessing("torchvision:resnet18")
    from torchvision import transforms

    composed = transforms.Compose([Mirror(), transforms.ToTensor(), transforms.Normalize([0.5], [0.25])])
    found = read_preprocessing(composed)
    assert found.transform is not None and (found.mean, found.std) == ((0.5,), (0.25,))
    splits = load("my_data:hundred", preprocess=composed)
    assert splits.test.mean == (0.5,)
    assert splits.test.images.shape[1:] == (1, 3, 4)


def test_a_transform_is_imported_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_here.py").write_text(
        "class Half:\n    def __call__(self, image):\n        return image.reduce(2)\n\n"
        "half = Half()\n\ndef make():\n    return half\n\ndef function(image):\n    return image.reduce(2)\n\n"
        "def fails(image):\n    raise OSError('gone')\n"
    )
    for name in ("Half", "half", "make", "function"):
        found = parse(f"mine_here:{name},mean=0.5,std=0.5")
        assert found.transform_name == f"mine_here:{name}" and found.mean == (0.5,)
        assert found.apply("picture", noise(8, 6)).size == (4, 3)
    with pytest.raises(DataError, match=r"mine_here:fails fails on a\.png: OSError: gone"):
        parse("mine_here:fails").apply("a.png", noise(8, 6))
    with pytest.raises(DataError, match="takes the place of resize and crop"):
        parse("mine_here:half,crop=4")


def test_normalised_floats_of_a_transform_are_refused(apart: None) -> None:
    with pytest.raises(DataError, match=r"has float values from -2 to -2; .*leave normalisation out"):
        load("my_data:hundred", preprocess=lambda image: (torch.zeros(1, 3, 4) - 2).clamp(max=0))
    with pytest.raises(DataError, match="preprocess is 3; give text"):
        load("my_data:hundred", preprocess=3)  # type: ignore[arg-type]


def test_images_are_loaded_prepared(apart: None) -> None:
    splits = load("my_data:hundred", preprocess="resize=6x8,crop=4,mean=0.5,std=0.25")
    assert splits.network.images.shape[1:] == (1, 4, 4)
    assert (splits.test.mean, splits.test.std) == ((0.5,), (0.25,))
    code = splits.test.images[:1].float()
    assert torch.allclose(splits.test.normalised([0]), (code / 255 - 0.5) / 0.25)
    in_colour = load("my_data:hundred", preprocess="imagenet")
    assert in_colour.test.images.shape[1:] == (3, 3, 4) and in_colour.test.mean == MEAN
    assert torch.equal(in_colour.test.images[:, :1], load("my_data:hundred").test.images)
    for options, message in (
        ({"preprocess": "crop=5"}, "is 4x3 pixels, too small for crop=5x5; scale it with resize"),
        ({"preprocess": "crop=2", "image_size": 2}, "image_size is 2, and preprocess says a size, too"),
        ({"preprocess": "grey,mean=1,2,3,std=1,2,3"}, "mean and std of 3 channels, and the images of .* have 1"),
    ):
        with pytest.raises(DataError, match=message):
            load("my_data:hundred", **options)  # type: ignore[arg-type]


def test_blue_comes_first_where_a_network_reads_it_so() -> None:
    pixels = torch.tensor([[[[255]], [[51]], [[0]]]], dtype=torch.uint8)
    values = normalise(pixels, (0.0, 0.1, 0.2), (1.0, 1.0, 1.0), bgr=True)
    assert torch.allclose(values.flatten(), torch.tensor([0.0, 0.1, 0.8]))
    measured = load("my_data:five_colours", preprocess="bgr").network
    plain = load("my_data:five_colours").network
    assert measured.mean == plain.mean[::-1]
    assert torch.equal(measured.normalised(), plain.normalised().flip(1))


def test_files_come_to_size_as_the_network_was_trained(tmp_path: Path) -> None:
    noise(40, 30).save(tmp_path / "a.png")
    given = parse("resize=20,crop=16x18,bgr")
    found = read_images([tmp_path / "a.png"], (3, 16, 18), given)
    expected = np.asarray(given.apply("", noise(40, 30))).transpose(2, 0, 1)
    assert np.array_equal(found[0].numpy(), expected)  # red stays first: normalising turns it
    with pytest.raises(DataError, match=r"a\.png comes to 26x20 pixels .*, which takes 18x16"):
        read_images([tmp_path / "a.png"], (3, 16, 18), parse("resize=20"))


def test_what_is_stored_comes_back() -> None:
    for text in ("resize=20,crop=16x18,bgr", "resize=20x30,interpolation=lanczos", "grey"):
        given = parse(text)
        assert Preprocessing.from_json(json.loads(json.dumps(given.to_json()))) == given
    assert Preprocessing().to_json() == {} == Preprocessing(mean=(1.0,), std=(1.0,)).to_json()
    named = Preprocessing.from_json({"transform_name": "os:abort"})
    with pytest.raises(DataError, match=r"a transform of its user's own, os:abort, whose code is stored nowhere"):
        named.apply("a.png", noise(4, 4))


class Clean:
    """The test images of Imagenette that no network trained on ImageNet has seen, with their ImageNet classes."""

    classes = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    assets = Path()

    @classmethod
    def build(cls) -> tuple[Any, Any]:
        table = pytest.importorskip("pyarrow.parquet").read_table(
            cls.assets / "data" / "imagenette224" / "test-00000-of-00001.parquet"
        )
        rows = [row for row in table.to_pylist() if "ILSVRC2012_val_" in row["img"]["path"]]
        items = [(Image.open(io.BytesIO(row["img"]["bytes"])), row["label"]) for row in rows]
        return items, items


def test_a_pretrained_network_is_as_accurate_as_with_its_own_transforms(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_preprocessing("torchvision:mobilenet_v2")
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    from rlprune.models.weights import load_weights

    network = mobilenet_v2()
    load_weights(network, assets / "weights" / "imagenet" / "mobilenet_v2.safetensors")
    monkeypatch.setattr(Clean, "assets", assets)
    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    items = Clean.build()[0]
    assert len(items) == 134
    expected = torch.stack([transform(image.convert("RGB")) for image, _ in items])
    monkeypatch.setattr("rlprune.data.sources.call", lambda *_: Clean.build())
    images = load("clean:build", preprocess=transform).test
    assert torch.equal(images.normalised(), expected)
    with torch.inference_mode():
        labels = torch.cat([network.eval()(part).argmax(1) for part in images.normalised().split(32)])
    right = (labels == torch.tensor([Clean.classes[label] for label in images.labels])).double().mean()
    assert round(100 * float(right), 1) == 61.9


def test_values_may_come_in_several_forms_in_python() -> None:
    given = Preprocessing(resize=[20, 30], crop=16, mean=0.5, std=[0.25])  # type: ignore[arg-type]
    assert given == Preprocessing((20, 30), (16, 16), mean=(0.5,), std=(0.25,))
    own = Preprocessing(transform=Mirror())
    assert own.transform_name == f"{__name__}:Mirror" and own.sizes
    for wrong, message in (
        ({"resize": 2.5}, r"resize is 2\.5; give pixels, or \(height, width\)"),
        ({"crop": (1, 2, 3)}, r"crop is \(1, 2, 3\); give pixels, or"),
        ({"mean": "half", "std": 1}, "mean is 'half'; give a number, or one for each channel"),
        ({"transform": Mirror(), "resize": 3}, "takes the place of resize and crop"),
    ):
        with pytest.raises(DataError, match=message):
            Preprocessing(**wrong)


def test_a_later_word_changes_what_the_library_says_and_an_earlier_one_does_not() -> None:
    own = Preprocessing(9, (8, 8), mean=MEAN, std=STD)
    assert parse("imagenet,crop=4,timm", lambda _: own) == replace(own, channels="rgb")
    assert parse("timm,crop=4", lambda _: own).crop == (4, 4)
    with pytest.raises(DataError, match="range is of values before mean and std; give these, too"):
        parse("range=0..255,timm", lambda _: own)


def test_a_module_that_transforms_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("module_here.py").write_text(
        "from torch import nn\n\nclass Half(nn.Module):\n    def forward(self, image):\n"
        "        return image.reduce(2)\n\nhalf = Half()\n"
    )
    assert parse("module_here:half").apply("picture", noise(8, 6)).size == (4, 3)
