"""The one loop that trains networks: seeded, resumable, in reduced precision where that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rlprune.data import ImageSet, draw_views, normalise, take_views
from rlprune.errors import RLPruneError
from rlprune.files import atomic_write
from rlprune.memory import keep_freed


class Batch(NamedTuple):
    """What a step sees."""

    images: Tensor
    """Normalised, float32 (B, C, H, W)."""
    labels: Tensor
    """int64 (B,)."""
    indices: Tensor
    """Which images of the training set, int64 (B,)."""
    views: Tensor
    """Which of an image's remembered views, int64 (B,); zeros where views are drawn afresh."""


Step = Callable[[Batch], dict[str, float]]
"""Forward and backward of one batch -> figures to report."""
Log = Callable[[int, dict[str, float]], None]
"""Receives the number of images seen and figures: the means over an epoch."""


@dataclass(frozen=True)
class TrainingSettings:
    """Stochastic gradient descent with momentum, a short warm-up and a cosine, to zero unless weights are averaged."""

    epochs: int = 20
    """Passes over the training images; 0 leaves the network as it is."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Nesterov momentum."""
    weight_decay: float = 5e-4
    """L2 penalty on convolution and linear weights; norms and biases have none."""
    scale_penalty: float = 0.0
    """L1 penalty on the scales of batch norms, which makes those of unimportant channels small: they can then be ranked
    by `bn_scale` (Liu et al., "Network Slimming", ICCV 2017)."""
    warm_up: float = 0.1
    """Share of the steps in which the learning rate rises."""
    clip_norm: float = 5.0
    """Gradients are scaled down to this norm."""
    padding: int = 4
    """Pixels by which images are shifted at random in every direction; 0 for none."""
    flip: bool = True
    """Mirror images at random; wrong for digits."""
    views: int = 0
    """So many shifted and mirrored views of each image, always the same ones; 0 draws new ones every time."""
    early_size: int = 0
    """Pixels to which images are shrunk early in training, which is faster; 0 for never."""
    early_share: float = 0.6
    """Share of the epochs that count as early, if `early_size` is given."""
    average_share: float = 0.0
    """Share of the epochs, the last ones, over whose steps the weights are averaged; the learning rate stays what it
    has fallen to by then. 0 takes the last weights. (Izmailov et al., "Averaging Weights Leads to Wider Optima and
    Better Generalization", UAI 2018.)"""
    temperature: float = 2.0
    """Softens teacher and student alike, where there is a teacher."""
    distillation: float = 0.7
    """Weight of the teacher's soft labels against the true ones, in [0, 1], where there is a teacher."""
    bf16: bool | None = None
    """Run convolutions in bfloat16 (autocast); if not said, where the hardware computes in it."""
    channels_last: bool = True
    """Keep tensors in channels-last memory format."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    seed: int = 0
    """Fixes the order of images, augmentation and random profiles."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.learning_rate <= 0:
            raise RLPruneError(
                f"epochs={self.epochs}, batch_size={self.batch_size}, learning_rate={self.learning_rate}: "
                "allowed are 0 or more, 1 or more, and above 0"
            )
        if not 0 <= self.warm_up < 1:
            raise RLPruneError(f"warm_up={self.warm_up} must be in [0, 1)")
        if not 0 <= self.momentum < 1 or min(self.weight_decay, self.padding, self.scale_penalty) < 0:
            raise RLPruneError(
                f"momentum={self.momentum}, weight_decay={self.weight_decay}, padding={self.padding}, "
                f"scale_penalty={self.scale_penalty}: allowed are [0, 1), and 0 or more for the others"
            )
        if self.views < 0 or self.early_size < 0 or not 0 <= self.early_share <= 1:
            raise RLPruneError(
                f"views={self.views}, early_size={self.early_size}, early_share={self.early_share}: "
                "allowed are 0 or more, 0 or more, and [0, 1]"
            )
        if not 0 <= self.average_share <= 1:
            raise RLPruneError(f"average_share={self.average_share} must be in [0, 1]")
        if self.temperature <= 0 or not 0 <= self.distillation <= 1:
            raise RLPruneError(
                f"temperature={self.temperature}, distillation={self.distillation}: allowed are above 0, and [0, 1]"
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).partition("\n")[0]
            raise RLPruneError(f"device={self.device!r} cannot be used here ({reason}); cpu always can") from error

    @property
    def memory_format(self) -> torch.memory_format:
        """Of networks and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def size_in(self, epoch: int) -> int:
        """Pixels to which images are shrunk in an epoch; 0 leaves them."""
        return self.early_size if epoch < round(self.early_share * self.epochs) else 0

    @property
    def first_averaged(self) -> int:
        """The first epoch over whose steps weights are averaged; none has this number if they are not."""
        return self.epochs - round(self.average_share * self.epochs)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes."""
        kind = torch.device(self.device).type
        enabled = _computes_in_bf16(kind) if self.bf16 is None else self.bf16
        return torch.autocast(kind, torch.bfloat16, enabled=enabled)


