"""Signals, two starts at once, and the limits of the machine, as the command line meets them."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlprune import startup
from rlprune.cli.inspect import Inspect
from rlprune.cli.main import main
from rlprune.utils.hardware import memory_for
from rlprune.utils.locks import hold

NETWORK = """
from torch import nn

def plain():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *head)
"""
PRETRAIN = ["pretrain", "--model", "little_networks:plain", "--data", "pets", "--epochs", "2", "--out", "w.safetensors"]
LOG = "rlprune.cli.resumable.scalar_log"


@pytest.fixture
def project(apart: None, tmp_path: Path) -> Path:
    (tmp_path / "little_networks.py").write_text(NETWORK)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 8, 3), dtype=np.uint8)
    for name, images in zip(("cat", "dog"), pixels, strict=True):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"little_networks.py", "pets", "logs", "__pycache__"}


def raising(error: BaseException) -> Callable[..., Callable[..., None]]:
    """A log that raises an error after the second epoch."""

    def log(n_images: int, figures: dict[str, float]) -> None:
        if n_images > 20:
            raise error

    return lambda *_: log


@pytest.mark.parametrize(("number", "status", "how"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_an_interrupted_training_says_how_to_go_on_and_a_finished_one_that_it_is(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
    how: str,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=str(status)):
        patch.setattr(LOG, raising(startup.Interrupted(number)))
        main(PRETRAIN)
    assert f"rlprune: {how}; to continue: rlprune {' '.join(PRETRAIN)} --resume\n" in capsys.readouterr().err
    assert made(project) == {"w.safetensors.checkpoint.pt", "w.safetensors.checkpoint.json"}
    main([*PRETRAIN, "--resume"])
    weights = (project / "w.safetensors").read_bytes()
    for left in ("w.safetensors.checkpoint.pt", "w.safetensors.checkpoint.json", f".w-{'1' * 32}.safetensors"):
        (project / left).touch()  # as a kill would leave them, after the result was written
    main([*PRETRAIN, "--resume"])
    assert "rlprune: w.safetensors is finished already; nothing is left to resume\n" in capsys.readouterr().out
    assert made(project) == {"w.safetensors"} and (project / "w.safetensors").read_bytes() == weights
    with pytest.raises(SystemExit, match="2"):
        main(PRETRAIN)


def test_what_is_no_network_is_not_taken_for_a_finished_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt = ["adapt", "--model", "little_networks:plain", "--data", "pets", "--out", "pets", "--resume"]
    (project / "file").touch()
    for words in (adapt, [*PRETRAIN[:-1], "file/w.safetensors"], [*PRETRAIN[:-1], "pets/cat.safetensors", "--resume"]):
        (project / "pets" / "cat.safetensors").mkdir(exist_ok=True)
        with pytest.raises(SystemExit, match="2"):
            main(words)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "pets exists and is no folder that rlprune wrote" in said[0]
    assert "file/w.safetensors cannot be written" in said[1] and "it is a folder; name a file" in said[2]


@pytest.mark.parametrize(
    "words",
    [
        PRETRAIN[:-1],
        ["adapt", *PRETRAIN[1:-1]],
        ["gate", *PRETRAIN[1:-1]],
        ["prune", "--network", "none", "--data", "none", "--out"],
        ["export", "--network", "none", "--policy", "none", "--out"],
        ["train", "--network", "none", "--data", "none", "--out"],
        ["compare", "--network", "none", "--data", "none", "--out"],
        ["run", "recipe.toml", "--out"],
        ["demo", "--out"],
        ["evaluate", "none", "--data", "none", "--json"],
        ["bench", "none", "--json"],
        ["predict", "none", "none.png", "--json"],
    ],
    ids=lambda words: words[0],
)
def test_of_two_starts_the_second_is_told_before_anything_else(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (project / "recipe.toml").write_text('model = "digits_cnn"\n[data]\ndata = "none"\n')
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with hold(project / "out.safetensors", inside=words[0] in ("train", "compare", "run", "demo")):
            held.set()
            done.wait()

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    try:
        with pytest.raises(SystemExit, match="2"):
            main([*words, "out.safetensors"])
    finally:
        done.set()
        thread.join()
    assert "rlprune: error: out.safetensors is in use by process " in capsys.readouterr().err


def test_too_little_memory_is_a_line_that_names_the_step(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried to allocate 4000 bytes."
    monkeypatch.setattr("rlprune.training.loop._train_epoch", lambda *_: raising(RuntimeError(said))()(99, {}))
    with pytest.raises(SystemExit, match="2"):
        main(PRETRAIN)
    line = (
        "rlprune: error: memory ran out while training, in epoch 1 of 2 (4000 bytes more are not there); a --batch-size"
    )
    assert line in capsys.readouterr().err and made(project) == set()
    monkeypatch.setattr(Inspect, "run", lambda _: bytearray(2**60))
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "--model", "resnet20"])
    assert "rlprune: error: rlprune inspect ran out of memory (it got no more); " in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="shapes"), memory_for("working", "less"):
        raise RuntimeError("shapes differ")


def test_output_that_nobody_reads_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(_: Inspect) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Inspect, "run", closed)
    with pytest.raises(SystemExit, match="1"):
        main(["inspect", "--model", "resnet20"])
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_a_line_where_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Inspect) -> None:  # as TensorBoard's writer says it
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Inspect, "run", full)
    monkeypatch.setattr("rlprune.cli.main._drop_output", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "--model", "resnet20"])
    said = capsys.readouterr().err
    assert said.startswith("rlprune: error: rlprune inspect found no room for what was to be written last (TensorB")
    assert "no space left on device; make room and give the same command again" in said and said.count("\n") == 1


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    heard = "import signal; signal.signal(2, signal.default_int_handler)\n"  # which jobs in the background ignore
    return subprocess.run([sys.executable, "-c", heard + code], cwd=cwd, capture_output=True, text=True, check=False)


IMPORTING = """
import os, sys
class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), {})
sys.meta_path.insert(0, Heavy())
sys.argv = ["/usr/bin/rlprune", "--help"]
from rlprune.__main__ import main
"""


@pytest.mark.parametrize(("number", "said"), [(2, "rlprune: interrupted\n"), (15, "rlprune: terminated\n")])
def test_a_signal_while_python_imports_is_a_line(tmp_path: Path, number: int, said: str) -> None:
    done = run(IMPORTING.format(number), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", said)


STARTUP = f"""
import importlib.util, os, signal, time
spec = importlib.util.spec_from_file_location("startup", {startup.__file__!r})
startup = importlib.util.module_from_spec(spec)
spec.loader.exec_module(startup)
startup.begin()
startup.end_in_order()
"""
LOST = """
class Closing:
    def __del__(self):
        os.kill(os.getpid(), 15)
