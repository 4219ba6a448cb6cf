"""A dynamic network that decides on logits computed before, so that measuring many policies takes as long as one."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.images import Images
from rlprune.deployment.prediction import Prediction, predicted
from rlprune.elastic.module import ElasticModule
from rlprune.policies.loop import run_policy
from rlprune.policies.observations import pooled_features
from rlprune.policies.policy import Policy


class OfflineCNN(DynamicCNN):
    """A `DynamicCNN` that takes the indices of images, int64 (B, 1, 1, 1), instead of images.

    Args:
        elastic: the network.
        policy: for it.
        data: the images.
        logits: of every profile of the policy's codebook for them, as `rlprune.evaluation.dynamic.codebook_logits`
            gives them.
    """

    def __init__(self, elastic: ElasticModule, policy: Policy, data: ImageSet, logits: Tensor) -> None:
        super().__init__(elastic, policy, data.mean, data.std, data.classes, preprocessing=data.preprocessing)
        observer = self.policy.observer
        self.logits = logits
        self.seen = torch.zeros(len(data), 0)
        if observer.pool:
            self.seen = observer.observation.standardise(torch.cat(list(pooled_features(elastic, data, observer.pool))))

    def __call__(self, images: Images, *, budget: float | None = None, penalty: float | None = None) -> Prediction:
        """Decide as the network does."""
        assert isinstance(images, Tensor)
        now = self if budget is None and penalty is None else self.at(budget=budget, penalty=penalty)
        rows = images[:, 0, 0, 0]

        def run(bucket: Tensor, profile: int) -> Tensor:
            return self.logits[profile, rows[bucket]]

        passes = run_policy(now.policy, self.seen[rows], self.prices, run, now.first)
        return predicted(passes.logits, passes.profiles, self._ratios, self.prices)
