"""All ways of deciding beside each other: made once, measured alike, and told which beats which."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import my_rivals
import pytest
import torch
from nets import colours, make_elastic

from rlprune.agents.settings import PolicySettings
from rlprune.data.image_set import Splits
from rlprune.errors import RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.figures import Line
from rlprune.evaluation.plots import compare_plot
from rlprune.evaluation.timing_results import ComparisonResult, ComparisonRow
from rlprune.pipelines.candidates import METHODS, at_equal_macs
from rlprune.pipelines.comparison import CompareSettings, Comparison
from rlprune.policies.policy import Policy
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import SpecialiseSettings

DATA = colours(70)
SPLITS = Splits(DATA, DATA, DATA, DATA)
QUICK: dict[str, Any] = {"batch_size": 20, "bf16": False, "channels_last": False, "padding": 0, "flip": False}
TRAINING = SpecialiseSettings(epochs=2, n_random=1, sandwich=False, **QUICK)
POLICY = PolicySettings(pool=0, total_steps=1024, n_envs=64, validate_every=1024)
FEW: dict[str, Any] = {"penalties": (0.1,), "densities": (0.5,), "sparsities": (0.01,), "seconds": 0.0}


def comparison(out: Path, kind: str = "residual", training: SpecialiseSettings = TRAINING, **few: Any) -> Comparison:
    settings = CompareSettings(**(FEW | {"n_profiles": 2, "n_candidates": 8, "n_points": 3} | few))
    return Comparison(make_elastic(kind), SPLITS, out, settings, training, POLICY)


def policies(out: Path, name: str) -> list[Policy]:
    return [load_policy(out / "policies" / name / "policy").policy]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ComparisonResult]:
    out = tmp_path_factory.mktemp("compare")
    return out, comparison(out).run()


def test_every_method_is_measured(made: tuple[Path, ComparisonResult]) -> None:
    results = json.loads(json.dumps(made[1].to_json()))
    assert {row["method"] for row in results["rows"]} == set(METHODS)
    for row in results["rows"]:
        low, high = row["accuracy_interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1 and 0 < row["macs_share"] < 2.1
        assert row["ms"].keys() == {"1", "64"} and min(row["ms"].values()) > 0
        assert row["saves_time"] == (row["method"] not in ("gates", "sparsity"))
        assert (row["decision_share"] > 0) == (row["method"] not in ("static", "uniform"))
    assert results["dense"]["macs_share"] == 1.0
    assert {row["label"] for row in results["rows"] if row["method"] == "uniform"} == {
        f"keep {ratio:g}" for ratio in (0.25, 0.5, 0.75, 1)
    }
    assert {len(policy.observer.mean) > 0 for policy in policies(made[0], "1-0.1")} == {True}  # or it would see nothing
    assert [row["method"] for row in results["at_equal_macs"]] == ["rl once", "rl progressive"]


def test_policies_are_learnt_from_both_ends_and_the_better_counts(
    made: tuple[Path, ComparisonResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    several, learnt = comparison(made[0], penalties=(0.1, 0.05), methods=("rl once",)), []
    monkeypatch.setattr(Comparison, "_reward", lambda _, one, penalty: learnt.append(one) or len(learnt) % 2)
    found = list(several._learnt("rl once", load_network(made[0] / "specialised").network))
    assert [one.label for one in found] == ["penalty 0.1", "penalty 0.05"]
    assert len(learnt) == 4 and found == learnt[::2]  # the first of each two was said to be the better
    begun = {folder.relative_to(made[0]).as_posix() for folder in made[0].glob("policies*/1-*")}
    assert begun == {f"{name}/1-{penalty}" for name in ("policies", "policies-up") for penalty in (0.1, 0.05)}


def test_it_is_shown(made: tuple[Path, ComparisonResult], tmp_path: Path) -> None:
    points, equal = tables.compared(made[1])
    assert points.row_count == 1 + len(made[1].rows) and equal.row_count == 2
    compare_plot(tmp_path / "compare.png", made[1])
    assert (tmp_path / "compare.png").stat().st_size > 5000


def test_what_is_there_is_not_made_again(made: tuple[Path, ComparisonResult], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("adapt", "train_gates", "search_profiles"):
        monkeypatch.setattr(f"rlprune.pipelines.comparison.{name}", lambda *_, **__: pytest.fail("made again"))
    again = comparison(made[0]).run()
    for before, after in zip(made[1].rows, again.rows, strict=True):
        assert replace(before, ms={}) == replace(after, ms={})


def test_gates_do_not_depend_on_what_was_made_before_them(made: tuple[Path, ComparisonResult], tmp_path: Path) -> None:
    torch.manual_seed(7)
    list(comparison(tmp_path)._gates("gates"))
    for name in ("network.safetensors", "network.json"):
        assert (tmp_path / "gates-0.5" / name).read_bytes() == (made[0] / "gates-0.5" / name).read_bytes()


def test_a_rival_of_somebody_s_own_stands_beside_the_others(made: tuple[Path, ComparisonResult]) -> None:
    my_rivals.CALLS.clear()
    methods = ("static", "my_rivals:every_kind", "rl once")
    results = comparison(made[0], methods=methods).run()
    own = {row.label: row for row in results.rows if row.method == methods[1]}
    (static, *_) = results.rows  # of the same profile
    for label in ("profile", "predict"):
        assert (own[label].accuracy, own[label].macs_share) == (static.accuracy, static.macs_share)
    assert own["policy"].accuracy == static.accuracy and own["policy"].macs_share > static.macs_share
    assert methods[1] in results.at_equal_macs[0].accuracies
    assert [call[1] for call in my_rivals.CALLS] == [1, 2]  # epochs of the rehearsal, and of the comparison
    assert my_rivals.CALLS[1][2] == made[0] / "my_rivals.every_kind"
    assert Line.of(methods[1], [(0.5, 0.9)]).look.label == methods[1]


def test_a_rival_s_mistake_comes_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match="'my_rivals:no_argument' takes"):
        comparison(tmp_path, methods=("my_rivals:no_argument",))
    with pytest.raises(RLPruneError, match=r"'my_rivals:logits' gave a float32 tensor of shape \(2, 5\)"):
        comparison(tmp_path, methods=("rl once", "my_rivals:logits")).run()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_other_settings_are_refused(made: tuple[Path, ComparisonResult]) -> None:
    longer = SpecialiseSettings(epochs=3, n_random=1, sandwich=False, **QUICK)
    with pytest.raises(RLPruneError, match=r"made under other settings \(training\.epochs: 2, now 3\); made_of is"):
        comparison(made[0], training=longer).run()


def test_another_network_s_is_not_mixed_in(made: tuple[Path, ComparisonResult]) -> None:
    other = comparison(made[0])
    other.elastic = make_elastic("residual", seed=1)
    with pytest.raises(
        RLPruneError,
        match=r"under other settings \(made_of: '\w{64}', now '\w{64}'\); made_of is network, images and",
    ):
        other.run()


def test_a_mistake_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match="n_candidates is 3; at least 5"):
        comparison(tmp_path, n_candidates=3).run()
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize("policy", [{"cost": "latency"}, {"cost": "params"}, {"penalty_range": (0.1, 1.0)}])
def test_policies_that_cannot_be_compared_are_named(policy: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match="policies are compared at equal MACs, for single penalties"):
        Comparison(make_elastic("plain"), SPLITS, tmp_path, CompareSettings(), TRAINING, PolicySettings(**policy))


def test_a_network_without_branches_has_no_gates_for_them(tmp_path: Path) -> None:
    results = comparison(tmp_path, "plain", methods=("branches", "uniform")).run()
    assert {row.method for row in results.rows} == {"uniform"} and results.at_equal_macs == ()
    tables.compared(results)
    with pytest.raises(RLPruneError, match=r"methods=\('branches',\): this network has nothing for any of them"):
        comparison(tmp_path, "plain", methods=("branches",)).run()


def row_of(method: str, share: float, accuracy: float) -> ComparisonRow:
    return ComparisonRow(
        method=method,
        label="",
        accuracy=accuracy,
        accuracy_interval=(accuracy - 0.01, accuracy + 0.01),
        macs_share=share,
        decision_share=0.0,
        saves_time=True,
        ms={},
    )


def test_points_are_compared_at_equal_cost() -> None:
    rows = [
        row_of("rl once", 0.5, 0.8),
        row_of("gates", 0.4, 0.7),
        row_of("gates", 0.6, 0.94),
        row_of("gates", 0.55, 0.1),  # which the cheaper one beats
        row_of("static", 0.6, 0.99),
        row_of("uniform", 0.1, 0.805),
    ]
    (found,) = at_equal_macs(rows)
    assert found.accuracies == {"gates": pytest.approx(0.82), "static": None, "uniform": 0.805}
    assert found.beaten == ("gates",)
    assert at_equal_macs(rows[1:]) == ()


@pytest.mark.parametrize(
    "options", [{"methods": ("luck",)}, {"methods": ()}, {"n_points": 0}, {"penalties": (-1.0,)}, {"densities": (1.5,)}]
)
def test_settings_that_cannot_be_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(RLPruneError, match=f"{name}="):
        CompareSettings(**options)
