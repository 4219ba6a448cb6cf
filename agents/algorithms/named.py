"""Arguments that are objects, by their names, as a command line or a file has them."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback

from rlprune.errors import RLPruneError
from rlprune.utils.imports import find, load_object

_HOMES = {"activation_fn": ("torch.nn", torch.nn), "optimizer_class": ("torch.optim", torch.optim)}
"""Where the names of some arguments' values are looked for, if nothing else is said."""


def with_objects(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an algorithm, with the objects that names in them stand for.

    `activation_fn` and `optimizer_class` may be names of `torch.nn` and `torch.optim`, such as `ReLU`, or
    `package.module:Class`, as all other arguments that end in `_class`; `action_noise` may be `package.module:object`.

    Args:
        arguments: by name; `policy_kwargs` among them are seen to, too. They stay as they are.

    Raises:
        RLPruneError: a name stands for nothing.
    """
    found = {name: _object(name, value) for name, value in arguments.items()}
    if isinstance(more := found.get("policy_kwargs"), dict):
        found["policy_kwargs"] = {name: _object(name, value) for name, value in more.items()}
    if isinstance(every := found.get("train_freq"), list):  # JSON knows no tuples
        found["train_freq"] = tuple(every)
    return found


def _object(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if name in _HOMES:
        return _of_torch(name, value)
    if name.endswith("_class"):
        return find(value, RLPruneError)
    return load_object(value, RLPruneError) if name == "action_noise" else value


def _of_torch(name: str, value: str) -> Any:
    """A class by its name, with or without the module's.

    Raises:
        RLPruneError: torch has none of that name.
    """
    home, module = _HOMES[name]
    if ":" in value and not value.startswith(f"{home}:"):
        return find(value, RLPruneError)
    before, _, last = value.replace(":", ".").rpartition(".")
    kind = getattr(module, last, None)
    if before not in ("", home, home.partition(".")[2]) or not isinstance(kind, type):
        raise RLPruneError(
            f"{name} is {value!r}; give a class of {home}, such as ReLU or Adam, or package.module:Class"
        )
    return kind


def make_callbacks(given: Any) -> list[BaseCallback]:
    """Callbacks of Stable-Baselines3, out of whatever it takes.

    Args:
        given: one or a list: callbacks, functions of (locals, globals), or names `package.module:object` of these,
            where a class, or a function without arguments, is called for what it returns.

    Raises:
        RLPruneError: one is none.
    """
    listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return [_callback(each) for each in listed]


def _callback(given: Any) -> BaseCallback:
    found = load_object(given, RLPruneError) if isinstance(given, str) else given
    if isinstance(found, BaseCallback):
        return found
    if callable(found) and not isinstance(found, type):
        return ConvertCallback(found)
    raise RLPruneError(
        f"callbacks has {given!r}; give a callback of Stable-Baselines3 (an object), a function of (locals, globals), "
        "or the name of one, package.module:object"
    )
