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
from rlprune.optimization.inputs import joined, read_subject


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
