"""ONNX files of networks: exported, put together, checked when read, and run.

May import what `rlprune.deployment` may; `export` and `cnn` are where a reader begins.
"""

from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx, to_onnx

__all__ = ["OnnxCNN", "save_onnx", "to_onnx"]
