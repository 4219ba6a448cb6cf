"""What many tests share: where the real images and pretrained networks are, when they are."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the networks of these tests are too small to share, and workers run side by side

with contextlib.suppress(ImportError):  # without the extra onnx
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    # Torch reads its list of operators anew for each of the five or more parts of a file, which is half of the time.
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def pytest_collection_finish() -> None:
    """Look no more through what all tests share: each conversion of a network collects what is left of tracing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let no test leave more threads behind than the next begin with: rounding and what results say hang on it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder that holds data/cifar10 and weights/cifar10; a machine without it skips, CI fails."""
    root = os.environ.get("RLPRUNE_ASSETS")
    if root and (Path(root) / "data" / "cifar10").is_dir() and (Path(root) / "weights" / "cifar10").is_dir():
        return Path(root)
    message = f"RLPRUNE_ASSETS={root!r} names no folder with data/cifar10 and weights/cifar10"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in a folder where no data lies about."""
    monkeypatch.delenv("RLPRUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
