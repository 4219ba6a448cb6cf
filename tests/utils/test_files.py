from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import SafetensorError

from rlprune.errors import WriteError
from rlprune.utils import files
from rlprune.utils.files import atomic_write, check_room, write_json, writing
from rlprune.utils.locks import hold

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from torch import nn
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from rlprune.errors import WriteError
from rlprune.models.weights import save_weights
from rlprune.storage.folders import write_folder
from rlprune.utils.files import atomic_write, write_json
network, path = nn.Linear(100, 100), Path("file.safetensors")
def checkpoint():
    with atomic_write(path) as temporary:
        torch.save(network.state_dict(), temporary)
ways = {
    "weights": lambda: save_weights(network, path),
    "checkpoint": checkpoint,
    "json": lambda: write_json(path, "x" * 30_000),
    "folder": lambda: write_folder(path, "network", {"network.json": b"x" * 30_000}, {}),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as if the disk were full
try:
    ways[sys.argv[1]]()
except WriteError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
@pytest.mark.parametrize("way", ["weights", "checkpoint", "json", "folder"])
def test_a_full_disk_is_one_line_and_leaves_no_rubbish(tmp_path: Path, way: str) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, way], cwd=tmp_path, capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("file.safetensors cannot be written: ") and "make room and give the same command" in line
    assert "--resume" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device; make room"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system; name a folder that may be written"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied; name a folder that may be written"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "not a directory; name another place"),
        (SafetensorError("I/O error: File too large (os error 27)"), f"{os.strerror(27).lower()}; make room"),
        (SafetensorError("IoError(Os { code: 28, kind: StorageFull })"), f"{os.strerror(28).lower()}; make room"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "no room is left on its disk"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason_and_the_cure(error: Exception, message: str) -> None:
    with pytest.raises(WriteError, match=f"^out cannot be written: {message}"), writing(Path("out")):
        raise error


BEGINS = """
import os, sys
from pathlib import Path
from rlprune.utils.files import atomic_write, scratch
from rlprune.utils.locks import hold
out = Path(sys.argv[1])
with hold(out), hold(out.with_name("out.txt.checkpoint.pt")), atomic_write(out) as file, scratch(out) as folder:
    file.write_text("half")
    folder.mkdir()
    (folder / "half").touch()
    with atomic_write(out.with_name("out.txt.checkpoint.pt")) as other:
        other.write_text("half")
        print("begun", flush=True)
        sys.stdin.read()
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_a_dead_process_has_begun_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    old = tmp_path / f".out-{'0' * 32}.txt"  # of a version that locked nothing
    strange = tmp_path / ".out-of-town.txt"
    for path in (old, strange):
        path.touch()
    command = [sys.executable, "-c", BEGINS, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "begun\n"
        living = hidden(tmp_path)
        assert len(living) == 11  # the strange one; three that are written, each with its lock; two locks with owners
        write_json(out, 1)
        assert hidden(tmp_path) == living and not old.exists()
        other.kill()
    write_json(out, 2)
    assert [name for name in hidden(tmp_path) if name.startswith(".out-")] == [strange.name]
    with hold(out):
        assert hidden(tmp_path) == [strange.name, ".out.txt.lock", ".out.txt.owner.json"]
    assert hidden(tmp_path) == [strange.name] and out.read_text() == "2\n"


def test_a_folder_that_is_filled_is_tidied_whole(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".net.before").mkdir(parents=True)
    (tmp_path / "deep" / ".done.before").mkdir()
    (tmp_path / "deep" / "done").mkdir()
    for name in (f".net-{'a' * 32}.json", ".net.lock", ".net.owner.json", ".gitignore"):
        (tmp_path / "deep" / name).touch()
    with hold(tmp_path, inside=True):
        assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [".gitignore", "done", "net"]


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), SafetensorError("no tensor"), ValueError("other")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), atomic_write(tmp_path / "file"):
        raise error


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match=r"out\.json cannot be written: (file exists|not a directory)"):
        write_json(tmp_path / "file" / "out.json", 1)


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(WriteError, match=rf"{name} cannot be written: it is .*; name"):
            files.check_target_file(tmp_path / name)
    files.check_target_file(tmp_path / "new" / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_room_is_asked_for_before_there_is_anything_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: Usage(2**20))
    check_room(tmp_path / "run.pt", 2**20)
    with pytest.raises(WriteError, match=r"run\.pt will need about 3\.0 MiB, and 1\.0 MiB are free on its disk; make"):
        check_room(tmp_path / "run.pt", 3 * 2**20)


def test_a_network_is_not_trained_without_room_for_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nets import make_data, network

    from rlprune.training.pretraining import pretrain
    from rlprune.training.settings import TrainingSettings

    def no_room(path: Path, n_bytes: int) -> None:
        asked.append(n_bytes)
        raise WriteError("no room")

    asked: list[int] = []
    monkeypatch.setattr("rlprune.training.loop.check_room", no_room)
    model: Any = network("plain")
    with pytest.raises(WriteError, match="no room"):
        pretrain(model, make_data(20), TrainingSettings(epochs=2, batch_size=16), checkpoint=tmp_path / "run.pt")
    assert asked[0] >= 4 * sum(p.numel() for p in model.parameters()) * 4  # weights and momentum, twice
    assert not (tmp_path / "run.pt").exists()


def test_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "small", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        files.read_regular(tmp_path / "small", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"regular file|directory"):
            files.read_regular(path, 10**9)


TEMPORARIES = """
import sys, tempfile
from pathlib import Path
from rlprune.utils.files import temporaries_beside
with temporaries_beside(Path(sys.argv[1])):
    tempfile.mkdtemp(prefix="somebody.")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_temporary_files_of_others_lie_beside_what_is_written(tmp_path: Path) -> None:
    out, usual = tmp_path / "bundle", tempfile.gettempdir()
    with files.temporaries_beside(out):
        made = Path(tempfile.mkdtemp())
        assert made.parent.parent == tmp_path and hidden(tmp_path)
    assert tempfile.gettempdir() == usual and not list(tmp_path.iterdir())
    command = [sys.executable, "-c", TEMPORARIES, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "begun\n"
        other.kill()
    assert len(list(tmp_path.rglob("somebody.*"))) == 1
    with hold(out):
        assert not list(tmp_path.rglob("somebody.*"))
    assert not list(tmp_path.iterdir())
