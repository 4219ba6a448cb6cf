"""What a sweep tries: values that are listed, and ranges that are searched."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rlprune.agents.settings import PolicySettings
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.errors import SettingsError

Value = int | float | bool | str
MOST_TRIALS = 10_000
_CODEBOOK = {"n_profiles": MAX_PROFILES, "n_candidates": 100_000}
"""What a codebook is made by, beside the seed, and the largest number that each may be."""
_LISTED = ("seed", *_CODEBOOK)
"""What is listed only: each value may need a codebook of its own, with logits of its own."""
_TUPLES = ("penalty_range", "hidden")
_DECADE = 10
"""From this ratio of the ends on, a range is searched by logarithm."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are searched; by logarithm where they are a decade or more apart.

    Attributes:
        low: the lowest.
        high: the highest.
    """

    low: int | float
    high: int | float

    @property
    def log(self) -> bool:
        """Whether the logarithm is drawn evenly."""
        return self.low > 0 and self.high >= _DECADE * self.low


@dataclass(frozen=True)
class Space:
    """The settings that differ between the trials of a sweep.

    Attributes:
        lists: values of each setting; every combination of them is trained.
        ranges: of each setting that is searched, for every combination.
        trials: that search each combination; 1 where there is nothing to search.
    """

    lists: Mapping[str, tuple[Value, ...]]
    ranges: Mapping[str, Range]
    trials: int = 1

    @classmethod
    def of(cls, over: Sequence[str], settings: PolicySettings, trials: int | None = None) -> Space:
        """Read what somebody typed, and make sure that every combination can be trained.

        Args:
            over: words such as ``penalty=0.1,0.2`` and ``learning_rate=1e-4..1e-2``.
            settings: of all trials, but for those.
            trials: that search each combination, where there are ranges.

        Raises:
            SettingsError: there is no such setting, or a value cannot be, or trials are missing, or would do nothing.
        """
        lists: dict[str, tuple[Value, ...]] = {}
        ranges: dict[str, Range] = {}
        for word in over:
            name, given = _parted(word)
            if name in (*lists, *ranges):
                raise SettingsError(f"over={word!r}: {name} is given twice; give all its values at once")
            if getattr(settings, name, None) != getattr(PolicySettings(), name, None):
                raise SettingsError(f"over={word!r}: {name} is given by itself, too; leave one of them out")
            if isinstance(given, Range):
                ranges[name] = given
            else:
                lists[name] = given
        _check_whole(lists, ranges, settings, trials)
        space = cls(lists, ranges, trials or 1)
        if len(space) > MOST_TRIALS:
            raise SettingsError(f"over asks for {len(space)} policies; {MOST_TRIALS} at most")
        for each in space.combinations():
            for ends in itertools.product(*[(ends.low, ends.high) for ends in ranges.values()]):
                settings_of(settings, each | dict(zip(ranges, ends, strict=True)))
        return space

    def __len__(self) -> int:
        """How many policies there are."""
        n = self.trials
        for values in self.lists.values():
            n *= len(values)
        return n

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that differ."""
        return (*self.lists, *self.ranges)

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Every combination of the listed values, the last setting changing fastest."""
        for values in itertools.product(*self.lists.values()):
            yield dict(zip(self.lists, values, strict=True))


def settings_of(settings: PolicySettings, values: Mapping[str, Value]) -> PolicySettings:
    """The settings of a trial.

    Args:
        settings: of all of them.
        values: by which it differs; those of the codebook are left out.

    Raises:
        SettingsError: they cannot be.
    """
    own: dict[str, Any] = {name: value for name, value in values.items() if name not in _CODEBOOK}
    try:
        return replace(settings, **own)
    except SettingsError as error:
        said = " ".join(f"{name}={value}" for name, value in values.items())
        raise SettingsError("\n".join(f"over={said!r}: {line}" for line in str(error).splitlines())) from error


def trial_name(values: Mapping[str, Value]) -> str:
    """What the folder of a trial is called, such as ``penalty=0.1,seed=0``."""
    return ",".join(f"{name}={value}" for name, value in values.items())


def _check_whole(
    lists: Mapping[str, tuple[Value, ...]],
    ranges: Mapping[str, Range],
    settings: PolicySettings,
    trials: int | None,
) -> None:
    """Make sure that what is listed, what is searched and how often go together.

    Raises:
        SettingsError: they do not.
    """
    if not (lists or ranges):
        raise SettingsError("over is missing: give what differs between trials, such as penalty=0.1,0.2 seed=0,1,2")
    if settings.penalty_range and "penalty" in (*lists, *ranges):
        raise SettingsError("over names the penalty, and penalty_range is given; leave one of them out")
    if ranges and trials is None:
        raise SettingsError("trials is missing: give how many policies search the ranges, for each combination")
    if trials is not None and not ranges:
        raise SettingsError(f"trials={trials}: only ranges are searched, such as penalty=0.1..0.4; leave it out")


def _parted(word: str) -> tuple[str, tuple[Value, ...] | Range]:
    """The setting that a word names, and its values or their range.

    Raises:
        SettingsError: the word says something else.
    """
    name, equals, text = word.partition("=")
    name = name.replace("-", "_")
    known = [each.name for each in fields(PolicySettings) if each.name not in _TUPLES]  # type: ignore[arg-type]
    if not (equals and text):
        raise SettingsError(
            f"over={word!r}: give a setting and its values, such as penalty=0.1,0.2 or penalty=0.1..0.4"
        )
    if name not in (*known, *_CODEBOOK):
        raise SettingsError(
            f"over={word!r}: there is no setting {name} to sweep; allowed are {', '.join(known)}, "
            f"{', '.join(_CODEBOOK)}"
        )
    low, dots, high = text.partition("..")
    if dots:
        return name, _range(word, name, _value(low), _value(high))
    values = tuple(map(_value, text.split(",")))
    if len(set(values)) < len(values):
        raise SettingsError(f"over={word!r}: a value is there twice")
    if name in _CODEBOOK and not all(type(each) is int and 0 < each <= _CODEBOOK[name] for each in values):
        raise SettingsError(f"over={word!r}: give whole numbers from 1 to {_CODEBOOK[name]}")
    if name == "cost" and "latency" in values:
        raise SettingsError(f"over={word!r}: time cannot be measured while policies train side by side; leave it out")
    return name, values


def _range(word: str, name: str, low: Value, high: Value) -> Range:
    """The range between two ends.

    Raises:
        SettingsError: it is none, or the setting is not one that is searched.
    """
    if name in _LISTED:
        raise SettingsError(f"over={word!r}: {name} is not searched; list its values, such as {name}=1,2")
    ends = [each for each in (low, high) if isinstance(each, int | float) and not isinstance(each, bool)]
    whole = isinstance(getattr(PolicySettings(), name), int)
    if len(ends) < 2 or not ends[0] < ends[1] or (whole and not all(isinstance(each, int) for each in ends)):
        raise SettingsError(f"over={word!r}: give two {'whole ' if whole else ''}numbers, the lower one first")
    return Range(*(ends if whole else map(float, ends)))


def _value(text: str) -> Value:
    """What a word stands for: a number, true or false, or itself."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return text.strip()
    return found if isinstance(found, int | float | bool | str) else text
