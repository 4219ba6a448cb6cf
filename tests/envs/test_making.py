"""An environment from plain values is the one from objects, is loaded once, and says what is wrong with them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from nets import make_elastic, make_policy

from rlprune.data.loading import load
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.envs import ENV_IDS, KeepRatioEnv, KeepRatioVectorEnv, World, forget, make_world
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.profiles.latency import Latency
from rlprune.storage.bundle import save_bundle
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import save_policy

pytestmark = pytest.mark.usefixtures("apart")
DATA = "my_data:five_colours"
NOTES = {"source": {"data": DATA, "split_seed": 3, "shares": [0.5, 0.3, 0.2]}, "split": {"rule": 2, "sample": []}}
SPLITS = load(DATA, seed=3, shares=(0.5, 0.3, 0.2))
NETWORK = make_elastic("residual")
BOOK = [[0, 0, 0], [2, 2, 2], [4, 4, 4]]
LATENCY = Latency(NETWORK.keep_ratios, 1, 1.0, 0.5, 4.0, 1.0, ((0.0, 0.1, 0.2, 0.3, 0.4),) * 3, 0.0, {}, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder: a network, a bundle of it, a codebook and a table of times."""
    forget()
    save_network(tmp_path / "network", NETWORK, SPLITS.network, NOTES)
    policy = make_policy(NETWORK, SPLITS.policy, torch.tensor(BOOK))
    save_bundle(tmp_path / "bundle", NETWORK, policy, SPLITS.network, {"network": NOTES, "split": NOTES["split"]})
    (tmp_path / "codebook.json").write_text(json.dumps(BOOK[1:]))
    LATENCY.save(tmp_path / "latency.json")
    return tmp_path


def episodes(env: gymnasium.Env[Any, Any], n: int = 6) -> list[Any]:
    """What some random episodes give, seeds and actions being the same."""
    seen: list[Any] = [env.reset(seed=5)]
    env.action_space.seed(1)
    for _ in range(n):
        seen.append(env.step(env.action_space.sample()))
        if seen[-1][2]:
            seen.append(env.reset())
    return seen


@pytest.mark.parametrize("name", ENV_IDS)
def test_plain_values_and_what_is_made_of_a_specification_give_the_same_episodes(name: str, folder: Path) -> None:
    plain = {"network": str(folder / "network"), "data": DATA, "penalty": 0.2, "cost": "params", "pool": 1}
    env = gymnasium.make(name, **json.loads(json.dumps(plain)))
    assert env.spec is not None and env.spec.max_episode_steps == 4
    text = env.spec.to_json()
    assert len(text) < 2000
    objects: dict[str, Any] = plain | {"network": NETWORK, "data": SPLITS.policy}
    expected = episodes(gymnasium.make(name, **objects))
    for each in (env, gymnasium.make(EnvSpec.from_json(text))):
        np.testing.assert_equal(episodes(each), expected)


@pytest.mark.parametrize("name", ENV_IDS)
def test_the_batched_twin_is_made_of_the_same_values(name: str, folder: Path) -> None:
    plain: dict[str, Any] = {"network": str(folder / "network"), "data": {"data": DATA}, "penalty": [0.1, 0.2]}
    single, batch = gymnasium.make(name, **plain), gymnasium.make_vec(name, num_envs=2, **plain)
    np.testing.assert_allclose(batch.reset(seed=5)[0][0], single.reset(seed=5)[0], atol=1e-6)
    assert batch.spec is not None and len(batch.spec.to_json()) < 2000
    again = gymnasium.make_vec(EnvSpec.from_json(batch.spec.to_json()))
    np.testing.assert_array_equal(again.reset(seed=5)[0], batch.reset(seed=5)[0])


def test_what_is_named_is_loaded_once_until_it_changes(folder: Path) -> None:
    def made(**others: Any) -> World:
        return make_world(folder / "network", DATA, **others)

    first = made()
    assert made() is first and made(split="policy", penalty=0.3, cost="macs").network is first.network
    other = made(penalty=0.1, split="validation")
    assert other is not first and other.network is first.network
    assert other.data.images.data_ptr() != first.data.images.data_ptr()
    assert other.observer.mean.equal(first.observer.mean)
    save_network(folder / "network", make_elastic("residual", seed=1), SPLITS.network, NOTES)
    assert made().network is not first.network
    forget()
    assert made().network is not first.network


def test_objects_are_taken_as_they_are(folder: Path) -> None:
    assert make_world(NETWORK, SPLITS.policy) is not make_world(NETWORK, SPLITS.policy)
    observer = Observer.fit(NETWORK, SPLITS.policy)
    worlds = [make_world(folder / "network", DATA, observer=observer) for _ in range(2)]
    assert worlds[0] is not worlds[1] and worlds[0].network is worlds[1].network
    shown = make_world(NETWORK, SPLITS, split="test")
    assert shown.data is SPLITS.test and shown.observer.mean.equal(observer.mean)


def test_images_are_divided_and_prepared_as_the_network_was_trained(folder: Path) -> None:
    world = make_world(folder / "network", DATA)
    assert world.data.images.equal(SPLITS.policy.images) and world.data.mean == SPLITS.network.mean
    with pytest.raises(RLPruneError, match="the network was trained on the split of seed 3; with --split-seed 1 some"):
        make_world(folder / "network", {"data": DATA, "split_seed": 1})
    assert make_world(NETWORK, {"data": DATA, "split_seed": 3, "shares": [0.5, 0.3, 0.2]}).data.labels.equal(
        SPLITS.policy.labels
    )


