"""The machine and software that networks run on and figures are measured with, and its memory's end."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import torch

from rlprune.errors import OutOfMemoryError

_SAID = (
    *("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc"),
    *("could not create a primitive", "could not create a memory"),
)
"""What PyTorch's allocators, CUDA, C++ and oneDNN say, in small letters."""


def check_device(device: str) -> str:
    """Return a device if tensors can be on it.

    Raises:
        ValueError: they cannot.
    """
    try:
        torch.ones(1, device=device).add(1).item()  # the device "meta" has no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"it cannot be used here ({reason}); cpu always can{_others()}") from error
    return device


def _others() -> str:
    """The devices beside the processor, for a message."""
    n_cards = torch.cuda.device_count()
    cards = f", and cuda:0{f' to cuda:{n_cards - 1}' if n_cards > 1 else ''}" if n_cards else ""
    return cards + (", and mps" if torch.backends.mps.is_available() else "")


def conditions(device: str | torch.device = "cpu") -> dict[str, Any]:
    """What a measurement ran on: hardware, threads, number format, version of torch, and the date (ISO 8601).

    Args:
        device: where the networks ran; a graphics card is named with the processor.
    """
    return {
        "hardware": _processor() + _card(torch.device(device)),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _card(device: torch.device) -> str:
    """A graphics card, to follow the processor; nothing where that is what computes."""
    if device.type == "cuda":
        return f", {torch.cuda.get_device_name(device)}"
    return "" if device.type == "cpu" else f", {device}"


def out_of_memory(error: BaseException) -> str | None:
    """Why memory ran out, in a few words, if that is what an error says; else None."""
    text = str(error)
    if isinstance(error, OSError):
        said = error.errno == errno.ENOMEM
    else:
        said = isinstance(error, MemoryError) or any(words in text.lower() for words in _SAID)
    if not said:
        return None
    amount = re.search(r"allocate ([\d.,]{1,20} ?[KMGT]?i?B(?:ytes)?|\d{1,20} bytes)", text, re.IGNORECASE)
    return f"{amount[1]} more are not there" if amount else text.partition("\n")[0][:80] or "it got no more"


@contextmanager
def memory_for(step: str, cure: str) -> Iterator[None]:
    """Say in one line which step needs more memory than there is, and what to do.

    Args:
        step: what the block does, as after "while".
        cure: what needs less.

    Raises:
        OutOfMemoryError: memory ran out in the block.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        reason = out_of_memory(error)
        if reason is None:
            raise
        raise OutOfMemoryError(f"memory ran out while {step} ({reason}); {cure}") from error
