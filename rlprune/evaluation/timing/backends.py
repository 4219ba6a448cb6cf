"""What networks run in where they are deployed: for prices that are measured times, and widths that run well."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from rlprune.deployment.onnx.pieces import export_piece, session
from rlprune.deployment.quantisation import quantised
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import fold_norms
from rlprune.profiles.latency import Latency, measured
from rlprune.profiles.rounding import STEPS, measured_step
from rlprune.profiles.timing import PYTORCH, Backend
from rlprune.storage.provenance import note_to_compare
from rlprune.training.parallel.group import current
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions
from rlprune.utils.imports import require
from rlprune.utils.notes import say
from rlprune.utils.settings import AtMost, PositiveInt, settings_dataclass

_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
BackendName = Literal["pytorch", "onnxruntime"]
Batch = Annotated[PositiveInt, AtMost(4096)]
Threads = Annotated[PositiveInt, AtMost(1024)]


def backend_named(name: BackendName) -> Backend:
    """What runs slices: PyTorch as `rlprune.load` does it, or onnxruntime as it runs what `rlprune export` writes.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    if name == "pytorch":
        return PYTORCH
    require_onnx()
    return Backend("onnxruntime", fold_norms, _bind)


@settings_dataclass
class LatencySettings:
    """What time is measured for: how the network will be deployed."""

    batch: Batch | None = None
    """Images at once; if not given, those of a table that is there already, else 1."""
    backend: BackendName = "pytorch"
    """What will run the network: pytorch, or onnxruntime, as what `rlprune export` writes."""
    threads: Threads | None = None
    """Threads that it will run on; if not given, those of a table that is there already, else as many as PyTorch takes
    here."""

    def check(self) -> None:
        """Make sure that time can be measured, before anything long begins.

        Raises:
            MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        """
        backend_named(self.backend)

    def table(self, path: Path, elastic: ElasticModule, seed: int, **how: Any) -> Latency:
        """The latency table in a file, which is measured and written there if there is none; see `measured`.

        Raises:
            MissingExtraError: as in `check`.
            RLPruneError: the file holds something else.
        """
        return measured(path, elastic, self.batch, seed, backend_named(self.backend), self.threads, **how)

    def round_to(self, elastic: ElasticCNN, path: Path) -> int:
        """What widths round up to where that is "auto": measured once, by the first of several processes.

        Args:
            elastic: the network, whose widths are not rounded.
            path: of the file that keeps it.

        Raises:
            MissingExtraError: as in `check`.
            RLPruneError: the file is damaged.
        """
        return current().from_first(lambda: self._round_to(elastic, path))

    def _round_to(self, elastic: ElasticCNN, path: Path) -> int:
        if not path.exists():
            how: dict[str, Any] = {"batch": self.batch or 1, "threads": self.threads}
            found = measured_step(elastic, backend=backend_named(self.backend), **how)
            write_json(path, {"round_to": found, "measured_for": asdict(self), **conditions()})
            say(f"widths round up to multiples of {found}, as was measured for {self.backend}")
        found = note_to_compare(path, dict, "remove it, and it is measured again").get("round_to")
        if found not in STEPS:
            raise RLPruneError(f"{path} is damaged (round_to is {found!r}); remove it, and it is measured again")
        return int(found)


def _bind(module: nn.Module, values: Tensor) -> Callable[[], object]:
    run, values = onnx_module(module, values), values.contiguous()
    return lambda: run(values)


def onnx_module(module: nn.Module, example: Tensor, calibration: Tensor | None = None) -> Callable[[Tensor], Any]:
    """A module of one input in onnxruntime, with as many threads as torch has.

    Args:
        module: what runs.
        example: of its input, float32 (B, ...).
        calibration: more of it, for int8.

    Raises:
        MissingExtraError: as in `check_onnx`.
        RLPruneError: as in `check_onnx`.
    """
    check_onnx(example.device)
    two = example[:1].expand(2, *example.shape[1:]).contiguous()
    piece = export_piece("network", module, (two,), integers=calibration is not None)
    if calibration is not None:
        piece = quantised(piece, calibration)
    runs = session(piece.SerializeToString(), torch.get_num_threads(), spin=True)
    name = runs.get_inputs()[0].name
    return lambda images: runs.run(None, {name: images.numpy()})


def has_onnx() -> bool:
    """Whether rows of onnxruntime can be made here."""
    return all(importlib.util.find_spec(name) for name in _ONNX_PACKAGES)


def require_onnx() -> None:
    """Make sure that networks can run in onnxruntime here.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in _ONNX_PACKAGES:
        require(package, "onnx")


def check_onnx(device: torch.device) -> None:
    """Make sure that a network on a device can run in onnxruntime.

    Raises:
        MissingExtraError: as in `require_onnx`.
        RLPruneError: it is on another device than the processor.
    """
    require_onnx()
    if device.type != "cpu":
        raise RLPruneError(f"onnxruntime's rows run on the processor, and the others on {device}; time them apart")
