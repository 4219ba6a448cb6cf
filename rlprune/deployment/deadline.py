"""Frames that have to be done in time: how long each profile takes at the moment, and which of them still fit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from statistics import median

import torch

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.utils.process import ForkLock

_N_FIRST = 5
"""How often each profile is timed before the first frame, after a run that prepares it."""
_SECONDS = 2.0
"""After which profiles that have not been timed yet are priced by their MACs."""
_N_RECENT = 200
"""Runs by which it is told how much times vary."""
_N_NOW = 5
"""Runs by which it is told how fast the machine is at the moment."""
_LEARNING = 0.05
"""How much of a deviation from the others a profile's usual time takes over, on a logarithmic scale."""
_SHORTEST = 1e-6
"""Milliseconds that anything takes at least."""


class Pace:
    """What profiles take here: each a usual time, and all of them together a factor that follows the machine.

    A machine that slows down does so for all profiles: what the one that runs takes now says what the others would.
    Several threads may use it at once.

    Args:
        usual: milliseconds of each profile for one image, K of them.
        factors: measured times as multiples of these.
    """

    def __init__(self, usual: Sequence[float], factors: Sequence[float] = ()) -> None:
        self._usual = {(profile, 1): max(ms, _SHORTEST) for profile, ms in enumerate(usual)}
        self._factors: deque[float] = deque(factors, maxlen=_N_RECENT)
        self._lock = ForkLock()

    @classmethod
    def measured(cls, dynamic: DynamicCNN) -> Pace:
        """Time every profile of a network on an empty image."""
        macs = dynamic.prices.bodies.macs.tolist()
        image = torch.zeros(1, *dynamic.image_shape, dtype=torch.uint8)
        for profile in range(len(macs)):
            _time_of(dynamic, profile, image)  # which prepares or compiles it
        begun = time.perf_counter()
        times: list[list[float]] = []
        for profile in range(len(macs)):
            if profile and time.perf_counter() - begun > _SECONDS:
                break
            times.append([_time_of(dynamic, profile, image) for _ in range(_N_FIRST)])
        usual = [median(each) for each in times]
        per_mac = max(ms / n_macs for ms, n_macs in zip(usual, macs, strict=False))
        usual += [per_mac * n_macs for n_macs in macs[len(usual) :]]
        return cls(
            usual, [ms / max(middle, _SHORTEST) for middle, each in zip(usual, times, strict=False) for ms in each]
        )

    def expected(self, profile: int, n_images: int, quantile: float) -> float:
        """Milliseconds that images take at most, in a given share of all cases.

        Args:
            profile: index into the codebook.
            n_images: how many run together.
            quantile: the share, in (0, 1).
        """
        with self._lock:
            factors = sorted(self._factors)
            usually = factors[min(int(quantile * len(factors)), len(factors) - 1)] if factors else 1.0
            return n_images * self._each(profile, n_images) * max(usually, self._now())

    def note(self, profile: int, n_images: int, ms: float) -> None:
        """Take a measured time into account.

        Args:
            profile: index into the codebook.
            n_images: how many ran together.
            ms: what they took.
        """
        with self._lock:
            each = max(ms / n_images, _SHORTEST)
            now = self._now()
            key = (profile, n_images.bit_length())
            if key not in self._usual:
                self._usual[key] = min(each / now, self._each(profile, n_images))
            factor = each / self._usual[key]
            self._factors.append(factor)
            self._usual[key] *= (factor / now) ** _LEARNING

    def _now(self) -> float:
        """How fast the machine is at the moment: times as multiples of the usual ones."""
        return median([*self._factors][-_N_NOW:]) if self._factors else 1.0

    def _each(self, profile: int, n_images: int) -> float:
        """The usual milliseconds of each of some images that run together, or of fewer where that is not known."""
        sizes = range(n_images.bit_length(), 0, -1)
        return next(self._usual[profile, size] for size in sizes if (profile, size) in self._usual)


class Frame:
    """What may run of one call that has to be done in time; see `rlprune.policies.passes.Limit`.

    The first pass of an image runs the profile that was chosen, or the most expensive one below it that will be done in
    time; if there is none, the fastest. A further pass runs only if there is time for it, or for one between it and the
    pass before.

    Args:
        pace: what profiles take.
        macs: of every profile, K of them.
        ends: when it has to be done, on the clock of `time.perf_counter`.
        quantile: how often it is to be done by then, in (0, 1).
        n_images: how many images the call has.

    Attributes:
        limited: whether something else ran than was chosen.
        hopeless: whether even the fastest profile was expected too late.
    """

    def __init__(self, pace: Pace, macs: Sequence[int], ends: float, quantile: float, n_images: int) -> None:
        self.limited = self.hopeless = False
        self._pace = pace
        self._macs = macs
        self._ends = ends
        self._quantile = quantile
        self._n_left = n_images
        self._running: tuple[int, int, float] | None = None

    def __call__(self, n_pass: int, profile: int, before: int, n_images: int, n_waiting: int) -> int:
        """The profile to run, as a `Limit` says it."""
        now = self.finish()
        left = 1000 * (self._ends - now)
        fastest = self._fastest(n_images)
        if n_pass == 0:
            share = left * n_images / max(self._n_left, n_images)
            self._n_left -= n_images
        else:
            share = (left - (self._expected(fastest, self._n_left) if self._n_left > 0 else 0.0)) * n_images / n_waiting
        chosen = self._fitting(profile, before, n_images, share)
        if chosen < 0 and n_pass == 0:
            self.hopeless = True
            chosen = fastest
        self.limited |= chosen != profile
        self._running = None if chosen < 0 else (chosen, n_images, now)
        return chosen

    def finish(self) -> float:
        """Note that what ran last has ended; the time now, in seconds."""
        now = time.perf_counter()
        if self._running is not None:
            profile, n_images, begun = self._running
            self._pace.note(profile, n_images, 1000 * (now - begun))
            self._running = None
        return now

    def _fitting(self, profile: int, before: int, n_images: int, ms: float) -> int:
        """A profile, or the most expensive one between it and what ran before, that is done in time; -1 if none is."""
        if self._expected(profile, n_images) <= ms:
            return profile
        least = -1 if before < 0 else self._macs[before]
        between = [other for other, macs in enumerate(self._macs) if least < macs < self._macs[profile]]
        fitting = [other for other in between if self._expected(other, n_images) <= ms]
        return max(fitting, key=lambda other: self._macs[other], default=-1)

    def _fastest(self, n_images: int) -> int:
        return min(range(len(self._macs)), key=lambda profile: self._expected(profile, n_images))

    def _expected(self, profile: int, n_images: int) -> float:
        return self._pace.expected(profile, n_images, self._quantile)


class _Only:
    """Lets every image run one profile, and nothing after it."""

    def __init__(self, profile: int) -> None:
        self.begun = 0.0
        self._profile = profile

    def __call__(self, n_pass: int, profile: int, before: int, n_images: int, n_waiting: int) -> int:
        if n_pass == 0:
            self.begun = time.perf_counter()
        return self._profile if n_pass == 0 else -1


def _time_of(dynamic: DynamicCNN, profile: int, image: torch.Tensor) -> float:
    """Milliseconds from the decision for a profile to the end of the call."""
    only = _Only(profile)
    dynamic.limited(only)(image)
    return 1000 * (time.perf_counter() - only.begun)
