from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import copy_of, steps_of

from rlprune.agents.train import train_policy
from rlprune.errors import RLPruneError
from rlprune.pipelines import penalty_chain
from rlprune.pipelines.penalty_chain import PenaltyChain, better
from rlprune.policies.policy import Policy


class Learner:
    """Notes what it is to learn; a policy is called by its folder."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Path, Path | None]] = []

    def __call__(self, penalty: float, folder: Path, start: Path | None) -> Any:
        self.calls.append((penalty, folder, start))
        return folder


@pytest.mark.parametrize("prefix", ["", "2-"])
def test_each_policy_begins_with_the_one_before(tmp_path: Path, prefix: str) -> None:
    chain, learn = PenaltyChain(tmp_path / "policies", prefix), Learner()
    down, up = tmp_path / "policies", tmp_path / "policies-up"
    assert list(chain.learn_down(learn, (0.1, 2.0, 0.05))) == [2.0, 0.1, 0.05]
    assert learn.calls == [
        (2.0, down / f"{prefix}2", None),
        (0.1, down / f"{prefix}0.1", down / f"{prefix}2"),
        (0.05, down / f"{prefix}0.05", down / f"{prefix}0.1"),
    ]
    learn.calls.clear()
    assert chain.learn_up(learn, (0.1, 0.05)) == {0.05: up / f"{prefix}0.05", 0.1: up / f"{prefix}0.1"}
    assert learn.calls == [(0.05, up / f"{prefix}0.05", None), (0.1, up / f"{prefix}0.1", up / f"{prefix}0.05")]


def test_upwards_each_begins_with_the_better_of_the_penalty_before(tmp_path: Path) -> None:
    chain, learn = PenaltyChain(tmp_path / "policies"), Learner()
    learnt = chain.learn_down(learn, (0.5, 0.1, 2.0, 1.0))
    learn.calls.clear()
    worth = {chain.folder(0.5, "up"): 0.7, chain.folder(1.0, "up"): 0.5}  # of all others 0.5
    chain.learn_up_from_best(learn, learnt, lambda _, policy: worth.get(policy, 0.5))
    assert [(penalty, start) for penalty, _, start in learn.calls] == [
        (0.5, chain.folder(0.1)),
        (1.0, chain.folder(0.5, "up")),
        (2.0, chain.folder(1.0)),  # equal: that of the chain from above
    ]
    assert json.loads(chain.rewards.read_text()) == {
        "0.5": {"down": 0.5, "up": 0.7},
        "1": {"down": 0.5, "up": 0.5},
        "2": {"down": 0.5, "up": 0.5},
    }
    assert [chain.chosen(penalty) for penalty in (0.1, 0.5, 1.0)] == [
        chain.folder(0.1),
        chain.folder(0.5, "up"),
        chain.folder(1.0),
    ]


def test_an_unfinished_chain_chooses_nothing(tmp_path: Path) -> None:
    chain = PenaltyChain(tmp_path / "policies")
    assert chain.chosen(0.5) == chain.folder(0.5)  # there is but one
    chain.up.mkdir()
    with pytest.raises(RLPruneError, match=r"rewards\.json is not there yet: the policies are not all learnt"):
        chain.chosen(0.5)


def test_of_equal_rewards_that_of_the_chain_from_above_counts() -> None:
    assert [better({"down": 0.5, "up": up}) for up in (0.4, 0.5, 0.6)] == ["down", "down", "up"]


def test_policies_are_taken_over_each_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, other = PenaltyChain(tmp_path / "policies"), PenaltyChain(tmp_path / "policies-0")
    for penalty in (0.3, 0.1):
        (other.folder(penalty) / "policy").mkdir(parents=True)
        for name in ("checkpoint.zip", "policy/policy.json"):
            (other.folder(penalty) / name).write_text(f"{penalty} {name}")
    (chain.folder(0.3) / "policy").mkdir(parents=True)
    write, written = penalty_chain.write_to_disk, []

    def stopping(path: Path, content: bytes) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(penalty_chain, "write_to_disk", stopping)
    with pytest.raises(KeyboardInterrupt):
        chain.take(other)
    assert len(list(chain.folder(0.1).rglob("*"))) == 3  # the whole of one, and the other as it was
    assert [path.name for path in chain.down.rglob("*") if "0.3" in str(path)] == ["0.3", "policy"]
    monkeypatch.undo()
    chain.take(other)
    assert (chain.folder(0.3) / "policy" / "policy.json").read_text() == "0.3 policy/policy.json"
    assert sorted(path.name for path in chain.down.iterdir()) == ["0.1", "0.3"]


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
