"""What may be swept, and what is said where it may not."""

from __future__ import annotations

import pytest

from rlprune.agents.settings import PolicySettings
from rlprune.cluster.sweeps.space import Range, Space
from rlprune.errors import SettingsError


def test_every_combination_is_trained_and_ranges_are_searched_for_each() -> None:
    space = Space.of(["penalty=0.1,0.2", "seed=0,1,2", "learning-rate=1e-4..1e-2"], PolicySettings(), trials=5)
    assert len(space) == 30
    assert list(space.combinations())[:2] == [{"penalty": 0.1, "seed": 0}, {"penalty": 0.1, "seed": 1}]
    assert space.ranges == {"learning_rate": Range(1e-4, 1e-2)} and space.ranges["learning_rate"].log
    assert not Range(0.0, 0.1).log and not Range(2, 8).log


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ([], "over is missing"),
        (["penalty"], "give a setting and its values, such as penalty=0.1,0.2"),
        (["penalties=1,2"], "there is no setting penalties to sweep; allowed are penalty"),
        (["hidden=3,4"], "there is no setting hidden"),
        (["penalty=0.1", "penalty=0.2"], "penalty is given twice"),
        (["penalty=0.1,0.1"], "a value is there twice"),
        (["penalty=cheap"], "over='penalty=cheap': penalty='cheap': give a number"),
        (["penalty=0.1,-1"], "penalty=-1: give a number of 0 or more"),
        (["seed=0..9"], "seed is not searched; list its values"),
        (["n_profiles=0,2"], "give whole numbers from 1 to 16"),
        (["penalty=0.2..0.1"], "give two numbers, the lower one first"),
        (["n_epochs=1..2.5"], "give two whole numbers"),
        (["penalty=0.1..0.2"], "trials is missing: give how many"),
        (["batch_size=100,512"], "batch_size=100, n_envs=256"),
        (["pool=1,2"], "pool is given by itself, too"),
        (["cost=macs,latency"], "time cannot be measured"),
        (["seed=" + ",".join(map(str, range(200))), "n_epochs=" + ",".join(map(str, range(1, 60)))], "10000 at most"),
    ],
)
def test_what_cannot_be_swept_is_refused(over: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Space.of(over, PolicySettings(pool=3))


def test_what_would_do_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="trials=3: only ranges are searched"):
        Space.of(["penalty=0.1,0.2"], PolicySettings(), trials=3)
    with pytest.raises(SettingsError, match="penalty_range is given"):
        Space.of(["penalty=0.1,0.2"], PolicySettings(penalty_range=(0.1, 0.2)))
