from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from rlprune.errors import RLPruneError
from rlprune.storage.provenance import check_ours, differences, fingerprint, noted

BEFORE = {"seed": 0, "training": {"epochs": 2, "flip": True}, "teacher": None}


def test_settings_that_differ_are_named_by_their_path() -> None:
    assert differences(BEFORE, BEFORE) == []
    assert differences(BEFORE, BEFORE | {"training": {"epochs": 3, "flip": True}}) == ["training.epochs: 2, now 3"]
    assert differences(BEFORE, BEFORE | {"training": {"epochs": 2}}) == ["training.flip: True, now None"]
    assert differences(BEFORE, BEFORE | {"teacher": {"model": "x"}}) == ["teacher: None, now {'model': 'x'}"]
    assert differences(BEFORE | {"teacher": {"model": "x"}}, BEFORE) == ["teacher: {'model': 'x'}, now None"]
    same = {"data": "pets", "weights": ["a", "b"]}
    assert differences(same, {"data": "PETS", "weights": ["a", "B"]}, lambda one, other: one == other.lower()) == []
    assert len(differences(same, {"data": "x", "weights": ["a"]}, lambda one, other: one == other.lower())) == 2


def test_a_fingerprint_is_the_sha256_of_all_bytes_in_their_order() -> None:
    tensor = torch.arange(6, dtype=torch.int64).view(2, 3).T
    expected = hashlib.sha256(b"start" + tensor.contiguous().numpy().tobytes()).hexdigest()
    assert fingerprint(b"start", tensor) == expected != fingerprint(tensor, b"start")


@pytest.mark.parametrize("values_only", [False, True])
def test_what_was_made_otherwise_is_refused(tmp_path: Path, values_only: bool) -> None:
    note = tmp_path / "note.json"
    with noted(note, BEFORE, what="it", cure="go back", values_only=values_only):
        assert json.loads(note.read_text()) == (list(BEFORE.values()) if values_only else BEFORE)
    with noted(note, BEFORE, what="it", cure="go back", values_only=values_only):
        pass
    message = r"it was made under other settings \(seed: 0, now 1\); go back"
    with (
        pytest.raises(RLPruneError, match=message),
        noted(note, BEFORE | {"seed": 1}, what="it", cure="go back", values_only=values_only),
    ):
        pytest.fail("made again")
    assert note.exists()


@pytest.mark.parametrize("made", [False, True])
def test_a_note_of_what_cannot_be_goes_unless_something_was_made(tmp_path: Path, made: bool) -> None:
    note, folder = tmp_path / "note.json", tmp_path / "made"
    with pytest.raises(RLPruneError), noted(note, BEFORE, what="it", cure="go back", made=folder):
        if made:
            folder.mkdir()
        raise RLPruneError("cannot be")
    assert note.exists() == made


def test_a_folder_is_filled_that_is_new_empty_or_was_begun(tmp_path: Path) -> None:
    check_ours(tmp_path / "new", False)
    check_ours(tmp_path, False)
    for name in (".lock", ".lock.owner.json", f".{'0f' * 16}", f".x-{'0f' * 16}.json", ".x.before", "first.json"):
        (tmp_path / name).touch()
    check_ours(tmp_path, False, ("first.json",))
    with pytest.raises(RLPruneError, match=r"holds other things, such as first\.json; name a new or an empty folder"):
        check_ours(tmp_path, False)
    (tmp_path / ".git").touch()
    with pytest.raises(RLPruneError, match=r"such as \.git; name"):
        check_ours(tmp_path, False, ("first.json",))
    check_ours(tmp_path, True)


@pytest.mark.parametrize("text", ["", "{", "3", "null"])
@pytest.mark.parametrize("values_only", [False, True])
def test_a_damaged_note_is_named(tmp_path: Path, text: str, values_only: bool) -> None:
    note = tmp_path / "note.json"
    note.write_text(text)
    with (
        pytest.raises(RLPruneError, match=r"note\.json is damaged \(.*\); go back"),
        noted(note, BEFORE, what="it", cure="go back", values_only=values_only),
    ):
        pytest.fail("made again")
    assert note.read_text() == text
