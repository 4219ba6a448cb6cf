"""What the layers of a stored network may say of themselves: types and ranges, checked before they are built."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from rlprune.graph.operators import LAYERS
from rlprune.graph.serialization import understood
from rlprune.storage.tensors import MalformedError

_MOST_CHANNELS = 2**20
_MOST_FEATURES = 2**24
_MOST_SIDE = 16384
_LIMITS = {"inf": math.inf, "-inf": -math.inf}
Test = Callable[[Any], bool]


def _number(low: float, high: float) -> Test:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _integer(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _flag(value: Any) -> bool:
    return type(value) is bool


def _word(value: Any) -> bool:
    return type(value) is str and value.isidentifier() and len(value) < 30


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _one_or_many(test: Test, most: int) -> Test:
    """One value, or a tuple or list of some."""

    def holds(value: Any) -> bool:
        if isinstance(value, dict) and list(value) == ["tuple"]:
            value = value["tuple"]
        return (0 < len(value) <= most and all(map(test, value))) if isinstance(value, list) else test(value)

    return holds


def _limit(value: Any) -> bool:
    """A number that may be infinite."""
    if isinstance(value, dict):
        return list(value) == ["float"] and isinstance(value["float"], str) and value["float"] in _LIMITS
    return _number(-1e38, 1e38)(value)


def _edges(value: Any) -> bool:
    return value in ("same", "valid") if isinstance(value, str) else _integer(-_MOST_SIDE, _MOST_SIDE)(value)


def _table() -> dict[str, tuple[Test, str]]:
    """For each argument what it may be, and how that is said."""
    side = _integer(1, _MOST_SIDE)
    kinds: list[tuple[str, Test, str]] = [
        (
            "affine bias ceil_mode count_include_pad elementwise_affine inplace return_indices track_running_stats",
            _flag,
            "true or false",
        ),
        ("align_corners recompute_scale_factor", _or_none(_flag), "true, false or null"),
        (
            "in_channels out_channels num_features num_channels num_groups num_parameters groups",
            _integer(1, _MOST_CHANNELS),
            f"1 to {_MOST_CHANNELS} channels",
        ),
        ("in_features out_features", _integer(1, _MOST_FEATURES), f"1 to {_MOST_FEATURES} features"),
        ("upscale_factor downscale_factor", _integer(1, 1024), "1 to 1024"),
        ("kernel_size dilation", _one_or_many(side, 2), f"1 to {_MOST_SIDE}"),
        ("stride", _or_none(_one_or_many(side, 2)), f"1 to {_MOST_SIDE}"),
        ("output_size size", _or_none(_one_or_many(_or_none(side), 2)), f"1 to {_MOST_SIDE}"),
        ("padding output_padding", _one_or_many(_edges, 4), f"at most {_MOST_SIDE}"),
        ("scale_factor", _or_none(_one_or_many(_number(1e-4, 1024), 2)), "0.0001 to 1024"),
        ("normalized_shape", _one_or_many(_integer(1, _MOST_FEATURES), 8), "numbers of 1 or more"),
        ("unflattened_size", _one_or_many(_integer(-1, _MOST_FEATURES), 8), "numbers of 1 or more"),
        ("dim start_dim end_dim", _or_none(_integer(-8, 8)), "-8 to 8"),
        ("eps momentum", _or_none(_number(0, 1e6)), "a number of 0 or more"),
        ("p", _number(0, 1), "0 to 1"),
        ("max_val max_value min_val min_value value", _or_none(_limit), "a number"),
        ("divisor_override", _or_none(_integer(1, 2**31)), "1 or more"),
        ("approximate mode padding_mode", _word, "a word"),
        ("norm_type", _number(1e-3, 1e6), "a number above 0"),
        ("alpha beta init k lambd lower negative_slope threshold upper", _number(-1e30, 1e30), "a number"),
    ]
    return {name: (test, allowed) for names, test, allowed in kinds for name in names.split()}


_ARGUMENTS = _table()


@cache
def _known(kind: str) -> frozenset[str]:
    """The arguments that a class of layers has, of those that are stored."""
    return frozenset(inspect.signature(LAYERS[kind].__init__).parameters) & frozenset(_ARGUMENTS)


def check_layers(layers: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Make sure that each layer is one of `rlprune.graph.operators.LAYERS`, with arguments that it can have.

    Args:
        layers: by name, as `rlprune.graph.serialization.to_json` describes them.
        where: the graph that they belong to, for the message.

    Raises:
        MalformedError: one is not; the message names the argument.
    """
    for name, layer in layers.items():
        kind = layer.get("type")
        if not isinstance(kind, str) or kind not in LAYERS:
            raise MalformedError(
                f"layer {reprlib.repr(kind)} is not allowed; it is {where}.layers."
                f"{name[:100]}, and rlprune.graph.operators lists what is"
            )
        for key, value in understood(kind, layer).items():
            if key == "type":
                continue
            test, allowed = _ARGUMENTS.get(key, (None, ""))
            entry = f"{where}.layers.{name[:100]}.{key[:50]}"
            if test is None or key not in _known(kind):
                raise MalformedError(f"{entry} is unknown to {kind} of torch {torch.__version__}")
            if not test(value):
                raise MalformedError(f"{entry} is {reprlib.repr(value)}; allowed: {allowed}")
