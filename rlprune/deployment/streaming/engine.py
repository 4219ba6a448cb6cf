"""What a stream needs of a network: images made ready in the caller's thread, and buckets of them run at a point."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlprune.deployment.images import Images
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction


class Found(NamedTuple):
    """What came out for an image.

    Attributes:
        prediction: for all images that were done together.
        row: the image's in it.
    """

    prediction: Prediction
    row: int


class Engine(Protocol):
    """Runs images bucket by bucket.

    What it must know of an image between its buckets is a state of its own making.
    """

    def accept(self, images: Images, budget: float | None) -> list[tuple[Hashable, Any]]:
        """Check images and copy them, in their caller's thread; the first point and the state of each.

        Args:
            images: as the network takes them.
            budget: as the network takes it.

        Raises:
            RLPruneError: images or a budget that the network does not take.
        """

    def run(self, point: Hashable, states: Sequence[Any], *, alone: bool) -> list[Hashable | Found]:
        """Run images that waited at the same point; for each its next point, or what came out.

        Where it raises, the states are good for another run.

        Args:
            point: where they waited.
            states: of the images.
            alone: whether no other image waits anywhere.
        """


class WholeEngine:
    """Runs a file whose passes lie inside: images of one size and one budget run together, and are done.

    Args:
        model: the file.
    """

    def __init__(self, model: OnnxCNN) -> None:
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
        prediction = self._model(torch.cat(list(states)), budget=point[1])
        return [Found(prediction, row) for row in range(len(states))]
