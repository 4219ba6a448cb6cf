"""A pretrained CNN of adjustable width and depth: what users make of a network of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic import depth
from rlprune.elastic.conversion import convert
from rlprune.elastic.importance import Criterion, rank
from rlprune.elastic.levels import KEEP_RATIOS
from rlprune.elastic.module import ElasticModule


class ElasticCNN(ElasticModule):
    """A network that computes with as many channels of each group as it is told to.

    The stem runs whole; the body runs under keep levels. Build one with `ElasticCNN.from_model`.

    Where no levels are given it runs under its default profile: everything, until `set_width`, `set_depth` or
    `set_profile` say otherwise. They touch no weights: what is set back computes what it did. Each also gives a context
    at whose end things are as they were before: `with network.set_width(0.5): ...`. It is not stored with the network.

    The arguments and further attributes are those of `rlprune.elastic.module.ElasticModule`.

    Attributes:
        ranked_order: what `rank_depth` found, if it was called; else None.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ranked_order: tuple[int, ...] | None = None
        self._kept = self.full
        self._dropped = torch.zeros(self.n_groups, dtype=torch.bool)

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
    ) -> ElasticCNN:
        """Find the groups of a pretrained CNN, rank their channels, and give its norms statistics per level.

        Args:
            model: float32 images (B, C, H, W) -> logits (B, classes); it is copied, not changed.
            image_shape: (C, H, W) of its images.
            keep_ratios: ascending shares in [0, 1], the last one 1; 0 drops a whole branch where that is possible.
            round_to: widths round up to multiples of this many channels.
            importance: what channels are ranked by: `l1`, `l2` or `bn_scale`; or, with calibration images, `gradient`,
                `taylor` or `hessian` (`rlprune.elastic.importance`).
            residual: also prune the channels of residual streams, which many blocks share.
            calibration: labelled images that the network was trained for.

        Raises:
            ModelError: the network cannot be traced, or nothing in it can be pruned.
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
        )

    @property
    def drop_order(self) -> tuple[int, ...]:
        """The groups that can be dropped, those first that `set_depth` drops first.

        Until `rank_depth` is called, those whose branches end in the smallest scales of norms.
        """
        return depth.order_by_scale(self) if self.ranked_order is None else self.ranked_order

    @property
    def profile(self) -> Tensor:
        """What it runs under where no levels are given, int64 (G,)."""
        return torch.where(self._dropped, 0, self._kept)

    def set_profile(self, profile: Tensor | Sequence[int]) -> Setting:
        """Run under this profile, int64 (G,), where no levels are given; branches it drops come back whole.

        Raises:
            LevelsError: not a profile of this network.
        """
        levels = torch.as_tensor(profile)
        dropped = self._choice(levels, None).widths.cpu() == 0
        return self._set(torch.where(dropped, self.full, levels.cpu()), dropped)

    def set_width(self, ratio: float) -> Setting:
        """Keep this share of every group's channels where no levels are given; branches that are dropped stay so.

        Raises:
            LevelsError: not a keep ratio of this network above 0.
        """
        return self._set(torch.full_like(self._kept, self.keep_levels.level_of(ratio)), self._dropped)

    def set_depth(self, share: float) -> Setting:
        """Keep this share of the branches that can be dropped, the last of `drop_order`, where no levels are given.

        Their number is rounded up, and they have the width that was set last.

        Raises:
            LevelsError: the share is outside [0, 1], or below 1 where no branch can be dropped.
        """
        return self._set(self._kept, depth.dropped_at(self, self.drop_order, share))

    def rank_depth(self, images: Tensor) -> None:
        """Order the branches that can be dropped by how much predictions change without each; it is kept from then on.

        Args:
            images: normalised, float (B, C, H, W), to predict; some hundreds are enough.

        Raises:
            LevelsError: there are none.
        """
        training = self.training
        self.ranked_order = depth.order_by_change(self.eval(), images)
        self.train(training)

    def _set(self, kept: Tensor, dropped: Tensor) -> Setting:
        setting = Setting(self, self._kept, self._dropped)
        self._kept, self._dropped = kept, dropped
        return setting

    def rank(self, score: Criterion) -> None:
        """Order the channels of every group by falling importance; what the network computes does not change.

        Args:
            score: a criterion of `rlprune.elastic.importance`.
        """
        rank(self, score)


class Setting(AbstractContextManager[ElasticCNN]):
    """What a network was set to before it is set anew; as a context it ends with that.

    Args:
        elastic: the network.
        kept: the level that each of its groups kept.
        dropped: whether it was dropped.
    """

    def __init__(self, elastic: ElasticCNN, kept: Tensor, dropped: Tensor) -> None:
        self._elastic = elastic
        self._kept = kept
        self._dropped = dropped

    def __enter__(self) -> ElasticCNN:
        return self._elastic

    def __exit__(self, *_: Any) -> None:
        self._elastic._set(self._kept, self._dropped)
