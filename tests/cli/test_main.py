"""What the verbs make of one another, and what their help says."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pets import ADAPT, DATA, EXPORT, GATE, MODEL, PRETRAIN, PRUNE, run_json, scalars
from PIL import Image

import rlprune
from rlprune.agents.settings import PolicySettings
from rlprune.agents.tracking import NETWORK_TAGS
from rlprune.baselines.gate_training import GateSettings
from rlprune.baselines.static_pruning import StaticSettings
from rlprune.cli import main as main_module
from rlprune.cli import resumable
from rlprune.cli.main import main
from rlprune.cli.options import LatencyOptions, NetworkOptions, PriceOptions, TeacherOptions
from rlprune.cli.several import ProcessOptions
from rlprune.cluster.replicas import Replicas
from rlprune.evaluation.results import BundleResult
from rlprune.intake.options import DataOptions, ElasticOptions
from rlprune.pipelines.comparison import CompareSettings
from rlprune.serving.limits import Limits
from rlprune.storage.bundle import save_dynamic
from rlprune.storage.networks import load_network
from rlprune.training.adaptation import AdaptSettings
from rlprune.training.settings import TrainingSettings
from rlprune.utils import tensorboard

VERBS = (
    *("inspect", "pretrain", "adapt", "train", "gate", "prune"),
    *("evaluate", "export", "predict", "serve", "bench", "compare", "run", "demo"),
)
SETTINGS = {"Pretrain": TrainingSettings, "Prune": StaticSettings, "Adapt": AdaptSettings, "Gate": GateSettings}
SETTINGS |= {"Compare": CompareSettings}


def test_training_leaves_results_and_events_but_no_checkpoints_of_networks(project: Path) -> None:
    assert not list(project.glob("*.checkpoint.pt"))
    assert {"pretrain/loss", "pretrain/accuracy", "pretrain/learning_rate"} <= scalars(project / "logs" / "pretrain")
    assert {"adapt/loss", "adapt/largest", "adapt/smallest"} <= scalars(project / "logs" / "adapt")
    assert "validation/accuracy" in scalars(project / "run")
    found = scalars(project / "logs" / "pretrain") | scalars(project / "logs" / "adapt")
    assert [name for name in found if sum(tag.fits(name, "scalar") for tag in NETWORK_TAGS) != 1] == []


def test_the_bundle_knows_where_it_comes_from(project: Path) -> None:
    dynamic = rlprune.load(project / "bundle")
    assert dynamic.classes == ("cat", "dog") and 1 <= len(dynamic.codebook) <= 3
    assert json.loads((project / "run" / "codebook.json").read_text()) == dynamic.codebook.tolist()
    source = {"data": "pets", "image_size": None, "image_column": None, "label_column": None, "split_seed": 0}
    source |= {"shares": None}
    assert dynamic.metadata["network"] == {"model": "tinynet.nets:small", "source": source}
    assert dynamic.metadata["penalty"] == dynamic.metadata["policy"]["settings"]["penalty"] == 0.3


def test_inspect_lists_every_group(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", *MODEL, "--image-shape", "3", "8", "8"])
    text = capsys.readouterr().out
    assert "2 channel groups" in text and "left alone" in text
    assert all(group.name in text for group in rlprune.load(project / "bundle").elastic.groups)


def test_evaluate_measures_a_bundle(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(project, "evaluate", "bundle", *DATA, "--n-candidates", "6")
    assert results["n_images"] == 8
    assert results["controls"].keys() == {"uniform", "random", "best_static", "shuffled", "cascade", "oracle"}
    keys = {"accuracy", "dense_accuracy", "macs_cut", "params_cut", "distinct_profiles", "mean_passes"}
    assert keys <= results.keys()
    assert f"{100 * results['accuracy']:.2f}" in capsys.readouterr().out


def test_evaluate_says_when_the_network_has_seen_the_images_that_choose(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dynamic = rlprune.load(project / "bundle")
    save_dynamic(project / "refitted", dynamic, dynamic.metadata | {"refitted": True})
    run_json(project, "evaluate", "refitted", *DATA, "--n-candidates", "6")
    assert "after its policy was learnt (refit): static profiles and the margins" in capsys.readouterr().err
    run_json(project, "evaluate", "bundle", *DATA, "--n-candidates", "6")
    assert "refit" not in capsys.readouterr().err


def test_evaluate_says_when_the_policy_is_the_cascade_that_it_began_as(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dynamic = rlprune.load(project / "bundle")
    for kept, told in (("cascade", True), ("learnt", False)):
        notes = {"policy": dynamic.metadata["policy"] | {"choice": {"kept": kept}}}
        save_dynamic(project / f"kept-{kept}", dynamic, dynamic.metadata | notes)
        run_json(project, "evaluate", f"kept-{kept}", *DATA, "--n-candidates", "6")
        assert ("decides as the tuned cascade that it began as" in capsys.readouterr().err) is told


def test_evaluate_leaves_the_controls_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = run_json(project, "evaluate", "bundle", *DATA, "--no-controls", "--device", "cpu:0")
    said = capsys.readouterr()
    assert "controls" not in said.out.lower() and "search" not in said.err
    found = run_json(project, "evaluate", "bundle", *DATA, "--n-candidates", "6")
    without = {"controls", "controls_macs_cut", "frontier", "decisions", "n_candidates", "seed"}
    assert {name: value for name, value in found.items() if name not in without} == alone
    assert BundleResult.from_json(alone).to_json() == alone


def test_evaluate_measures_an_ordinary_network(project: Path) -> None:
    arguments = ("evaluate", *MODEL, *DATA, "--weights", "dense.safetensors")
    results = run_json(project, *arguments)
    beside = run_json(project, "evaluate", "bundle", *arguments[1:], "--n-candidates", "6")
    assert results["macs_cut"] == 0 and results["controls"] == {}
    assert results["accuracy"] == results["dense_accuracy"] == beside["dense_accuracy"]


def test_gates_are_trained_and_measured(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*GATE, "--out", "gated"])
    assert "saves no time" in " ".join(capsys.readouterr().out.split())  # the caption may wrap anywhere
    assert {"gates/loss", "gates/density"} <= scalars(project / "logs" / "gates")
    results = run_json(project, "evaluate", "gated", *DATA)
    assert results["n_images"] == 8 and len(results["layers"]) == 2
    assert results["layers"][0]["by_class"].keys() == {"cat", "dog"}
    dense = run_json(project, "evaluate", *MODEL, *DATA, "--weights", "dense.safetensors")
    assert results["dense_accuracy"] == dense["accuracy"]
    alone = run_json(project, "evaluate", "gated", *DATA, "--no-controls")
    assert alone == results | {"controls": {}, "controls_macs_cut": {}}
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "gated", *DATA, "--budget", "0.5"])
    assert "--budget and --penalty are for bundles; gated holds a gated network" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["searched", "unstructured"])
def test_a_network_is_pruned_once_and_for_all(how: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*PRUNE[:-1], how, "--how", how, "--budget", "0.6"])
    assert ("saves no time" in " ".join(capsys.readouterr().out.split())) == (how == "unstructured")
    results = run_json(project, "evaluate", how, *DATA)
    assert results["n_images"] == 8 and results["how"] == how
    assert (results["macs_cut"] >= 0.4) == results["saves_time"] == (how == "searched")
    assert results["zeros"] == pytest.approx(0.4 if how == "unstructured" else 0, abs=0.01)


def test_ways_of_deciding_are_compared(project: Path) -> None:
    quick = ("--training.epochs", "1", "--policy.total-steps", "64", "--policy.n-envs", "8", "--policy.n-steps", "4")
    quick += ("--policy.batch-size", "8", "--seconds", "0", "--n-candidates", "6", "--n-profiles", "2")
    some = ("--methods", "rl progressive", "threshold", "--penalties", "0.1")
    main(["compare", "--network", "network", *DATA, "--out", "compared", *quick, *some])
    results = json.loads((project / "compared" / "results.json").read_text())
    assert {row["method"] for row in results["rows"]} == {"rl progressive", "threshold"}
    assert (project / "compared" / "compare.png").exists()


def test_students_learn_from_the_teachers_that_are_named(project: Path) -> None:
    def trained(out: str, *options: str) -> bytes:
        main([*PRETRAIN[:-1], out, *options])
        return (project / out).read_bytes()

    small, file = "tinynet.nets:small", "dense.safetensors"
    alone = trained("alone.safetensors")
    one = trained("one.safetensors", "--teacher", small, "--teacher-weights", file)
    two = trained("two.safetensors", "--teacher", small, small, "--teacher-weights", file, file)
    assert alone not in (one, two)
    main([*ADAPT[:-1], "taught", "--teacher", small, "--teacher-weights", file])
    assert (project / "taught" / "manifest.json").exists()


def test_predict_says_class_and_cost_of_each_image(project: Path) -> None:
    files = ["pets/cat/0.png", "pets/dog/0.png", "large[1].png"]
    Image.new("L", (30, 20), 255).save(project / files[2])
    rows = run_json(project, "predict", "bundle", *files)
    assert [row["image"] for row in rows] == files
    assert all(row.keys() == {"image", "class", "probability", "passes", "keep_ratio", "macs_share"} for row in rows)
    assert all(row["class"] in ("cat", "dog") and 0.5 <= row["probability"] <= 1 for row in rows)


def test_an_interrupted_verb_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [*PRETRAIN[:-1], "again.safetensors", "--epochs", "2"]
    scalar_log = tensorboard.scalar_log

    def interrupting(*where: Any) -> Any:
        def stop(n_images: int, figures: dict[str, float]) -> None:
            scalar_log(*where)(n_images, figures)
            if n_images > 22:
                raise KeyboardInterrupt

        return stop

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(resumable, "scalar_log", interrupting)
        main(twice)
    assert (project / "again.safetensors.checkpoint.pt").exists()
    with pytest.raises(SystemExit, match="2"):
        main(twice)
    with pytest.raises(SystemExit, match="2"):
        main([*twice, "--resume", "--split-seed", "1"])
    assert (
        "was made under other settings (split_seed: 0, now 1); go back to those, which again.safetensors.chec"
        in capsys.readouterr().err
    )
    main([*twice, "--resume"])
    assert not list(project.glob("again.safetensors.*"))
    once = [*PRETRAIN[:-1], "once.safetensors", "--epochs", "2"]
    main(once)
    assert (project / "again.safetensors").read_bytes() == (project / "once.safetensors").read_bytes()


def test_a_network_and_a_policy_out_of_a_bundle_make_the_same_bundle(project: Path) -> None:
    main(["export", "--network", "bundle", "--policy", "bundle", "--out", "copy"])
    for name in ("manifest.json", "network.safetensors", "policy.json", "policy.safetensors"):
        assert (project / "copy" / name).read_bytes() == (project / "bundle" / name).read_bytes()


def test_int8_is_exported_beside_the_rest(project: Path) -> None:
    pytest.importorskip("onnxscript")
    main([*EXPORT[:-1], "small", "--int8", *DATA])
    found = run_json(project, "predict", "--onnx", "small/dynamic.int8.onnx", "pets/cat/0.png", "pets/dog/0.png")
    assert [row["class"] in ("cat", "dog") for row in found] == [True, True]
    assert not (project / "small" / "dynamic.onnx").exists()


def test_adapt_measures_which_widths_run_well(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("rlprune.evaluation.timing.backends.measured_step", lambda _, **how: asked.append(how) or 4)
    before = {path.name for path in project.iterdir()}
    main([*ADAPT[:-1], "rounded", "--round-to", "auto", "--latency-batch", "2", "--latency-threads", "1"])
    assert [(how["batch"], how["threads"], how["backend"].name) for how in asked] == [(2, 1, "pytorch")]
    assert load_network(project / "rounded").network.round_to == 4
    assert {path.name for path in project.iterdir()} - before <= {"rounded", "logs", ".rounded.lock"}


GROUPS = {
    "source": DataOptions,
    "elastic": ElasticOptions,
    "network": NetworkOptions,
    "price": PriceOptions,
    "teaching": TeacherOptions,
    "limits": Limits,
    "scale": Replicas,
    "latency": LatencyOptions,
    "several": ProcessOptions,
}
"""Fields of verbs that are options themselves; a network may be a file, too."""


def options(kind: Any) -> list[str]:
    """The options that the fields of a verb become."""
    found: list[str] = []
    for one in dataclasses.fields(kind):
        name = one.name.replace("_", "-")
        if one.name in {*GROUPS, "settings"} - {"network"} or "NetworkOptions" in str(one.type):
            found += options(GROUPS.get(one.name, SETTINGS.get(kind.__name__, PolicySettings)))
        elif "Positional" in str(one.type):
            found.append(name.upper())
        else:
            found.append(f"--{name}")
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    text = capsys.readouterr().out
    named = [
        name for name in options(main_module.RunRecipe if verb == "run" else getattr(main_module, verb.capitalize()))
    ]
    assert len(named) >= 2
    assert [name for name in named if not re.search(rf"(?<![\w-]){name}\b", text)] == []


def test_it_is_a_module_too(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "rlprune", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert [verb for verb in VERBS if verb not in done.stdout] == []
