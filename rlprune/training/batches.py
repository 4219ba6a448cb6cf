"""What a training step sees: shuffled images, in views that are drawn afresh or kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlprune.data.augmentation import draw_views, take_views
from rlprune.data.image_set import ImageSet
from rlprune.training.parallel.division import Division
from rlprune.training.settings import TrainingSettings


class Batch(NamedTuple):
    """What a step sees."""

    images: Tensor
    """Normalised, float32 (B, C, H, W)."""
    labels: Tensor
    """int64 (B,)."""
    indices: Tensor
    """Which images of the training set, int64 (B,)."""
    views: Tensor
    """Which of an image's fixed views, int64 (B,); zeros where views are drawn afresh."""
    n_step: int = 0
    """Images of the step, in all processes and pieces."""
    weight: float = 1.0
    """What a loss, a mean over these images, counts in the step's: the share of its images, times the scale of fp16."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a mean over these images, by its weight in the step."""
        (loss * self.weight).backward()  # type: ignore[no-untyped-call]

    def piece(self, images: slice) -> Batch:
        """Some of its images."""
        return self._replace(**{name: getattr(self, name)[images] for name in Batch._fields[:4]})


def index_batches(indices: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Cut indices into batches; a last one of a single image is left out, as it has no batch statistics."""
    parts: Sequence[Tensor] = indices.split(batch_size)
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) == 1 < batch_size else parts


def epoch_batches(
    data: ImageSet, settings: TrainingSettings, generator: torch.Generator, size: int, order: Tensor, first: int = 0
) -> Iterator[Batch]:
    """Every image once, in an order, int64 (N,), and a random view, shrunk to `size` pixels unless that is 0.

    Batches before the `first` are left out, and draw nothing. All processes draw alike, for the whole batch; then each
    takes the images that are its own.
    """
    table = remembered_views(len(data), settings) if settings.views else None
    for indices in index_batches(order, settings.batch_size)[first:]:
        if table is None:
            chosen = torch.zeros_like(indices)
            views = draw_views(len(indices), generator, padding=settings.padding, flip=settings.flip)
        else:
            chosen = torch.randint(settings.views, (len(indices),), generator=generator)
            views = table[indices, chosen]
        own = Division.of(len(indices), settings.accumulate).rows
        batch = to_batch(data, indices[own], chosen[own], views[own], settings, size)
        yield batch._replace(n_step=len(indices))


def remembered_views(n: int, settings: TrainingSettings) -> Tensor:
    """The views of each of n images, int64 (n, views, 3); they depend on nothing but `views`, `padding` and `flip`.

    They are drawn image by image, so the first images of a longer set have the views that they have alone.
    """
    chance = torch.rand(n, settings.views, 3, generator=torch.Generator().manual_seed(0))
    shifts = (chance[..., :2] * (2 * settings.padding + 1)).long()
    mirrored = (chance[..., 2:] < 0.5) & settings.flip
    return torch.cat([shifts, mirrored.long()], 2)


def to_batch(
    data: ImageSet, indices: Tensor, chosen: Tensor, views: Tensor, settings: TrainingSettings, size: int = 0
) -> Batch:
    """Cut views (B, 3) out of images, normalise them, shrink them to `size` pixels unless that is 0."""
    images = data.normalise(take_views(data.images[indices], views, padding=settings.padding))
    images = images.to(settings.device, memory_format=settings.memory_format)
    if 0 < size < min(images.shape[2:]):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return Batch(images, data.labels[indices].to(settings.device), indices, chosen)
