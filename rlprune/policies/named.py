"""Rewards and observations by name: made of ``module:Class`` and settings, and told apart by these again.

A module is imported here because a caller names it, never because a stored file does.
"""

from __future__ import annotations

import inspect
import json
import reprlib
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from torch import nn

from rlprune.errors import RLPruneError
from rlprune.utils.imports import find

_FORMS = "give an object, 'module:Class', or {'class': 'module:Class', 'settings': {...}}"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def made(kind: str, given: Any) -> Any:
    """The reward or the observation that somebody asks for.

    Args:
        kind: what it is, for messages: ``reward`` or ``observation``.
        given: an object; or a class, or ``"module:Class"``, which is made without arguments; or
            ``{"class": "module:Class", "settings": {...}}``, a mapping or a text of JSON, which is made with these
            arguments; or None.

    Returns:
        The object; None if none is given.

    Raises:
        RLPruneError: it cannot be imported or made, or its settings cannot be told.
    """
    if given is None:
        return None
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _parsed(kind, given)
    if isinstance(given, str) or inspect.isclass(given):
        given = {"class": given}
    found = _of_mapping(kind, given) if isinstance(given, Mapping) else given
    if inspect.isroutine(found) or not callable(found):
        raise RLPruneError(f"{kind} is {reprlib.repr(found)}, which is no object that can be called; {_FORMS}")
    described(kind, found)
    return found


def described(kind: str, made_object: Any) -> dict[str, Any] | None:
    """What tells an object from others: its class and its settings, as JSON holds them; None for None.

    Args:
        kind: as for `made`.
        made_object: a reward or an observation.

    Returns:
        ``{"class": "module:Class", "settings": {...}}``.

    Raises:
        RLPruneError: its settings cannot be told, or are no plain values.
    """
    if made_object is None:
        return None
    name = name_of(type(made_object))
    settings = {each: _setting(kind, name, made_object, each) for each in _arguments(kind, type(made_object))}
    try:
        return {"class": name, "settings": json.loads(json.dumps(settings, allow_nan=False))}
    except (TypeError, ValueError) as error:
        raise RLPruneError(
            f"the settings of the {kind} {name} are {reprlib.repr(settings)}; plain values are needed, such as finite "
            "numbers, texts and lists: they are stored as JSON"
        ) from error


def name_of(kind: type) -> str:
    """A class as ``module:Class``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def class_of(kind: str, given: Any) -> type:
    """The class that a caller gives, itself or as ``module:Class``.

    Raises:
        RLPruneError: it cannot be imported, or is no class.
    """
    found = find(given, RLPruneError) if isinstance(given, str) else given
    if not inspect.isclass(found):
        raise RLPruneError(f"{kind} is {reprlib.repr(given)}, which is no class; give a class, or 'module:Class'")
    return found


def built(kind: str, found: type, settings: Mapping[str, Any]) -> Any:
    """An object of a class.

    Raises:
        RLPruneError: the class does not take these settings.
    """
    try:
        return found(**settings)
    except Exception as error:  # of the user's own code
        shown = reprlib.repr(dict(settings))
        raise RLPruneError(
            f"the {kind} {name_of(found)} cannot be made with the settings {shown} ({told(error)})"
        ) from error


def told(error: Exception) -> str:
    """What is wrong in a user's own code, in a short line."""
    return f"{type(error).__name__}: {shorten(str(error), 200)}"


def _parsed(kind: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RLPruneError(f"{kind} is {reprlib.repr(text)}, which is no JSON ({error}); {_FORMS}") from error


def _of_mapping(kind: str, given: Mapping[str, Any]) -> Any:
    settings = given.get("settings", {})
    if "class" not in given or set(given) - {"class", "settings"} or not isinstance(settings, Mapping):
        raise RLPruneError(f"{kind} is {reprlib.repr(dict(given))}; {_FORMS}")
    return built(kind, class_of(kind, given["class"]), settings)


def _arguments(kind: str, of_class: type) -> list[str]:
    """The names of the arguments of a class's constructor.

    Raises:
        RLPruneError: it takes any number of them.
    """
    constructor = vars(next(each for each in of_class.__mro__ if "__init__" in vars(each)))["__init__"]
    if constructor is nn.Module.__init__ or getattr(constructor, "__module__", "") == "typing":  # of protocols
        return []
    parameters = inspect.signature(of_class).parameters
    if any(each.kind in _VARIADIC for each in parameters.values()):
        raise RLPruneError(
            f"the {kind} {name_of(of_class)} takes any number of arguments; name each, so that its settings are known"
        )
    return list(parameters)


def _setting(kind: str, name: str, made_object: Any, argument: str) -> Any:
    try:
        return getattr(made_object, argument)
    except AttributeError as error:
        raise RLPruneError(
            f"the {kind} {name} does not say what {argument!r} it was made with; keep the argument as an attribute of "
            "the same name, as a dataclass does"
        ) from error
