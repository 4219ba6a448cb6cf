"""Linear layers from anywhere become a policy that gives the same outputs, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import make_data, make_elastic
from torch import nn

from rlprune.envs import World
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.linear import linear_layers
from rlprune.policies.policy import Policy
from rlprune.storage.policies import load_policy, save_policy

WORLD = World(make_elastic("plain"), make_data(20), action="profiles", max_passes=2)
N, M = WORLD.observer.size, WORLD.actions.n_outputs
SEEN = torch.rand(50, N, generator=torch.Generator().manual_seed(0))


def made(source: Any, activation: str | None = None, world: World = WORLD, **more: Any) -> Policy:
    return Policy.from_linear(source, activation, observer=world.observer, actions=world.actions, **more)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(N, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, M)),  # as CleanRL has it
        nn.Sequential(
            nn.Flatten(), nn.Sequential(nn.Linear(N, 8, bias=False), nn.ELU(), nn.Dropout()), nn.Linear(8, M)
        ),
        nn.Sequential(nn.Linear(N, M)),
        nn.Sequential(nn.Linear(N, 8), nn.Tanh(), nn.Linear(8, M), nn.Tanh()),
        nn.Sequential(nn.Linear(N, 8), nn.SiLU(), nn.Linear(8, M)).double(),
    ],
)
@torch.no_grad()
def test_a_network_of_torch_gives_the_same_outputs(network: nn.Sequential, tmp_path: Any) -> None:
    policy = made(network)
    before = network.eval()(SEEN.to(next(network.parameters()).dtype)).float()
    torch.testing.assert_close(policy.network(SEEN), before)
    for parameter in network.parameters():
        parameter.zero_()  # what was copied stays
    save_policy(tmp_path / "policy", policy, {})
    torch.testing.assert_close(load_policy(tmp_path / "policy").policy.network(SEEN), before)


def test_arrays_of_other_libraries_are_pairs_of_weights_and_biases() -> None:
    generator = np.random.default_rng(0)
    (w, b), (v, c) = [(generator.normal(size=shape), generator.normal(size=shape[0])) for shape in ((5, N), (M, 5))]
    policy = made([(w, b), (v, c)], "ReLU")
    expected = np.maximum(SEEN.numpy() @ w.T + b, 0) @ v.T + c
    np.testing.assert_allclose(policy.network(SEEN).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made([(w, b), nn.ReLU(), (v, c)]).network(SEEN), policy.network(SEEN))
    assert made([(generator.normal(size=(M, N)), None)]).sizes == (N, M)


def test_a_policy_over_levels_needs_a_codebook() -> None:
    world = World(WORLD.network, make_data(20), action="levels")
    layer = nn.Linear(N, world.actions.n_outputs)
    with pytest.raises(RLPruneError, match=r"a policy over levels needs the profiles to deploy; give codebook, int64"):
        made(layer, world=world)
    full = world.network.full[None]
    assert torch.equal(made(layer, world=world, codebook=full).codebook, full)


@pytest.mark.parametrize(
    ("source", "activation", "message"),
    [
        ([], None, "a policy begins with a linear layer"),
        (nn.Sequential(nn.Tanh(), nn.Linear(N, M)), None, "a policy begins with a linear layer"),
        (
            nn.Sequential(nn.Linear(N, 8), nn.GELU(), nn.Linear(8, M)),
            None,
            r"cannot have GELU\(.*\) between its linear",
        ),
        (nn.Sequential(nn.Linear(N, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, M)), None, "cannot have LayerNorm"),
        (
            nn.Sequential(nn.Linear(N, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, M)),
            None,
            "the same activ",
        ),
        (nn.Sequential(nn.Linear(N, 8), nn.Tanh(), nn.Tanh(), nn.Linear(8, M)), None, "has the same activation, once"),
        (
            nn.Sequential(nn.Linear(N, 8), nn.ReLU()),
            None,
            "ends with a linear layer, or with Tanh after it; this one ends with ReLU",
        ),
        (
            nn.Sequential(nn.Linear(N, 8), nn.Linear(8, M)),
            None,
            "activation is not given; name what is between the lay",
        ),
        (
            nn.Sequential(nn.Linear(N, 8), nn.Tanh(), nn.Linear(8, M)),
            "ReLU",
            "activation is 'ReLU', but the network has",
        ),
        (nn.Conv2d(1, 1, 1), None, "cannot have Conv2d"),
        ([(torch.ones(N, M), torch.zeros(M))], None, r"weight of shape \(\d+, \d+\) and a bias of .* transposed where"),
        (
            [(torch.ones(8, N), None), (torch.ones(M, 9), None)],
            "Tanh",
            "a layer gives 8 numbers, and the next one takes 9",
        ),
        ([(np.full((M, N), np.nan), None)], None, "numbers that are not finite"),
        (["x"], None, "a policy has no parts of type str"),
        ([3], None, "a policy has no parts of type int"),
        (None, None, "a policy has no parts of type NoneType"),
        ([("a", "b")], None, "a policy has no parts of type str"),
        (nn.Linear(N + 1, M), None, r"the policy maps \d+ numbers to"),
        ([(torch.ones(8, N), None), (torch.ones(M, 8), None)], "GELU", "activation 'GELU' is unknown; allowed: Tanh"),
    ],
)
def test_what_is_no_policy_is_refused(source: Any, activation: str | None, message: str) -> None:
    with pytest.raises((RLPruneError, BundleError), match=message):
        made(source, activation)


def test_layers_are_copies_in_float32() -> None:
    layer = nn.Linear(3, 2).half()
    ((weight, bias),), _ = linear_layers(layer)
    assert weight.dtype == bias.dtype == torch.float32 and weight.data_ptr() != layer.weight.data_ptr()
