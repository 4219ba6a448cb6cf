"""A dynamic network whose pieces are timed. Nothing is timed, and nothing asked, in the one that it is made of."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.policies.folded import FoldedPolicy
from rlprune.policies.one_image import SingleImagePolicy, Vector
from rlprune.policies.passes import PassResult, Run
from rlprune.policies.policy import Policy

T = TypeVar("T")


class Clock:
    """Adds up the time of pieces; one that runs inside another counts for itself alone.

    Args:
        device: where they run; on a graphics card each is waited for.

    Attributes:
        ms: milliseconds of each piece so far.
        body_ms: of each run of a body: by profile and number of images.
    """

    def __init__(self, device: torch.device) -> None:
        self.ms: defaultdict[str, float] = defaultdict(float)
        self.body_ms: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self._inside = [0.0]
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def time(self, piece: str, run: Callable[..., T], *arguments: Any) -> T:
        """What a function returns for its arguments; its time counts for the piece."""
        self._inside.append(0.0)
        start = time.perf_counter()
        result = run(*arguments)
        self._wait()
        took = (time.perf_counter() - start) * 1e3
        self.ms[piece] += took - self._inside.pop()
        self._inside[-1] += took
        return result

    def time_body(self, profile: int, n_images: int, run: Callable[..., T], *arguments: Any) -> T:
        """The same for the body of a profile, on so many images."""
        before = self.ms["body"]
        result = self.time("body", run, *arguments)
        self.body_ms[profile, n_images].append(self.ms["body"] - before)
        return result


class TimedCNN(DynamicCNN):
    """Predicts as the network that it is made of does.

    Args:
        dynamic: the network, whose slices and policy are shared.
        clock: what times the pieces.
    """

    def __init__(self, dynamic: DynamicCNN, clock: Clock) -> None:
        self.__dict__.update(dynamic.__dict__)
        self.clock = clock
        self.folded = _TimedPolicy(dynamic.policy, clock, begun=self.first is not None)
        self._one_image = _TimedSingleImagePolicy(dynamic.policy, self.prices, self.first)
        self._one_image.clock = clock

    def __call__(self, images: Any, **price: Any) -> Prediction:
        """Classify a batch."""
        return self.clock.time("other", super().__call__, images, **price)

    def normalise(self, images: Tensor) -> Tensor:
        """As there."""
        return self.clock.time("normalise", super().normalise, images)

    def run_stem(self, images: Tensor) -> Tensor:
        """As there."""
        return self.clock.time("stem", super().run_stem, images)

    def _passes(self, features: Tensor, run: Run) -> PassResult:
        return self.clock.time("scatter", super()._passes, features, run)

    def _observed(self, features: Tensor) -> Tensor:
        return self.clock.time("decide", super()._observed, features)

    def _gather(self, features: Tensor, bucket: Tensor) -> Tensor:
        return self.clock.time("gather", super()._gather, features, bucket)

    def run_body(self, profile: int, features: Tensor) -> Tensor:
        """As there."""
        return self.clock.time("check", super().run_body, profile, features)

    def _body(self, profile: int, features: Tensor) -> Tensor:
        return self.clock.time_body(profile, len(features), super()._body, profile, features)

    def prediction_of(self, logits: Tensor, profiles: Tensor) -> Prediction:
        """As there."""
        return self.clock.time("after", super().prediction_of, logits, profiles)


class _TimedPolicy(FoldedPolicy):
    """A policy, whose decisions are timed with what it observes."""

    def __init__(self, policy: Policy, clock: Clock, *, begun: bool) -> None:
        super().__init__(policy, begun=begun)
        self._clock = clock

    def forward(self, *seen: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """As there."""
        return self._clock.time("decide", super().forward, *seen)


class _TimedSingleImagePolicy(SingleImagePolicy):
    """The loop for one image, whose decisions are timed."""

    clock: Clock

    def _decide(self, features: Vector, logits: Vector, n_pass: int, spent: float) -> tuple[int, bool]:
        return self.clock.time("decide", super()._decide, features, logits, n_pass, spent)
