from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy
from torch import Tensor

from rlprune.policies.actions import ActionKind
from rlprune.policies.loop import first_profile, run_policy
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 6, seed=3), Cost(NETWORK))
CASES: list[tuple[ActionKind, str]] = [
    *(("profiles", activation) for activation in ("Tanh", "ReLU", "ELU", "SiLU")),
    ("levels", "Tanh"),
    ("ratios", "Tanh"),
]


def look_alone_and_together(policy: Policy) -> tuple[list[Any], Any]:
    """What becomes of all images, one at a time, and in one batch."""
    n_images, prices = len(DATA), CostBreakdown.of(Cost(NETWORK), policy)
    generator = torch.Generator().manual_seed(7)
    answers = 3 * torch.randn(len(BOOK), n_images, len(DATA.classes), generator=generator)
    answers[0] = 200 * answers[0]  # very sure
    answers[1] = 0  # not at all
    seen = torch.randn(n_images, len(policy.observer.mean), generator=generator)

    def run(bucket: Tensor, profile: int) -> Tensor:
        return answers[profile, bucket]

    with torch.no_grad():
        first = first_profile(policy, prices)
        one = SingleImagePolicy(policy, prices, first)
        alone = [one.run(seen[i : i + 1], lambda _, k, i=i: answers[k, i : i + 1]) for i in range(n_images)]
        return alone, run_policy(policy, seen, prices, run, first)


@pytest.mark.parametrize(("action", "activation"), CASES)
@pytest.mark.parametrize("pool", [0, 1])
@pytest.mark.parametrize(("max_passes", "combine"), [(1, 0.0), (3, 0.0), (3, 0.5)])
def test_it_decides_as_for_many(
    action: ActionKind, activation: str, pool: int, max_passes: int, combine: float
) -> None:
    seen = []
    for seed in range(6):
        like = make_policy(NETWORK, DATA, BOOK, action, max_passes, seed, combine=combine, pool=pool)
        policy = Policy(like.sizes, activation, like.observer, like.actions, BOOK).eval()
        policy.load_state_dict(like.state_dict())
        alone, together = look_alone_and_together(policy)
        assert torch.equal(torch.cat([each.profiles for each in alone]), together.profiles)
        torch.testing.assert_close(torch.cat([each.logits for each in alone]), together.logits)
        seen.append(together.profiles)
    assert len(torch.cat(seen).unique(dim=0)) > 1  # or it would not tell much
