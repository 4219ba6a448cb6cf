"""What figures were measured with."""

from __future__ import annotations

import platform
from datetime import date
from typing import Any

import torch


def conditions() -> dict[str, Any]:
    """Processor, threads, number format, version of torch, date."""
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