try:
    Closing()
    time.sleep(10)
except startup.Interrupted as error:
    print("raised", startup.status_of(error))
    os.kill(os.getpid(), 2)
"""


def test_a_signal_raises_once_even_where_python_drops_it_and_the_second_ends_at_once(tmp_path: Path) -> None:
    done = run(STARTUP + LOST, tmp_path)
    assert (done.returncode, done.stderr) == (130, "rlprune: interrupted\n")
    ignored = "import signal; signal.signal(2, signal.SIG_IGN)" + STARTUP + "os.kill(os.getpid(), 2); print('on')"
    assert run(ignored, tmp_path).stdout == "on\n"


WAITING = """
def step():
    os.kill(os.getpid(), 15)
    print("finished")
try:
    with startup.finishing(True):
        step()
        if startup.asked_to_end():
            startup.end()
except startup.Interrupted as error:
    print(startup.status_of(error), startup.asked_to_end(), flush=True)
startup.end_in_order()
try:
    with startup.finishing(True):
        step()
except startup.Interrupted as error:
    print(startup.status_of(error), flush=True)
startup.end_in_order()
with startup.finishing(True):
    os.kill(os.getpid(), 15)
    try:
        step()
    except startup.Interrupted:
        print("at once", flush=True)
        os.kill(os.getpid(), 15)
"""


def test_a_step_is_finished_first_and_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    done = run(STARTUP + WAITING, tmp_path)
    assert (done.returncode, done.stdout) == (143, "finished\n143 False\nfinished\n143\nat once\n")
    assert done.stderr.count("rlprune: finishing the step") == 3


def test_a_folder_that_is_gone_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); import sys; sys.argv = ['rlprune']; import rlprune"
    done = run(code, tmp_path / "gone")
    assert (done.returncode, done.stderr) == (
        2,
        "rlprune: error: the current folder is gone; change to another one\n",
    )
