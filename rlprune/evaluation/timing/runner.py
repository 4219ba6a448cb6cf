"""One network that is ready to be timed, in PyTorch or in onnxruntime, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.prediction import Prediction
from rlprune.evaluation.timing.backends import check_onnx, onnx_module
from rlprune.graph.folding import fold_norms

Run = Callable[[Tensor], Any]


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


def onnx_dynamic(dynamic: DynamicCNN, calibration: Tensor | None = None) -> Run:
    """A dynamic network as one file in onnxruntime; with calibration images, uint8, in int8.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        RLPruneError: the network is on another device than the processor, or cannot be exported.
    """
    check_onnx(dynamic.device)
    runs = session(to_onnx(dynamic, calibration), torch.get_num_threads(), spin=False)
    return lambda images: runs.run(None, {"images": images.numpy()})


def onnx_plain(network: nn.Sequential, dynamic: DynamicCNN, calibration: Tensor | None = None) -> Run:
    """An ordinary network, beside a dynamic one, in onnxruntime; with calibration images, normalised, in int8.

    Raises:
        MissingExtraError: as in `onnx_dynamic`.
        RLPruneError: as in `onnx_dynamic`.
    """
    return onnx_module(fold_norms(network), torch.zeros(1, *dynamic.image_shape, device=dynamic.device), calibration)
