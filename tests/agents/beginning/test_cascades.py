"""The cascade that an agent begins as is the best one, and until the first update the agent decides as it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import make_centred, make_data, make_levels
from stable_baselines3 import A2C, PPO
from torch import Tensor

from rlprune.agents import KeepRatioVecEnv, extract_policy
from rlprune.agents.beginning import Beginning, begin_as, best_beginning
from rlprune.baselines.cascade import Cascade, best_cascades
from rlprune.baselines.cascade_search import margins_of
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.envs.sweep import image_rewards, penalties_of, run_sweep
from rlprune.envs.world import World
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))
RANGE = (0.02, 0.5)


def make_world(max_passes: int = 3, **rules: Any) -> World:
    rules = {"penalty": 0.1, "pool": 1} | rules
    return World(NETWORK, DATA, codebook=BOOK, action="profiles", max_passes=max_passes, **rules)


def levels(profiles: Tensor, max_passes: int) -> Tensor:
    """Keep levels of every pass, as sweeps have them."""
    profiles = torch.nn.functional.pad(profiles, (0, max_passes - profiles.shape[1]), value=-1)
    return torch.where(profiles[..., None] >= 0, BOOK[profiles.clamp_min(0)], -1)


def asking(world: World, steps: tuple[int, ...]) -> Cascade:
    """A cascade that a half of the images leaves at each step."""
    logits = world.profile_logits(len(DATA))[list(steps)]
    margins: list[float] = []
    going = torch.ones(len(DATA), dtype=torch.bool)
    for belief in world.observer.beliefs(logits)[:-1]:
        found = margins_of(belief)
        margins.append(float(found[going].quantile(0.5, interpolation="midpoint")))
        going = going & (found < margins[-1])
    return Cascade(steps, margins, combine=world.observer.combine)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("rules", [{}, {"combine": 1.0, "pool": 0}, {"penalty": RANGE}])
def test_an_agent_begins_as_the_cascade(rules: Any, algorithm: Any) -> None:
    world = make_world(**rules)
    (middle,) = penalties_of(world, 1)
    cascade = asking(world, (0, 1, 2))
    agent = algorithm("MlpPolicy", KeepRatioVecEnv(world, 4), seed=0, device="cpu")
    begin_as(agent, beginning := Beginning(cascade, -0.1 if "penalty" in rules else 0.0), world)
    expected = cascade.run(world.profile_logits(len(DATA))).profiles
    assert len(expected.unique(dim=0)) == 3
    for policy in (extract_policy(agent, world), beginning.policy(world)):
        dynamic = DynamicCNN(NETWORK, policy.at(), DATA.mean, DATA.std, DATA.classes)
        assert torch.equal(dynamic(DATA.images).profiles, expected)
        assert torch.equal(dynamic(DATA.images[:1]).profiles, expected[:1])
    for decide in (lambda seen: agent.predict(seen, deterministic=True)[0], beginning.decide(world)):
        assert torch.equal(run_sweep(world, decide, middle).levels, levels(expected, 3))
    drawn = {int(agent.predict(world.observe(world.begin(torch.tensor([0]))))[0][0]) for _ in range(1000)}
    assert drawn >= {0, 1, 2}  # every profile is explored


@pytest.mark.parametrize("penalty", [0.001, 0.05, 1.0])
def test_it_is_the_cascade_that_earns_most(penalty: float) -> None:
    world = make_world(2, penalty=penalty, pool=0)
    best = best_beginning(world).cascade
    found = best_cascades(NETWORK, BOOK, world.profile_logits(len(DATA)), DATA.labels, max_steps=2)
    earned = [one.accuracy - penalty * one.price for one in found]
    assert best.accuracy - penalty * best.price == pytest.approx(max(earned))


def test_over_a_range_it_earns_at_least_what_it_would_untilted() -> None:
    world = make_world(2, penalty=RANGE)
    begun = best_beginning(world)
    assert begun.cascade == best_beginning(make_world(2, penalty=penalties_of(world, 1)[0])).cascade
    tilted, level = (image_rewards(world, each.decide(world)).mean() for each in (begun, Beginning(begun.cascade)))
    assert tilted >= level
    assert Beginning.of_notes(begun.noted()).noted() == begun.noted()


def test_worlds_that_share_logits_search_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_world(2, penalty=0.001)
    found = best_beginning(first)
    monkeypatch.setattr("rlprune.agents.beginning.cascades.best_cascades", None)
    assert best_beginning(make_world(2, penalty=0.001, logit_cache=first.logit_cache)) == found
    dearer = best_beginning(make_world(2, penalty=100.0, logit_cache=first.logit_cache))
    assert dearer.cascade.price < found.cascade.price
    with pytest.raises(TypeError):
        best_beginning(make_world(2))
