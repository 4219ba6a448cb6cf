"""One network that is ready to be timed, in PyTorch or in onnxruntime, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError
from rlprune.evaluation.timing.backends import check_onnx, onnx_module
from rlprune.graph.folding import fold_norms

Run = Callable[[Tensor], Any]
_MOST_SAID = 200
"""Characters of a reason."""


@dataclass(frozen=True)
class Runner:
    """A network that is ready to be timed.

    Attributes:
        backend: `pytorch` or `onnxruntime`.
        dynamic: whether it decides per image. It then takes pixels, uint8 (B, C, H, W), as normalising belongs to it;
            the others take normalised images.
        run: runs a batch.
        macs: of an image, on average; not a number for what takes as many as the dynamic network does.
        network: what predicts: rows of one network predict the same.
    """

    backend: str
    dynamic: bool
    run: Run
    macs: float = float("nan")
    network: str = "dynamic"

    def labels(self, images: Tensor) -> Tensor:
        """The classes that it predicts for images as it takes them, int64 (B,)."""
        found = self.run(images)
        if isinstance(found, Prediction):
            return found.labels
        parts = [torch.as_tensor(part) for part in (found if isinstance(found, list) else [found])]
        if isinstance(found, list) and isinstance(found[0], np.ndarray):
            parts = parts[:1]  # onnxruntime's outputs, of which labels or logits are the first
        first = torch.cat(parts)
        return first if first.ndim == 1 else first.argmax(1)


def there(network: Run, dynamic: DynamicCNN) -> Run:
    """A network on the device of a dynamic one, whither images go and whence logits come."""
    if dynamic.device.type == "cpu":
        return network
    return lambda images: network(images.to(dynamic.device)).cpu()


def in_parts(network: Run, dynamic: DynamicCNN) -> Run:
    """The same, on as many images at once as the dynamic network runs."""
    whole = there(network, dynamic)
    return lambda images: [whole(part) for part in images.split(dynamic.max_batch or len(images))]


def on_each(network: Run, batches: Sequence[Tensor]) -> Callable[[], None]:
    """What runs a network on batches, and waits until all is done."""

    def run() -> None:
        for images in batches:
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def bodies_alone(
    bodies: Sequence[Run], features: Tensor, profiles: Tensor, at_once: int, layout: torch.memory_format
) -> dict[str, Callable[[], None]]:
    """Bodies alone, each on the features of all images that run it, in full buckets.

    Args:
        bodies: what runs that of each profile.
        features: of the images, float32 (N, F, H', W').
        profiles: of every pass, int64 (N, max_passes); -1 where there was none.
        at_once: images of a full bucket.
        layout: of the features in memory.
    """
    rows = {}
    for index in profiles[profiles >= 0].unique().tolist():
        ran = torch.cat([features[(column == index).to(features.device)] for column in profiles.T])
        buckets = [part.contiguous(memory_format=layout) for part in ran.split(at_once)]
        rows[f"body {index}"] = on_each(bodies[index], buckets)
    return rows


def call_time(
    backend: str, batches: Sequence[Tensor], found: Sequence[Prediction], times: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """What a call took beside its slices alone: the fields of a `CallTime`, all but `timed_ms`.

    Args:
        backend: in which it ran.
        batches: of images, that each repeat ran.
        found: what was predicted for them.
        times: milliseconds of the repeats of dense, dynamic, perhaps timed, and of what makes up the floor.
    """
    ms = {name: median(repeats) / len(batches) for name, repeats in times.items()}
    floor = sum(part for name, part in ms.items() if name not in ("dense", "dynamic", "timed"))
    macs = float(torch.cat([prediction.macs for prediction in found]).double().mean())
    return {
        "batch": len(batches[0]),
        "backend": backend,
        "dense_ms": ms["dense"],
        "dynamic_ms": ms["dynamic"],
        "floor_ms": floor,
        "overhead_ms": ms["dynamic"] - floor,
        "overhead_share": (ms["dynamic"] - floor) / ms["dense"],
        "macs_ratio": found[0].dense_macs / macs,
        "n_images": len(batches[0]) * len(batches),
        "n_repeats": len(times["dense"]),
    }


def reason(error: Exception) -> str:
    """Why something cannot be timed, in one short line."""
    text = str(error).strip().partition("\n")[0]
    kind = "" if isinstance(error, RLPruneError) else type(error).__name__
    line = ": ".join(part for part in (kind, text) if part)
    return line if len(line) <= _MOST_SAID else f"{line[:_MOST_SAID]}..."


def onnx_dynamic(dynamic: DynamicCNN, calibration: Tensor | None = None) -> Run:
    """A dynamic network as one file in onnxruntime; with calibration images, uint8, in int8.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        RLPruneError: the network is on another device than the processor, or cannot be exported.
    """
    check_onnx(dynamic.device)
    runs = session(to_onnx(dynamic, calibration), torch.get_num_threads(), spin=True)
    return lambda images: runs.run(None, {"images": images.numpy()})


def onnx_file(dynamic: DynamicCNN) -> OnnxCNN:
    """A dynamic network as one file in onnxruntime, run as users run it.

    Raises:
        MissingExtraError: as in `onnx_dynamic`.
        RLPruneError: as in `onnx_dynamic`.
    """
    check_onnx(dynamic.device)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(to_onnx(dynamic))
        return OnnxCNN(path, torch.get_num_threads(), spin=True)


def onnx_plain(network: nn.Sequential, dynamic: DynamicCNN, calibration: Tensor | None = None) -> Run:
    """An ordinary network, beside a dynamic one, in onnxruntime; with calibration images, normalised, in int8.

    Raises:
        MissingExtraError: as in `onnx_dynamic`.
        RLPruneError: as in `onnx_dynamic`.
    """
    return onnx_module(fold_norms(network), torch.zeros(1, *dynamic.image_shape, device=dynamic.device), calibration)
