"""A file whose passes lie inside, bucket by bucket: whole images wait, and one call runs them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rlprune.deployment.images import Images
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.request import Found

_MOST_VALUES = 2**26
"""Pixels and channels that one call takes, where it takes pictures of any size; a single larger picture is one, too."""


class WholeModel(Protocol):
    """What runs images as a whole, such as a `rlprune.deployment.onnx.cnn.OnnxCNN`, whose methods these are."""

    def check_budget(self, budget: float | None) -> None:
        """Make sure that a call takes a budget."""

    def prepared(self, images: Images) -> tuple[list[Tensor], Tensor]:
        """Batches of one size each, and for each image its row among all of theirs."""

    def __call__(self, images: Tensor, *, budget: float | None = None) -> Prediction:
        """Classify a batch."""


class WholeEngine:
    """Runs a file whose passes lie inside: images of one size and one budget run together, and are done.

    Args:
        model: the file.
    """

    def __init__(self, model: WholeModel) -> None:
        self._model = model

    def accept(self, images: Images, budget: float | None) -> list[tuple[Hashable, Tensor]]:
        """As `Engine.accept`; a state is the pixels, uint8 (1, C, H, W)."""
        self._model.check_budget(budget)
        chosen = None if budget is None else float(budget)
        batches, order = self._model.prepared(images)
        rows = [row for batch in batches for row in batch.detach().to("cpu", copy=True).split(1)]
        return [((rows[index].shape, chosen), rows[index]) for index in order.tolist()]

    def run(self, point: Hashable, states: Sequence[Tensor], *, alone: bool) -> list[Hashable | Found]:
        """As `Engine.run`."""
        assert isinstance(point, tuple)
        at_once = max(1, _MOST_VALUES // states[0].numel())
        parts = [states[start : start + at_once] for start in range(0, len(states), at_once)]
        prediction = Prediction.joined([self._model(torch.cat(list(part)), budget=point[1]) for part in parts])
        return [Found(prediction, row) for row in range(len(states))]
