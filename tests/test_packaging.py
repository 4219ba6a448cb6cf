from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"rlprune": "rlprune", "rlprune/envs": "envs", "rlprune/agents": "agents"}
"""Of the wheel, and where they are in the project."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that `pip wheel` builds, from a copy so that the checkout stays clean."""
    pytest.importorskip("setuptools", minversion="77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options], check=True, cwd=out, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_every_module_is_in_the_wheel_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    code = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    pages = {
        f"rlprune/{name}"
        for name in ("optimization/reports/page.css", "optimization/reports/page.html", "serving/page.html")
    }
    assert code == expected | pages | {"rlprune/py.typed", "rlprune/evaluation/style.mplstyle"}


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode().split() == ["[console_scripts]", "rlprune", "=", "rlprune.__main__:main"]


def test_the_metadata_are_those_of_the_installed_project(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    built, installed = message_from_bytes(wheel.read(name)), metadata("rlprune")
    for key in ("Name", "Version", "Requires-Python", "Requires-Dist", "Provides-Extra"):
        assert built.get_all(key) == installed.get_all(key)
    assert {"data", "demo", "onnx", "plots"} <= set(built.get_all("Provides-Extra", []))
