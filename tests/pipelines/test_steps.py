"""What a recipe's steps leave, and when they are done again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import network
from recipe_runs import copy_of, recipe_of, results_of, stamps, steps_of

import rlprune
from rlprune.cli.main import main
from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.metrics import accuracy
from rlprune.pipelines.recipe import TrainedNetwork
from rlprune.pipelines.step_settings import told
from rlprune.pipelines.steps import Steps
from rlprune.profiles.cost import Cost
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.utils.tensorboard import scalar_log

FILES = [
    "adapt.checkpoint.pt",
    "adapted",
    "bundle",
    "codebook.json",
    "dense.checkpoint.pt",
    "dense.safetensors",
    "frontier.png",
    "logs",
    "policies",
    "policies-up",
    "results.json",
    "specialise.checkpoint.pt",
    "specialised",
    "steps",
    "teacher.safetensors",
    "tuned",
    "tuning",
]


def test_every_step_leaves_what_it_makes(root: Path) -> None:
    assert sorted(path.name for path in (root / "run").iterdir()) == FILES
    assert {path.stem for path in (root / "run" / "steps").iterdir()} == set(Steps.NAMES) - {"static"}
    assert sorted(path.name for path in (root / "run" / "policies").iterdir()) == ["0.1", "2"]
    tuning = [
        "network-0.checkpoint.pt",
        "network-1.checkpoint.pt",
        "policies-0",
        "policies-1",
        "policies-2",
        "rewards.json",
    ]
    assert sorted(path.name for path in (root / "run" / "tuning").iterdir()) == tuning
    assert sorted(path.name for path in (root / "run" / "tuning" / "policies-1").iterdir()) == ["0.1", "2"]
    logs = {str(path.parent.relative_to(root / "run" / "logs")) for path in (root / "run" / "logs").rglob("events*")}
    assert logs == {"dense", "adapt", "specialise", "tuning/network-0", "tuning/network-1"}


def test_until_is_where_it_stops(root: Path) -> None:
    expected = ["adapt.checkpoint.pt", "adapted", "codebook.json", "dense.checkpoint.pt", "dense.safetensors", "logs"]
    assert json.loads((root / "until-search.json").read_text()) == [*expected, "steps", "teacher.safetensors"]


def test_the_codebook_keeps_to_its_budgets_and_is_what_all_policies_choose_from(root: Path) -> None:
    steps = steps_of(root)
    elastic = load_network(root / "run" / "adapted").network
    cost = Cost(elastic)
    shares = cost.of(steps.codebook).macs / cost.dense.macs
    assert 1 <= len(shares) <= 2 and shares[0] <= 0.6
    for folder in ("policies/0.1", "policies/2", "tuning/policies-0/2", "tuning/policies-1/0.1"):
        assert torch.equal(load_policy(root / "run" / folder / "policy").policy.codebook, steps.codebook)


def test_the_results_are_of_every_penalty_on_the_test_images(root: Path) -> None:
    results = results_of(root / "run")
    assert results["recipe"] == json.loads(json.dumps(told(recipe_of(root))))
    assert [figures["penalty"] for figures in results["budgets"]] == [0.1, 2]
    for figures in results["budgets"]:
        assert figures["n_images"] == 20 and figures["dense"] == "original"
        assert figures["dense_accuracy"] == accuracy(network("residual", seed=4), steps_of(root).splits.test)
        assert figures["controls"].keys() == {"uniform", "random", "best_static", "shuffled", "cascade", "oracle"}
        assert (figures["n_candidates"], figures["seed"]) == (64, 0)


def test_the_bundle_is_as_accurate_as_the_results_say(root: Path) -> None:
    first = results_of(root / "run")["budgets"][0]
    evaluate = ["evaluate", "run/bundle", "--data", "my_data:five_colours", "--n-candidates", "5"]
    main([*evaluate, "--json", "again.json"])
    again = json.loads((root / "again.json").read_text())
    for key in ("accuracy", "accuracy_interval", "macs_cut", "params_cut", "n_images", "runs_per_image"):
        assert again[key] == first[key]
    metadata = rlprune.load(root / "run" / "bundle").metadata
    assert metadata["penalty"] == 0.1 and metadata["metrics"]["accuracy"] == first["accuracy"]
    assert metadata["network"]["source"]["shares"] == [0.5, 0.4, 0.1] and metadata["refitted"] is False


def test_the_bundle_is_not_measured_on_images_of_other_shares(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = ["--shares", "0.7", "0.2", "0.1"]
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "run/bundle", "--data", "my_data:five_colours", *shares])
    line = "trained on splits of (0.5, 0.4, 0.1); with --shares (0.7, 0.2, 0.1) some of its training images would"
    assert line in capsys.readouterr().err


def test_what_is_done_is_not_done_again(root: Path) -> None:
    before = stamps(root / "run")
    main(["run", "recipe.toml", "--out", "run"])
    assert stamps(root / "run") == before


def test_without_results_it_only_measures_again(root: Path, tmp_path: Path) -> None:
    out = copy_of(root, tmp_path)
    (out / "results.json").unlink()
    before = stamps(out)
    steps_of(root, out).run()
    assert results_of(out) == results_of(root / "run")
    after = stamps(out)
    changed = {name for name, stamp in after.items() if stamp != before.get(name)}
    assert {name.partition("/")[0] for name in changed} == {"results.json", "frontier.png", "bundle"}
    assert {name: content for name, (_, content) in after.items() if name.startswith("bundle")} == {
        name: content for name, (_, content) in before.items() if name.startswith("bundle")
    }


@pytest.mark.parametrize(
    ("step", "changed"),
    [
        ("teacher", {"seed": 1}),
        ("teacher", {"data": {"shares": None}}),
        ("teacher", {"specialise": {"padding": 2}}),  # other views of the same number
        ("dense", {"dense": {"learning_rate": 0.2}}),
        ("adapt", {"elastic": {"round_to": 4}}),
        ("adapt", {"adapt": {"epochs": 2}}),
        ("search", {"search": {"budgets": (0.5,)}}),
        ("specialise", {"specialise": {"epochs": 3}}),
        ("tune", {"policy": {"penalty": 0.2}}),
        ("tune", {"tune": {"rounds": 3}}),
        ("teacher", {"final_teachers": [TrainedNetwork("nets:Residual", "known.safetensors")]}),
        ("tune", {"penalties": (1.0,)}),
        ("policies", {"penalties": (2.0, 0.01)}),
        ("evaluate", {"reference": None}),
    ],
)
def test_other_settings_of_a_step_that_is_done_are_refused(root: Path, step: str, changed: dict[str, Any]) -> None:
    before, recipe = stamps(root / "run"), recipe_of(root)
    other = {
        name: replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
        for name, value in changed.items()
    }
    message = rf"the step '{step}' in {root / 'run'} was made under other settings \(.*, now .*\); go back to those, or"
    with pytest.raises(RLPruneError, match=message):
        steps_of(root, **other).run()
    assert stamps(root / "run") == before


def test_settings_that_cannot_be_are_not_held_against_who_mends_them(root: Path, tmp_path: Path) -> None:
    later = ["specialised", "tuned", "tuning", "policies", "results.json", "bundle", "specialise.checkpoint.pt"]
    out = copy_of(root, tmp_path, "codebook.json", "steps/search.json", *later)
    search = recipe_of(root).search
    with pytest.raises(RLPruneError, match=r"budget 0\.001 is below the cheapest profile found"):
        steps_of(root, out, search=replace(search, budgets=(0.001, 1.0))).run("search")
    assert not (out / "steps" / "search.json").exists() and not (out / "codebook.json").exists()
    steps_of(root, out).run("search")
    assert (out / "codebook.json").read_text() == (root / "run" / "codebook.json").read_text()


@pytest.mark.parametrize("training", ["specialise", "tuning/network-1"])
def test_an_interrupted_run_ends_as_one_that_was_not(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: str
) -> None:
    later = ["tuned", "tuning", "policies", "results.json", "frontier.png", "bundle"]
    begun = ["specialised", "specialise.checkpoint.pt"] if training == "specialise" else []
    out = copy_of(root, tmp_path, *later, *begun)

    def interrupting(folder: Path, tag: str) -> Any:
        if tag != training:
            return scalar_log(folder, tag)

        def stop(n_images: int, figures: dict[str, float]) -> None:
            raise KeyboardInterrupt

        return stop

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rlprune.pipelines.recipe_run.scalar_log", interrupting)
        steps_of(root, out).run("tune")
    assert not (out / "tuned").exists()
    steps_of(root, out).run("tune")
    for name in ("specialised", "tuned"):
        for file in ("network.json", "network.safetensors"):
            assert (out / name / file).read_bytes() == (root / "run" / name / file).read_bytes()


def test_what_the_last_step_needs_is_asked_for_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"rlprune\[plots\]"):
        steps_of(root, tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
