"""The one loop that trains networks: seeded, resumable, in reduced precision where that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rlprune.data.image_set import ImageSet
from rlprune.errors import NotFiniteError, OutOfMemoryError, RLPruneError
from rlprune.storage.provenance import HOW, check_unchanged, plain
from rlprune.training.batches import Batch, epoch_batches, index_batches
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write, check_room
from rlprune.utils.finite import not_finite_in
from rlprune.utils.hardware import memory_for, out_of_memory
from rlprune.utils.locks import hold
from rlprune.utils.process import keep_freed
from rlprune.utils.progress import Log

Step = Callable[[Batch], dict[str, float]]
"""Forward and backward of one batch -> figures to report."""

_N_MEASURED = 200
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
        checkpoint: file written after every epoch; if it exists, training continues from it.
        log: called after every epoch.
        label: what the progress bar says.

    Raises:
        InUseError: another process trains with that checkpoint.
        NotFiniteError: the weights hold NaN before training; or a loss, a gradient or a norm's statistics become so,
            and training stops: the checkpoint is that of the epoch before.
        RLPruneError: the checkpoint belongs to other settings or another network; or the network takes no smaller
            images, which `early_size` asks for; or images are shifted by more than their size.
        WriteError: there is no room for the checkpoint, which is asked before the first step, too.
    """
    with nullcontext() if checkpoint is None else hold(checkpoint):
        _fit(network, data, settings, step, checkpoint, log, label)


def _fit(
    network: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    step: Callable[[torch.Generator], Step],
    checkpoint: Path | None,
    log: Log | None,
    label: str,
) -> None:
    """Train while the checkpoint is held."""
    keep_freed()
    _check_padding(settings, max(data.images.shape[2:]))
    if name := not_finite_in(network):
        raise NotFiniteError(f"{name} of the network holds NaN or infinity before training; give other weights")
    network.to(device=settings.device, memory_format=settings.memory_format)  # type: ignore[call-overload]
    n_steps = len(index_batches(torch.arange(len(data)), settings.batch_size))
    run = _Run(network, settings, n_steps)
    run_batch = step(run.generator)
    first_epoch = 0 if checkpoint is None or not checkpoint.exists() else run.resume(checkpoint)
    if first_epoch < settings.epochs:
        check_checkpoint_room(checkpoint, network, settings)
    with tqdm(total=settings.epochs * n_steps, initial=first_epoch * n_steps, desc=label, unit="batch") as progress:
        for epoch in range(first_epoch, settings.epochs):
            now = f"training, in epoch {epoch + 1} of {settings.epochs}"
            cure = f"a batch_size below {settings.batch_size} needs less; what the last checkpoint has stays"
            with _stopped_if_not_finite(run, epoch, checkpoint), memory_for(now, cure):
                means = _train_epoch(run, data, run_batch, epoch, progress)
            progress.set_postfix({key: f"{value:.3f}" for key, value in means.items()})
            if log is not None:
                log((epoch + 1) * len(data), means | {"learning_rate": run.learning_rate})
            if checkpoint is not None:
                run.save(checkpoint, epoch + 1)
    if run.average is not None:
        network.load_state_dict(run.average.module.state_dict())
        epochs = (epoch_batches(data, settings, run.generator, 0) for _ in count())
        _measure_norms(network, islice(chain.from_iterable(epochs), _N_MEASURED), run_batch)
    network.eval()


def check_checkpoint_room(checkpoint: Path | None, network: nn.Module, settings: TrainingSettings) -> None:
    """Make sure that the checkpoints of a training will find room: to be asked before anything long begins.

    Args:
        checkpoint: the file, if there is to be one.
        network: what is to be trained.
        settings: how.

    Raises:
        WriteError: there is less room than they need.
    """
    if checkpoint is None or not settings.epochs:
        return
    n_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    n_parts = 1 + (settings.momentum > 0) + (settings.first_averaged < settings.epochs)  # weights, momentum, averages
    n_copies = 1 if checkpoint.exists() or settings.epochs == 1 else 2  # one stays until the next is complete
    check_room(checkpoint, n_copies * n_parts * n_bytes)


def _check_padding(settings: TrainingSettings, size: int) -> None:
    """Make sure that images of so many pixels a side can be shifted so far.

    Raises:
        RLPruneError: they are shifted by more than their size.
    """
    if settings.padding > size:
        raise RLPruneError(f"padding={settings.padding}: images have {size} pixels a side; give a padding up to that")


