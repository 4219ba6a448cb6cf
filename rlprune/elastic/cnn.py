"""`ElasticCNN`, a pretrained CNN of adjustable width and depth, which users build from a network of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic import depth
from rlprune.elastic.channels import UnprunableLayer
from rlprune.elastic.conversion import convert
from rlprune.elastic.importance import Criterion, rank
from rlprune.elastic.levels import KEEP_RATIOS
from rlprune.elastic.module import ElasticModule
from rlprune.errors import LevelsError


class ElasticCNN(ElasticModule):
    """A network whose channel groups each compute with as many channels as a keep level says.

    The stem runs whole; the body runs under keep levels. Build one with `ElasticCNN.from_model`.

    Without levels it runs under its default profile: everything, until `set_width`, `set_depth`, `set_resolution` or
    `set_profile` change it. These touch no weights: after setting the profile back, the network computes what it did
    before. Each returns a context manager that restores the previous profile: `with network.set_width(0.5): ...`. The
    default profile is not stored with the network.

    The arguments and further attributes are those of `rlprune.elastic.module.ElasticModule`.

    Attributes:
        ranked_order: the groups in the order that `rank_depth` found; None if it was not called.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ranked_order: tuple[int, ...] | None = None
        self._kept = self.full
        self._dropped = torch.zeros(self.n_groups, dtype=torch.bool)

    def __repr__(self) -> str:
        """In one line; `print(network.body)` has its layers."""
        ratios = " ".join(f"{ratio:g}" for ratio in self.keep_ratios)
        size = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"{type(self).__name__}({self.n_classes} classes; images {self.image_shape}; "
            f"{self.n_groups - self.resolution} channel groups{' and the resolution' * self.resolution} with keep "
            f"ratios {ratios}; {size:.2f} M parameters)"
        )

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        image_shape: Sequence[int],
        *,
        keep_ratios: Sequence[float] = KEEP_RATIOS,
        round_to: int = 8,
        importance: str = "l1",
        residual: bool = False,
        calibration: ImageSet | None = None,
        output: str | int | None = None,
        resolution: bool = False,
    ) -> ElasticCNN:
        """Find the groups of a pretrained CNN, rank their channels, and give its norms statistics per level.

        Args:
            model: float32 images (B, C, H, W) -> logits (B, classes); it is copied, not changed.
            image_shape: (C, H, W) of its images.
            keep_ratios: ascending shares in [0, 1], the last one 1; 0 drops a whole branch where that is possible.
            round_to: widths round up to multiples of this many channels, 1 or more; where channels must stay together,
                such as those of one convolution group, to as few of those groups as hold that many.
            importance: criterion that ranks channels: `l1`, `l2` or `bn_scale`; or, with calibration images,
                `gradient`, `taylor` or `hessian` (`rlprune.elastic.importance`).
            residual: also prune the channels of residual streams, which many blocks share.
            calibration: labelled images that the network was trained for.
            output: key or index of the logits, where the network returns a dict, tuple or list of several things.
            resolution: also choose the resolution: the last group is then the rows of the stem's features, and a keep
                ratio the share of their positions that the body runs on.

        Raises:
            LevelsError: keep ratios that are not ascending up to 1, or `round_to` below 1.
            ModelError: the network cannot be traced; it returns no logits of two classes or more; nothing in it can be
                pruned; the importance is unknown, or needs calibration images and none are given; or the resolution is
                to be chosen, and the network runs at one only.
        """
        return convert(
            cls,
            model,
            image_shape,
            keep_ratios=keep_ratios,
            round_to=round_to,
            importance=importance,
            residual=residual,
            calibration=calibration,
            output=output,
            resolution=resolution,
        )

    @property
    def drop_order(self) -> tuple[int, ...]:
        """The groups that can be dropped, in the order in which `set_depth` drops them.

        Until `rank_depth` is called, the branches that end in the smallest batch-norm scales come first.
        """
        return depth.order_by_scale(self) if self.ranked_order is None else self.ranked_order

    @property
    def left_alone(self) -> tuple[UnprunableLayer, ...]:
        """`unprunable`, as 0.1.0 called it."""
        return self.unprunable

    @property
    def profile(self) -> Tensor:
        """The default profile, under which it runs where no levels are given, int64 (G,)."""
        return torch.where(self._dropped, 0, self._kept)

    def set_profile(self, profile: Tensor | Sequence[int]) -> Setting:
        """Change the default profile; a branch that it drops comes back at full width.

        Args:
            profile: int64 (G,).

        Raises:
            LevelsError: not a profile of this network.
        """
        levels = torch.as_tensor(profile)
        dropped = self._choice(levels, None).widths.cpu() == 0
        return self._set(torch.where(dropped, self.full, levels.cpu()), dropped)

    def set_width(self, ratio: float) -> Setting:
        """Change the width of the default profile; dropped branches stay dropped.

        Args:
            ratio: share of every group's channels to keep, one of the network's keep ratios above 0.

        Raises:
            LevelsError: not a keep ratio of this network above 0.
        """
        levels = torch.full_like(self._kept, self.keep_levels.level_of(ratio))
        if self.resolution:
            levels[-1] = self._kept[-1]
        return self._set(levels, self._dropped)

    def set_resolution(self, ratio: float) -> Setting:
        """Change the resolution of the default profile; widths and dropped branches stay.

        Args:
            ratio: share of the positions of the stem's features to keep, one of the network's keep ratios above 0.

        Raises:
            LevelsError: not a keep ratio of this network above 0, or the network was made without `resolution=True`.
        """
        if not self.resolution:
            raise LevelsError(
                "this network has one resolution; one whose resolution can be chosen is made with "
                "ElasticCNN.from_model(..., resolution=True)"
            )
        levels = self._kept.clone()
        levels[-1] = self.keep_levels.level_of(ratio)
        return self._set(levels, self._dropped)

    def set_depth(self, share: float) -> Setting:
        """Change the depth of the default profile: keep the last branches of `drop_order`, at the width set last.

        Args:
            share: of the branches that can be dropped, how many to keep, in [0, 1]; their number is rounded up.

        Raises:
            LevelsError: the share is outside [0, 1], or below 1 where no branch can be dropped.
        """
        return self._set(self._kept, depth.dropped_at(self, self.drop_order, share))

    def rank_depth(self, images: Tensor) -> None:
        """Order `drop_order` by how much predictions change without each branch, the smallest change first.

        The order stays until the next call, and is stored with the network.

        Args:
            images: normalised, float (B, C, H, W); some hundreds are enough.

        Raises:
            LevelsError: there are no images.
        """
        training = self.training
        self.ranked_order = depth.order_by_change(self.eval(), images)
        self.train(training)

    def _set(self, kept: Tensor, dropped: Tensor) -> Setting:
        setting = Setting(self, self._kept, self._dropped)
        self._kept = kept
        self._dropped = dropped
        return setting

    def rank(self, score: Criterion) -> None:
        """Order the channels of every group by descending importance; full keep computes the same as before.

        Args:
            score: a criterion of `rlprune.elastic.importance`.
        """
        rank(self, score)


class Setting(AbstractContextManager[ElasticCNN]):
    """A context manager that restores the default profile which a network had before a change.

    Args:
        elastic: the network.
        kept: level that each group kept before, int64 (G,).
        dropped: whether each group was dropped before, bool (G,).
    """

    def __init__(self, elastic: ElasticCNN, kept: Tensor, dropped: Tensor) -> None:
        self._elastic = elastic
        self._kept = kept
        self._dropped = dropped

    def __enter__(self) -> ElasticCNN:
        return self._elastic

    def __exit__(self, *_: Any) -> None:
        self._elastic._set(self._kept, self._dropped)
