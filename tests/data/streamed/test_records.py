from __future__ import annotations

from pathlib import Path

import pytest
import torch
from my_data import PARTS, table, write_parquet

from rlprune.data.loading import load
from rlprune.data.streamed import DatasetRecords, FileRecords
from rlprune.data.streamed.records import PackedNames
from rlprune.errors import DataError

pytestmark = pytest.mark.usefixtures("apart")


def test_names_take_no_more_room_than_their_letters() -> None:
    names = [b"cat/1.png", b"", b"\xff.png"]
    packed = PackedNames.of(names)
    assert list(packed) == ["cat/1.png", "", "\udcff.png"] and len(packed.content) == sum(map(len, names))


def test_a_file_that_is_gone_has_another_size(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"12")
    records = FileRecords([(str(file), file, 1)])
    before = records.marks()
    assert records[0] == (str(file), file, 1) and records.labels() == [1]
    file.unlink()
    assert records.marks()[0] == before[0] and records.marks()[1] != before[1]


def test_listed_labels_are_taken_without_reading_the_items() -> None:
    class Listed:
        targets = (1, 0)

        def __len__(self) -> int:
            return 2

    def unread(*_: object) -> tuple[str, object, object]:
        raise AssertionError

    assert list(DatasetRecords([("some", Listed())], unread).labels()) == [1, 0]


@pytest.mark.parametrize("source", ["my_data:hundred", "my_data:with_test", "my_data:hub_splits", "tables"])
def test_any_source_is_the_same_streamed(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "tables" / "train-0.parquet", table(20), ("cat", "dog"))
    write_parquet(tmp_path / "tables" / "test-0.parquet", table(10, first=30), ("cat", "dog"))
    here, there = load(source, memory=1), load(source, memory=0)
    for part in PARTS:
        expected, found = getattr(here, part), getattr(there, part)
        assert torch.equal(found.images[:], expected.images) and torch.equal(found.labels, expected.labels)
    assert there.network.fingerprint() == load(source, memory=0).network.fingerprint()


def test_a_table_that_is_damaged_is_named_where_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = write_parquet(tmp_path / "train-0.parquet", table(200))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train-0\.parquet (cannot be copied into|is damaged)"):
        load(str(file), memory=0)


def test_labels_out_of_range_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = write_parquet(tmp_path / "train-0.parquet", table(20, label=[0, 1, 0, 1, 0, 5] + [0] * 14), ("cat", "dog"))
    with pytest.raises(DataError, match=r"row 5 of .* has the label 5; allowed are 0 to 1"):
        load(str(file), memory=0)