class _Run:
    """What a training changes, and what its checkpoint holds.

    Args:
        network: what is trained, where it is trained.
        settings: how.
        n_steps: steps in an epoch.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings, n_steps: int) -> None:
        self.network = network
        self.settings = settings
        self.n_steps = n_steps
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.optimizer = torch.optim.SGD(
            _with_decay(network, settings.weight_decay),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
        self.schedule = self._schedule()
        self.average = AveragedModel(network) if settings.first_averaged < settings.epochs else None

    def _schedule(self) -> torch.optim.lr_scheduler.LambdaLR:
        warm_up = self.settings.warm_up
        n_all = self.settings.epochs * self.n_steps or 1  # a schedule has a first step, taken or not
        n_falling = max(self.settings.first_averaged * self.n_steps, math.ceil(warm_up * n_all))
        return torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: share_of_peak(min(n, n_falling), n_all, warm_up)
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def update(self, epoch: int) -> None:
        """Take a step along the gradients that the network has."""
        if self.settings.scale_penalty:
            _penalise_scales(self.network, self.settings.scale_penalty)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        if not math.isfinite(norm):
            raise NotFiniteError("the gradient is not finite")
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None and epoch >= self.settings.first_averaged:
            self.average.update_parameters(self.network)

    def save(self, checkpoint: Path, epoch: int) -> None:
        """Write a checkpoint after so many epochs."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"generator": self.generator.get_state(), "settings": asdict(self.settings), "epoch": epoch}
        state |= {"dropout": torch.get_rng_state()}  # what follows the last epoch draws from it, too
        with atomic_write(checkpoint) as path:
            torch.save(state, path)

    def resume(self, checkpoint: Path) -> int:
        """Load a checkpoint; return how many epochs it has behind it.

        Raises:
            OutOfMemoryError: there is too little memory for it.
            RLPruneError: it is damaged, or belongs to other settings or another network.
        """
        try:
            with memory_for(f"reading {checkpoint}", "it stays: give the same command again where there is more"):
                saved = torch.load(checkpoint, weights_only=True, map_location=self.settings.device)
            saved["settings"], saved["epoch"], saved["generator"]
        except OutOfMemoryError:
            raise
        except Exception as error:
            raise RLPruneError(f"{checkpoint} is damaged or no checkpoint; remove it to start anew") from error
        _check_settings(checkpoint, saved["settings"], self.settings)
        try:
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RLPruneError(f"checkpoint {checkpoint} belongs to another network: {error}") from error
        self.generator.set_state(saved["generator"].cpu())
        if "dropout" in saved:  # earlier versions' have none
            torch.set_rng_state(saved["dropout"].cpu())
        return int(saved["epoch"])

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, as checkpoints call it."""
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts if self.average is None else parts | {"average": self.average}


def _check_settings(checkpoint: Path, before: dict[str, Any], settings: TrainingSettings) -> None:
    """Make sure that a checkpoint was written under these settings, but for where and how it is computed.

    Raises:
        RLPruneError: it was not.
    """
    now = plain(settings)
    defaults = {field.name: field.default for field in fields(settings)}  # older checkpoints had fewer settings
    then = plain(defaults | before)
    gone = dict.fromkeys(then.keys() - now.keys())
    cure = "go back to those, or remove the file to start anew"
    check_unchanged(f"checkpoint {checkpoint}", then, now | gone, cure)
    moved = [f"{key}={then[key]}, now {now[key]}" for key in sorted(HOW) if then[key] != now[key]]
    if moved:
        print(f"{checkpoint} is gone on with elsewhere ({'; '.join(moved)}): rounding may differ")


def _train_epoch(run: _Run, data: ImageSet, run_batch: Step, epoch: int, progress: tqdm[NoReturn]) -> dict[str, float]:
    """Train on every image once; return the means of the steps' figures."""
    settings = run.settings
    run.network.train()
    torch.manual_seed(int(torch.randint(2**31, (), generator=run.generator)))  # dropout draws from the global one
    means: dict[str, float] = {}
    for batch in epoch_batches(data, settings, run.generator, settings.size_in(epoch)):
        run.optimizer.zero_grad(set_to_none=True)
        with _explained(batch.images.shape[2:] != data.images.shape[2:], settings.early_size):
            figures = run_batch(batch)
        if not all(map(math.isfinite, figures.values())):
            raise NotFiniteError("the loss is not finite")
        for key, value in figures.items():
            means[key] = means.get(key, 0.0) + value / run.n_steps
        run.update(epoch)
        progress.update()
    run.network.eval()
    if name := not_finite_in(run.network):
        raise NotFiniteError(f"{name} is not finite")
    return means


@contextmanager
def _stopped_if_not_finite(run: _Run, epoch: int, checkpoint: Path | None) -> Iterator[None]:
    """Say where a training went wrong, what may help, and what is left of it.

    Raises:
        NotFiniteError: the block raised one.
    """
    try:
        yield
    except NotFiniteError as error:
        precision = "bf16=False, which --resume can go on with, " if run.settings.computes_in_bf16 else ""
        kept = checkpoint is not None and checkpoint.exists()
        raise NotFiniteError(
            f"training stopped: {error} in epoch {epoch + 1} of {run.settings.epochs}, at learning rate "
            f"{run.learning_rate:g}; a lower learning_rate or clip_norm, {precision}or images without odd ones (all "
            f"black, say) may help; {f'{checkpoint} has the epochs before' if kept else 'no checkpoint was written'}"
        ) from error


def _measure_norms(network: nn.Module, batches: Iterable[Batch], run_batch: Step) -> None:
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
        if not shrunk or out_of_memory(error):
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