_N_SETTLING = 200
"""Batches by which norms measure the statistics of averaged weights."""


def _computes_in_bf16(device: str) -> bool:
    """Whether bfloat16 is a number format of the hardware, not one that is emulated."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return False


def fit(
    network: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    step: Callable[[torch.Generator], Step],
    *,
    checkpoint: Path | None = None,
    log: Log | None = None,
    label: str = "training",
) -> None:
    """Train a network in place.

    Args:
        network: what is trained; left in eval mode.
        data: its training images.
        settings: how.
        step: given the run's random generator, returns the forward and backward of a batch; gradients may add up there.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called after every epoch.
        label: what the progress bar says.

    Raises:
        RLPruneError: the checkpoint belongs to other settings or another network; or the network takes no smaller
            images, which `early_size` asks for.
    """
    keep_freed()
    network.to(device=settings.device, memory_format=settings.memory_format)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(settings.seed)
    n_steps = len(index_batches(torch.arange(len(data)), settings.batch_size))
    optimizer = torch.optim.SGD(
        _with_decay(network, settings.weight_decay),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )
    n_all = settings.epochs * n_steps or 1  # a schedule has a first step, taken or not
    n_falling = max(settings.first_averaged * n_steps, math.ceil(settings.warm_up * n_all))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: share_of_peak(min(n, n_falling), n_all, settings.warm_up)
    )
    run_batch = step(generator)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    average = AveragedModel(network) if settings.first_averaged < settings.epochs else None
    if average is not None:
        state["average"] = average
    first_epoch = _resume(checkpoint, state, generator, settings)
    with tqdm(total=settings.epochs * n_steps, initial=first_epoch * n_steps, desc=label, unit="batch") as progress:
        for epoch in range(first_epoch, settings.epochs):
            network.train()
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # dropout draws from the global one
            totals: dict[str, float] = {}
            for batch in _batches(data, settings, generator, settings.size_in(epoch)):
                optimizer.zero_grad(set_to_none=True)
                with _explained(batch.images.shape[2:] != data.images.shape[2:], settings.early_size):
                    figures = run_batch(batch)
                for key, value in figures.items():
                    totals[key] = totals.get(key, 0.0) + value / n_steps
                if settings.scale_penalty:
                    _penalise_scales(network, settings.scale_penalty)
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
                optimizer.step()
                schedule.step()
                if average is not None and epoch >= settings.first_averaged:
                    average.update_parameters(network)
                progress.update()
            network.eval()
            progress.set_postfix({key: f"{value:.3f}" for key, value in totals.items()})
            if log is not None:
                log((epoch + 1) * len(data), totals | {"learning_rate": float(schedule.get_last_lr()[0])})
            if checkpoint is not None:
                _save(checkpoint, state, generator, settings, epoch + 1)
    if average is not None:
        network.load_state_dict(average.module.state_dict())
        epochs = (_batches(data, settings, generator, 0) for _ in count())
        _settle(network, islice(chain.from_iterable(epochs), _N_SETTLING), run_batch)
    network.eval()


def _settle(network: nn.Module, batches: Iterable[Batch], run_batch: Step) -> None:
    """Let norms measure the statistics of weights that were set, not trained; nothing else changes."""
    network.train()
    for batch in batches:
        run_batch(batch)
    network.zero_grad(set_to_none=True)


@torch.no_grad()
def _penalise_scales(network: nn.Module, weight: float) -> None:
    """Add the gradient of an L1 penalty on the scales of norms that took part in a step."""
    for module in network.modules():
        scale = getattr(module, "weight", None) if hasattr(module, "running_mean") else None
        if isinstance(scale, Tensor) and scale.grad is not None:
            ran = (scale.grad != 0).any(1, keepdim=True) if scale.ndim > 1 else 1  # of elastic norms some sets only
            scale.grad.add_(weight * scale.sign() * ran)


@contextmanager
def _explained(shrunk: bool, early_size: int) -> Iterator[None]:
    """Make the failure of a step on shrunk images name the setting that shrank them."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        if not shrunk or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).partition("\n")[0]
        raise RLPruneError(
            f"early_size={early_size}: no step can be made with images of that size ({reason}); a network that takes "
            "images of one size only needs early_size=0"
        ) from error


