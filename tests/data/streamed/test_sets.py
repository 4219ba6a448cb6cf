from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from my_data import PARTS, hub_splits, table, write_parquet

from rlprune.data.loading import load
from rlprune.data.streamed import sets
from rlprune.data.streamed.sets import from_streams, tar_files
from rlprune.errors import DataError

pytestmark = pytest.mark.usefixtures("apart")


def test_a_stream_is_read_once_and_is_the_set_that_it_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("RLPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    (tmp_path / "own.py").write_text(
        "import my_data\ndef streams():\n"
        "    return {name: part.to_iterable_dataset() for name, part in my_data.hub_splits().items()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    whole, found = load("my_data:hub_splits"), load("own:streams", memory=0)
    assert found.network.classes == ("cat", "dog")
    for part in PARTS:
        assert torch.equal(getattr(found, part).images[:], getattr(whole, part).images)
    assert "own:streams is read once, into" in capsys.readouterr().err
    monkeypatch.setattr(sets, "_keep", lambda *_: pytest.fail("it was read again"))
    assert torch.equal(load("own:streams").test.images[:], whole.test.images)


def test_a_stream_from_files_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("RLPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sets, "n_in_shards", lambda *_: 0)
    file = write_parquet(tmp_path / "some.parquet", table(12))
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.load_dataset("parquet", data_files=str(file), split="train", streaming=True, features=features)
    found = from_streams("some", {"train": rows}, None, None, None)
    assert (found.n_train, found.n_test) == (12, 0) and [label for _, _, label in found.records] == [0, 1] * 6

    def failing(row: dict[str, Any]) -> dict[str, Any]:
        if row["label"]:
            raise OSError("gone")
        return row

    with pytest.raises(DataError, match=r"split train of other ended before its time \(.*what was read is kept"):
        from_streams("other", {"train": rows.map(failing, features=features)}, None, None, None)


def test_streams_without_a_part_or_column_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("RLPRUNE_CACHE", str(tmp_path / "cache"))
    rows = hub_splits()["train"].to_iterable_dataset()
    with pytest.raises(DataError, match="has the splits all; a split called train is needed"):
        from_streams("some", {"all": rows}, None, None, None)
    with pytest.raises(DataError, match="has the columns img, label; name those"):
        from_streams("some", {"train": rows}, "photo", None, None)


def test_shards_beside_pictures_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "images.tar").touch()
    assert tar_files(tmp_path) == [tmp_path / "images.tar"]
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    assert tar_files(tmp_path) == []
