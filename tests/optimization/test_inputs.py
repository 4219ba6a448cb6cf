"""What is optimised: networks and images by name or as they are, and that they fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from my_data import picture
from safetensors.torch import save_file
from signals import Signals, splits

import rlprune
from rlprune.errors import DataError, ModelError, RLPruneError
from rlprune.models.classes import KnownClasses
from rlprune.optimization.entry.heldout import joined
from rlprune.optimization.inputs import read_subject


def write_folders(root: Path, n: int, first: int = 0, size: int = 12) -> None:
    """Pictures of cats and dogs; the first pixel of each is its number."""
    for code in range(first, first + n):
        path = root / ("cat", "dog")[code % 2] / f"{code:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(code, (size, size)).save(path)


def test_a_network_of_the_callers_is_copied_and_stays_as_it_is() -> None:
    network = Signals().train()
    subject = read_subject(network, splits())
    assert network.training and not subject.model.training
    assert subject.model is not network and subject.trained
    assert (subject.name, subject.data, subject.image_shape) == ("Signals", "images in memory", (3, 12, 12))


def test_networks_by_name_are_trained_first_unless_there_are_weights(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 40)
    fresh = read_subject("digits_cnn", str(tmp_path / "pets"))
    assert not fresh.trained and fresh.splits.network.classes == ("cat", "dog")
    save_file(fresh.model.state_dict(), tmp_path / "mine.safetensors")
    subject = read_subject("digits_cnn", str(tmp_path / "pets"), weights=tmp_path / "mine.safetensors")
    assert subject.trained and any("mine.safetensors" in each for each in subject.said)
    assert subject.notes["network"]["model"] == "digits_cnn"


def test_images_that_do_not_test_are_split_by_shares_of_its_own(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 100)
    found = read_subject("digits_cnn", str(tmp_path / "pets")).splits
    assert [len(part) for part in (found.network, found.policy, found.validation, found.test)] == [48, 16, 16, 20]


def test_held_out_images_teach_and_choose_in_the_place_of_others(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 40)
    write_folders(tmp_path / "new", 10, first=100)
    subject = read_subject("digits_cnn", str(tmp_path / "pets"), heldout=str(tmp_path / "new"))
    found = subject.splits
    assert subject.notes["split"]["sample"] == []  # what is no test image has trained the network
    assert [len(part) for part in (found.network, found.policy, found.validation, found.test)] == [32, 5, 5, 8]
    assert set(joined([found.policy, found.validation]).images[:, 0, 0, 0].tolist()) == set(range(100, 110))


def test_held_out_images_of_other_classes_or_sizes_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 20)
    write_folders(tmp_path / "larger", 12, size=16)
    write_folders(tmp_path / "others", 12)
    (tmp_path / "others" / "dog").rename(tmp_path / "others" / "bird")
    pets = str(tmp_path / "pets")
    with pytest.raises(DataError, match=r"has the classes bird, cat.* it lacks dog: give images of the same classes"):
        read_subject("digits_cnn", pets, heldout=str(tmp_path / "others"))
    with pytest.raises(DataError, match=r"images of shape \(3, 16, 16\), the others have \(3, 12, 12\): give images"):
        read_subject("digits_cnn", pets, heldout=str(tmp_path / "larger"))
    with pytest.raises(DataError, match="nowhere"):
        read_subject("digits_cnn", pets, heldout=str(tmp_path / "nowhere"))


def test_held_out_images_that_are_others_too_are_left_out_and_counted(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets" / "train", 20)
    write_folders(tmp_path / "pets" / "test", 6, first=20)
    write_folders(tmp_path / "new", 12, first=18)  # 2 train, 6 test, 4 are new
    pets = tmp_path / "pets"
    subject = read_subject("digits_cnn", pets, heldout=tmp_path / "new")
    assert sorted(joined([subject.splits.policy, subject.splits.validation]).images[:, 0, 0, 0].tolist()) == [
        *range(26, 30)
    ]
    assert any(
        "of 12 images 6 are test images and 2 are images that train the network" in each for each in subject.said
    )
    with pytest.raises(DataError, match=r"all 6 images are others, too \(6 are test images\); give new ones"):
        read_subject("digits_cnn", pets, heldout=pets / "test")


def test_few_held_out_images_are_told_how_many_would_do(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 20)
    write_folders(tmp_path / "new", 2, first=100)
    assert len(read_subject("digits_cnn", tmp_path / "pets", heldout=tmp_path / "new").splits.policy) == 1
    picture(3, (12, 12)).save(tmp_path / "new" / "dog" / "101.png")  # which trains or tests
    with pytest.raises(DataError, match=r"has 1 image beside the others; 2 or more are needed, some hundreds"):
        read_subject("digits_cnn", tmp_path / "pets", heldout=tmp_path / "new")


def test_a_random_fifth_tests_where_there_is_no_test_part(tmp_path: Path) -> None:
    write_folders(tmp_path / "one", 20)
    write_folders(tmp_path / "two" / "train", 20)
    write_folders(tmp_path / "two" / "test", 4, first=20)
    found = [read_subject("digits_cnn", tmp_path / name).splits.test_set_aside for name in ("one", "two")]
    assert found == [True, False]


def test_how_images_are_read_can_be_said_in_python_as_on_the_command_line(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets" / "train", 20)
    write_folders(tmp_path / "pets" / "val", 6, first=20)
    write_folders(tmp_path / "pets" / "test", 4, first=30)
    how = {"image_size": 8, "test_split": "val", "shares": (0.5, 0.25, 0.25), "split_seed": 1}
    for model in ("digits_cnn", Signals()):
        found = read_subject(model, tmp_path / "pets", **how).splits
        assert [len(part) for part in (found.network, found.policy, found.validation, found.test)] == [10, 5, 5, 6]
        assert found.network.images.shape[2:] == (8, 8)


def test_arguments_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    for model, data, given, message in (
        (Signals(), splits(), {"weights": tmp_path / "mine.pth"}, r"weights='.*mine.pth' is for a network by name"),
        (Signals(), splits(), {"trust_pickle": True}, "trust_pickle=True is for weights of a network by name"),
        ("digits_cnn", splits(), {"trust_pickle": True}, "trust_pickle=True is for weights; give them"),
        (Signals(), splits(), {"preprocess": "imagenet"}, "preprocess='imagenet' says how images are read, and yours"),
        (Signals(), splits(), {"image_size": 8}, "image_size=8 says how images are read"),
        (
            Signals(),
            "pets",
            {"shares": (0.5, 0.3, 0.2), "heldout": "new"},
            "shares=.*: with heldout, whatever does not",
        ),
    ):
        with pytest.raises(RLPruneError, match=message):
            read_subject(model, data, **given)


def test_classes_are_compared_by_name_before_pictures_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "pets", 20)
    known = KnownClasses("the file", (("cat",), ("horse",), ("dog house",)))
    monkeypatch.setattr("rlprune.optimization.inputs.known_classes", lambda *_: known)
    monkeypatch.setattr("rlprune.data.loading.decode", None)
    save_file(rlprune.models.build("digits_cnn", 3).state_dict(), tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match=r"the file knows 3 classes .* none of them: 'dog'"):
        read_subject("digits_cnn", tmp_path / "pets", weights=tmp_path / "mine.safetensors")


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", 20)
    save_file(rlprune.models.build("resnet20", 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other.safetensors"):
        read_subject("digits_cnn", str(tmp_path / "pets"), weights=tmp_path / "other.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelError, match=r"broken.pth"):
        read_subject("digits_cnn", str(tmp_path / "pets"), weights=tmp_path / "broken.pth")


def test_a_network_for_other_classes_is_refused_before_anything_is_tried() -> None:
    network = Signals()
    network.linear = torch.nn.Linear(64, 3)
    with pytest.raises(RLPruneError, match=r"3.*2"):
        read_subject(network, splits())


def test_preprocessing_in_words_is_needed_for_a_network_by_name() -> None:
    with pytest.raises(DataError, match="preprocess is no text"):
        read_subject("digits_cnn", "mnist5k", preprocess=lambda picture: picture)
