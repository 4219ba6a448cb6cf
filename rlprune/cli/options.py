"""What several verbs take: prices, networks, teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from torch import nn

from rlprune.data.image_set import Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import ModelError
from rlprune.evaluation.timing.backends import BackendName, Batch, LatencySettings, Threads
from rlprune.models import libraries, registry
from rlprune.models.checkpoints import check_file
from rlprune.pipelines.inputs import build_model
from rlprune.training.distillation import Ensemble
from rlprune.utils.hardware import check_device
from rlprune.utils.settings import PositiveFloat, settings_dataclass

Device = Annotated[str, AfterValidator(check_device)]
"""Where networks run, such as cpu or cuda; checked when it is given."""


@settings_dataclass
class PriceOptions:
    """What images may cost, where the policy was trained for a range of penalties."""

    budget: PositiveFloat | None = None
    """Mean share of the dense network's MACs that images are to cost."""
    penalty: PositiveFloat | None = None
    """Instead, the price of running the whole network, in right answers."""

    def _conflicts(self) -> Iterator[str]:
        if self.budget is not None and self.penalty is not None:
            yield f"budget={self.budget} and penalty={self.penalty} exclude each other; give only one"

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.budget is not None or self.penalty is not None

    def of(self, dynamic: DynamicCNN) -> DynamicCNN:
        """The network at that price, or as it is if there is none."""
        return dynamic.at(budget=self.budget, penalty=self.penalty) if self.given else dynamic


@settings_dataclass
class LatencyOptions:
    """What time is measured for, where it is: how the network will be deployed."""

    latency_batch: Batch | None = None
    """Images at once for which time is measured; if not given, those of a table that is there already, else 1."""
    latency_backend: BackendName | None = None
    """What will run the network: pytorch, which it is if not given, or onnxruntime, as what `rlprune export` writes."""
    latency_threads: Threads | None = None
    """Threads that it will run on; if not given, those of a table that is there already, else as many as PyTorch takes
    here."""

    @property
    def settings(self) -> LatencySettings:
        """The same, with the default."""
        return LatencySettings(self.latency_batch, self.latency_backend or "pytorch", self.latency_threads)

    def unused(self, without: str) -> Iterator[str]:
        """A line for each that is given though no time is measured.

        Args:
            without: the option, with its value, that would have it measured.
        """
        for name, value in vars(self).items():
            if value is not None:
                yield f"{name}={value}: it is what is timed with {without}; give both or none"


@dataclass(frozen=True)
class NetworkOptions:
    """Which ordinary network to start from."""

    model: str
    """A name such as resnet20, timm:efficientnet_b0 or torchvision:resnet18; or package.module:callable returning an
    nn.Module."""
    weights: Path | None = None
    """Weights to start from: safetensors, a state dict or training checkpoint of PyTorch, or a folder of the Hugging
    Face hub; or the folder of an elastic network or a bundle, of which all is taken. Not needed if the callable loads
    its own. A network of timm or torchvision starts from its pretrained ones, which are downloaded, if none are given;
    none is the word for fresh weights."""
    trust_pickle: bool = False
    """Read weights, a teacher's too, from files that hold whole objects or TorchScript. That runs code in them: only
    for files of people you trust."""

    def check_weights(self, *, fresh: bool = False) -> None:
        """Make sure that the network is a trained one, before the images are read.

        Args:
            fresh: it need not be.

        Raises:
            ModelError: there is no such network; or it has random weights, and others are not given; or those that come
                with it cannot be had; or there is no such file.
            MissingExtraError: the library that it is of is not installed.
        """
        random = registry.asks_for_fresh(self.weights) or (self.weights is None and self.model in registry.NAMES)
        if random and not fresh:
            raise ModelError(
                f"--weights is missing: {self.model} alone has random weights; `rlprune pretrain` makes some"
            )
        registry.check(self.model, pretrained=self.weights is None)
        _check_there(self.weights)

    def build(self, splits: Splits, *, new_head: bool = False) -> nn.Module:
        """The network for these images; of one that comes pretrained, the last layer may begin anew."""
        return build_model(self.model, self.weights, splits, trust_pickle=self.trust_pickle, new_head=new_head)


@settings_dataclass
class TeacherOptions:
    """Whose predictions are learnt from, beside the labels; `temperature` and `distillation` say how."""

    teacher: tuple[str, ...] = ()
    """Names such as resnet56 or timm:resnet50, or package.module:callable; of several the mean of the logits counts."""
    teacher_weights: tuple[Path, ...] = ()
    """Weights of each, in the same order, as for --weights; not needed if all are networks of timm or torchvision that
    come with weights for these classes."""

    def _conflicts(self) -> Iterator[str]:
        own = not self.teacher_weights and all(libraries.library_of(name) for name in self.teacher)
        if len(self.teacher) != len(self.teacher_weights) and not own:
            yield (
                f"--teacher names {len(self.teacher)} networks and --teacher-weights {len(self.teacher_weights)} "
                "files; give one file for each"
            )

    def check(self) -> None:
        """Make sure that the teachers and their weights are there, before the images are read.

        Raises:
            ModelError: one is not.
            MissingExtraError: the library that one is of is not installed.
        """
        for name in self.teacher:
            registry.check(name)
        for weights in self.teacher_weights:
            _check_there(weights)

    def build(self, splits: Splits, *, trust_pickle: bool = False) -> nn.Module | None:
        """The teacher for these images; None if none is named.

        Args:
            splits: the images.
            trust_pickle: read weights that run code, too.

        Raises:
            ModelError: one of them cannot be used.
        """
        weights: Sequence[Path | None] = self.teacher_weights or [None] * len(self.teacher)
        pairs = zip(self.teacher, weights, strict=True)
        networks = [build_model(*pair, splits, trust_pickle=trust_pickle).eval() for pair in pairs]
        return Ensemble(networks) if len(networks) > 1 else next(iter(networks), None)


def _check_there(weights: Path | None) -> None:
    """Make sure that weights are a file, or the folder of a network.

    Raises:
        ModelError: they are neither.
    """
    if weights is not None and not weights.is_dir() and not registry.asks_for_fresh(weights):
        check_file(weights)
