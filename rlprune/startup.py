"""What the command line does first, so that Ctrl-C and SIGTERM are one line and an exit status, whenever they come.

Imports nothing but Python's own small modules, because the command line needs it before anything heavy.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 128 + signal.SIGTERM
"""The exit status after SIGTERM."""
_SWALLOWED = 0.05
"""Seconds after which a signal is repeated whose exception got lost."""
BEGAN = time.monotonic()
"""When this process began, nearly: a time limit counts from here."""
_state: dict[str, Any] = {"raises": False, "waits": False, "asked": None}


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to end.

    Args:
        number: which one.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def is_command_line() -> bool:
    """Whether this process is `rlprune` or `python -m rlprune`, while the package is first imported."""
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":
        return ("-m", "rlprune") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return os.path.basename(arguments[0]) in ("rlprune", "rlprune.exe", "rlprune-script.py")


def begin() -> None:
    """Let signals end this process, let installed packages come first, and make sure that it is somewhere.

    PyTorch is not loaded from a folder that was removed.
    """
    end_at_once()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, open(os.devnull, "w"))
    if not current_folder():
        print("rlprune: error: the current folder is gone; change to another one", file=sys.stderr)
        sys.exit(2)
    _installed_first()


def _installed_first() -> None:
    """Let no file of the current folder hide an installed package: `python -m` and PYTHONPATH may put it first."""
    if is_current(sys.path[0]):
        del sys.path[0]
    sys.path.sort(key=is_current)


def is_current(entry: str) -> bool:
    """Whether an entry of Python's path is the current folder, by whatever links."""
    return os.path.realpath(entry) == os.path.realpath("")


def current_folder() -> str:
    """The current folder; nothing if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def end_at_once() -> None:
    """Let signals end this process at once, with one line: there is nothing to be put in order.

    A signal that is ignored, as Ctrl-C is in a background job, stays ignored; and only the main thread has them.
    """
    _state["raises"] = False
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def end_in_order() -> None:
    """Let the first signal raise `Interrupted`, so that what is open is closed or removed; a second ends at once."""
    sys.unraisablehook = _repeat
    _state["raises"] = True


@contextmanager
def finishing(finishes: bool = True) -> Iterator[None]:
    """Let the first signal wait in the block until `asked_to_end` is looked at; the next one ends the block at once.

    Args:
        finishes: whether there is anything to be finished; else signals are as they were.
    """
    before = _state["waits"]
    _state["waits"] = before or (finishes and _state["raises"])  # and so only on the command line
    try:
        yield
    except BaseException:
        _state["asked"] = None
        raise
    finally:
        _state["waits"] = before
    if asked_to_end() and not before:  # when there was nothing more to be finished
        end()


def asked_to_end() -> bool:
    """Whether a signal has come that waits."""
    return _state["asked"] is not None


def end() -> NoReturn:
    """Raise the signal that has come.

    Raises:
        Interrupted: always.
    """
    number = _state["asked"] or signal.SIGTERM  # where another process of a training was asked
    _state["asked"] = None
    raise Interrupted(number)


def status_of(error: BaseException) -> int:
    """The exit status that shells know: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(getattr(error, "number", signal.SIGINT))


def _handle(number: int, frame: FrameType | None) -> None:
    if _state["waits"] and _state["asked"] is None:
        _state["asked"] = number
        os.write(2, b"\nrlprune: finishing the step, to save it; a second signal does not wait\n")
    elif _state["raises"]:
        _state["raises"] = False
        raise Interrupted(number)
    else:
        _exit(number)


def _exit(number: int) -> NoReturn:
    try:
        os.write(2, b"rlprune: terminated\n" if number == signal.SIGTERM else b"rlprune: interrupted\n")
    finally:
        os._exit(128 + number)


def _repeat(lost: Any) -> None:
    """Let a signal come again whose exception Python dropped, as in finalisers and callbacks of weak references."""
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)
        return
    _state["raises"] = True
    again = threading.Timer(_SWALLOWED, os.kill, [os.getpid(), lost.exc_value.number])
    again.daemon = True
    again.start()
