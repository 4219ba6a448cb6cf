"""A cascade as a perceptron decides as the cascade does, wherever it runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from nets import make_centred, make_data, make_levels

from rlprune.baselines.cascade import Cascade, cascade_policy
from rlprune.baselines.cascade_network import ACTIVATION, cascade_layers
from rlprune.baselines.cascade_search import margins_of
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.loop import run_policy
from rlprune.policies.observations import Observer
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import CostBreakdown, PassResult
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))
LOGITS = 0.8 * torch.randn(3, 400, len(DATA.classes), generator=torch.Generator().manual_seed(4))


def made(
    cascade: Cascade, max_passes: int, widths: tuple[int, ...], tilt: float | None = None, pool: int = 0
) -> Policy:
    """The perceptron; with a tilt, for penalties from 0.01 to 1."""
    penalties = None if tilt is None else PenaltyRange(0.01, 1.0)
    observer = Observer.fit(
        NETWORK, DATA, max_passes=max_passes, pool=pool, combine=cascade.combine, penalties=penalties
    )
    actions = Actions.from_network(NETWORK, "profiles", BOOK, max_passes)
    budgets = None if tilt is None else torch.tensor([[0.01, 0.9], [1.0, 0.1]], dtype=torch.float64)
    layers = cascade_layers(cascade, observer, actions, widths, tilt or 0.0)
    return Policy.from_linear(layers, ACTIVATION, observer=observer, actions=actions, budgets=budgets)


def run(policy: Policy) -> PassResult:
    prices = CostBreakdown.of(Cost(NETWORK), policy)
    features = torch.zeros(400, policy.observer.n_features)
    return run_policy(policy, features, prices, lambda images, profile: LOGITS[profile, images])


def padded(profiles: torch.Tensor, max_passes: int) -> list[list[int]]:
    return torch.nn.functional.pad(profiles, (0, max_passes - profiles.shape[1]), value=-1).tolist()


@pytest.mark.parametrize("widths", [(3,), (16,), (8, 3), (4, 6, 5)])
@pytest.mark.parametrize(
    ("steps", "margins", "max_passes", "combine"),
    [
        ((0, 2), (0.8,), 2, 0.0),
        ((0, 1), (0.8,), 3, 0.5),
        ((1,), (), 2, 0.0),
        ((2,), (), 3, 0.0),
        ((0, 1, 2), (0.4, 0.5), 3, 1.0),
        ((0, 1, 2), (3.0, 0.2), 3, 0.0),
        ((2, 0, 1), (0.1, 9.0), 3, 0.33),
    ],
)
def test_it_decides_as_the_cascade(
    steps: tuple[int, ...], margins: tuple[float, ...], max_passes: int, combine: float, widths: tuple[int, ...]
) -> None:
    cascade = Cascade(steps, margins, combine=combine)
    policy = made(cascade, max_passes, widths, pool=len(widths) - 1)
    expected = padded(cascade.run(LOGITS).profiles, max_passes)
    assert run(policy).profiles.tolist() == expected
    one = SingleImagePolicy(policy, CostBreakdown.of(Cost(NETWORK), policy), None)
    features = torch.zeros(1, policy.observer.n_features)
    for image in range(0, 400, 7):
        found = one.run(features, lambda _, profile, i=image: LOGITS[profile, i][None])
        assert found.profiles.tolist() == [expected[image]]


def test_over_a_range_it_is_the_cascade_in_the_middle_and_asks_for_less_where_compute_is_dear() -> None:
    cascade = Cascade((0, 1, 2), (0.4, 0.5))
    policy = made(cascade, 3, (8, 8), tilt=-0.1)
    assert torch.equal(run(policy.at(0.1)).profiles, cascade.run(LOGITS).profiles)
    passes = [int((run(policy.at(penalty)).profiles >= 0).sum()) for penalty in (0.01, 0.1, 1.0)]
    assert all(dear < cheap for cheap, dear in pairwise(passes))
    asked = [4 / (1 / (margin / (margin + 4) - 0.05) - 1) for margin in cascade.margins]  # at the highest
    assert torch.equal(run(policy.at(1.0)).profiles, Cascade((0, 1, 2), asked).run(LOGITS).profiles)


def test_outputs_are_bounded_so_that_every_action_is_explored() -> None:
    policy = made(Cascade((0, 2), (0.8,)), 2, (64, 64))
    seen = torch.rand(500, policy.observer.size, generator=torch.Generator().manual_seed(0))
    assert float(policy.network(seen).detach().softmax(1).min()) > 2e-4


def test_an_exported_one_decides_alike(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plain = DynamicCNN(NETWORK, cascade_policy(NETWORK, BOOK, Cascade((0,))), DATA.mean, DATA.std, DATA.classes)
    middle = float(margins_of(plain(DATA.images).probabilities.log()).quantile(0.5, interpolation="midpoint"))
    policy = made(Cascade((0, 2), (middle,)), 2, (8, 8))
    dynamic = DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)
    save_onnx(tmp_path / "dynamic.onnx", dynamic)
    profiles = dynamic(DATA.images).profiles
    assert torch.equal(OnnxCNN(tmp_path / "dynamic.onnx")(DATA.images).profiles, profiles)
    assert profiles.unique(dim=0).tolist() == [[0, -1], [0, 2]]


@pytest.mark.parametrize(
    ("steps", "widths", "message"),
    [
        ((0, 1, 2), (8,), "a cascade of 3 steps needs the default observation, profiles and as many passes"),
        ((0, 1), (8, 1), r"widths=\(8, 1\): a cascade needs hidden layers of 2 units or more"),
        ((0, 1), (), r"widths=\(\)"),
    ],
)
def test_cascades_that_do_not_fit_are_refused(steps: tuple[int, ...], widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        made(Cascade(steps, 0.5), 2, widths)
