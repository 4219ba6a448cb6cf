"""ONNX files of networks: exported, put together, checked when read, and run.

May import what `rlprune.deployment` may; `export` and `cnn` are where a reader begins.
"""

from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx, to_onnx
from rlprune.deployment.onnx.static import save_static_onnx, to_static_onnx

__all__ = ["OnnxCNN", "save_onnx", "save_static_onnx", "to_onnx", "to_static_onnx"]
