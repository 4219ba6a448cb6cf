from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lamp import make_lamp, make_lamp_data
from nets import make_data, make_elastic, make_levels

from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import KeepRatioEnv, World
from rlprune.errors import LevelsError, RLPruneError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK = make_elastic("residual")
DATA = make_data(12)
COST = Cost(NETWORK)
BOOK = sorted_codebook(make_levels(NETWORK, 6, seed=3), COST)
passes = pytest.mark.parametrize("max_passes", [1, 2, 3])


def test_a_codebook_out_of_order_is_refused() -> None:
    assert (COST.of(BOOK).macs.diff() > 0).any()
    for wrong in (BOOK.flip(0), BOOK[[0, 2, 1]], torch.stack([NETWORK.full, NETWORK.min_level])):
        with pytest.raises(RLPruneError, match="the codebook is not in order; sort it by MACs, cheapest prof"):
            World(NETWORK, DATA, action="profiles", codebook=wrong)
    World(NETWORK, DATA, action="profiles", codebook=BOOK[[0, 0, 1]])  # equal cost is in order


@passes
@pytest.mark.parametrize("wrong", [-1, "K", "K + 1"])
def test_profiles_that_do_not_exist_are_refused(max_passes: int, wrong: Any) -> None:
    action = {"K": len(BOOK) + (max_passes > 1), "K + 1": len(BOOK) + 1 + (max_passes > 1)}.get(wrong, wrong)
    world = World(NETWORK, DATA, action="profiles", codebook=BOOK, max_passes=max_passes)
    assert not world.action_space.contains(np.int64(action))
    episodes = world.begin(torch.arange(3))
    with pytest.raises(LevelsError, match="an action is outside its space; its entries go from 0 to below"):
        world.step(episodes, np.array([0, action, 0]))
    assert episodes.passes.tolist() == [0, 0, 0]


@passes
@pytest.mark.parametrize("wrong", [-1, 5, 6])
def test_levels_that_do_not_exist_are_refused(max_passes: int, wrong: int) -> None:
    world = World(NETWORK, DATA, max_passes=max_passes)
    for entry in range(3 + (max_passes > 1)):
        action = np.zeros((2, 3 + (max_passes > 1)), np.int64)
        action[1, entry] = wrong
        with pytest.raises(LevelsError, match="an action is outside its space"):
            world.step(world.begin(torch.arange(2)), action)


def test_environments_refuse_them_too() -> None:
    settings: dict[str, Any] = {"action": "profiles", "codebook": BOOK}
    single, batch = KeepRatioEnv(NETWORK, DATA, **settings), KeepRatioVecEnv(World(NETWORK, DATA, **settings), 2)
    single.reset()
    batch.reset()
    with pytest.raises(LevelsError, match="an action is outside its space"):
        single.step(-1)
    with pytest.raises(LevelsError, match="an action is outside its space"):
        batch.step(np.array([0, len(BOOK)]))


def test_ratios_outside_their_space_are_taken_to_its_border() -> None:
    world = World(NETWORK, DATA, action="ratios")
    outcomes = [
        world.step(world.begin(torch.arange(2)), np.full((2, 3), ratio, np.float32)) for ratio in (-7, -1, 1, 7)
    ]
    levels = [outcome.levels.unique().tolist() for outcome in outcomes]
    assert levels == [[0], [0], [4], [4]]


@passes
def test_every_profile_is_charged_what_it_costs(max_passes: int) -> None:
    settings: dict[str, Any] = {"action": "profiles", "codebook": BOOK, "max_passes": max_passes}
    world, policy_cost = World(NETWORK, DATA, policy_cost=(50, 1000), penalty=2.0, **settings), torch.tensor([50, 1000])
    episodes, choices = world.begin(torch.zeros(len(BOOK), dtype=torch.int64)), torch.arange(len(BOOK))
    for n_pass in range(max_passes):
        whole, again = COST.of(BOOK[choices]), int(n_pass > 0)  # the stem is paid for once
        outcome = world.step(episodes, choices.numpy())
        params, macs = (
            (amount - again * stem + own).double() / dense
            for amount, stem, own, dense in zip(whole, COST.stem, policy_cost, COST.dense, strict=True)
        )
        torch.testing.assert_close(outcome.params.double(), params, rtol=1e-6, atol=0)
        torch.testing.assert_close(outcome.macs.double(), macs, rtol=1e-6, atol=0)
        gain = outcome.correct.double() * (n_pass == max_passes - 1)
        torch.testing.assert_close(outcome.rewards.double(), gain - 2 * macs, rtol=1e-5, atol=1e-6)
        assert torch.equal(outcome.levels, BOOK[choices])
        choices = choices.roll(1)


def test_to_choose_what_has_just_run_is_to_accept() -> None:
    world = World(NETWORK, DATA, action="profiles", max_passes=2, penalty=1.0)
    episodes = world.begin(torch.arange(2))
    world.step(episodes, np.array([1, 1]))
    outcome = world.step(episodes, np.array([1, 2]))  # the same once more, and another
    assert outcome.done.tolist() == [True, True] and outcome.passes.tolist() == [1, 2]
    assert float(outcome.macs[0]) == 0 < float(outcome.macs[1])
    assert (outcome.levels[0] == -1).all() and (outcome.levels[1] >= 0).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_combined_passes_answer_with_the_mean_of_their_logits_in_any_order(order: tuple[int, int]) -> None:
    """The lamp's logits of class 0, which is right, by hand: 2.4 x with half of it, -9.6 x with all; of class 1, 0."""
    data = make_lamp_data(2)
    x = data.normalised()[:, 0, 0, 0]
    logits, mean = torch.stack([2.4 * x, -9.6 * x]), -3.6 * x
    for combine, believed in ((0.0, logits[order[1]]), (1.0, mean)):
        world = World(make_lamp(), data, action="profiles", max_passes=2, combine=combine, penalty=0.0, pool=0)
        episodes = world.begin(torch.arange(2))
        for profile in order:
            outcome = world.step(episodes, np.full(2, profile))
        torch.testing.assert_close(episodes.logits[:, 0], believed)
        assert outcome.rewards.tolist() == outcome.correct.tolist() == (believed > 0).tolist()
        assert world.observe(episodes)[:, 0] == pytest.approx(believed.abs().sigmoid().numpy(), abs=1e-5)


def test_accepting_leaves_what_was_combined() -> None:
    world = World(NETWORK, DATA, action="profiles", codebook=BOOK, max_passes=3, combine=0.5)
    episodes = world.begin(torch.arange(3))
    for profile in (4, 2):
        world.step(episodes, np.full(3, profile))
    logits = episodes.logits.clone()
    outcome = world.step(episodes, np.array([2, len(BOOK), 4]))  # what has just run, the entry to accept, another
    assert outcome.passes.tolist() == [2, 2, 3] and outcome.done.all()
    assert torch.equal(episodes.logits[:2], logits[:2]) and not torch.equal(episodes.logits[2], logits[2])


def test_a_world_and_its_observer_are_one_line() -> None:
    world = World(NETWORK, DATA, action="profiles", codebook=BOOK, max_passes=2, penalty=(0.1, 1.0))
    assert "\n" not in repr(world) and len(repr(world)) < 300 and repr(world.observer) in repr(world)
    assert repr(world.observer).startswith(f"Observer({world.observer.size} entries; pool=2; 5 classes; max_passes=2;")
