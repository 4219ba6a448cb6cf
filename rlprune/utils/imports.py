"""Optional packages and callables by name, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.startup import is_current

_WORKS = "without arguments"
_SENDS_NOTHING = ("ORT_DISABLE_TELEMETRY", "1")
"""What onnxruntime reads when it is loaded: from 1.29 on it would tell Microsoft what it runs. 0 lets it."""


def require(module: str, extra: str | None = None) -> ModuleType:
    """Import a module that needs optional packages, or say which extra brings them.

    What is installed is found before what lies in the current folder, wherever that stands in Python's path.

    Args:
        module: dotted name, such as ``"pyarrow.parquet"``, or a module of this project that imports such a package.
        extra: the extra of this project that installs it, such as ``"data"``; None for what it depends on anyway, which
            is missing only where it was installed with ``--no-deps``, to serve.

    Raises:
        MissingExtraError: the package is not installed.
    """
    if isinstance(found := sys.modules.get(module), ModuleType):
        return found
    if extra == "onnx":
        os.environ.setdefault(*_SENDS_NOTHING)
    if extra == "cluster" and "ray" not in sys.modules:
        _bring_token_of_ray()
    try:
        with _current_folder_last():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rlprune":
            raise
        raise MissingExtraError(
            f"this needs the package {error.name!r}, which is not installed; "
            f"install it with: pip install {'rlprune' if extra is None else repr(f'rlprune[{extra}]')}"
        ) from error


def _bring_token_of_ray() -> None:
    """Let Ray, when it is imported, read the token of this machine, if it has one: clusters from 2.60 on ask for it."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or (Path.home() / ".ray/auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def call(source: str, error: type[RLPruneError]) -> Any:
    """Import ``package.module:callable``, call it without arguments and return what it returns.

    Meanwhile modules are also looked for in the current folder, after those that are installed.

    Args:
        source: the callable, such as ``"my_package.networks:small"``.
        error: what to raise when that fails.

    Raises:
        RLPruneError: of the type ``error``: the callable cannot be imported, is not callable, or raised.
    """
    return _imported(source, error, lambda found: found())


def find(source: str, error: type[RLPruneError], works: str = _WORKS) -> Any:
    """Import ``package.module:callable`` without calling it.

    Args:
        source: as for `call`.
        error: what to raise when that fails.
        works: how it has to work, for the message.

    Raises:
        RLPruneError: of the type ``error``: it cannot be imported.
    """
    return _imported(source, error, lambda found: found, works)


def load_object(source: str, error: type[RLPruneError]) -> Any:
    """Import ``package.module:name``; a class or function that needs no arguments is called for what it returns.

    Args:
        source: as for `call`, or an object that is called with arguments.
        error: what to raise when that fails.

    Raises:
        RLPruneError: of the type ``error``: the object cannot be imported, or its call failed.
    """
    return _imported(source, error, lambda found: found() if _needs_nothing(found) else found)


def _needs_nothing(found: Callable[..., Any]) -> bool:
    """Whether it is a class or function whose arguments all have defaults."""
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return False
    parameters = inspect.signature(found).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(each.default is not each.empty or each.kind in variadic for each in parameters)


def _imported(source: str, error: type[RLPruneError], use: Callable[[Any], Any], works: str = _WORKS) -> Any:
    """Import what a name stands for, and use it."""
    module, _, name = source.partition(":")
    if module and not names_callable(source):
        raise error(_no_callable(source, module, name))
    try:
        with _current_folder_last(needed=True):
            return use(getattr(importlib.import_module(module), name))
    except (Exception, SystemExit) as reason:  # a script ends there, as with wrong arguments of its own
        found = getattr(sys.modules.get(module), "__file__", None)
        where = "" if found is None else f" (the module is {found})"
        raise error(
            f"{source!r} failed with {type(reason).__name__}: {reason}{where}; give package.module:callable, with the "
            f"package on Python's path and a function or class that works {works}"
        ) from reason


def _with_current_last(path: list[str], *, needed: bool = False) -> list[str]:
    """A path of folders with modules in which the current one comes after all others.

    Args:
        path: such as `sys.path`.
        needed: put the current folder there even if it is not on the path.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed, so nothing lies in it
        return [*path]
    here = [entry for entry in path if is_current(entry)]
    others = [entry for entry in path if entry not in here]
    return [*others, *(here or [folder] * needed)]


@contextmanager
def _current_folder_last(*, needed: bool = False) -> Iterator[None]:
    """Let the current folder be the last in which modules are looked for."""
    before = [*sys.path]
    meanwhile = _with_current_last(before, needed=needed)
    sys.path[:] = meanwhile
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = [*before, *(entry for entry in sys.path if entry not in meanwhile)]


def names_callable(source: str) -> bool:
    """Whether it has the form ``package.module:callable``: no path, no drive such as ``D:``, no file's name."""
    module, colon, name = source.partition(":")
    parts = module.split(".")
    here = os.path.exists(f"{module}.py")
    is_drive = len(module) == 1 and (
        name[:1] in ("\\", "/", "") or not (here or importlib.util.find_spec(module) is not None)
    )
    return bool(colon) and not is_drive and all(map(str.isidentifier, [*parts, name])) and parts[-1] != "py"


def _no_callable(source: str, module: str, name: str) -> str:
    """What is wrong with a name that does not have that form, and the right one where it can be told."""
    path, _, last = source.rpartition(":")
    if not path.endswith(".py"):
        return f"{source!r} has not the form package.module:callable; a path or a drive cannot be imported"
    folder, _, file = path.replace("\\", "/").rpartition("/")
    return (
        f"{source!r} names a file; name the module, without .py: {file.removesuffix('.py')}:{last or name}, with "
        f"{folder or 'its folder'} as the current folder or on PYTHONPATH"
    )
