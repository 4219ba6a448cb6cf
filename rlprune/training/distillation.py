"""Learning from a teacher: its logits on every image, computed once and cached, and the loss that follows them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.graph.folding import fold_for_teacher
from rlprune.storage.provenance import fingerprint, plain
from rlprune.training.batches import Batch, Draw, fetched, remembered_views, to_batch
from rlprune.training.logit_shards import LogitShards
from rlprune.training.parallel.group import current
from rlprune.training.settings import TrainingSettings
from rlprune.utils.finite import check_whole
from rlprune.utils.progress import counting_bar

Teacher = nn.Module | Tensor | LogitShards
"""A network, run on every batch, or its logits on the views of all images, as `cache_teacher_logits` gives them."""


class Ensemble(nn.Module):
    """Several teachers as one: the mean of their logits.

    Args:
        networks: normalised images (B, C, H, W) -> logits (B, classes), each.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        return torch.stack([network(images) for network in self.networks]).mean(0)


@overload
def cache_teacher_logits(
    teacher: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    batch_size: int = 256,
    *,
    known: Tensor | None = None,
) -> Tensor: ...


@overload
def cache_teacher_logits(
    teacher: nn.Module, data: ImageSet, settings: TrainingSettings, batch_size: int = 256, *, folder: Path
) -> LogitShards: ...


@torch.no_grad()
def cache_teacher_logits(
    teacher: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    batch_size: int = 256,
    *,
    known: Tensor | None = None,
    folder: Path | None = None,
) -> Tensor | LogitShards:
    """Ask a teacher once about every view of every image, instead of once per step; several processes share the images.

    Args:
        teacher: normalised images (B, C, H, W) -> logits (B, classes).
        data: the images that train the student.
        settings: of the student's training; `views` must be 1 or more.
        batch_size: images at once.
        known: its logits on the first images under the same settings, (M, views, classes); not computed again.
        folder: where they are kept, in shards that are written one after the other and not made anew; for sets whose
            logits are not to take memory. None keeps them in memory.

    Returns:
        Logits, float16 (N, views, classes), on the CPU; with a folder, what looks them up there.

    Raises:
        InUseError: another process fills the folder.
        RLPruneError: the settings keep no views, or others than are known; or the folder was filled by another teacher,
            or for other images or views.
        WriteError: there is no room in the folder.
    """
    check_whole(batch_size=batch_size, least=1)
    if settings.views < 1:
        raise RLPruneError("views=0 keeps no views of an image; give their number, to cache a teacher's logits on them")
    shape = (settings.views, len(data.classes))
    if known is not None and (known.shape[1:] != shape or len(known) > len(data)):
        raise RLPruneError(
            f"known has shape {tuple(known.shape)}; what is said of the first of {len(data)} images may be known, as "
            f"(images, {settings.views} views, {len(data.classes)} classes)"
        )
    ask = _asked(teacher, settings)
    max_batch = max(1, batch_size // settings.views)

    def compute(start: int, stop: int) -> Tensor:
        starts = range(start, stop, max_batch)  # of the same batches, whoever runs them
        own = [torch.arange(first, min(first + max_batch, stop)) for first in starts[current().part(len(starts))]]
        asked = list(_logits(ask, data, settings, own))
        return current().gather(torch.cat(asked) if asked else torch.zeros(0, *shape, dtype=torch.float16))

    if folder is not None:
        begun = fingerprint(*teacher.state_dict().values())
        views = [settings.views, settings.padding, settings.flip, settings.crop_scale]
        note = plain({"teacher": begun, "images": data.fingerprint(), "views": views})
        return LogitShards.fill(folder, (len(data), *shape), note, compute)
    before = [] if known is None else [known]
    return torch.cat([*before, compute(sum(map(len, before)), len(data))])


def _logits(
    ask: Callable[[Tensor], Tensor], data: ImageSet, settings: TrainingSettings, parts: Sequence[Tensor]
) -> Generator[Tensor, None, None]:
    """A teacher's logits on all views of the images of one part after the other, float16 (B, views, classes)."""
    table = remembered_views(len(data), settings)

    def drawn() -> Generator[Draw, None, None]:
        for part in parts:
            indices = part.repeat_interleave(settings.views)
            views = torch.arange(settings.views).repeat(len(part))
            yield Draw(indices, views, table[indices, views])

    with (
        closing(fetched(data, settings, drawn())) as batches,
        counting_bar(len(parts), desc="teacher", unit="batch", hidden=not current().leads) as progress,
    ):
        for draw, pixels in batches:
            logits = ask(to_batch(data, draw, pixels, settings).images)
            yield logits.half().cpu().view(-1, settings.views, logits.shape[1])
            progress.update()


def soft_labels(teacher: Teacher, settings: TrainingSettings) -> Callable[[Batch], Tensor]:
    """How to get a teacher's log-probabilities at the settings' temperature for a batch, float32 (B, classes).

    Raises:
        RLPruneError: cached logits that were made for another number of views.
    """
    if isinstance(teacher, Tensor | LogitShards):
        if len(teacher.shape) != 3 or teacher.shape[1] != settings.views:
            raise RLPruneError(
                f"the teacher's logits have shape {tuple(teacher.shape)}; with views={settings.views} they are "
                f"(images, {settings.views}, classes): cache them under the settings they are used with"
            )
        cached = teacher

        def look_up(batch: Batch) -> Tensor:
            return cached[batch.indices, batch.views].float().to(settings.device)

        logits_of = look_up
    else:
        ask = _asked(teacher, settings)

        def logits_of(batch: Batch) -> Tensor:
            with torch.no_grad():
                return ask(batch.images)

    return lambda batch: (logits_of(batch) / settings.temperature).log_softmax(1)


def _asked(teacher: nn.Module, settings: TrainingSettings) -> Callable[[Tensor], Tensor]:
    """A copy of the teacher, ready to run."""
    network = fold_for_teacher(teacher).to(settings.device)
    network = network.to(memory_format=settings.memory_format)  # type: ignore[call-overload]

    def ask(images: Tensor) -> Tensor:
        with settings.autocast():
            logits: Tensor = network(images)
        return logits.float()

    return ask


def distillation_loss(
    logits: Tensor, labels: Tensor, soft: Tensor, temperature: float, weight: float, of_images: Tensor | None = None
) -> Tensor:
    """Cross-entropy with the labels, and divergence from a teacher; scalar.

    Args:
        logits: of the student, float32 (B, classes).
        labels: int64 (B,).
        soft: the teacher's log-probabilities at this temperature, (B, classes).
        temperature: divides the student's logits too; gradients shrink by its square, which is made good.
        weight: of the divergence, in [0, 1]; the cross-entropy has the rest.
        of_images: weight of each image in the mean, float32 (B,); all count alike if None.
    """
    own = (logits / temperature).log_softmax(1)
    if of_images is None:
        hard = F.cross_entropy(logits, labels)
        divergence = F.kl_div(own, soft, reduction="batchmean", log_target=True)
    else:
        hard = (F.cross_entropy(logits, labels, reduction="none") * of_images).mean()
        divergence = (F.kl_div(own, soft, reduction="none", log_target=True).sum(1) * of_images).mean()
    return weight * temperature**2 * divergence + (1 - weight) * hard
