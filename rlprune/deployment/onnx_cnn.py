"""Runs an ONNX file that holds network and policy, as any program can without torch or this library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.prediction import Prediction, predicted
from rlprune.errors import BundleError, DataError
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.cost import ComputeCost
from rlprune.utils.imports import require


def session(content: bytes, n_threads: int, *, spin: bool) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        content: of the file.
        n_threads: as in `OnnxCNN`.
        spin: as in `OnnxCNN`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class OnnxCNN:
    """A file that `rlprune.deployment.onnx_export.save_onnx` wrote, run by onnxruntime; called like a `DynamicCNN`.

    Args:
        path: of the file.
        n_threads: threads of onnxruntime inside an operator; 0 lets onnxruntime choose.
        spin: let idle threads wait busily, which makes them faster and slows down other programs.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BundleError: the file cannot be read, or was not written by `save_onnx`.

    Attributes:
        classes: class names.
        image_shape: (C, H, W) of the images.
        preprocessing: how pictures come to their size.
        prices: active parameters and MACs of stem, bodies, decision and dense network.
    """

    def __init__(self, path: str | Path, n_threads: int = 0, *, spin: bool = True) -> None:
        require("onnxruntime", "onnx")
        try:
            self.session = session(Path(path).read_bytes(), n_threads, spin=spin)
            notes = json.loads(self.session.get_modelmeta().custom_metadata_map["rlprune"])
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        except Exception as error:  # onnxruntime's own, which have no common type
            reason = str(error).partition("\n")[0]
            raise BundleError(f"{path} is no file that `rlprune export --onnx` wrote: {reason}") from error
        self.classes = tuple(notes["classes"])
        self.preprocessing = Preprocessing.from_json(notes.get("preprocessing", {}))
        self.image_shape = tuple(self.session.get_inputs()[0].shape[1:])
        self._ratios = torch.tensor(notes["keep_ratios"])
        prices = {name: ComputeCost(*map(torch.tensor, price)) for name, price in notes["prices"].items()}
        self.prices = CostBreakdown(**prices)

    def __call__(self, images: Tensor) -> Prediction:
        """Classify a batch of any size.

        Args:
            images: pixels in [0, 255], uint8 (B, C, H, W).

        Raises:
            DataError: images of another shape or type.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            shape = ", ".join(map(str, self.image_shape))
            raise DataError(f"images are {images.dtype} of shape {tuple(images.shape)}; uint8 (B, {shape}) is needed")
        logits, profiles, _ = map(torch.from_numpy, self.session.run(None, {"images": images.numpy()}))
        return predicted(logits, profiles, self._ratios, self.prices)
