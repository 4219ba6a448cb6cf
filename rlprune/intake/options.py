"""What recipes and verbs share: where images come from, and how a network is made elastic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from torch import nn

from rlprune.data import loading
from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.loading import SHARES
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.splitting import SPLIT_RULE
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.importance import check_known
from rlprune.elastic.levels import KEEP_RATIOS
from rlprune.graph import serialization
from rlprune.profiles.rounding import measured_step
from rlprune.utils.notes import heard
from rlprune.utils.settings import (
    AtMost,
    Must,
    NonNegativeFloat,
    NonNegativeInt,
    Pixels,
    PositiveFloat,
    PositiveInt,
    as_tuple,
    ascending,
    settings_dataclass,
)

Parts = Annotated[
    tuple[PositiveFloat, PositiveFloat, PositiveFloat],
    as_tuple,
    Must(lambda parts: abs(sum(parts) - 1) <= 1e-6, "three numbers above 0 that add up to 1"),
]
KeepRatios = Annotated[
    tuple[NonNegativeFloat, ...],
    as_tuple,
    Must(
        lambda ratios: len(ratios) > 1 and ascending(ratios) and ratios[-1] == 1,
        "two or more numbers of 0 or more, ascending, the last one 1",
    ),
    AtMost(64),
]


_NEWER = ("preprocess", "test_split")


@settings_dataclass
class DataOptions:
    """Where images come from."""

    data: str
    """A name (mnist5k, cifar10, cifar100, fashion_mnist), a folder of class folders, a parquet file or folder, a data
    set of the Hugging Face hub, or package.module:callable returning a Dataset. The folder in
    $RLPRUNE_DATA is searched first."""
    image_size: Pixels | None = None
    """Resize and crop images to squares of this many pixels; needed if their sizes differ."""
    image_column: str | None = None
    """Column of the images, in parquet files and hub data sets."""
    label_column: str | None = None
    """Column of the labels, likewise."""
    split_seed: NonNegativeInt = 0
    """Fixes which images train the network, which teach the decisions, and which validate."""
    shares: Parts | None = None
    """How what is not test is divided among these three; if not given, as the network was trained, else 0.7 0.2 0.1
    (optimize: 0.6 0.2 0.2)."""

    test_split: str | None = None
    """Which part of the data tests, such as val; its test split if not given, or its validation split where that has no
    labels or there is none."""
    preprocess: str | None = None
    """How the network's pictures are prepared, such as resize=256,crop=224,imagenet (or mean=..,std=..; interpolation,
    range, rgb, bgr, grey; timm or torchvision, for a network of theirs; package.module:callable). Stored with the
    network. If not given, what its weights or its library say; else mean and std are measured."""

    def load(self, split_rule: int = SPLIT_RULE, preprocessing: Preprocessing | None = None) -> Splits:
        """The images, split; by an earlier rule where a stored network was trained on that.

        Args:
            split_rule: as for `rlprune.data.loading.load`.
            preprocessing: the network's; None reads the option.
        """
        return loading.load(
            self.data,
            seed=self.split_seed,
            image_size=self.image_size,
            preprocess=self.preprocess if preprocessing is None else preprocessing,
            image_column=self.image_column,
            label_column=self.label_column,
            shares=SHARES if self.shares is None else self.shares,
            test_split=self.test_split,
            split_rule=split_rule,
        )


def source_notes(options: DataOptions) -> dict[str, Any]:
    """What is stored of where images came from: as earlier versions do, if nothing is given that they did not know."""
    return without_unset(dataclasses.asdict(options))


def without_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of data, without those that 0.1.0 did not know and that are not given."""
    return {name: value for name, value in options.items() if name not in _NEWER or value is not None}


@settings_dataclass
class ElasticOptions:
    """How a network is made elastic."""

    keep_ratios: KeepRatios = KEEP_RATIOS
    """Shares of a group's channels that may be kept, ascending, ending with 1; 0 drops whole branches."""
    round_to: Annotated[PositiveInt, AtMost(4096)] | Literal["auto"] = 8
    """Widths round up to multiples of this many channels; auto measures which of 1, 4, 8, 16 and 32 runs well."""
    importance: str = "l1"
    """What channels are ranked by: l1, l2, bn_scale; or gradient, taylor, hessian, which need training images."""
    residual: bool = False
    """Also prune the channels of residual streams, which many blocks share."""
    resolution: bool = False
    """Also choose the resolution: keep ratios are then shares of the first features' positions, too."""

    def check(self) -> None:
        """Make sure that there is such a way of ranking, before the images are read.

        Raises:
            ModelError: there is none.
        """
        check_known(self.importance)

    def build(
        self,
        model: nn.Module,
        image_shape: tuple[int, ...],
        calibration: ImageSet | None = None,
        find_step: Callable[[ElasticCNN], int] = measured_step,
    ) -> ElasticCNN:
        """The elastic network; what its widths round up to is a number in any case.

        Args:
            model: the network.
            image_shape: (C, H, W) of its images.
            calibration: images, which some ways of ranking need.
            find_step: finds that number, where it is to be measured, with an elastic network whose widths are not
                rounded; else PyTorch is timed at batch 1.

        Raises:
            ModelError: it cannot be stored, so that training it would be in vain.
        """
        convert = partial(
            ElasticCNN.from_model,
            model,
            image_shape,
            keep_ratios=self.keep_ratios,
            residual=self.residual,
            resolution=self.resolution,
        )
        round_to = self.round_to
        if round_to == "auto":
            with heard():  # it is all said of the network itself
                plain = convert(round_to=1)
            round_to = find_step(plain)
        elastic = convert(round_to=round_to, importance=self.importance, calibration=calibration)
        serialization.check_storable(elastic.slice(elastic.full))
        return elastic
