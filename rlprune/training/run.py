"""What a training changes, and the checkpoint that holds it: weights, optimiser, averages, generators, the epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from rlprune.data.image_set import ImageSet
from rlprune.errors import ClusterError, NotFiniteError, OutOfMemoryError, RLPruneError
from rlprune.storage.provenance import HOW, check_unchanged, plain
from rlprune.training.parallel.group import current
from rlprune.training.parallel.sums import sum_gradients
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write
from rlprune.utils.hardware import memory_for


@dataclass
class Epoch:
    """An epoch that is under way."""

    order: Tensor
    """Of its images, int64 (N,)."""
    n_done: int = 0
    """Steps that are done."""
    means: dict[str, float] = field(default_factory=dict)
    """Of the steps' figures so far, each over all steps of the epoch."""
    seed: int | None = None
    """Of the generator that views of streamed images are drawn from; None where they are drawn as steps go."""

    def add(self, figures: dict[str, float], n_steps: int, stride: int = 1) -> None:
        """Count a step of so many; one that goes on by more than 1 stands for those that are left out after it, too."""
        n_here = min(stride, n_steps - self.n_done)
        self.n_done += stride
        for key, value in figures.items():
            self.means[key] = self.means.get(key, 0.0) + n_here * value / n_steps


class TrainingRun:
    """What a training changes, and what its checkpoint holds.

    Args:
        network: what is trained, where it is trained.
        settings: how.
        n_steps: steps in an epoch.

    Attributes:
        epoch: the one that is under way; None between two.
        images: fingerprint of those that it trains on, for checkpoints; empty if there are none.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings, n_steps: int) -> None:
        self.network = network
        self.settings = settings
        self.n_steps = n_steps
        self.epoch: Epoch | None = None
        self.images: dict[str, str] = {}
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.optimizer = torch.optim.SGD(
            _with_decay(network, settings.weight_decay),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
        self.schedule = self._schedule()
        self.scaler = torch.amp.GradScaler(enabled=settings.fp16)
        self.scaler.scale(torch.zeros((), device=settings.device))  # which makes its scale
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

    def begin_epoch(self, data: ImageSet) -> Epoch:
        """Draw an epoch's order, and a seed for dropout, which draws from the global generator; or go on with one."""
        if self.epoch is None:
            torch.manual_seed(self._seed())
            self.epoch = self.drawn_epoch(data)
        return self.epoch

    def drawn_epoch(self, data: ImageSet) -> Epoch:
        """An epoch's order, and where its views come from, drawn anew."""
        order = torch.randperm(len(data), generator=self.generator)
        return Epoch(order, seed=self._seed() if data.streamed else None)

    def views_of(self, epoch: Epoch) -> torch.Generator:
        """Where an epoch's views come from: batches of streamed images draw ahead, so not from where steps draw."""
        return self.generator if epoch.seed is None else torch.Generator().manual_seed(epoch.seed)

    def _seed(self) -> int:
        return int(torch.randint(2**31, (), generator=self.generator))

    def update(self, epoch: int, stride: int = 1) -> None:
        """Take a step along the gradients that the network has, in all processes together.

        Args:
            epoch: the number of this one.
            stride: steps by which the learning rate goes on.
        """
        sum_gradients(self.network)
        self.scaler.unscale_(self.optimizer)
        if self.settings.scale_penalty:
            _penalise_scales(self.network, self.settings.scale_penalty)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:  # above that, float16 is out of its range: once
            raise NotFiniteError("the gradient is not finite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for _ in range(stride):
            self.schedule.step()
        if self.average is not None and epoch >= self.settings.first_averaged:
            self.average.update_parameters(self.network)

    def save(self, checkpoint: Path, epoch: int) -> None:
        """Write a checkpoint after so many epochs, and the part of the next one that is done: one process for all."""
        if not current().leads:
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"generator": self.generator.get_state(), "settings": asdict(self.settings), "epoch": epoch}
        state |= {"dropout": torch.get_rng_state()}  # what follows the last epoch draws from it, too
        if torch.device(self.settings.device).type == "cuda":
            state |= {"dropout_cuda": torch.cuda.get_rng_state(self.settings.device)}
        state |= {"images": self.images}
        if self.epoch is not None:
            state |= {"under_way": vars(self.epoch)}
        with atomic_write(checkpoint) as path:
            with path.open("wb") as file:  # torch itself cannot open every name
                torch.save(state, file)

    def resume(self, checkpoint: Path) -> int:
        """Load a checkpoint; return how many epochs it has behind it.

        Raises:
            OutOfMemoryError: there is too little memory for it.
            RLPruneError: it is damaged, or belongs to other settings, another network or other images.
        """
        try:
            with memory_for(f"reading {checkpoint}", "it stays: give the same command again where there is more"):
                saved = torch.load(_content(checkpoint), weights_only=True, map_location=self.settings.device)
            saved["settings"], saved["epoch"], saved["generator"]
        except (OutOfMemoryError, ClusterError):
            raise
        except Exception as error:
            raise RLPruneError(f"{checkpoint} is damaged or no checkpoint; remove it to start anew") from error
        _check_settings(checkpoint, saved["settings"], self.settings)
        _check_images(checkpoint, saved.get("images", {}), self.images)  # earlier versions' have none
        try:
            for name, part in self._parts().items():
                if name in saved or name != "scaler":  # where it was begun in bfloat16, there is none yet
                    part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RLPruneError(f"checkpoint {checkpoint} belongs to another network: {error}") from error
        self.generator.set_state(saved["generator"].cpu())
        if "dropout" in saved:  # earlier versions' have none
            torch.set_rng_state(saved["dropout"].cpu())
        if "dropout_cuda" in saved and torch.device(self.settings.device).type == "cuda":
            torch.cuda.set_rng_state(saved["dropout_cuda"].cpu(), self.settings.device)
        if "under_way" in saved:
            self.epoch = Epoch(**saved["under_way"] | {"order": saved["under_way"]["order"].cpu()})
        return int(saved["epoch"])

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, as checkpoints call it."""
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        parts |= {} if self.average is None else {"average": self.average}
        return parts | {"scaler": self.scaler} if self.settings.fp16 else parts


def _content(checkpoint: Path) -> Path | io.BytesIO:
    """A checkpoint to be read, which other processes get from the first: they may be where its disk is not."""
    group = current()
    return checkpoint if group.size == 1 else io.BytesIO(group.from_first(checkpoint.read_bytes))


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


def _check_images(checkpoint: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Make sure that a checkpoint is gone on with on the images that it was written on, as far as both tell.

    Raises:
        RLPruneError: the images have changed, or are streamed where they were not.
    """
    changed = [key for key in before if key in now and before[key] != now[key]]
    if "kept" in changed:
        raise RLPruneError(
            f"checkpoint {checkpoint} was written on images {before['kept']}, which are {now['kept']} now, and draws "
            "views in another order; set RLPRUNE_MEMORY as it was, or remove the file to start anew"
        )
    if changed:
        raise RLPruneError(
            f"the images have changed since checkpoint {checkpoint} was written (their {', '.join(changed)}); bring "
            "back those of then, or remove the file to start anew"
        )


@torch.no_grad()
def _penalise_scales(network: nn.Module, weight: float) -> None:
    """Add the gradient of an L1 penalty on the scales of norms that took part in a step."""
    for module in network.modules():
        scale = getattr(module, "weight", None) if hasattr(module, "running_mean") else None
        if isinstance(scale, Tensor) and scale.grad is not None:
            ran = (scale.grad != 0).any(1, keepdim=True) if scale.ndim > 1 else 1  # of elastic norms some sets only
            scale.grad.add_(weight * scale.sign() * ran)


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
