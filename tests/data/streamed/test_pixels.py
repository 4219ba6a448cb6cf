from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from my_data import PARTS, write_folders
from nets import make_data
from PIL import Image
from streams import streamed, write_gradients

from rlprune.data.image_set import Splits, joined
from rlprune.data.loading import load
from rlprune.data.streamed import StreamedPixels, join_pixels
from rlprune.data.streamed.pixels import Pixels
from rlprune.errors import DataError
from rlprune.intake.identity import sample_of

pytestmark = pytest.mark.usefixtures("apart")


def pixels_of(images: Pixels) -> StreamedPixels:
    assert isinstance(images, StreamedPixels)
    return images


@pytest.mark.parametrize("rows", [slice(2, 9, 3), [4, 0, 4], torch.tensor([3, -1]), 5, -2])
def test_they_are_indexed_as_a_tensor_is(rows: object) -> None:
    data = make_data(10)
    assert torch.equal(streamed(data).images[rows], data.images[rows])


def test_parts_of_parts_are_lists_of_rows() -> None:
    data = make_data(20)
    part = streamed(data).subset(slice(3, 18)).subset([5, 1, 9])
    assert pixels_of(part.images).rows.tolist() == [8, 4, 12]
    assert torch.equal(part.images[:], data.images[[8, 4, 12]])
    assert torch.equal(part.labels, data.labels[[8, 4, 12]])


def test_sets_are_joined_without_a_copy_wherever_they_come_from() -> None:
    one, other = make_data(6), make_data(5, seed=1)
    whole, new = streamed(one), streamed(other)
    parts = [whole.subset([4, 2]), whole.subset(slice(0, 1)), new.subset([3]), other.subset([1])]
    both = joined(parts)
    assert len(pixels_of(joined(parts[:2]).images).pictures) == 1
    assert torch.equal(both.images[:], torch.cat([one.images[[4, 2, 0]], other.images[[3, 1]]]))
    assert isinstance(join_pixels([one.images, other.images]), torch.Tensor)


@pytest.mark.parametrize("kept", [{}, {"image_size": 2}, {"preprocess": "resize=6,crop=4,grey"}])
def test_a_set_is_divided_and_decoded_alike_in_memory_and_streamed(kept: dict[str, object], tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    Image.open(root / "dog" / "001.png").convert("L").save(root / "dog" / "001.png")
    here = load("pets", memory=1, **kept)  # type: ignore[arg-type]
    there = load("pets", memory=0, **kept)  # type: ignore[arg-type]
    for part in PARTS:
        expected, found = getattr(here, part), getattr(there, part)
        assert found.streamed and torch.equal(found.images[:], expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert (found.mean, found.std, found.classes) == (expected.mean, expected.std, expected.classes)
    assert torch.equal(there.training.images[:], here.training.images)


def test_grey_pictures_stay_grey_until_one_is_not(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    for file in root.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert load("pets", memory=0).network.images.shape[1] == 1


def test_the_rule_is_said_and_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path / "said")
    monkeypatch.setenv("RLPRUNE_MEMORY", "1e-9")
    assert load("said").network.streamed and not load("said", memory=1).network.streamed
    assert "said: the pixels of 20 images take 0.0 GiB, more than 1e-09 (RLPRUNE_MEMORY)" in capsys.readouterr().err
    for wrong in ("-1", "nan", "much"):
        monkeypatch.setenv("RLPRUNE_MEMORY", wrong)
        with pytest.raises(DataError, match=rf"RLPRUNE_MEMORY is '{wrong}'; give the GiB"):
            load("said")
    with pytest.raises(DataError, match="memory is -2"):
        load("said", memory=-2)


def test_what_is_damaged_or_odd_is_named(tmp_path: Path) -> None:
    root = write_gradients(tmp_path / "pets")
    splits = load("pets", memory=0)
    for file in root.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"pets/\w+/\d+\.png cannot be read as an image .*replace or remove it"):
        splits.network.images[0]
    write_gradients(root)
    Image.new("RGB", (7, 7)).save(root / "left" / "000.png")
    with pytest.raises(DataError, match=r"000\.png is 7x7 pixels but others are 40x30; all must be of one size"):
        _all(splits)


def _all(splits: Splits) -> None:
    for part in PARTS:
        getattr(splits, part).images[:]


def test_views_are_cut_out_of_the_whole_picture(tmp_path: Path) -> None:
    write_gradients(tmp_path / "pets")
    images = pixels_of(load("pets", image_size=8, memory=0).network.images)
    left = torch.tensor([[0.25, 0.0, 0.0, 0.0, 0.0]]).repeat(len(images), 1)  # the middle 30 columns begin at 5
    cut = images.decoded(left)
    assert cut[:, 0].min() < 6 * 5 <= images[:][:, 0].min()
    mirrored = images.decoded(torch.cat([left[:, :4], torch.ones(len(images), 1)], 1))
    assert torch.equal(mirrored, cut.flip(3))
    shifted = torch.tensor([[2, 1, 0]]).repeat(len(images), 1)
    assert torch.equal(images.decoded(shifted, 1)[:, :, :-1], images[:][:, :, 1:])


def test_the_fingerprint_tells_names_sizes_and_labels(tmp_path: Path) -> None:
    root = write_gradients(tmp_path / "pets")

    def found() -> dict[str, str]:
        return load("pets", memory=0).network.fingerprint()

    before = found()
    assert before == found() and before["kept"] == "streamed"
    file = next(iter(sorted(root.rglob("*.png"))))
    Image.new("RGB", (40, 30)).save(file)
    assert {key for key, value in found().items() if value != before[key]} == {"sizes"}
    file.rename(file.with_name("new.png"))
    assert {key for key, value in found().items() if value != before[key]} >= {"names", "sizes"}
    data = make_data(5)
    assert data.fingerprint() != replace(data, labels=data.labels.flip(0) + 1).fingerprint()


def test_no_picture_is_decoded_to_note_what_trained_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "pets")
    splits = load("pets", memory=0)
    monkeypatch.setattr(StreamedPixels, "decoded", lambda *_: pytest.fail("one was decoded"))
    assert sample_of(splits) == []
