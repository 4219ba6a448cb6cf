from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from my_recipe import RECIPE
from nets import network
from torch import Tensor

import rlprune
from rlprune.agents.joint.tuning import tune
from rlprune.agents.train import train_policy
from rlprune.baselines.stored import load_plain
from rlprune.cli.main import main
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.metrics import accuracy
from rlprune.models.weights import save_weights
from rlprune.pipelines.recipe import Recipe, SearchSettings, StaticNetworkSettings, TrainedNetwork
from rlprune.pipelines.static_networks import StaticNetworks
from rlprune.pipelines.step_settings import settings_of, told
from rlprune.pipelines.steps import Steps
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.timing import PYTORCH
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.distillation import cache_teacher_logits
from rlprune.training.pretraining import pretrain
from rlprune.utils.tensorboard import scalar_log

pytest.importorskip("matplotlib")
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
Stamps = dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe, carried out in `run`: up to the search, and then all the rest; tuning always pays."""
    root = tmp_path_factory.mktemp("recipe")
    (root / "recipe.toml").write_text(RECIPE)
    rewards = itertools.count()
    for seed, name in ((3, "taught"), (4, "known")):
        save_weights(network("residual", seed=seed), root / f"{name}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RLPRUNE_DATA", raising=False)
        patch.delenv("RLPRUNE_WEIGHTS", raising=False)
        patch.chdir(root)
        patch.syspath_prepend(root)  # also puts sys.path back, which every main() adds to
        patch.setattr("rlprune.pipelines.steps.mean_reward", lambda *_: next(rewards))
        main(["run", "recipe.toml", "--out", "run", "--until", "search"])
        found = {path.name for path in (root / "run").iterdir()}
        main(["run", "recipe.toml", "--out", "run"])
        (root / "until-search.json").write_text(json.dumps(sorted(found)))
        yield root


def recipe_of(root: Path) -> Recipe:
    return Recipe.read(root / "recipe.toml")


def steps_of(root: Path, out: Path | None = None, **changed: Any) -> Steps:
    return Steps(replace(recipe_of(root), **changed), out or root / "run", root)


def stamps(folder: Path) -> Stamps:
    """When every file was made, and what is in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def copy_of(root: Path, tmp_path: Path, *without: str) -> Path:
    """The finished run, but for some files and folders."""
    shutil.copytree(root / "run", tmp_path / "run")
    for name in without:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path / "run"


def results_of(out: Path) -> Any:
    """All but the date, which may have changed."""
    results = json.loads((out / "results.json").read_text())
    for figures in results["budgets"]:
        del figures["date"]
    return results


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


