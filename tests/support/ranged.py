"""A small network with a policy for a range of penalties, whose budgets were measured."""

from __future__ import annotations

from functools import cache

import torch
from nets import make_data, make_elastic
from torch import Tensor

from rlprune import DynamicCNN
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange, monotone_budgets
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_elastic("residual"), make_data(64)
RANGE = PenaltyRange(0.01, 1.0)
BOOK = sorted_codebook(torch.tensor([[1, 0, 0], [2, 2, 2], [4, 4, 4]]), Cost(NETWORK))
KNOWN = torch.tensor([[0.01, 0.9], [0.1, 0.5], [1.0, 0.2]], dtype=torch.float64)


def make_ranged(budgets: Tensor = KNOWN) -> Policy:
    """The dearer the price, the cheaper the profile, and other images later than others."""
    observer = Observer.fit(NETWORK, DATA, max_passes=1, pool=1, penalties=RANGE)
    actions = Actions.from_network(NETWORK, "profiles", BOOK, 1)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, BOOK, budgets)
    (layer,) = policy.network
    assert isinstance(layer, torch.nn.Linear)
    layer.weight.data.zero_()
    wants = torch.arange(3.0)
    layer.weight.data[:, 0] = wants
    layer.weight.data[:, -1] = -6 * wants
    layer.bias.data = 3 * wants - 0.5 * wants.square()
    return policy.eval()


def measured(dynamic: DynamicCNN, penalty: float, images: Tensor = DATA.images) -> float:
    predicted = dynamic(images, penalty=penalty)
    return float(predicted.macs.double().mean() / dynamic.prices.dense.macs)


def make_dynamic() -> DynamicCNN:
    """With a policy that knows what its penalties cost."""
    rough = DynamicCNN(NETWORK, make_ranged(), DATA.mean, DATA.std, DATA.classes)
    penalties = RANGE.at(torch.linspace(0, 1, 33, dtype=torch.float64))
    shares = torch.tensor([measured(rough, float(penalty)) for penalty in penalties], dtype=torch.float64)
    budgets = monotone_budgets(torch.stack([penalties, shares], 1))
    return DynamicCNN(NETWORK, make_ranged(budgets), DATA.mean, DATA.std, DATA.classes)


DYNAMIC = make_dynamic()


@cache
def onnx_content() -> bytes:
    """Its ONNX file, which takes seconds to make."""
    from rlprune.deployment.onnx.export import to_onnx

    return to_onnx(DYNAMIC)
