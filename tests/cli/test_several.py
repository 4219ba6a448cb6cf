"""Verbs in two processes, as torchrun starts them: the first alone prints, and all get what one process gets."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from my_recipe import RECIPE
from nets import network
from pets import DATA, GATE, PRETRAIN, PRUNE
from ranks import ranks

from rlprune.cli import several
from rlprune.cli.main import main
from rlprune.cli.several import ProcessOptions, carry_out
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.models.weights import save_weights
from rlprune.profiles.search import Search, search_profiles
from rlprune.storage import folders

Said = tuple[int, str, str]


def said(root: Path, *arguments: str) -> Said:
    """Exit status of a verb in a folder, and what it prints to stdout and stderr."""
    os.chdir(root)
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            main([*arguments])
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), errors.getvalue()


def in_two(root: Path, tmp_path: Path, *arguments: str) -> Said:
    """The same, of the first of two processes; the second must say nothing, and end as the first does."""
    first, second = ranks(said, tmp_path, root, *arguments)
    assert second == (first[0], "", "")
    return first


def figures(path: Path) -> Any:
    """What a file of figures has, but for the date."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "date"}


def test_torchrun_measures_a_bundle_as_one_process_does(project: Path) -> None:
    verb = ("evaluate", "bundle", *DATA, "--n-candidates", "6", "--json")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rlprune")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*torchrun, *verb, "two.json"], cwd=project, env=environment, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("8 test images") == 1
    assert said(project, *verb, "one.json")[0] == 0
    assert figures(project / "two.json") == figures(project / "one.json")


@pytest.mark.parametrize(("verb", "kind"), [(GATE, "gated"), (PRUNE, "plain")])
def test_gates_and_pruned_networks_are_trained_and_shown(
    verb: tuple[str, ...], kind: str, project: Path, tmp_path: Path
) -> None:
    status, table, _ = in_two(project, tmp_path, *verb[:-1], kind)
    assert status == 0 and f"network is in {kind}; those figures are of the images for validation" in table
    assert folders.kind_of(project / kind) == kind
    assert not list(project.glob("*.checkpoint.*"))


def test_a_recipe_on_streamed_images_is_measured_as_by_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(elastic: ElasticCNN, images: ImageSet, _: int, *arguments: Any, **how: Any) -> Search:
        return search_profiles(elastic, images, 6, *arguments, **how)

    monkeypatch.setattr("rlprune.evaluation.controls.search_profiles", few)
    monkeypatch.setenv("RLPRUNE_MEMORY", "0")
    recipe = RECIPE.replace("rounds = 2", "rounds = 1").replace("penalties = [2]", "")
    recipe = recipe.replace("\nepochs = 1", "\nepochs = 1\nworkers = 0")
    (tmp_path / "recipe.toml").write_text(recipe + "[static]\nbudgets = [0.6]\n")
    for seed, name in ((3, "taught"), (4, "known")):
        save_weights(network("residual", seed=seed), tmp_path / f"{name}.safetensors")
    verb = ("run", "recipe.toml", "--out", "run")
    status, steps, _ = in_two(tmp_path, tmp_path, *verb)
    assert status == 0 and "evaluate ..." in steps
    assert (tmp_path / "run" / "teacher" / "logits-000000.npy").exists()
    results = tmp_path / "run" / "results.json"
    two = json.loads(results.read_text())
    results.unlink()
    monkeypatch.delenv("RLPRUNE_MEMORY")
    assert said(tmp_path, *verb)[0] == 0  # which measures again
    one = json.loads(results.read_text())
    for penalty in (*one["budgets"], *two["budgets"]):
        del penalty["date"]
    assert one == two


@dataclass(frozen=True)
class Verb:
    """Fails until it is resumed."""

    out: Path
    resume: bool = False
    device: str = "cpu"
    several: ProcessOptions = field(default_factory=ProcessOptions)

    def run(self) -> None:
        print("at work", self.several.processes)
        print("a note", file=sys.stderr)
        if not self.resume:
            raise RuntimeError("killed")


def test_what_ray_starts_again_resumes_and_says_what_one_process_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_on(function: Any, arguments: dict[str, Any], folder: Path, **how: Any) -> None:
        assert how == {"n_workers": 2, "address": "head:1", "gpus": False} and folder.parent == tmp_path
        with pytest.raises(RuntimeError, match="killed"):
            function(**arguments)
        function(**arguments)

    monkeypatch.setattr(several, "train_on", train_on)
    monkeypatch.setattr(several, "check_answers", lambda address: None)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    carry_out(Verb(Path("made.x"), several=ProcessOptions(processes=2, cluster="head:1")))
    printed = capsys.readouterr()
    assert printed.out == "at work 1\n" * 2
    assert printed.err == "a note\nrlprune: a process was lost; all go on from the last checkpoint\na note\n"
    assert not list(tmp_path.iterdir())


def test_where_ray_cannot_start_processes_that_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = (*PRETRAIN, "--processes", "2")
    line = "rlprune: error: torchrun has started this process, and Ray would start others; use one of the two\n"
    assert in_two(tmp_path, tmp_path, *verb) == (2, "", line)
    monkeypatch.setitem(sys.modules, "ray.train", None)
    status, out, errors = said(tmp_path, *verb)
    assert (status, out, errors.count("\n")) == (2, "", 1) and "rlprune[cluster]" in errors
    status, _, errors = said(tmp_path, *PRETRAIN, "--cluster", "127.0.0.1:1")
    assert status == 2 and "Ray at '127.0.0.1:1' does not answer" in errors
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".pt"]
