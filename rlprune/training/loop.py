"""The one loop that trains networks: seeded, resumable, in reduced precision where that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.training.batches import Batch, epoch_batches, index_batches
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write
from rlprune.utils.malloc import keep_freed

Step = Callable[[Batch], dict[str, float]]
"""Forward and backward of one batch -> figures to report."""
Log = Callable[[int, dict[str, float]], None]
"""Receives the number of images seen and figures: the means over an epoch."""


_N_SETTLING = 200
"""Batches by which norms measure the statistics of averaged weights."""


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
            for batch in epoch_batches(data, settings, generator, settings.size_in(epoch)):
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
        epochs = (epoch_batches(data, settings, generator, 0) for _ in count())
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
