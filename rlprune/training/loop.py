"""The one loop that trains networks: seeded, resumable, in reduced precision where that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune import startup
from rlprune.data.image_set import ImageSet
from rlprune.errors import DataError, NotFiniteError, RLPruneError
from rlprune.training.batches import Batch, epoch_batches, index_batches
from rlprune.training.parallel.agreement import check_alike
from rlprune.training.parallel.division import Division
from rlprune.training.parallel.group import current
from rlprune.training.run import TrainingRun
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import check_room
from rlprune.utils.finite import not_finite_in
from rlprune.utils.hardware import memory_for, out_of_memory
from rlprune.utils.locks import hold
from rlprune.utils.process import keep_freed
from rlprune.utils.progress import Log, counting_bar
from rlprune.utils.timing import Deadline

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
    deadline: Deadline | None = None,
) -> None:
    """Train a network in place.

    Where torchrun or Ray started several processes (`rlprune.training.parallel`), each calls this alike and takes its
    part of every batch; the gradients are those of the whole batch, and the first process alone writes and logs.

    Args:
        network: what is trained; left in eval mode.
        data: its training images.
        settings: how.
        step: given the run's random generator, returns the forward and backward of a batch. Its loss is a mean over the
            batch's images, and goes backward by `Batch.backward`, which weighs it; gradients may add up there.
        checkpoint: file written after every epoch; if it exists, training continues from it. On the command line, it is
            also written after the step in which Ctrl-C or SIGTERM comes, before the process ends.
        log: called after every epoch.
        label: what the progress bar says.
        deadline: when it has to be done: where not all steps fit, some are left out, evenly, and the learning rate
            falls to its end in those that are made; one is made in any case.

    Raises:
        ClusterError: one of several processes was lost, or is about to train something else than the others.
        InUseError: another process trains with that checkpoint.
        NotFiniteError: the weights hold NaN before training; or a loss, a gradient or a norm's statistics become so,
            and training stops: the checkpoint is that of the epoch before.
        RLPruneError: the checkpoint belongs to other settings or another network; or the network takes no smaller
            images, which `early_size` asks for; or images are shifted by more than their size; or several processes
            are to compile.
        WriteError: there is no room for the checkpoint, which is asked before the first step, too.
    """
    held = nullcontext() if checkpoint is None else current().first(hold(checkpoint))
    with held, startup.finishing(checkpoint is not None):
        _fit(network, data, settings, step, checkpoint, log, label, deadline)


def _fit(
    network: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    step: Callable[[torch.Generator], Step],
    checkpoint: Path | None,
    log: Log | None,
    label: str,
    deadline: Deadline | None,
) -> None:
    """Train while the checkpoint is held."""
    group = current()
    keep_freed()
    _check_compile(settings)
    _check_padding(settings, max(data.images.shape[2:]))
    if name := not_finite_in(network):
        raise NotFiniteError(f"{name} of the network holds NaN or infinity before training; give other weights")
    network.to(device=settings.device, memory_format=settings.memory_format)  # type: ignore[call-overload]
    n_steps = len(index_batches(torch.arange(len(data)), settings.batch_size))
    run = TrainingRun(network, settings, n_steps)
    run_batch = step(run.generator)
    check_alike(network, data, settings)
    run.images = {} if checkpoint is None else data.fingerprint()
    there = checkpoint is not None and group.from_first(checkpoint.exists)
    first_epoch = run.resume(checkpoint) if there and checkpoint is not None else 0
    if first_epoch < settings.epochs:
        group.from_first(lambda: check_checkpoint_room(checkpoint, network, settings))
    n_done = first_epoch * n_steps + (run.epoch.n_done if run.epoch else 0)
    n_all, hidden = settings.epochs * n_steps, not group.leads
    with counting_bar(n_all, initial=n_done, desc=label, unit="batch", hidden=hidden) as progress:
        epoch, ahead = first_epoch, 0
        while epoch < settings.epochs:
            now = f"training, in epoch {epoch + 1} of {settings.epochs}"
            cure = f"a batch_size below {settings.batch_size} needs less; what the last checkpoint has stays"
            with _stopped_if_not_finite(run, epoch, checkpoint), memory_for(now, cure):
                means, ahead = _train_epoch(run, data, run_batch, epoch, checkpoint, progress, deadline, ahead)
            progress.set_postfix({key: f"{value:.3f}" for key, value in means.items()})
            epoch, ahead = epoch + 1 + ahead // n_steps, ahead % n_steps
            if log is not None and group.leads:
                log(epoch * len(data), means | {"learning_rate": run.learning_rate})
            if checkpoint is not None:
                run.save(checkpoint, epoch)
                if group.any(startup.asked_to_end()):
                    startup.end()
    if run.average is not None:
        network.load_state_dict(run.average.module.state_dict())
        with closing(_endless(run, data)) as batches:
            _measure_norms(run, islice(batches, _N_MEASURED), run_batch)
    network.eval()


def _endless(run: TrainingRun, data: ImageSet) -> Generator[Batch, None, None]:
    """Batches of one epoch after the other, for what follows the last one."""
    while True:
        epoch = run.drawn_epoch(data)
        with closing(epoch_batches(data, run.settings, run.views_of(epoch), 0, epoch.order)) as batches:
            yield from batches


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


def _check_compile(settings: TrainingSettings) -> None:
    """Make sure that what is compiled is trained in one process.

    Raises:
        RLPruneError: it is not.
    """
    if settings.compile and (size := current().size) > 1:
        raise RLPruneError(
            f"compile=True in {size} processes: norms that they share cannot be compiled; leave it out, or use one"
        )


def _check_padding(settings: TrainingSettings, size: int) -> None:
    """Make sure that images of so many pixels a side can be shifted so far.

    Raises:
        RLPruneError: they are shifted by more than their size.
    """
    if settings.crop_scale is None and settings.padding > size:
        raise RLPruneError(f"padding={settings.padding}: images have {size} pixels a side; give a padding up to that")


def _train_epoch(
    run: TrainingRun,
    data: ImageSet,
    run_batch: Step,
    number: int,
    checkpoint: Path | None,
    progress: Any,
    deadline: Deadline | None,
    ahead: int,
) -> tuple[dict[str, float], int]:
    """Train on every image once, or on those that are left of an epoch, or that there is time for.

    Args:
        run: the training.
        data: the images.
        run_batch: a step of it.
        number: of the epoch.
        checkpoint: gets what is done where the epoch ends early.
        progress: the bar.
        deadline: of the training.
        ahead: steps at the epoch's beginning that are left out.

    Returns:
        The means of the steps' figures, and how many steps of the epochs that follow are left out.
    """
    group, settings = current(), run.settings
    run.network.train()
    epoch = run.begin_epoch(data)
    epoch.n_done = max(epoch.n_done, ahead)
    size = settings.size_in(number)
    batches = epoch_batches(data, settings, run.views_of(epoch), size, epoch.order, epoch.n_done)
    with closing(_unless_damaged(batches, run, checkpoint, number)) as whole_batches:
        for batch in whole_batches:
            run.optimizer.zero_grad(set_to_none=True)
            with _explained(batch.images.shape[2:] != data.images.shape[2:], settings.early_size):
                figures = _run_step(run, batch, run_batch)
            if not all(map(math.isfinite, figures.values())):
                raise NotFiniteError("the loss is not finite")
            stride = 1 if deadline is None else group.from_first(partial(_stride, deadline, run, number))
            run.update(number, stride)
            epoch.add(figures, run.n_steps, stride)
            progress.update(stride)
            if checkpoint is not None and group.any(startup.asked_to_end()) and epoch.n_done < run.n_steps:
                _save_part(run, checkpoint, number)
                startup.end()
            if epoch.n_done >= run.n_steps:
                break
    run.network.eval()
    if name := not_finite_in(run.network):
        raise NotFiniteError(f"{name} is not finite")
    run.epoch = None
    return epoch.means, epoch.n_done - run.n_steps


def _stride(deadline: Deadline, run: TrainingRun, number: int) -> int:
    """How many steps to go on by, in this epoch and those that follow."""
    assert run.epoch is not None
    n_all = run.settings.epochs * run.n_steps
    return deadline.stride(n_all - number * run.n_steps - run.epoch.n_done - 1, n_all)


def _run_step(run: TrainingRun, batch: Batch, run_batch: Step) -> dict[str, float]:
    """Forward and backward of a step, piece by piece; its figures, which are those of all processes."""
    group, scale = current(), run.scaler.get_scale()
    before = run.generator.get_state()
    figures: dict[str, float] = {}
    done = 0
    for piece in Division.of(batch.n_step, run.settings.accumulate).pieces:
        n = piece.own.stop - piece.own.start
        run.generator.set_state(before)  # a step has the same profiles in all of its pieces
        with piece.together():
            found = run_batch(batch.piece(slice(done, done + n))._replace(weight=piece.weight * scale))
        done += n
        for key, value in found.items():
            figures[key] = figures.get(key, 0.0) + value * piece.weight
    if group.size == 1:
        return figures
    return dict(zip(figures, group.total(list(figures.values())), strict=True))


def _save_part(run: TrainingRun, checkpoint: Path, n_epochs: int) -> None:
    """Write a checkpoint in the midst of an epoch."""
    if name := not_finite_in(run.network):
        raise NotFiniteError(f"{name} is not finite")
    run.save(checkpoint, n_epochs)


def _unless_damaged(
    batches: Generator[Batch, None, None], run: TrainingRun, checkpoint: Path | None, number: int
) -> Generator[Batch, None, None]:
    """The batches, until an image among them cannot be read: then the steps so far are saved.

    Raises:
        DataError: an image cannot be read; the message says what is lost.
    """
    with closing(batches):
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except DataError as error:
                assert run.epoch is not None
                done = f"training stopped after {run.epoch.n_done} of {run.n_steps} steps of epoch {number + 1}"
                if checkpoint is None:
                    raise DataError(f"{error}. {done}; they are lost, since there is no checkpoint") from error
                run.images.pop("sizes", None)  # which a repair changes
                _save_part(run, checkpoint, number)
                raise DataError(
                    f"{error}. {done}; {checkpoint} has them: put a readable picture in the place of that one, and the "
                    "same command goes on from there"
                ) from error
            yield batch


@contextmanager
def _stopped_if_not_finite(run: TrainingRun, epoch: int, checkpoint: Path | None) -> Iterator[None]:
    """Say where a training went wrong, what may help, and what is left of it.

    Raises:
        NotFiniteError: the block raised one.
    """
    try:
        yield
    except NotFiniteError as error:
        precision = "bf16=False, which --resume can go on with, " if run.settings.computes_in_bf16 else ""
        kept = checkpoint is not None and checkpoint.exists()
        stopped = NotFiniteError(
            f"training stopped: {error} in epoch {epoch + 1} of {run.settings.epochs}, at learning rate "
            f"{run.learning_rate:g}; a lower learning_rate or clip_norm, {precision}or images without odd ones (all "
            f"black, say) may help; {f'{checkpoint} has the epochs before' if kept else 'no checkpoint was written'}"
        )
        stopped.agreed = True  # type: ignore[attr-defined]  # losses and gradients are those of all processes
        raise stopped from error


def _measure_norms(run: TrainingRun, batches: Iterable[Batch], run_batch: Step) -> None:
    """Let norms measure the statistics of weights that were set, not trained; nothing else changes."""
    run.network.train()
    for batch in batches:
        _run_step(run, batch, run_batch)
    run.network.zero_grad(set_to_none=True)


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
