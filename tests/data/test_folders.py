"""Folders and tables as people download them: what is a class, what a part, and what is left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from my_data import PARTS, all_codes, codes, flat, picture, table, write_folders, write_parquet
from PIL import Image

from rlprune.data.loading import load
from rlprune.data.parts import role_of
from rlprune.errors import DataError

pytestmark = pytest.mark.usefixtures("apart")
PETS = ("cat", "dog")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("Training", "Testing"), ("Train", "Test"), ("TRAIN", "VAL"), ("train", "valid"), ("seg_train", "seg_test")),
        *(("train", "eval"), ("TrainData", "TestData"), ("train_images", "validation_images"), ("trainval", "test")),
    ],
)
def test_parts_are_found_by_their_names_in_any_case(
    train: str, test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path / train / train)  # and in a folder of the same name, as archives have it
    write_folders(tmp_path / "pets" / train)
    write_folders(tmp_path / "pets" / test, n=6, first=100)
    splits = load("pets")
    assert splits.test.classes == PETS and sorted(codes(splits.test)) == list(range(100, 106))
    assert sorted(flat(all_codes(splits)[:3])) == list(range(20))
    assert capsys.readouterr().err == f"rlprune: pets: {train} is to learn from, {test} tests\n"


def test_words_inside_of_words_are_no_parts() -> None:
    assert [role_of(name) for name in ("Train", "imgs-val", "test2017", "Trainer", "contest", "train-test", "cat")] == [
        *("train", "validation", "test"),
        *(None, None, None, None),
    ]


def test_one_folder_too_many_is_gone_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folders(tmp_path / "a" / "pets")
    write_folders(tmp_path / "b" / "pets" / "v1" / "train" / "train")
    write_folders(tmp_path / "b" / "pets" / "v1" / "test" / "images", n=6, first=100)
    assert load("a").test.classes == PETS
    assert "a: its only folder of images, pets, is taken" in capsys.readouterr().err
    splits = load("b")
    assert splits.test.classes == PETS and sorted(codes(splits.test)) == list(range(100, 106))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for first, name in enumerate(("bus", "train", "test_tube")):
        write_folders(tmp_path / "raw", n=20, first=20 * first)
        (tmp_path / "things" / name).mkdir(parents=True)
        for code in range(20 * first, 20 * first + 20):
            picture(code).save(tmp_path / "things" / name / f"{code}.png")
    assert load("things").test.classes == ("bus", "test_tube", "train")


def test_hidden_and_system_folders_are_skipped_at_every_depth(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    for folder in (
        "__MACOSX",
        "__MACOSX/cat",
        ".ipynb_checkpoints",
        "cat/.ipynb_checkpoints",
        "dog/@eaDir",
        "dog/__MACOSX",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        picture(99).save(root / folder / "x.png")
    picture(98).save(root / "cat" / "._000.png")
    splits = load("pets")
    assert splits.test.classes == PETS
    assert sorted(flat(all_codes(splits))) == list(range(20))


def test_where_there_is_a_test_split_val_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, n, first in (("train", 20, 0), ("val", 6, 100), ("test", 8, 200)):
        write_folders(tmp_path / "pets" / name, n, first)
        write_parquet(tmp_path / "table" / f"{name}-00000-of-00001.parquet", table(n, first))
    for source in ("pets", "table"):
        parts = all_codes(load(source))
        assert [len(part) for part in parts] == [16, 4, 6, 8]
        assert sorted(parts[2]) == list(range(100, 106)) and sorted(parts[3]) == list(range(200, 208))
        assert f"{source}: train is to learn from, val validates, test tests\n" in capsys.readouterr().err
        parts = all_codes(load(source, test_split="val"))
        assert sorted(parts[3]) == list(range(100, 106)) and max(flat(parts[:3])) < 20
        assert "val tests, test, not chosen, is left out" in capsys.readouterr().err
        old = all_codes(load(source, split_rule=1))
        assert [len(part) for part in old] == [14, 4, 2, 8]
        with pytest.raises(DataError, match=rf"{source} has no part 'extra' with labels to test on; it has .*val"):
            load(source, test_split="extra")


def flat_folder(root: Path) -> None:
    (root / "test").mkdir(parents=True)
    for code in range(5):
        picture(200 + code).save(root / "test" / f"{code}.png")


def unknown_class(root: Path) -> None:
    (root / "test" / "unknown").mkdir(parents=True)
    picture(200).save(root / "test" / "unknown" / "0.png")


@pytest.mark.parametrize("unlabelled", [flat_folder, unknown_class])
def test_a_test_split_without_labels_gives_way_to_val(unlabelled: Callable[[Path], None], tmp_path: Path) -> None:
    write_folders(tmp_path / "pets" / "train")
    unlabelled(tmp_path / "pets")
    assert len(load("pets").test) == 4  # set aside
    write_folders(tmp_path / "pets" / "val", 6, 100)
    assert sorted(codes(load("pets").test)) == list(range(100, 106))
    with pytest.raises(DataError, match=r"no part 'test' with labels to test on; it has .*, of which val can test"):
        load("pets", test_split="test")


@pytest.mark.parametrize("labels", [[-1] * 8, [None] * 8, None])
def test_a_table_without_labels_gives_way_to_validation(labels: list[int] | None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pets" / "train.parquet", table())
    write_parquet(tmp_path / "pets" / "validation.parquet", table(6, first=100))
    write_parquet(tmp_path / "pets" / "test.parquet", table(8, first=200, label=labels))
    assert codes(load("pets").test) == list(range(100, 106))


def test_missing_shards_and_mixed_sets_are_refused_by_name(tmp_path: Path) -> None:
    for shard in (0, 2):
        write_parquet(tmp_path / "pets" / f"train-0000{shard}-of-00003.parquet", table(10, 10 * shard))
    with pytest.raises(DataError, match=r"pets lacks train-00001-of-00003\.parquet, of 3 shards; download it again"):
        load("pets")
    write_parquet(tmp_path / "pets" / "train-00001-of-00003.parquet", table(10, 10))
    assert sorted(flat(all_codes(load("pets")))) == list(range(30))
    write_parquet(tmp_path / "pets" / "train-00000-of-00001.parquet", table(30))
    with pytest.raises(DataError, match=r"shards of more than one division of the same rows"):
        load("pets")
    for subset in ("plain", "cropped"):
        write_parquet(tmp_path / "sets" / subset / "train-00000-of-00001.parquet", table(20))
    with pytest.raises(DataError, match=r"sets has the files of several sets \('cropped', 'plain'\); name the folder"):
        load("sets")
    assert len(load("sets/plain").network) == 11


def test_parquet_files_may_lie_in_folders_named_for_their_part(tmp_path: Path) -> None:
    write_parquet(tmp_path / "pets" / "default" / "train" / "0000.parquet", table(10))
    write_parquet(tmp_path / "pets" / "default" / "train" / "0001.parquet", table(10, 10))
    write_parquet(tmp_path / "pets" / "default" / "Test" / "0000.parquet", table(6, 100))
    splits = load("pets")
    assert codes(splits.test) == list(range(100, 106)) and sorted(flat(all_codes(splits)[:3])) == list(range(20))


def test_class_names_are_the_same_in_either_form_of_unicode(tmp_path: Path) -> None:
    for part, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("chaton", "bébé", "zèbre"):
            folder = tmp_path / "pets" / part / unicodedata.normalize(form, name)
            folder.mkdir(parents=True)
            for code in range(10):
                picture(code).save(folder / f"{code}.png")
    splits = load("pets")
    assert splits.test.classes == tuple(sorted(unicodedata.normalize("NFC", n) for n in ("bébé", "chaton", "zèbre")))
    assert torch.bincount(splits.test.labels).tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/{}.png"], r"pets has one class, 'cat', and there is nothing to learn"),
        (["train/cat/{}.png", "test/cat/{}.png"], r"train has one class, 'cat'"),
        (
            ["train/{}.png", "test/{}.png"],
            r"pets has test, train, which have no folders in them; make one for each class",
        ),
        (
            ["train/cat/{}.png", "train/dog/{}.png", "heldout/cat/{}.png", "heldout/dog/{}.png"],
            r"pets has train and heldout with the same folders in them \(cat, dog\): if heldout is for testing or",
        ),
        (["test/cat/{}.png", "test/dog/{}.png"], r"pets has test but no part called train to learn from"),
        (
            ["train/cat/{}.png", "train/dog/{}.png", "Training/cat/{}.png"],
            r"pets has both Training and train for train",
        ),
        (["{}.png"], r"pets has no folders; make one for each class"),
    ],
)
def test_folders_that_cannot_be_learnt_from_say_why(files: list[str], message: str, tmp_path: Path) -> None:
    for file in files:
        for number in range(5):
            path = tmp_path / "pets" / file.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
    with pytest.raises(DataError, match=message):
        load("pets")


def test_files_that_are_not_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folders(tmp_path / "pets")
    (root / "cat" / "a.heic").touch()
    (root / "cat" / "b.DNG").touch()
    load("pets")
    assert "pets/cat: 2 files (.dng .heic) are left out, which Pillow does not read here" in capsys.readouterr().err


# Class by class


def long_tail(tmp_path: Path, n_rare: int = 20, size: int = 4) -> Path:
    draw = np.random.default_rng(0)
    sizes = {"common": 200} | {f"rare{k:02d}": size for k in range(n_rare)}
    for name, n in sizes.items():
        folder = tmp_path / "tail" / name
        folder.mkdir(parents=True)
        for i in range(n):
            Image.fromarray(draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "tail"


def test_what_a_class_folder_loses_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folders(tmp_path / "pets")
    for name in ("more.zip", "photo", "notes.txt"):
        (root / "cat" / name).touch()
    (root / "cat" / "old").symlink_to(root / "dog")
    load("pets")
    said = capsys.readouterr().err
    assert "pets/cat: 2 files (no suffix .zip) are left out" in said
    assert "pets/cat: linked folders in it (old) are left out" in said
    (tmp_path / "packed" / "train.zip").parent.mkdir()
    (tmp_path / "packed" / "train.zip").touch()
    with pytest.raises(DataError, match=r"packed has no folders but train\.zip: unpack it first"):
        load("packed")
    with pytest.raises(DataError, match=r"train\.zip is an archive; unpack it, and name the folder"):
        load("packed/train.zip")


def test_classes_that_differ_in_capitals_or_spaces_alone_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path / "pets")
    (tmp_path / "pets" / "dog").rename(tmp_path / "pets" / "cat ")
    load("pets")
    assert "the classes 'cat', 'cat ' differ in capitals or spaces alone" in capsys.readouterr().err


def test_parts_inside_of_class_folders_are_not_mixed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_folders(tmp_path / part)
        for name in PETS:
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / name).rename(tmp_path / "pets" / name / part)
    with pytest.raises(DataError, match=r"pets has cat/test and cat/train, which would be mixed.* test/cat and train"):
        load("pets")


@pytest.mark.parametrize("size", [2, 4])
def test_every_class_reaches_network_and_test(size: int, tmp_path: Path) -> None:
    long_tail(tmp_path, size=size)
    for seed in range(10):
        splits = load("tail", seed=seed)
        assert len(splits.network.labels.unique()) == len(splits.test.labels.unique()) == 21
        n_test = round(0.2 * (200 + 20 * size))
        n_rest = 200 + 20 * size - n_test
        assert (len(splits.network), len(splits.test)) == (round(0.7 * n_rest), n_test)
        everything = torch.cat([getattr(splits, part).labels for part in PARTS])
        assert torch.bincount(everything).tolist() == [200] + [size] * 20


def test_the_test_set_of_rare_classes_does_not_depend_on_the_shares(tmp_path: Path) -> None:
    long_tail(tmp_path)
    assert torch.equal(load("tail", shares=(0.4, 0.4, 0.2)).test.images, load("tail").test.images)


def test_a_class_of_one_image_is_learnt_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_tail(tmp_path, n_rare=2, size=1)
    assert len(load("tail").network.labels.unique()) == 3
    assert "tail: there are no images to test of the classes rare00, rare01" in capsys.readouterr().err


def test_where_chance_leaves_no_class_out_the_split_is_as_it_was() -> None:
    assert all_codes(load("my_data:hundred")) == all_codes(load("my_data:hundred", split_rule=1))