@pytest.mark.parametrize(
    ("network", "codebook", "expected"),
    [
        ("network", BOOK, BOOK),
        ("network", ".", BOOK[1:]),
        ("network", "codebook.json", BOOK[1:]),
        ("network", "bundle", BOOK),
        ("bundle", None, BOOK),
        (".", None, BOOK),
        ("network", None, [[level] * 3 for level in range(5)]),
    ],
)
def test_a_codebook_may_be_lists_or_lie_anywhere(network: str, codebook: Any, expected: Any, folder: Path) -> None:
    named = codebook if codebook is None or isinstance(codebook, list) else str(folder / codebook)
    world = make_world(str(folder / network), DATA, action="profiles", codebook=named)
    assert world.actions.codebook is not None and world.actions.codebook.tolist() == expected


def test_profiles_are_those_of_a_policy_that_observes_what_it_likes(folder: Path) -> None:
    observer = Observer.fit(NETWORK, SPLITS.policy, observation="mine:Doubt")
    actions = Actions.from_network(NETWORK, "profiles", torch.tensor(BOOK[1:]), 1)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, torch.tensor(BOOK[1:]))
    save_policy(folder / "own" / "policy", policy, {})
    world = make_world(str(folder / "network"), DATA, action="profiles", codebook=str(folder / "own"))
    assert world.actions.codebook is not None and world.actions.codebook.tolist() == BOOK[1:]


def test_a_specialised_network_s_own_codebook_counts() -> None:
    network = make_elastic("residual")
    network.specialise(torch.tensor(BOOK))
    codebook = make_world(network, SPLITS, action="profiles").actions.codebook
    assert codebook is not None and codebook.tolist() == BOOK


def test_time_is_named_by_its_file(folder: Path) -> None:
    for name in (folder / "latency.json", str(folder)):
        assert make_world(folder / "network", DATA, cost=name).rules.cost == LATENCY


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": None, "data": None}, "network and data missing: .* RL Zoo passes env_kwargs .*; --env-kwargs"),
        ({"data": None}, "data missing: give network=FOLDER and data=NAME"),
        ({"network": 5}, "network is 5; give a folder with a network or a bundle, or an ElasticCNN"),
        ({"network": "nowhere"}, "network 'nowhere' is no folder; name the one of a network or a bundle"),
        ({"network": "\0"}, r"network '\\x00' is no folder"),
        ({"network": torch.nn.Linear(2, 2)}, r"a Linear, which has no keep levels yet; .*ElasticCNN\.from_model\("),
        ({"data": 7}, "data is 7; give the name or the folder of images"),
        ({"data": {"split_seed": 1}}, "data is missing: give text"),
        ({"data": {"data": DATA, "seed": 1}}, "seed=1: there is no such setting"),
        ({"data": "no/such/folder"}, "there is nothing at 'no/such/folder'"),
        ({"split": "train"}, "split is 'train'; give one of network, policy, validation, test"),
        ({"data": SPLITS.policy, "split": "test"}, "split is 'test', and data is one set of images already"),
        ({"codebook": "network"}, "network holds a network; a policy or bundle is needed"),
        ({"codebook": "."}, "codebook: . has none; give a run folder with codebook.json"),
        ({"codebook": "nothing.json"}, "codebook: nothing.json cannot be read"),
        ({"codebook": [[0, 0, 0], [1, 1]]}, "codebook is .* give one list of whole numbers for each profile"),
        ({"cost": "nothing.json"}, "cost kind 'nothing.json' is unknown; allowed: params, macs, or a Latency or its"),
        ({"cost": "network/network.json"}, "network.json holds no latency table"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_network(tmp_path / "network", NETWORK, SPLITS.network, NOTES)
    values: dict[str, Any] = {"network": "network", "data": DATA, "action": "profiles"} | wrong
    with pytest.raises(RLPruneError, match=message) as caught:
        KeepRatioEnv(**values)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_clients_learn_by_the_type_of_error_which_arguments_there_are() -> None:
    for make in (KeepRatioEnv, partial(KeepRatioVectorEnv, 2, NETWORK, SPLITS.policy)):
        with pytest.raises(TypeError, match="unexpected keyword argument 'frame_skip'"):
            make(frame_skip=4)


def test_images_of_another_kind_are_refused(folder: Path) -> None:
    elastic = load_network(folder / "network").network
    with pytest.raises(RLPruneError, match=r"the images are of shape \(1, 3, 4\) in 2 classes; the network takes"):
        make_world(elastic, "my_data:hundred")
    dynamic = DynamicCNN.for_images(NETWORK, make_policy(NETWORK, SPLITS.policy, torch.tensor(BOOK)), SPLITS.network)
    with pytest.raises(RLPruneError, match=r"a DynamicCNN, which decides by itself; .* in it: its \.elastic"):
        World(dynamic, SPLITS.policy)  # type: ignore[arg-type]
    with pytest.raises(RLPruneError, match=r"data is four sets of images; give one of them, such as splits\.policy"):
        World(NETWORK, SPLITS)  # type: ignore[arg-type]
