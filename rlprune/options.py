"""What several verbs of the command line take: where images come from, which network, and how it is made elastic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rlprune import data, models
from rlprune.bundle import DataFormat, load_network
from rlprune.data import SHARES, ImageSet, Splits
from rlprune.distill import Ensemble
from rlprune.elastic import KEEP_RATIOS, ElasticCNN
from rlprune.errors import ModelError, RLPruneError
from rlprune.runtime import DynamicCNN


@dataclass(frozen=True)
class DataOptions:
    """Where images come from."""

    data: str
    """A name (mnist5k, cifar10, cifar100, fashion_mnist), a folder of class folders, a parquet file or folder, a data
    set of the Hugging Face hub, or package.module:callable returning a Dataset. $RLPRUNE_DATA is looked in first."""
    image_size: int | None = None
    """Resize and crop images to squares of this many pixels; needed if their sizes differ."""
    image_column: str | None = None
    """Column of the images, in parquet files and hub data sets."""
    label_column: str | None = None
    """Column of the labels, likewise."""
    split_seed: int = 0
    """Fixes which images train the network, which train the policy, and which validate."""
    shares: tuple[float, float, float] | None = None
    """How what is not test is divided among these three; as the network was trained, else 0.7 0.2 0.1, if not given."""

    def load(self) -> Splits:
        """The images, split."""
        return data.load(
            self.data,
            seed=self.split_seed,
            image_size=self.image_size,
            image_column=self.image_column,
            label_column=self.label_column,
            shares=SHARES if self.shares is None else self.shares,
        )


@dataclass(frozen=True)
class PriceOptions:
    """What images may cost, where the policy was trained for a range of penalties."""

    budget: float | None = None
    """Mean share of the dense network's multiply-adds that images are to cost."""
    penalty: float | None = None
    """Instead, the price of running the whole network, in right answers."""

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.budget is not None or self.penalty is not None

    def of(self, dynamic: DynamicCNN) -> DynamicCNN:
        """The network at that price, or as it is if there is none."""
        return dynamic.at(budget=self.budget, penalty=self.penalty) if self.given else dynamic


@dataclass(frozen=True)
class ElasticOptions:
    """How a network is made elastic."""

    keep_ratios: tuple[float, ...] = KEEP_RATIOS
    """Shares of a group's channels that may be kept, ascending, ending with 1; 0 drops whole branches."""
    round_to: int = 8
    """Widths round up to multiples of this many channels."""
    importance: str = "l1"
    """What channels are ranked by: l1, l2, bn_scale; or gradient, taylor, hessian, which look at training images."""
    residual: bool = False
    """Also prune the channels of residual streams, which many blocks share."""

    def build(self, model: nn.Module, image_shape: tuple[int, ...], calibration: ImageSet | None = None) -> ElasticCNN:
        """The elastic network; images are needed for some ways of ranking."""
        return ElasticCNN.from_model(
            model,
            image_shape,
            keep_ratios=self.keep_ratios,
            round_to=self.round_to,
            importance=self.importance,
            residual=self.residual,
            calibration=calibration,
        )


@dataclass(frozen=True)
class NetworkOptions:
    """Which ordinary network to start from."""

    model: str
    """A name such as resnet20, or package.module:callable returning an nn.Module."""
    weights: Path | None = None
    """Weights to start from, safetensors or a state dict, or the folder of an elastic network or a bundle, of which all
    is taken; not needed if the callable loads its own."""

    def build(self, splits: Splits) -> nn.Module:
        """The network for these images."""
        return build_model(self.model, self.weights, splits)


@dataclass(frozen=True)
class TeacherOptions:
    """Whose predictions are learnt from, beside the labels; `temperature` and `distillation` say how."""

    teacher: tuple[str, ...] = ()
    """Names such as resnet56, or package.module:callable; of several the mean of the logits counts."""
    teacher_weights: tuple[Path, ...] = ()
    """Weights of each, in the same order, as for --weights."""

    def build(self, splits: Splits) -> nn.Module | None:
        """The teacher for these images; None if none is named.

        Raises:
            ModelError: not as many weights as teachers; or one of them cannot be used.
        """
        if len(self.teacher) != len(self.teacher_weights):
            raise ModelError(
                f"--teacher names {len(self.teacher)} networks and --teacher-weights {len(self.teacher_weights)} "
                "files; give one file for each"
            )
        pairs = zip(self.teacher, self.teacher_weights, strict=True)
        networks = [build_model(name, weights, splits).eval() for name, weights in pairs]
        return Ensemble(networks) if len(networks) > 1 else next(iter(networks), None)


def build_model(name: str, weights: Path | None, splits: Splits) -> nn.Module:
    """Build a network for images, with its weights if they are named, and see that it gives the right logits.

    The weights may be the folder of an elastic network or a bundle: the network is all of that then.

    Raises:
        ModelError: there is no such network, or it does not fit its weights or the images.
        BundleError: the folder holds nothing like that.
    """
    n_classes, image_shape = len(splits.network.classes), splits.network.images.shape[1:]
    if weights is not None and weights.is_dir():
        return _whole(name, weights, splits.network)
    model = models.build(name, n_classes, image_shape[0])
    if weights is not None:
        models.load_weights(model, weights)
    models.check_outputs(model, image_shape, n_classes)
    return model


def _whole(name: str, folder: Path, images: ImageSet) -> nn.Module:
    """All of the elastic network in a folder."""
    saved = load_network(folder)
    made_of = saved.about.get("network", saved.about).get("model", name)
    if made_of != name:
        raise ModelError(f"{folder} holds a network made of {made_of}, not of {name}")
    expected = tuple(images.images.shape[1:]), DataFormat(images.mean, images.std, images.classes)
    if (saved.network.image_shape, saved.data) != expected:
        raise ModelError(
            f"the network in {folder} was trained on images of another shape, or other classes, mean or std; these are "
            f"{expected[0]} in {len(images.classes)} classes"
        )
    return saved.network.slice(saved.network.full)


def load_fitting(
    image_shape: Sequence[int], expected: DataFormat, made_from: dict[str, Any], options: DataOptions
) -> Splits:
    """Load images and see that they are what a stored network takes; they are normalised as it is used to.

    Args:
        image_shape: (C, H, W) that it takes.
        expected: what else it expects of them.
        made_from: the notes stored with it.
        options: where the images are.

    Raises:
        RLPruneError: they have another shape or other classes, or are split so that training images would be measured.
    """
    before = made_from.get("source", {})
    if before.get("data") == options.data and before.get("split_seed") != options.split_seed:
        raise RLPruneError(
            f"the network was trained on the split of seed {before['split_seed']}; with --split-seed "
            f"{options.split_seed} some of its training images would be measured on"
        )
    if before.get("data") == options.data:
        shares = before.get("shares") and tuple(before["shares"])
        if options.shares not in (None, shares or SHARES):
            raise RLPruneError(
                f"the network was trained on splits of {shares or SHARES}; with --shares {options.shares} some of its "
                "training images would be measured on"
            )
        options = dataclasses.replace(options, shares=shares)
    splits = options.load()
    shape, n_classes = tuple(splits.network.images.shape[1:]), len(splits.network.classes)
    if shape != tuple(image_shape) or n_classes != len(expected.classes):
        raise RLPruneError(
            f"the network takes images of shape {tuple(image_shape)} in {len(expected.classes)} classes, "
            f"{options.data} has {shape} in {n_classes}; use the data that it was adapted to, or --image-size"
        )
    parts = (splits.network, splits.policy, splits.validation, splits.test)
    return Splits(*(dataclasses.replace(part, mean=expected.mean, std=expected.std) for part in parts))
