"""What is left of a time limit for each step: what a step measures of its own pace counts for those that follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from rlprune.optimization.goal import PlanOptions
from rlprune.optimization.plan import (
    CHOOSING,
    DECIDING,
    MEASURING,
    PRETRAIN,
    PRICING,
    REPORTING,
    SEARCHING,
    SLICES,
    SLICES_IN_USE,
    STATIC,
    USED,
    WRITING,
)
from rlprune.utils.timing import Deadline

LATEST = 0.95
"""Share of the limit after which nothing is done that can be left out; more than is planned for."""
_TRAININGS = (PRETRAIN, SLICES, SLICES_IN_USE, STATIC)
_CAN_END = (PRETRAIN, SLICES, PRICING, SEARCHING, SLICES_IN_USE, DECIDING, STATIC)
"""Steps that can be cut short, in their order."""
_WHOLE = (WRITING, CHOOSING, MEASURING, REPORTING)
"""Steps that are kept time for; all of them end after all of the others but the static rival."""


def given_steps(options: PlanOptions) -> set[str]:
    """Names of the steps whose size is given by options."""
    of = {
        PRETRAIN: options.pretrain_epochs,
        SLICES: options.slice_epochs,
        SEARCHING: options.n_candidates,
        SLICES_IN_USE: options.profile_epochs,
        STATIC: options.profile_epochs,
        DECIDING: options.policy_steps,
    }
    return {name for name, value in of.items() if value is not None}


class TimeLimit:
    """Divides what is left of a time limit among the steps that are left, by what they were planned to take.

    Where training is slower than was planned, at the pace of its last steps, so is expected to be all that follows.
    Where another step becomes slower, such as learning to decide, which stops to validate, that counts until it ends.

    Args:
        planned: seconds of each step, by its name.
        minutes: the limit.
        spent: seconds of it that have gone.
        given: names of steps whose size was given, and so is kept whatever time it takes.
        clock: seconds, from any moment on.
    """

    def __init__(
        self,
        planned: Mapping[str, float],
        minutes: float,
        spent: float = 0.0,
        given: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.minutes = minutes
        self.slower = 1.0
        self._planned = dict(planned)
        self._given = frozenset(given)
        self._clock = clock
        self._began = clock() - spent
        self._used: dict[str, float] = {}
        self._finished: set[str] = set()
        self._fastest: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds that have gone, those of earlier processes included."""
        return self._clock() - self._began

    def expect(self, name: str, seconds: float) -> None:
        """Say anew how long a step will take."""
        self._planned[name] = seconds

    def finish(self, name: str) -> None:
        """Say that nothing is left of a step, in whichever process it was done: no time is kept for it any more."""
        self._finished.add(name)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step, or a part of it."""
        begun = self._clock()
        try:
            yield
        finally:
            self._used[name] = self._used.get(name, 0.0) + self._clock() - begun

    def deadline(self, name: str, least: float = 1.0) -> Deadline | None:
        """When a step that can be cut short has to be done; None where its size was given.

        Args:
            name: of the step.
            least: how far each of its steps goes on at least: more than 1 leaves some out in any case.
        """
        if name in self._given:
            return None
        return Deadline(partial(self._left_for, name), least=least, clock=self._clock)

    def for_slices_in_use(self, slower: float) -> float:
        """Seconds that were planned to be used, and are left for the slices in use and their rival.

        Args:
            slower: how many times as long as planned all else takes.
        """
        return 60 * self.minutes * USED - self.elapsed - slower * sum(map(self._rest, (DECIDING, *_WHOLE)))

    def affords(self, seconds: float) -> bool:
        """Whether something that can be left out may take so long: what cannot be has its time first."""
        later = map(self._rest, (CHOOSING, MEASURING, REPORTING, STATIC))
        return self._left - self.slower * sum(later) >= seconds

    def _slower_by(self, name: str, takes: float, planned: float) -> float:
        """How many times as long as planned all takes, by a training's pace; else by how much slower a step has become.

        What else there is was planned by less than a few measured steps of its own.
        """
        if name in _TRAININGS and planned:
            return max(1.0, takes / planned)
        self._fastest[name] = min(takes, self._fastest.get(name, takes))
        return self.slower * takes / self._fastest[name]

    @property
    def _left(self) -> float:
        return 60 * self.minutes * LATEST - self.elapsed

    def _rest(self, name: str) -> float:
        """Seconds that a step was planned to take beyond those that it has taken."""
        if name in self._finished:
            return 0.0
        return max(0.0, self._planned.get(name, 0.0) - self._used.get(name, 0.0))

    def _left_for(self, name: str, share: float, takes: float | None) -> float:
        """Seconds for what is left of a step.

        Args:
            name: of the step.
            share: of it that is left.
            takes: seconds that all of it takes at the pace of its last steps; None before there are any.
        """
        own, slower = self._planned.get(name, 0.0), self.slower
        if takes is not None:
            slower = self._slower_by(name, takes, own)
        if name in _TRAININGS:
            self.slower = slower
        later = _CAN_END[_CAN_END.index(name) + 1 :]
        kept = [*_WHOLE, *(each for each in later if each in self._given)]
        left = self._left - slower * sum(map(self._rest, kept))
        others = sum(self._planned.get(each, 0.0) for each in later if each not in self._given)
        rest = share * own
        return max(left * rest / max(rest + others, 1e-9), left - slower * others)
