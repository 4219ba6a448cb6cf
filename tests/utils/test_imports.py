from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlprune.errors import ModelError
from rlprune.models.registry import build
from rlprune.utils.imports import call, names_callable

LATE = "def late():\n    import my_helper\n    return my_helper.x\n"


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, in which nothing is on Python's path."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_own", "my_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_callable_is_found_in_the_current_folder_and_the_path_stays(user: Path) -> None:
    (user / "my_own.py").write_text(LATE)
    (user / "my_helper.py").write_text("x = 3\n")
    before = [*sys.path]
    assert call("my_own:late", ModelError) == 3
    assert sys.path == before and str(user) not in before


def test_installed_packages_come_before_the_current_folder(user: Path) -> None:
    (user / "tomllib.py").write_text("loads = None\n")
    (user / "colorsys.py").write_text("def late():\n    pass\n")
    with pytest.raises(ModelError, match=r"has no attribute 'late' \(the module is .*lib.*colorsys.py\); give package"):
        call("colorsys:late", ModelError)


@pytest.mark.parametrize("name", ["datasets", "onnx", "rich", "tyro", "torch", "numpy", "random"])
def test_a_file_of_the_users_hides_no_package(user: Path, name: str) -> None:
    (user / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    done = subprocess.run([sys.executable, "-m", "rlprune", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("rlprune ")


@pytest.mark.parametrize("path", [None, ".", "", "{}/link"])
@pytest.mark.parametrize("start", [["-m", "rlprune"], ["-c", "from rlprune.__main__ import main; main()"]])
def test_nor_one_that_is_imported_late(user: Path, start: list[str], path: str | None) -> None:
    pytest.importorskip("onnxruntime")
    (user / "onnxruntime.py").write_text("open('shadowed', 'w')\nraise ImportError('the wrong one')\n")
    (user / "x.onnx").write_bytes(b"x")
    (user / "link").symlink_to(user)
    environment = os.environ if path is None else os.environ | {"PYTHONPATH": path.format(user)}
    command = [sys.executable, *start, "predict", "--onnx", "x.onnx", "x.png"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "x.onnx is no file that" in done.stderr
    assert not (user / "shadowed").exists()


def test_names_that_the_terminal_cannot_show_are_shown_by_their_numbers(user: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "rlprune", "inspect", "--model", "no\u00e9:x"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 2 and b"UnicodeEncodeError" not in done.stderr and b"no\\xe9" in done.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nets:build", True),
        ("my_package.networks:Small", True),
        ("D:\\nets", False),
        ("C:/mine/nets.py:build", False),
        ("/mnt/shots/10:30", False),
        ("nets.py:build", False),
        ("../nets:build", False),
        ("D:", False),
        ("nets", False),
        ("nets:", False),
        ("http://x.org/pets.zip", False),
        ("s3://bucket/pets", False),
    ],
)
def test_what_is_no_module_is_not_imported(name: str, expected: bool) -> None:
    assert names_callable(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "../nets.py:small",
            r"names a file; name the module, without \.py: nets:small, with \.\. as the",
        ),
        ("C:\\work\\nets.py:build", r"without \.py: nets:build, with C:/work as the current folder or on PYTHONPATH"),
        ("nets.py:small", r"without \.py: nets:small, with its folder as the current folder"),
        ("D:\\nets", r"has not the form package\.module:callable; a path or a drive cannot be imported"),
    ],
)
def test_a_path_to_a_network_says_what_to_name(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name)
