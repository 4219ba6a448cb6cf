"""What a training step sees: shuffled images, in views that are drawn afresh or kept."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice, tee
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlprune.data.augmentation import crops_of, draw_views
from rlprune.data.image_set import ImageSet
from rlprune.data.streamed.fetching import Workers, fetch
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


class Draw(NamedTuple):
    """What is drawn for a batch before any of its images is fetched."""

    indices: Tensor
    """Which images of the training set, int64 (B,)."""
    chosen: Tensor
    """Which of their fixed views, int64 (B,); zeros where views are drawn afresh."""
    views: Tensor
    """The views, as `rlprune.data.augmentation.draw_views` gives them, (B, 3) or (B, 5)."""
    n_step: int = 0
    """Images of the step, in all processes, where these are one's own."""


def epoch_batches(
    data: ImageSet, settings: TrainingSettings, generator: torch.Generator, size: int, order: Tensor, first: int = 0
) -> Generator[Batch, None, None]:
    """Every image once, in an order, int64 (N,), and a random view, shrunk to `size` pixels unless that is 0.

    Batches before the `first` are left out. Of images in memory, they draw nothing, since steps draw from the same
    generator, and each batch draws when it is asked for. Those of streamed images draw what they drew before, since
    batches draw ahead, from a generator of their own. All processes draw alike, for the whole batch; then each fetches
    the images that are its own.
    """
    parts = index_batches(order, settings.batch_size)
    drawn: Iterator[Draw]
    if data.streamed:
        drawn = islice(draws(data, settings, generator, parts), first, None)
    else:
        drawn = draws(data, settings, generator, parts[first:])
    own = (_own(draw, settings) for draw in drawn)
    with closing(fetched(data, settings, own)) as batches:  # else workers go on where a step fails
        for draw, pixels in batches:
            yield to_batch(data, draw, pixels, settings, size)._replace(n_step=draw.n_step)


def draws(
    data: ImageSet, settings: TrainingSettings, generator: torch.Generator, parts: Iterable[Tensor]
) -> Generator[Draw, None, None]:
    """The views of whole batches of indices, each int64 (B,), one batch after the other."""
    table = remembered_views(len(data), settings) if settings.views else None
    how: dict[str, Any] = {"padding": settings.padding, "flip": settings.flip, "crop_scale": settings.crop_scale}
    for indices in parts:
        if table is None:
            yield Draw(indices, torch.zeros_like(indices), draw_views(len(indices), generator, **how))
        else:
            chosen = torch.randint(settings.views, (len(indices),), generator=generator)
            yield Draw(indices, chosen, table[indices, chosen])


def _own(draw: Draw, settings: TrainingSettings) -> Draw:
    """What this process takes of a batch."""
    rows = Division.of(len(draw.indices), settings.accumulate).rows
    return Draw(draw.indices[rows], draw.chosen[rows], draw.views[rows], len(draw.indices))


def fetched(
    data: ImageSet, settings: TrainingSettings, drawn: Iterable[Draw]
) -> Generator[tuple[Draw, Tensor], None, None]:
    """What was drawn, with its pixels on the device, uint8 (B, C, H, W); streamed ones are decoded ahead by workers."""
    ours, theirs = tee(drawn)
    jobs = ((draw.indices, draw.views) for draw in theirs)
    workers = Workers(settings.workers, pin=torch.device(settings.device).type == "cuda")
    pixels = fetch(data.images, jobs, padding=settings.padding, workers=workers, device=settings.device)
    with closing(pixels):
        yield from zip(ours, pixels, strict=True)


def remembered_views(n: int, settings: TrainingSettings) -> Tensor:
    """The views of each of n images; they depend on nothing but `views`, `padding`, `crop_scale` and `flip`.

    They are drawn image by image, so the first images of a longer set have the views that they have alone.

    Returns:
        int64 (n, views, 3), or float32 (n, views, 5) where they are cut out.
    """
    seeded = torch.Generator().manual_seed(0)
    if settings.crop_scale is not None:
        return crops_of(torch.rand(n, settings.views, 5, generator=seeded), settings.crop_scale, settings.flip)
    chance = torch.rand(n, settings.views, 3, generator=seeded)
    shifts = (chance[..., :2] * (2 * settings.padding + 1)).long()
    mirrored = (chance[..., 2:] < 0.5) & settings.flip
    return torch.cat([shifts, mirrored.long()], 2)


def to_batch(data: ImageSet, draw: Draw, pixels: Tensor, settings: TrainingSettings, size: int = 0) -> Batch:
    """Normalise views that were fetched, uint8 (B, C, H, W), and shrink them to `size` pixels unless that is 0."""
    images = data.normalise(pixels).to(settings.device, memory_format=settings.memory_format)
    if 0 < size < min(images.shape[2:]):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return Batch(images, data.labels[draw.indices].to(settings.device), draw.indices, draw.chosen)