def test_static_networks_are_trained_as_long_and_are_controls(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy_of(root, tmp_path, "results.json", "frontier.png", "bundle", "steps/evaluate.json")
    trained: list[tuple[int, int, float]] = []

    def watched(network: Any, images: ImageSet, settings: Any, **more: Any) -> None:
        assert more["teacher"].shape == (len(images), settings.views, 5)  # the cached logits of specialise
        trained.append((len(images), settings.epochs, settings.learning_rate))
        if len(trained) == 2:
            raise KeyboardInterrupt
        pretrain(network, images, settings, **more)

    steps = steps_of(root, out, static=StaticNetworkSettings(budgets=(0.6, 0.8), learning_rate=0.01))
    monkeypatch.setattr("rlprune.pipelines.static_networks.pretrain", watched)
    with pytest.raises(KeyboardInterrupt):
        steps.run()
    first = stamps(out / "static" / "0.6")
    steps.run()
    assert stamps(out / "static" / "0.6") == first and (out / "search.json").exists()
    # one epoch of specialise, and one of each of the two rounds of tuning, which stayed; the second was interrupted
    assert trained == [(len(steps.splits.network), 3, 0.01)] * 3
    cost = Cost(load_network(out / "adapted").network)
    kept = [load_plain(out / "static" / f"{budget:g}").metadata for budget in (0.6, 0.8)]
    shares = [float(cost.of(torch.tensor(each["profile"])).macs / cost.dense.macs) for each in kept]
    assert shares[0] <= 0.6 and shares[1] <= 0.8 and kept[0]["dense"]["macs"] == cost.dense.macs
    for figures in results_of(out)["budgets"]:
        points = figures["frontier"]["static_trained"]
        assert [share for share, _ in points] == pytest.approx(sorted(shares))
        accuracies = [right for _, right in points]
        assert min(accuracies) <= figures["controls"]["static_trained"] <= max(accuracies)
    evaluate = ["evaluate", str(out / "bundle"), "--data", "my_data:five_colours", "--n-candidates", "5"]
    main([*evaluate, "--static", str(out / "static" / "0.6"), str(out / "static" / "0.8"), "--json", "again.json"])
    again = json.loads((root / "again.json").read_text())
    assert again["frontier"]["static_trained"] == points
    assert again["controls"]["static_trained"] == results_of(out)["budgets"][0]["controls"]["static_trained"]
    with pytest.raises(RLPruneError, match=r"the step 'evaluate' in .* was made under other settings"):
        steps_of(root, out).run()


def test_static_networks_go_through_what_the_network_of_the_policies_does(root: Path, tmp_path: Path) -> None:
    out = copy_of(root, tmp_path)
    recipe, asked = recipe_of(root), StaticNetworkSettings(budgets=(0.6,))

    def trainings(static: StaticNetworkSettings = asked, **changed: Any) -> list[tuple[str, int, int]]:
        steps = steps_of(root, out, policy=replace(recipe.policy, pool=0), static=static, **changed)
        found = StaticNetworks(steps, static, steps.teachers)._trainings()
        return [(each.name, each.settings.epochs, len(each.images)) for each in found]

    splits = steps_of(root).splits
    some, every = len(splits.network), len(splits.training)
    refit = replace(recipe.specialise, epochs=5, views=0)
    assert trainings() == [("specialise", 3, some)]  # of which two were rounds of tuning
    assert trainings(refit=refit) == [("specialise", 3, some), ("refit", 5, every)]
    assert trainings(refit=refit, refit_weights="known.safetensors") == [("refit", 5, every)]
    assert trainings(replace(asked, epochs=7), refit=refit)[1] == ("refit", 7, every)
    (out / "tuning" / "rewards.json").write_text("[0, 1, 0.5]")
    assert trainings() == [("specialise", 2, some)]  # the second round was undone


def test_a_refit_trains_the_tuned_network_on_all_images_and_keeps_codebook_and_policies(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = [f"steps/{name}.json" for name in ("teacher", "tune", "policies", "refit", "evaluate")]
    out = copy_of(root, tmp_path, "tuned", "tuning", "policies", "results.json", "bundle", *later)
    already: list[Tensor | None] = []
    recipe = recipe_of(root)

    def asked(*of: Any, known: Tensor | None) -> Tensor:
        already.append(known)
        return cache_teacher_logits(*of, known=known)

    refit = replace(recipe.specialise, epochs=2, shares=(1.0, 2.0))
    steps = steps_of(root, out, policy=replace(recipe.policy, pool=0), refit=refit)
    monkeypatch.setattr("rlprune.pipelines.teachers.cache_teacher_logits", asked)
    steps.run("policies")
    (known,) = already  # the network's own images were asked about before
    assert known is not None and len(known) == len(steps.splits.network)
    before, trainings = stamps(out / "policies"), []
    tuned = load_network(out / "tuned").network.state_dict()

    def watched(elastic: ElasticCNN, images: ImageSet, settings: AdaptSettings, **more: Any) -> None:
        assert elastic.codebook is not None and elastic.codebook.equal(steps.codebook)
        assert all(value.equal(tuned[name]) for name, value in elastic.state_dict().items())
        assert more["teacher"].shape == (len(images), settings.views, 5)
        assert settings.shares == (1.0, 2.0)
        trainings.append((len(images), settings.epochs))
        adapt(elastic, images, settings, **more)

    monkeypatch.setattr("rlprune.pipelines.steps.adapt", watched)
    steps.run()
    splits = steps.splits
    assert trainings == [(len(splits.network) + len(splits.policy) + len(splits.validation), 2)]
    assert stamps(out / "policies") == before
    assert (out / "teacher-refit.safetensors").exists()
    refitted, bundled = load_network(out / "refitted").network, load_network(out / "bundle").network
    assert all(value.equal(bundled.state_dict()[name]) for name, value in refitted.state_dict().items())
    assert not any(value.equal(tuned[name]) for name, value in refitted.state_dict().items() if name.endswith("weight"))


def test_a_refit_may_begin_with_other_weights_than_those_that_policies_are_learnt_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy_of(root, tmp_path)
    recipe, begun = recipe_of(root), []

    def watched(elastic: ElasticCNN, images: ImageSet, settings: AdaptSettings, **_: Any) -> None:
        begun.append(elastic)
        assert len(images) == len(steps.splits.training) and settings.separate

    refit = replace(recipe.specialise, separate=True)
    policy = replace(recipe.policy, pool=0)
    steps = steps_of(root, out, policy=policy, refit=refit, refit_weights="known.safetensors")
    monkeypatch.setattr("rlprune.pipelines.steps.adapt", watched)
    steps.refit()
    (elastic,) = begun
    assert elastic.codebook is not None and elastic.codebook.equal(steps.codebook)
    images = steps.splits.test.normalised(slice(0, 4))
    expected = network("residual", seed=4).eval()(images)
    torch.testing.assert_close(elastic.eval()(images, elastic.full), expected, rtol=1e-4, atol=1e-4)


def test_every_policy_begins_where_that_of_the_next_higher_penalty_ended(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = ["steps/tune.json", "tuned", "tuning", "steps/policies.json", "policies", "results.json", "bundle"]
    out = copy_of(root, tmp_path, "policies-up", *later)
    begun: list[tuple[float, Path | None]] = []

    def watched(*of: Any, start: Path | None, **more: Any) -> Policy:
        begun.append((of[4].penalty, start))
        return train_policy(*of, start=start, **more)

    monkeypatch.setattr("rlprune.pipelines.steps.train_policy", watched)
    steps_of(root, out, penalties=(2.0, 0.05, 0.5)).run("policies")
    made, tuning = out / "policies", [out / "tuning" / f"policies-{n}" for n in range(3)]
    expected = [(2.0, None), (0.5, made / "2"), (0.1, made / "0.5"), (0.05, made / "0.1")]
    for folder in reversed(tuning):
        expected = [(2.0, None), (0.5, folder / "2"), (0.1, folder / "0.5"), *expected]
    n_down, up = len(expected), out / "policies-up"
    assert begun[:n_down] == expected
    rewards = json.loads((up / "rewards.json").read_text())
    assert list(rewards) == ["0.1", "0.5", "2"]
    start = made / "0.05"
    for (penalty, begun_with), (name, ways) in zip(begun[n_down:], rewards.items(), strict=True):
        assert (f"{penalty:g}", begun_with) == (name, start)
        start = (up if ways["up"] > ways["down"] else made) / name
        assert steps_of(root, out).chosen(penalty) == start
    before = len(begun)
    steps_of(root, out, penalties=(2.0, 0.05, 0.5)).run("policies")
    assert begun[before:] == expected[-4:]  # looked at, but not learnt again


def test_of_two_policies_that_of_the_higher_reward_counts(root: Path, tmp_path: Path) -> None:
    steps = steps_of(root, copy_of(root, tmp_path))
    path = steps.out / "policies-up" / "rewards.json"
    for ways, chosen in (({"down": 0.5, "up": 0.6}, "policies-up"), ({"down": 0.5, "up": 0.5}, "policies")):
        path.write_text(json.dumps({"2": ways}))
        assert steps.chosen(2.0) == steps.out / chosen / "2"
    assert steps.chosen(0.1) == steps.out / "policies" / "0.1"
    path.unlink()
    with pytest.raises(RLPruneError, match=r"rewards\.json is not there yet: the policies are not all learnt"):
        steps.chosen(2.0)
    path.parent.rename(steps.out / "elsewhere")  # as in a run of before there were any from below
    assert steps.chosen(2.0) == steps.out / "policies" / "2"


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


def test_what_the_last_step_needs_is_asked_for_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"rlprune\[plots\]"):
        steps_of(root, tmp_path / "run").run()
    assert not (tmp_path / "run").exists()


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
