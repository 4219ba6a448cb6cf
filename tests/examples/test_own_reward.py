"""The example of an own reward, by its name."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_it_is_what_episodes_earn(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    named = {"network": str(network), "data": "mnist5k", "penalty": 0.0, "action": "ratios"}
    env = gymnasium.make("rlprune.envs:rlprune/KeepRatio-v0", **named, reward="own_reward:NoRegret")
    earned: dict[float, set[float]] = {-1.0: set(), 1.0: set()}
    for image in range(200):  # an untrained network is right about one in ten
        for ratio in earned:
            env.reset(options={"image": image})
            _, reward, _, _, info = env.step([ratio] * env.action_space.shape[0])
            earned[ratio].add(reward)
            assert (reward == 1.0) == (info["accuracy"] == 1.0)
    assert earned[1.0] <= {0.0, 1.0} and earned[-1.0] <= {-2.0, 0.0, 1.0}  # the whole network regrets nothing
    assert len(earned[1.0]) > 1
