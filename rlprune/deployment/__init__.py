"""The deployed network: a policy picks each image's slice, in torch or in one ONNX file.

May import `rlprune.policies` and below, nothing that trains.
"""

from rlprune.deployment.controller import Controller, ControllerStatus
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx, to_onnx
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.slices import Slices

__all__ = ["Controller", "ControllerStatus", "DynamicCNN", "OnnxCNN", "Prediction", "Slices", "save_onnx", "to_onnx"]
