"""What a dynamic network, or every profile of its codebook, says of a whole set of images."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.utils.finite import finite_logits


def predict_all(dynamic: DynamicCNN, data: ImageSet, batch_size: int = 256) -> Prediction:
    """Predict a whole set, batch by batch."""
    return Prediction.joined([dynamic(images) for images in data.pixels(batch_size)])


@torch.inference_mode()
def observed_features(dynamic: DynamicCNN, data: ImageSet, batch_size: int = 256) -> Tensor:
    """What the policy of a network keeps of every image between its passes, float32 (N, K)."""
    observer = dynamic.policy.observer
    if not observer.n_features:
        return torch.zeros(len(data), 0)
    batches = (images.to(dynamic.device, dynamic.dtype) for images, _ in data.batches(batch_size))
    return torch.cat([observer.features(dynamic.slices.stem(images).float()) for images in batches])


@torch.inference_mode()
def codebook_logits(dynamic: DynamicCNN, data: ImageSet, batch_size: int = 256) -> Tensor:
    """The logits of every profile of the codebook for every image, float32 (K, N, classes), whatever the policy."""
    slices = [dynamic.slice(profile) for profile in range(len(dynamic.codebook))]
    parts = []
    for images, _ in data.batches(batch_size):
        here = images.to(dynamic.device, dynamic.dtype)
        parts.append(torch.stack([finite_logits(each(here).float().cpu(), dynamic.dtype) for each in slices]))
    return torch.cat(parts, 1)
