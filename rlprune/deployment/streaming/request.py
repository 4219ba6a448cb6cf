"""What goes through a stream: the images of each caller, the future of their prediction, and what runs them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import torch

from rlprune.deployment.images import Images
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


class Request:
    """The images of one call.

    Args:
        n_images: how many.
        begun: when they came, in seconds.
        timeout_ms: milliseconds in which they are to be done; None for any time.

    Attributes:
        future: gets the prediction, or an error.
        n_images: how many.
        deadline: when they are to be done, in seconds; None where there is no such time.
        n_left: how many of them are not done.
        over: whether nothing of it has to run any more.
    """

    def __init__(self, n_images: int, begun: float, timeout_ms: float | None = None) -> None:
        self.future: Future[Prediction] = Future()
        self.n_images = n_images
        self.begun = begun
        self.timeout_ms = timeout_ms
        self.deadline = None if timeout_ms is None else begun + timeout_ms / 1000
        self.n_left = n_images
        self.over = False
        self._found: list[Found | None] = [None] * n_images

    def note(self, index: int, found: Found) -> None:
        """Take over what came out for one image."""
        self._found[index] = found
        self.n_left -= 1

    def is_late(self, now: float) -> bool:
        """Whether the time in which it was to be done is over at a time, in seconds."""
        return self.deadline is not None and self.deadline <= now

    def succeed(self) -> None:
        """Give the caller the prediction for all images, in their order."""
        try:
            self._settle(self._joined(), None)
        except Exception as error:  # such as too little memory
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Give the caller an error."""
        self._settle(None, error)

    def _settle(self, prediction: Prediction | None, error: BaseException | None) -> None:
        with suppress(InvalidStateError):  # it was cancelled meanwhile
            if error is not None:
                self.future.set_exception(error)
            elif prediction is not None:
                self.future.set_result(prediction)

    def _joined(self) -> Prediction:
        found = [each for each in self._found if each is not None]
        if len(found) == 1:
            return found[0].prediction.row(found[0].row)
        rows: dict[int, list[int]] = {}
        places: dict[int, list[int]] = {}
        for place, each in enumerate(found):
            rows.setdefault(id(each.prediction), []).append(each.row)
            places.setdefault(id(each.prediction), []).append(place)
        predictions = {id(each.prediction): each.prediction for each in found}
        parts = [predictions[key].rows(torch.tensor(of)) for key, of in rows.items()]
        if len(parts) == 1:
            return parts[0]
        order = torch.tensor([place for key in rows for place in places[key]]).argsort()
        return Prediction.joined(parts).rows(order)


class StreamedImage:
    """One image on its way.

    Attributes:
        request: whose it is.
        index: of the image in it.
        state: what the engine knows of it.
        waited: seconds that it waited so far.
    """

    __slots__ = ("index", "request", "state", "waited")

    def __init__(self, request: Request, index: int, state: Any) -> None:
        self.request = request
        self.index = index
        self.state = state
        self.waited = 0.0
