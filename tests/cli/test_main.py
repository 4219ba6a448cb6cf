from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlprune
from rlprune import data
from rlprune.agents.settings import PolicySettings
from rlprune.agents.tracking import NETWORK_TAGS
from rlprune.baselines.gate_training import GateSettings
from rlprune.baselines.static_pruning import StaticSettings
from rlprune.cli import main as main_module
from rlprune.cli import resumable
from rlprune.cli.main import main
from rlprune.cli.options import NetworkOptions, PriceOptions, TeacherOptions
from rlprune.evaluation.results import BundleResult
from rlprune.evaluation.runners import default_rows
from rlprune.intake.options import DataOptions, ElasticOptions
from rlprune.pipelines.comparison import CompareSettings
from rlprune.serving.limits import Limits
from rlprune.storage.bundle import save_dynamic
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import AdaptSettings
from rlprune.training.settings import TrainingSettings
from rlprune.utils import tensorboard

NETWORK = """
from torch import nn

def small(n_classes=2, channels=3):
    def block(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, n_classes)
    return nn.Sequential(block(channels, 8), block(8, 16), block(16, 16), *head)

def three_classes():
    return small(3)

def grey():
    return small(2, 1)
"""
VERBS = (
    *("inspect", "pretrain", "adapt", "train", "gate", "prune"),
    *("evaluate", "export", "predict", "serve", "bench", "compare", "run", "demo"),
)
SETTINGS = {"Pretrain": TrainingSettings, "Prune": StaticSettings, "Adapt": AdaptSettings, "Gate": GateSettings}
SETTINGS |= {"Compare": CompareSettings}
CALLBACK = """
from pathlib import Path
from stable_baselines3.common.callbacks import BaseCallback

class Counting(BaseCallback):
    def _on_step(self):
        Path("counted.txt").write_text(str(self.n_calls))
        return True
"""
MODEL = ("--model", "tinynet.nets:small")
DATA = ("--data", "pets")
ONE_EPOCH = ("--epochs", "1", "--batch-size", "8", "--padding", "1", "--bf16", "False", "--no-channels-last")
PRETRAIN = ("pretrain", *MODEL, *DATA, *ONE_EPOCH, "--out", "dense.safetensors")
ADAPT = ("adapt", *MODEL, *DATA, *ONE_EPOCH, "--weights", "dense.safetensors", "--out", "network")
LEARN = ("--total-steps", "64", "--n-envs", "8", "--n-steps", "4", "--batch-size", "8", "--validate-every", "32")
TRAIN = ("train", "--network", "network", *DATA, "--n-candidates", "6", "--n-profiles", "3", *LEARN, "--out", "run")
GATE = ("gate", *MODEL, *DATA, *ONE_EPOCH, "--weights", "dense.safetensors", "--out", "x")
PRUNE = ("prune", "--network", "network", *DATA, *ONE_EPOCH, "--n-candidates", "6", "--out", "x")
NEW = (*TRAIN[:-1], "new")
# Rows of onnxruntime are exported first, which takes seconds.
QUICK_ROWS = ("--rows", "dense", "dynamic", "--seconds", "0")
EXPORT = ("export", "--network", "network", "--policy", "run", "--out", "bundle")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every verb up to `export` was run: twenty dark cats, twenty bright dogs, a tiny network."""
    root = tmp_path_factory.mktemp("project")
    (root / "tinynet").mkdir()
    (root / "tinynet" / "nets.py").write_text(NETWORK)
    generator = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 128)):
        (root / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pets" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RLPRUNE_DATA", raising=False)
        patch.chdir(root)
        patch.syspath_prepend(root)  # also puts sys.path back, which every main() adds to
        for arguments in (PRETRAIN, ADAPT, TRAIN, EXPORT):
            main([*arguments])
        yield root


def run_json(root: Path, *arguments: str) -> Any:
    main([*arguments, "--json", "figures.json"])
    return json.loads((root / "figures.json").read_text())


def scalars(folder: Path) -> set[str]:
    return set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])


def content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


# Verbs


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


def test_a_policy_for_a_range_of_penalties_is_measured_at_any_of_them(project: Path) -> None:
    main([*NEW[:-1], "ranged", "--penalty-range", "0.01", "1"])
    main([*EXPORT[:-3], "ranged", "--out", "ranged-bundle", "--onnx", "--penalty", "0.5", "--triton", "models"])
    model = project / "models" / "rlprune" / "1" / "model.onnx"
    assert model.read_bytes() == (project / "ranged-bundle" / "dynamic.onnx").read_bytes()
    assert rlprune.load(project / "ranged-bundle").metadata["penalty"] == [0.01, 1.0]
    results = [
        run_json(project, "evaluate", "ranged-bundle", *DATA, "--n-candidates", "6", *price)
        for price in (("--penalty", "1"), (), ("--penalty", "0.01"))
    ]
    assert [figures["penalty"] for figures in results] == pytest.approx([1.0, 0.1, 0.01])
    assert results[0]["macs_cut"] >= results[1]["macs_cut"] >= results[2]["macs_cut"]
    _, most = rlprune.load(project / "ranged-bundle").source_policy.limits
    rows = run_json(project, "predict", "ranged-bundle", "pets/cat/0.png", "--budget", str(most))
    assert 0 < rows[0]["macs_share"]
    least, dear = (
        run_json(project, "bench", "ranged-bundle", *DATA, *QUICK_ROWS, "--batch", "4", "--penalty", penalty)
        for penalty in ("1", "0.01")
    )
    assert least["macs_ratio"]["4"] >= dear["macs_ratio"]["4"]


def test_predict_says_class_and_cost_of_each_image(project: Path) -> None:
    files = ["pets/cat/0.png", "pets/dog/0.png", "large[1].png"]
    Image.new("L", (30, 20), 255).save(project / files[2])
    rows = run_json(project, "predict", "bundle", *files)
    assert [row["image"] for row in rows] == files
    assert all(row.keys() == {"image", "class", "probability", "passes", "keep_ratio", "macs_share"} for row in rows)
    assert all(row["class"] in ("cat", "dog") and 0.5 <= row["probability"] <= 1 for row in rows)


def test_bench_times_a_bundle(project: Path) -> None:
    results = run_json(project, "bench", "bundle", "--batch", "1", "4", "--seconds", "0")
    assert [(row["name"], row["batch"]) for row in results["rows"]] == [
        (name, batch) for batch in (1, 4) for name in default_rows()
    ]
    assert results["speedup_overall"].keys() == results["speedup"].keys()
    assert results["speedup"]["dynamic"].keys() == results["macs_ratio"].keys() == {"1", "4"}


def test_bench_lets_callers_share_buckets(project: Path) -> None:
    bench = ("bench", "bundle", *DATA, "--callers", "3", "--batch", "2", "--max-wait-ms", "1", "--seconds", "0")
    results = run_json(project, *bench)
    assert [row["name"] for row in results["rows"]] == ["dense", "dynamic"]
    assert (results["callers"], results["max_batch"], results["max_wait_ms"]) == (3, 2, 1.0)


def test_bench_says_where_the_time_goes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(project, "bench", "bundle", *DATA, "--profile", "--batch", "1", "4", "--seconds", "0")
    assert [row["batch"] for row in results["rows"]] == [1, 4]
    assert "normalise" in capsys.readouterr().out


def test_bench_draws_accuracy_against_time(project: Path) -> None:
    main([*PRUNE[:-1], "pruned", "--how", "uniform", "--budget", "0.6"])
    rows = ("--rows", "dense", "cascade", "dynamic", "--static", "pruned", "--plot", "time.png")
    results = run_json(project, "bench", "bundle", *DATA, *rows, "--batch", "1", "--seconds", "0")
    found = {row["name"]: row for row in results["rows"]} | (results.get("left_out") or {})
    assert {*found} == {"dense", "cascade", "dynamic", "static pruned", "static pruned onnxruntime"}
    evaluated = run_json(project, "evaluate", "bundle", *DATA, "--no-controls")
    assert found["dynamic"]["accuracy"] == evaluated["accuracy"]
    assert found["dense"]["accuracy"] == evaluated["dense_accuracy"]
    with Image.open(project / "time.png") as picture:
        assert picture.format == "PNG"


def test_bench_times_the_environment(project: Path) -> None:
    results = run_json(project, "bench", "env", *MODEL, *DATA, "--batch", "4", "--seconds", "0")
    assert [row["name"] for row in results["rows"]] == ["masked_forward", "vec_env", "dummy_vec_env", "remembered"]


def test_bench_times_adaptation(project: Path) -> None:
    results = run_json(project, "bench", "adapt", *MODEL, *DATA, "--batch", "4", "--seconds", "0")
    assert [row["name"] for row in results["rows"]] == [f"keep ratio {ratio}" for ratio in ("1", "0.75", "0.5", "0.25")]


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


def test_bench_without_its_data_times_on_noise_and_says_so(
    project: Path, apart: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlprune.data.loading.load", lambda *_, **__: pytest.fail("what the notes name was loaded"))
    bench = ["bench", str(project / "bundle"), "--batch", "2", "--seconds", "0", "--rows", "dense", "dynamic"]
    main([*bench, "--json", "figures.json"])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("rlprune: timing on noise;") and "--data" in said and said.endswith("which it calls 'pets'")
    assert json.loads(Path("figures.json").read_text())["macs_ratio"].keys() == {"2"}


def test_train_starts_from_another_run_with_its_codebook(project: Path) -> None:
    main([*NEW[:-1], "lower", "--start", "run", "--penalty", "0.1", "--n-candidates", "2"])
    books = [(project / name / "codebook.json").read_text() for name in ("run", "lower")]
    assert books[0] == books[1]
    main([*NEW[:-1], "lower", "--start", "run", "--penalty", "0.1", "--n-candidates", "2", "--extend", "32"])
    assert load_policy(project / "lower" / "policy").metadata["steps"] == 96


def test_train_takes_the_codebook_of_a_network_that_is_specialised_to_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_network(project / "network")
    book = torch.stack([saved.network.uniform(level) for level in (1, 2, 4)])
    saved.network.specialise(book)
    save_network(project / "specialised", saved.network, data.load("pets").network, saved.metadata)
    main([*TRAIN[:1], "--network", "specialised", *TRAIN[3:-1], "own"])
    assert json.loads((project / "own" / "codebook.json").read_text()) == book.tolist()
    with pytest.raises(SystemExit, match="2"):
        main([*TRAIN[:1], "--network", "specialised", *TRAIN[3:-1], "other", "--start", "run"])
    assert "another codebook than the network is specialised to" in " ".join(capsys.readouterr().err.split())


def test_train_takes_another_algorithm_with_objects_by_their_names(project: Path) -> None:
    (project / "counting.py").write_text(CALLBACK)
    arguments = ("--arguments", '{"buffer_size": 40}', "--policy-kwargs", '{"activation_fn": "Tanh"}')
    call = [*NEW[:-1], "dqn", "--algorithm", "dqn", *arguments, "--callbacks", "counting:Counting"]
    main(call)
    before = (project / "dqn" / "policy" / "manifest.json").read_bytes()
    main([*call, "--resume"])
    notes = json.loads((project / "dqn" / "settings.json").read_text())
    assert notes["algorithm"] == "dqn" and "Tanh" in notes["arguments"]
    assert (project / "dqn" / "policy" / "manifest.json").read_bytes() == before
    assert (project / "counted.txt").read_text() == "8"


def test_train_does_not_start_from_what_is_not_there(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--start", "nothing"])
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--extend", "9"])
    with pytest.raises(SystemExit, match="2"):
        main([*NEW[:-1], "begun", "--track", "mlflow"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "rror" in line]
    assert len(lines) == 3 and "nothing/policy" in lines[0]
    assert lines[1] == "rlprune: error: --extend=9: begun has no run that could be extended; train one there first"
    assert lines[2].endswith("'mlflow', which is not installed; install it with: pip install 'rlprune[mlflow]'")
    assert not (project / "begun").exists()


# Help


def options(kind: Any) -> list[str]:
    """The options that the fields of a verb become."""
    found: list[str] = []
    for one in dataclasses.fields(kind):
        name = one.name.replace("_", "-")
        if one.name in ("source", "elastic", "settings", "price", "teaching", "limits") or "NetworkOptions" in str(
            one.type
        ):
            known = {"source": DataOptions, "elastic": ElasticOptions, "network": NetworkOptions, "price": PriceOptions}
            inner = (known | {"teaching": TeacherOptions, "limits": Limits}).get(one.name)
            found += options(inner or SETTINGS.get(kind.__name__, PolicySettings))
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


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "--model", "resnet21"), "there is no network called 'resnet21'; choose one of resnet20"),
        (
            ("inspect", *MODEL, "--keep-ratios", "0.5", "0.2", "1"),
            r"--keep-ratios=\(0\.5, 0\.2, 1\.0\): give two or more numbers of 0",
        ),
        (("inspect", *MODEL, "--importance", "l3"), "importance 'l3' is unknown; allowed: l1, l2, bn_scale"),
        (
            (*PRETRAIN, "--momentum", "1"),
            r"--momentum=1\.0: give a number of 0 or more, below 1",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--teacher", "tinynet.nets:small"),
            "--teacher names 1 networks and --teacher-weights 0 files; give",
        ),
        (("adapt", "--model", "resnet2", *DATA, "--out", "x"), "there is no network called 'resnet2'; choose one of"),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--weights", "none.pt"),
            r"there is no weights file none\.pt; give a \.safetensors",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--data", "../no where"),
            r"there is nothing at '\.\./no where'; give a name",
        ),
        (("adapt", "--model", "resnet20", *DATA, "--out", "x"), "--weights is missing: resnet20 alone has random"),
        (
            (*ADAPT[:-1], "x", "--weights", "pets/cat/0.png"),
            r"pets/cat/0\.png cannot be read: it is damaged or needs pickle",
        ),
        ((*ADAPT, "--out", "pets"), "pets exists and is no folder that rlprune wrote; name another one"),
        (TRAIN, r"run/checkpoint\.zip is from an earlier run; resume it, or name another folder"),
        ((*TRAIN, "--resume", "--penalty", "9"), r"made under other settings \(penalty: 0\.3, now 9\.0\)"),
        ((*TRAIN, "--resume", "--n-candidates", "9"), r"codebook\.json was made under .*n_candidates: 6, now 9\); go"),
        ((*TRAIN, "--ppo", "{clip}"), r"--ppo is '{clip}', which is no JSON"),
        ((*TRAIN, "--ppo", "[1]"), r"--ppo is '\[1\]'; a JSON object is needed"),
        ((*TRAIN, "--out", "new", "--ppo", '{"clip": 1}'), "PPO has no argument 'clip'; allowed: learning_rate"),
        ((*PRETRAIN, "--out", "x.pt"), "--out is x.pt; weights are written as safetensors"),
        ((*ADAPT, "--out", "bundle"), "bundle holds a bundle, which a network would replace"),
        ((*TRAIN, "--out", "new", "--n-profiles", "17"), "--n-profiles is 17; 1 to 16 are allowed"),
        ((*TRAIN, "--out", "new", "--cost", "time"), "--cost='time': give one of params, macs, latency"),
        (
            (*TRAIN, "--out", "new", "--network", "run/policy"),
            "run/policy holds a policy; a network or bundle is needed",
        ),
        ((*NEW, "--penalty-range", "1", "0.1"), r"--penalty-range=\(1\.0, 0\.1\): give two numbers above 0, ascending"),
        (
            ("evaluate", "bundle", *DATA, "--budget", "0.4"),
            r"budget=0\.4 cannot be chosen: it was trained for a single",
        ),
        (("predict", "bundle", "pets/cat/0.png", "--penalty", "1"), r"penalty=1\.0 cannot be chosen: it was trained"),
        (("predict", "--onnx", "x.onnx", "x.png", "--penalty", "0.4"), r"x\.onnx decides at the price that it was exp"),
        (
            (*EXPORT, "--budget", "0.4"),
            "--budget and --penalty are for files of ONNX; a bundle takes any, from call to call",
        ),
        ((*EXPORT, "--int8"), "--int8 needs images to calibrate on: name what the network was adapted to with --data"),
        ((*EXPORT, "--int8", "--data", "mnist5k"), r"takes images of shape \(3, 8, 8\) in 2 classes, mnist5k has"),
        (("gate", "--model", "resnet20", *DATA, "--out", "x"), "--weights is missing: resnet20 alone has random"),
        ((*GATE, "--density", "2"), r"--density=2\.0: give a number above 0, below 1, or None"),
        ((*GATE, "--kind", "branches"), "this network has no branch that gates could skip"),
        ((*GATE, "--out", "bundle"), "bundle holds a bundle, which a gated would replace"),
        (("bench", "bundle", "--plot", "x.png"), "--plot needs labelled images; name the bundle's with --data"),
        (("bench", "bundle", *DATA, "--plot", "x.pdf"), r"plot=x\.pdf: pictures are PNG; give a name that ends in"),
        (("bench", "bundle", "--static", "x"), "--static needs labelled images; name the bundle's with --data"),
        (("bench", "bundle", *DATA, "--static", "bundle"), "bundle holds a bundle"),
        (("bench", "bundle", "--rows", "cascade"), "the row cascade needs images that do not test; name the bundle's"),
        (("bench", "bundle", "--profile", "--rows", "dense"), "give only one of --rows and --profile"),
        (("bench", "bundle", *DATA, "--profile", "--plot", "x.png"), "give only one of --plot and --profile"),
        (("bench", "env", *MODEL, "--profile"), "--profile is for bundles; env has rows alone"),
        (("bench", "env", *MODEL, "--plot", "x.png"), "--plot is for bundles; env has rows of its own"),
        (("bench", "env", *MODEL, *DATA, "--penalty", "1"), "--budget and --penalty are for bundles; env times no pol"),
        ((*PRUNE, "--budget", "0.01"), r"budget 0\.01 is below the cheapest profile found, which costs"),
        (
            (*PRUNE, "--budget", "2", "--how", "global"),
            r"--budget=2\.0: give a number above 0, up to 1",
        ),
        ((*PRUNE, "--budget", "0", "--how", "unstructured"), r"--budget=0\.0: give a number above 0, up to 1"),
        ((*EXPORT, *DATA), "--data is for --int8, whose calibration images it names"),
        (("evaluate", *DATA), "nothing to evaluate: name a bundle, or a network with --model and --weights"),
        (("evaluate", "pets", *DATA), r"pets/manifest\.json cannot be read \(No such file"),
        (
            ("evaluate", "bundle", "--data", "mnist5k"),
            r"takes images of shape \(3, 8, 8\) in 2 classes, mnist5k has \(1, 28, 28\) in 10; use the data that",
        ),
        (("evaluate", "bundle", *DATA, "--image-size", "9"), r"\(3, 8, 8\) in 2 classes, pets has \(3, 9, 9\) in 2;"),
        ((*NEW, "--image-size", "9"), r"\(3, 8, 8\) in 2 classes, pets has \(3, 9, 9\) in 2;"),
        (("evaluate", "bundle", *DATA, "--split-seed", "3"), "split of seed 0; with --split-seed 3 some of its train"),
        ((*NEW, "--split-seed", "3"), "split of seed 0; with --split-seed 3 some of its training images"),
        (
            (*PRETRAIN, "--data", "no where"),
            r"dense\.safetensors exists and is finished; name another --out, or remove it",
        ),
        ((*PRETRAIN, "--split-seed", "-1"), "--split-seed=-1: give a whole number of 0 or more"),
        ((*NEW, "--pool", "-1"), "--pool=-1: give a whole number of 0 or more"),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--model", "tinynet.nets:three_classes"),
            r"the network gives \(1, 3\) for one image; logits of shape \(1, 2\) are needed",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--model", "tinynet.nets:grey"),
            r"the network fails on an image of shape \(3, 8, 8\): .*channels",
        ),
        (
            (*ADAPT[:-1], "x", "--model", "tinynet.nets:three_classes", "--weights", "dense.safetensors"),
            r"dense\.safetensors is for 2 classes and not for 3 \(5\.weight is its last layer\): train a new one with",
        ),
        (("export", "--network", "network", "--policy", "none", "--out", "x"), r"none/manifest\.json cannot be read"),
        (
            ("predict", "bundle", "pets/cat/none.png"),
            r"pets/cat/none\.png cannot be read as an image \(No such file or directory\);",
        ),
        (("predict", "bundle"), "there are no images; name at least one file"),
        (
            ("bench", "bundle", *DATA, "--batch", "0"),
            r"--batch=\(0,\): give a list, each entry a whole number of 1 or more",
        ),
        (("bench", "bundle", *DATA, "--batch", "9"), r"batch sizes are \[9\]; from 1 to 8"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = content(project)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and re.search(f"^rlprune: error: .*{message}", lines[0]), lines
    assert content(project) == before


def test_every_wrong_option_has_a_line_that_names_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("compare", "--network", "network", "--out", "x", *DATA)
    for arguments, expected in (
        (
            (*PRETRAIN, "--epochs", "-1", "--warm-up=2"),
            ["--epochs=-1: give a whole number of 0 or more", "--warm-up=2.0: give a number of 0 or more, below 1"],
        ),
        ((*PRETRAIN, "--learning-rate", "nan"), ["--learning-rate=nan: give a number above 0, and finite"]),
        ((*compare, "--training.epochs", "-1"), ["--training.epochs=-1: give a whole number of 0 or more"]),
        (
            (*ADAPT, "--int8", "--bf16", "True"),
            ["--int8=True and --bf16=True round to different numbers; give only one"],
        ),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments])
        assert capsys.readouterr().err.splitlines() == [f"rlprune: error: {line}" for line in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pretrain", *MODEL, *DATA, "--out", "x", "--epochs", "many"), "many"),
        (("pretrain", *DATA, "--out", "x"), "--model"),
        (("bench", "bundle", "--seconds", "soon"), "soon"),
        (("train", "--action", "widths"), "widths"),
        (("prune",), "prune"),
    ],
)
def test_options_of_a_wrong_type_are_named(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    text = capsys.readouterr().err
    assert message in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*NEW, "--ppo", '{"ent_coef": "x"}'), r"Stable-Baselines3's PPO cannot train with {'ent_coef': 'x'}: "),
        (
            (*PRETRAIN, "--out", "odd.safetensors", "--resume"),
            r"odd\.safetensors\.checkpoint\.pt is damaged or no checkpoint; remove it to start",
        ),
        ((*ADAPT, "--out", "odd", "--resume"), r"odd\.checkpoint\.pt is damaged or no checkpoint; remove it to start"),
        (
            (*PRETRAIN, "--out", "w.safetensors", "--resume"),
            r"w\.safetensors\.checkpoint\.pt is damaged or no checkpoint",
        ),
    ],
)
def test_a_mistake_that_shows_in_training_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    for name in ("odd", "odd.safetensors"):
        (project / f"{name}.checkpoint.pt").write_bytes(b"PK")
    torch.save({"weight": torch.zeros(2)}, project / "w.safetensors.checkpoint.pt")
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    text = capsys.readouterr().err
    (line,) = (line for line in text.splitlines() if "error" in line)
    assert re.search(f"^rlprune: error: .*{message}", line) and "Traceback" not in text
