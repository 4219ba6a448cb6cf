from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from my_data import PARTS, picture

from rlprune.data.loading import load
from rlprune.data.streamed import TarRecords, shards, write_shards
from rlprune.data.streamed.shards import n_in_shards
from rlprune.errors import DataError

pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(code: int) -> bytes:
    file = io.BytesIO()
    picture(code).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_shards_of_the_webdataset_library_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    for part, codes in (("train", range(20)), ("test", range(30, 36))):
        (tmp_path / "set").mkdir(exist_ok=True)
        with webdataset.ShardWriter(f"file:{tmp_path}/set/{part}-%06d.tar", maxcount=8, verbose=0) as sink:
            for code in codes:
                sink.write({"__key__": f"{code:04d}", "png": png(code), "cls": code % 2, "json": {"caption": "a"}})
    (tmp_path / "set" / "classes.json").write_text('["even", "odd"]')
    here, there = load("set", memory=1), load("set", memory=0)
    assert here.network.classes == ("even", "odd")
    assert [len(getattr(here, part)) for part in PARTS] == [14, 4, 2, 6]
    for part in PARTS:
        assert torch.equal(getattr(there, part).images[:], getattr(here, part).images)
        assert torch.equal(getattr(there, part).labels, getattr(here, part).labels)
    assert all(
        int(code) % 2 == label for code, label in zip(here.test.images[:, 0, 0, 0], here.test.labels, strict=True)
    )


def test_labels_may_be_in_json_and_what_else_lies_there_is_left_out(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        {
            "x/1.png": png(1),
            "x/1.json": b'{"label": 3}',
            "x/2.txt": b"no",
            "y.seg.png": b"",
            "y.png": png(2),
            "y.cls": b"0",
        },
    )
    records = TarRecords([path])
    assert records.labels() == [3, 0]
    name, content, label = records[1]
    assert (name, content.read(), label) == (f"y.png of {path}", png(2), 0)


def test_the_index_is_made_once_and_anew_for_another_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1), "1.cls": b"1"})
    before = TarRecords([path]).marks()
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_read_index", lambda _: pytest.fail("it was read again"))
        assert TarRecords([path]).marks() == before
    next(cache.glob("tar-*.npz")).write_bytes(b"damaged")
    assert TarRecords([path]).marks() == before
    write_tar(path, {"1.png": png(1), "1.cls": b"1", "2.png": png(2), "2.cls": b"0"})
    assert TarRecords([path]).labels() == [1, 0]


def test_what_is_wrong_with_a_shard_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1)})
    with pytest.raises(DataError, match=r"a\.tar has no label for 1 \(it has png\); add 1\.cls"):
        TarRecords([path])
    with pytest.raises(DataError, match=r"a\.tar: 1\.cls says no label \(b'cat'\)"):
        TarRecords([write_tar(path, {"1.png": png(1), "1.cls": b"cat"})])
    with pytest.raises(DataError, match=r"a\.tar has no pictures"):
        TarRecords([write_tar(path, {"1.txt": b""})])
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"a\.tar cannot be read as an uncompressed tar file"):
        TarRecords([path])
    write_tar(path, {"1.cls": b"1", "1.png": png(1) + bytes(3000)})
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(DataError, match=r"a\.tar (is cut off|cannot be read)"):
        TarRecords([path])
    write_tar(tmp_path / "set" / "train-00000-of-00002.tar", {"1.png": png(1), "1.cls": b"1"})
    with pytest.raises(DataError, match=r"lacks train-00001-of-00002\.tar, of 2 shards"):
        load("set")


def test_shards_are_written_whole_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_PER_SHARD", 4)
    everything = [(png(code), ".png", code % 2) for code in range(10)]

    def cut_off() -> object:
        yield from everything[:6]
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="gone"):
        write_shards(cut_off(), tmp_path, "train")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.glob("*.tar")] == ["train-000000.tar"]
    known = n_in_shards(tmp_path, "train")
    assert known == 4 and write_shards(iter(everything[known:]), tmp_path, "train", known) == 10
    records = TarRecords(sorted(tmp_path.glob("train-*.tar")))
    assert [records[index][1].read() for index in range(len(records))] == [content for content, _, _ in everything]
    assert json.dumps(records.labels()) == json.dumps([label for _, _, label in everything])