def share_of_peak(n: int, n_steps: int, warm_up: float) -> float:
    """Learning rate over its peak after n of n_steps: a share of them it rises in a line, then it falls as a cosine."""
    n_rising = warm_up * n_steps
    if n < n_rising:
        return (n + 1) / (n_rising + 1)
    return (1 + math.cos(math.pi * (n - n_rising) / (n_steps - n_rising))) / 2


def _with_decay(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two halves: matrices and filters decay, vectors (per level or not) and lone constants do not."""
    without = {
        id(p)
        for m in network.modules()
        for p in m.parameters(recurse=False)
        if hasattr(m, "running_mean") or isinstance(m, fx.GraphModule)
    }
    trainable = [p for p in network.parameters() if p.requires_grad]
    decays = [p for p in trainable if p.ndim > 1 and id(p) not in without]
    stays = [p for p in trainable if p.ndim <= 1 or id(p) in without]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]


def index_batches(indices: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Cut indices into batches; a last one of a single image is left out, as it has no batch statistics."""
    parts: Sequence[Tensor] = indices.split(batch_size)
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) == 1 < batch_size else parts


def _batches(data: ImageSet, settings: TrainingSettings, generator: torch.Generator, size: int) -> Iterator[Batch]:
    table = remembered_views(len(data), settings) if settings.views else None
    for indices in index_batches(torch.randperm(len(data), generator=generator), settings.batch_size):
        if table is None:
            chosen = torch.zeros_like(indices)
            views = draw_views(len(indices), generator, padding=settings.padding, flip=settings.flip)
        else:
            chosen = torch.randint(settings.views, (len(indices),), generator=generator)
            views = table[indices, chosen]
        yield to_batch(data, indices, chosen, views, settings, size)


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
    images = normalise(take_views(data.images[indices], views, padding=settings.padding), data.mean, data.std)
    images = images.to(settings.device, memory_format=settings.memory_format)
    if 0 < size < min(images.shape[2:]):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return Batch(images, data.labels[indices].to(settings.device), indices, chosen)


def _save(
    checkpoint: Path, state: dict[str, Any], generator: torch.Generator, settings: TrainingSettings, epoch: int
) -> None:
    with atomic_write(checkpoint) as path:
        torch.save(
            {name: part.state_dict() for name, part in state.items()}
            | {"generator": generator.get_state(), "settings": asdict(settings), "epoch": epoch},
            path,
        )


def _resume(
    checkpoint: Path | None, state: dict[str, Any], generator: torch.Generator, settings: TrainingSettings
) -> int:
    """Load the checkpoint, if there is one; return the epochs it has behind it."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    try:
        saved = torch.load(checkpoint, weights_only=True, map_location=settings.device)
        saved["settings"], saved["epoch"], saved["generator"]
    except Exception as error:
        raise RLPruneError(f"{checkpoint} is damaged or no checkpoint; remove it to start anew") from error
    before = {field.name: field.default for field in fields(settings)} | saved["settings"]  # older ones had fewer
    if before != asdict(settings):
        changed = [k for k, v in asdict(settings).items() if before.get(k) != v]
        raise RLPruneError(
            f"checkpoint {checkpoint} was written under other settings ({', '.join(changed)} differ); "
            "go back to those, or remove the file to start anew"
        )
    try:
        for name, part in state.items():
            part.load_state_dict(saved[name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise RLPruneError(f"checkpoint {checkpoint} belongs to another network: {error}") from error
    generator.set_state(saved["generator"].cpu())
    return int(saved["epoch"])
