"""The machine and software that networks run on and figures are measured with."""

from __future__ import annotations

import platform
from datetime import date
from typing import Any

import torch


def check_device(device: str) -> str:
    """Return a device if tensors can be on it.

    Raises:
        ValueError: they cannot.
    """
    try:
        torch.ones(1, device=device).add(1).item()  # the device "meta" has no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"it cannot be used here ({reason}); cpu always can") from error
    return device


def conditions() -> dict[str, Any]:
    """What a measurement ran on: processor, threads, number format, version of torch, and the date (ISO 8601)."""
    return {
        "hardware": _processor(),
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
