"""What a policy does with the images of a training step: which profile each runs in each pass, and what it believes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.policies.passes import CostBreakdown, another_pass
from rlprune.policies.policy import Policy
from rlprune.training.parallel.group import ALONE, Group

_SOME = 4096
"""Images that tell how many go on, at most."""


@dataclass(frozen=True, eq=False)
class Routes:
    """The ways of B images.

    Attributes:
        profiles: index into the policy's codebook for every pass, int64 (B, P); -1 where there was none.
        beliefs: logits of the prediction after every pass, float32 (B, P, classes); where there was none, those of the
            last one.
    """

    profiles: Tensor
    beliefs: Tensor

    @property
    def passes(self) -> Tensor:
        """How many passes each image has, int64 (B,)."""
        return (self.profiles >= 0).sum(1)

    def before(self, images: Tensor, passes: Tensor) -> Tensor:
        """What is believed of images, int64 (n,), after so many passes, int64 (n,): logits, float32 (n, classes).

        Without a pass they say nothing.
        """
        return self.beliefs[images, (passes - 1).clamp_min(0)]


@torch.no_grad()
def route(
    elastic: ElasticModule,
    policy: Policy,
    images: Tensor,
    prices: CostBreakdown,
    shares: Sequence[float] | None = None,
    group: Group = ALONE,
) -> Routes:
    """Let a policy decide for images as it does when it is deployed, or for as many of them as it is told.

    Args:
        elastic: the network, in eval mode.
        policy: of this network, for one penalty, on the CPU.
        images: normalised, float (B, C, H, W), on the network's device.
        prices: of the network and the policy.
        shares: of the images that ran each pass but the last, how many go on: those that the policy is keenest on. For
            policies over profiles; if None, as many as it decides.
        group: the processes whose images all of these shares are of; the ways are those of this one's images.
    """
    observer = policy.observer
    features = elastic.stem(images)
    observed = observer.features(features)
    profiles = torch.full((len(images), observer.max_passes), -1)
    beliefs = torch.zeros(len(images), observer.max_passes, observer.n_classes)
    spent = prices.stem.macs.repeat(len(images))
    running = torch.arange(len(images))
    for made in range(observer.max_passes):
        belief = beliefs[running, max(made - 1, 0)]
        passes = torch.full_like(running, made)
        with torch.autocast("cpu", enabled=False):
            seen = observer.observe(observed[running], belief, passes, spent[running] / prices.dense.macs)
            outputs = policy.network(seen)
        last = profiles[running, made - 1] if made else None
        goes_on, choice = _decided(
            policy, outputs, last, None if shares is None or not made else shares[made - 1], group
        )
        running, choice, passes = running[goes_on], choice[goes_on], passes[goes_on]
        for profile in choice.unique().tolist():
            bucket = running[choice == profile]
            logits = elastic.run_body(features[bucket], policy.codebook[profile]).float().cpu()
            believed = observer.believe(beliefs[bucket, max(made - 1, 0)], logits, passes[choice == profile])
            beliefs[bucket, made:] = believed[:, None]
        profiles[running, made] = choice
        spent[running] += prices.bodies.macs[choice]
    return Routes(profiles, beliefs)


def _decided(
    policy: Policy, outputs: Tensor, last: Tensor | None, share: float | None, group: Group
) -> tuple[Tensor, Tensor]:
    """Which of n images run another pass, bool (n,), and which profile they would, int64 (n,).

    Args:
        policy: the policy.
        outputs: of its network, float32 (n, outputs).
        last: the profile that each ran before, int64 (n,); None before the first pass.
        share: how many go on; None for as many as the policy decides.
        group: the processes whose images the share is of.
    """
    choice, accept = policy.decided(outputs)
    if last is None:
        return torch.ones_like(accept), choice
    if share is None:
        return ~accept & (choice != last), choice  # the same profile would predict the same
    scores, others = another_pass(policy, outputs, last)
    whose = group.gather(torch.full_like(scores, group.rank))
    scores = group.gather(scores)
    goes_on = torch.zeros_like(scores, dtype=torch.bool)
    goes_on[scores.topk(round(share * len(scores))).indices] = True
    return goes_on[whose == group.rank], others


def shares_going_on(
    elastic: ElasticModule, policy: Policy, data: ImageSet, prices: CostBreakdown
) -> tuple[float, ...] | None:
    """Of some images that ran each pass but the last, how many a policy lets go on.

    A network is surer of the images that it is trained on than of others, so that its policy would hardly look at one
    again. With the shares of other images, what runs late is trained on as many as it will be asked about.

    Args:
        elastic: the network, in eval mode.
        policy: for one penalty.
        data: images that the network was not trained on; some thousands count.
        prices: of the network and the policy.

    Returns:
        Shares in [0, 1]; None for a policy over levels or ratios, which says of no profile how keen it is on it.
    """
    if policy.actions.kind != "profiles":
        return None
    device = elastic.widths.device
    batches = data.subset(slice(0, _SOME)).batches(512)
    passes = torch.cat([route(elastic, policy, images.to(device), prices).passes for images, _ in batches])
    went = [int((passes > made).sum()) for made in range(policy.observer.max_passes)]
    return tuple(on / before if before else 0.0 for before, on in pairwise(went))
