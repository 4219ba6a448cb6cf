"""What a recipe may bring, leave out, or have otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import network
from recipe_runs import copy_of, recipe_of, steps_of
from torch import Tensor

import rlprune
from rlprune.agents.joint.tuning import tune
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.pipelines.recipe import SearchSettings, TrainedNetwork
from rlprune.pipelines.step_settings import settings_of, told
from rlprune.pipelines.steps import Steps
from rlprune.profiles.latency import Latency
from rlprune.profiles.timing import PYTORCH
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import adapt
from rlprune.training.distillation import cache_teacher_logits
from rlprune.training.pretraining import pretrain


def test_a_recipe_may_bring_its_profiles_and_leave_adapting_and_tuning_out(root: Path, tmp_path: Path) -> None:
    recipe = recipe_of(root)
    found = json.loads((root / "run" / "codebook.json").read_text())
    (root / "mine.json").write_text(json.dumps(found[::-1]))
    steps = steps_of(
        *(root, tmp_path),
        adapt=replace(recipe.adapt, epochs=0),
        search=replace(recipe.search, codebook="mine.json"),
        tune=replace(recipe.tune, rounds=0),
    )
    steps.run("tune")
    assert steps.codebook.tolist() == found  # the cheapest comes first, whatever the file says
    dense, adapted = steps.teachers.dense(), load_network(tmp_path / "adapted").network
    images = torch.randn(2, *adapted.image_shape)
    assert torch.allclose(adapted.slice(adapted.full)(images), dense(images), atol=1e-5)
    assert len(json.loads((tmp_path / "tuning" / "rewards.json").read_text())) == 1
    specialised, tuned = (load_network(tmp_path / name).network.state_dict() for name in ("specialised", "tuned"))
    assert all(value.equal(tuned[name]) for name, value in specialised.items())


@pytest.mark.parametrize("profiles", [None, "{", "{}", "[[0]]", "[[9, 9, 9]]", "[[0.5, 0, 0]]", '[["a"]]'])
def test_profiles_that_are_none_are_refused(root: Path, tmp_path: Path, profiles: str | None) -> None:
    out = copy_of(root, tmp_path, "codebook.json", "steps/search.json")
    if profiles is not None:
        (tmp_path / "mine.json").write_text(profiles)
    steps = Steps(replace(recipe_of(root), search=SearchSettings(codebook="mine.json")), out, tmp_path)
    with pytest.raises(RLPruneError, match=r"search\.codebook='mine\.json': .* has no profiles of this network"):
        steps.search()
    assert not (out / "codebook.json").exists()


def test_a_final_teacher_is_followed_once_the_codebook_is_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[tuple[str, Any]] = []

    def watched(train: Any) -> Any:
        def watching(*of: Any, teacher: Any, **more: Any) -> None:
            followed.append((train.__name__, teacher))
            train(*of, teacher=teacher, **more)

        return watching

    for train in (pretrain, adapt, tune):
        monkeypatch.setattr(rlprune.pipelines.steps, train.__name__, watched(train))
    recipe = recipe_of(root)
    steps = steps_of(
        *(root, tmp_path / "run"),
        final_teachers=[TrainedNetwork("nets:Residual", "known.safetensors")],
        policy=replace(recipe.policy, pool=0),
        refit=recipe.specialise,
    )
    steps.run("refit")
    assert [name for name, _ in followed] == ["pretrain", "adapt", "adapt", "tune", "tune", "adapt"]
    taught, known = (network("residual", seed=seed) for seed in (3, 4))
    remembered, of_all = (
        cache_teacher_logits(known, images, recipe.specialise)
        for images in (steps.splits.network, steps.splits.training)
    )
    for (_, teacher), expected in zip(
        followed, (taught, taught, remembered, remembered, remembered, of_all), strict=True
    ):
        if isinstance(expected, Tensor):
            assert torch.equal(teacher, expected)
        else:
            assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in expected.state_dict().items())


def test_a_recipe_may_pay_in_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [f"steps/{name}.json" for name in ("tune", "policies", "refit", "evaluate")]
    out = copy_of(root, tmp_path, "tuned", "tuning", "policies", "results.json", "bundle", *later)
    calls, measure = [], Latency.measure

    def quick(elastic: ElasticCNN, **options: Any) -> Latency:
        calls.append(options)
        return measure(elastic, **options | {"seconds": 0})

    paid: list[Latency | str] = []
    monkeypatch.setattr(Latency, "measure", quick)
    monkeypatch.setattr("rlprune.pipelines.steps.mean_reward", lambda *of: paid.append(of[3]) or len(paid))
    steps = steps_of(root, out, policy=replace(recipe_of(root).policy, cost="latency"), latency=LatencySettings(4))
    steps.run("policies")
    assert calls == [{"batch": 4, "seed": 0, "backend": PYTORCH, "threads": None}]
    assert paid == [Latency.load(out / "latency.json")] * 3 and paid[0].batch == 4
    assert load_policy(out / "policies" / "0.1" / "policy").metadata["settings"]["cost"] == "latency"
    assert load_policy(out / "policies" / "0.1" / "policy").metadata["latency"] == paid[0].measured_for


def test_weights_that_are_named_are_taken_as_they_are(root: Path, tmp_path: Path) -> None:
    steps = steps_of(root, tmp_path / "run", weights="taught.safetensors", teacher=None)
    steps.run("dense")
    taught = network("residual", seed=3).state_dict()
    assert all(torch.equal(value, taught[name]) for name, value in steps.teachers.dense().state_dict().items())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["dense.safetensors", "steps"]


def test_the_seed_is_the_recipe_s_whatever_a_step_says(root: Path, tmp_path: Path) -> None:
    recipe, files = recipe_of(root), []
    for number, (seed, of_step) in enumerate(((0, 0), (0, 7), (1, 0))):
        steps = steps_of(root, tmp_path / str(number), seed=seed, dense=replace(recipe.dense, seed=of_step))
        steps.run("dense")
        files.append((tmp_path / str(number) / "dense.safetensors").read_bytes())
    assert files[0] == files[1] == (root / "run" / "dense.safetensors").read_bytes() != files[2]


def test_profiles_may_be_chosen_for_what_they_achieve_one_after_another(root: Path, tmp_path: Path) -> None:
    out = copy_of(root, tmp_path, "codebook.json", "steps")
    search = replace(recipe_of(root).search, mean_budgets=(0.6, 0.9), n_candidates=8)
    steps = steps_of(root, out, search=search)
    steps.search()
    full = load_network(out / "adapted").network.full
    assert 1 < len(steps.codebook) <= len(search.budgets) and steps.codebook[-1].equal(full)
    noted = settings_of(steps.recipe)["search"]["search"]
    assert (
        noted["mean_budgets"] == (0.6, 0.9) and "mean_budgets" not in settings_of(recipe_of(root))["search"]["search"]
    )


def test_what_widths_round_up_to_may_be_measured_and_is_a_number_from_then_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("rlprune.evaluation.timing.backends.measured_step", lambda _, **how: asked.append(how) or 4)
    elastic = replace(recipe_of(root).elastic, round_to="auto")
    steps = steps_of(root, tmp_path / "run", elastic=elastic, latency=LatencySettings(batch=16))
    steps.run("adapt")
    adapted = load_network(steps.out / "adapted").network
    assert adapted.round_to == 4 and [how["batch"] for how in asked] == [16]
    assert steps.elastic(steps.teachers.dense()).round_to == 4 and len(asked) == 1
    assert told(steps.recipe, adapted.round_to)["elastic"]["round_to"] == 4
    assert "latency" not in told(recipe_of(root))
