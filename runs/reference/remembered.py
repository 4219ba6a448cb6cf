"""A dynamic network that decides on remembered answers, so that many policies are measured in the time of one."""

import torch
from torch import Tensor

from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.observation import pooled_features
from rlprune.passes import look
from rlprune.policy import Policy
from rlprune.runtime import DynamicCNN, Prediction, predicted


class RememberedCNN(DynamicCNN):
    """What it takes are the indices of images, (B, 1, 1, 1), instead of images.

    Args:
        elastic: the network.
        policy: for it.
        data: the images.
        answers: what every profile of the policy's codebook says of them, as `evaluate.codebook_logits` gives it.
    """

    def __init__(self, elastic: ElasticCNN, policy: Policy, data: ImageSet, answers: Tensor) -> None:
        super().__init__(elastic, policy, data.mean, data.std, data.classes)
        observer = self.policy.observer
        self.answers, self.seen = answers, torch.zeros(len(data), 0)
        if observer.pool:
            self.seen = observer.standardise(torch.cat(list(pooled_features(elastic, data, observer.pool))))

    def __call__(self, images: Tensor, *, budget: float | None = None, penalty: float | None = None) -> Prediction:
        """Decide as the network does."""
        now = self if budget is None and penalty is None else self.at(budget=budget, penalty=penalty)
        rows = images[:, 0, 0, 0]

        def run(bucket: Tensor, profile: int) -> Tensor:
            return self.answers[profile, rows[bucket]]

        passes = look(now.policy, self.seen[rows], self.prices, run, now.first)
        return predicted(passes.logits, passes.profiles, self._ratios, self.prices)
