"""What the README says is true: its figures are the committed ones; its command and Python are run with the guide's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pages import ROOT, blocks, command_lines
from update_readme import updated

import rlprune

PATH = ROOT / "README.md"
README = PATH.read_text()


def test_it_is_short() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    assert len(README.encode()) <= 8192
    assert max(len(table.splitlines()) - 2 for table in tables) <= 8
    assert max(map(len, README.splitlines())) <= 170


def test_its_command_is_that_of_the_guide_which_is_run() -> None:
    assert command_lines(PATH) == command_lines(ROOT / "docs" / "start" / "optimize.md")[:1]
    assert len(blocks(PATH, "python")) == 2  # tests/docs/test_journey.py runs them, too


def test_its_screen_is_that_of_an_optimisation() -> None:
    shown = "\n".join(blocks(PATH, "text"))
    for title in ("yours (eager)", "yours (onnxruntime)", "static", "cascade", "rlprune"):
        assert re.search(rf"^ >? +{re.escape(title)} ", shown, re.MULTILINE), title
    assert shown.count("Goal reached: ") + shown.count("Goal not reached: ") == 1


def test_its_targets_of_make_are_there() -> None:
    named = set(re.findall(r"^make (\w+)", README, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", README))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "docs"} == named and named <= targets


def test_the_figures_are_the_committed_ones() -> None:
    assert updated(README) == README
    assert updated(README.replace("92.57", "99.99")) == README


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_runs(tmp_path: Path) -> None:
    options = "--data mnist5k --model digits_cnn --epochs 1 --no-flip --steps 2048 --candidates 8".split()
    script = str(ROOT / "examples" / "train_policy.py")
    subprocess.run([sys.executable, script, *options, "--out", str(tmp_path)], check=True, capture_output=True)
    assert rlprune.load(tmp_path / "bundle").classes == tuple("0123456789")


def test_what_is_cited_is_this_version() -> None:
    assert f"version: {rlprune.__version__}" in (ROOT / "CITATION.cff").read_text()
