"""Weights that the profiles of a network share, stored once in a file.

A profile's weight is a part of the whole one, its first channels, times one factor for each output: that of the norm
folded into it. The file holds the whole weight, and every profile cuts its part out of it and multiplies. What is
computed so depends on nothing but the file, so onnxruntime does it once, when it reads the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.elastic.axes import Kept
from rlprune.elastic.layers import ElasticLayer
from rlprune.elastic.module import ElasticModule
from rlprune.utils.imports import require

Floats = NDArray[np.float32]

_LEAST = 256
"""Numbers of a weight below which it is not worth a name of its own."""
_CLOSE = 5e-7
"""How far, relative to a weight, a stored part times its factor may be from it: two roundings of float32."""


class SharedWeights:
    """The whole weights that profiles take theirs from, by the names that they have in the file.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G).

    Attributes:
        tensors: what the file holds once, `onnx.TensorProto` by name; only what was asked for so far.
    """

    def __init__(self, elastic: ElasticModule, codebook: Tensor) -> None:
        self._codebook = codebook.cpu()
        self._layers = {} if elastic.own_bodies or len(codebook) < 2 else _weighted(elastic)
        groups = torch.arange(elastic.n_groups)
        self._widths = [tuple(elastic.widths.cpu()[groups, profile].tolist()) for profile in self._codebook]
        self._names: dict[str, str] = {}
        self.tensors: dict[str, Any] = {}

    def replace(self, piece: Any, profile: int) -> list[str]:
        """Let a profile's exported body take its weights from the shared ones, where they are parts of them.

        Args:
            piece: an `onnx.ModelProto`, changed in place.
            profile: its index.

        Returns:
            The names of the shared weights that it reads now.
        """
        graph = piece.graph
        used: list[str] = []
        kept, before = [], []
        for tensor in graph.initializer:
            nodes = self._nodes(tensor, profile, used)
            before += nodes
            if not nodes:
                kept.append(tensor)
        if not used:
            return []
        nodes = [*before, *graph.node]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        left = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(copies)
        graph.initializer.extend(left)
        return used

    def _nodes(self, tensor: Any, profile: int, used: list[str]) -> list[Any]:
        """Operators that make a profile's weight out of a shared one; none where it is no part of one."""
        owner, _, leaf = tensor.name.rpartition(".")
        layer = self._layers.get(owner)
        if layer is None or leaf != "weight":
            return []
        found = require("onnx.numpy_helper", "onnx").to_array(tensor)
        weight = _numpy(layer.weight)
        dims = layer.filter_dims
        assert dims is not None
        axes = {dims["out"]: layer.out_axis, dims["in"]: layer.in_axis}
        cuts = {dim: axis.kept(self._widths[profile]) for dim, axis in axes.items()}
        part = _cut(weight, cuts)
        if found.size < _LEAST or found.dtype != np.float32 or part.shape != found.shape:
            return []
        factors = _factors(part, found, dims["out"])
        if factors is None:
            return []
        most = {dim: self._most(axis.kept(widths) for widths in self._widths) for dim, axis in axes.items()}
        name = self._name(owner, _cut(weight, most))
        used.append(name)
        return _operators(tensor.name, name, self.tensors[name].dims, cuts, factors)

    @staticmethod
    def _most(parts: Any) -> Kept:
        """What holds every profile's part of an axis: as many of the first positions, or all."""
        parts = list(parts)
        if not all(isinstance(part, slice) for part in parts) or any(part.stop is None for part in parts):
            return slice(None)
        return slice(0, max(part.stop for part in parts))

    def _name(self, owner: str, weight: Floats) -> str:
        """The name of a layer's shared weight, which is stored when it is first asked for."""
        if owner not in self._names:
            name = self._names[owner] = f"shared_{len(self._names)}"
            tensor = require("onnx.numpy_helper", "onnx").from_array(np.ascontiguousarray(weight), name)
            tensor.doc_string = f"{owner}.weight"
            self.tensors[name] = tensor
        return self._names[owner]


def _weighted(elastic: ElasticModule) -> dict[str, Any]:
    """The elastic layers that have filters, by name."""
    layers: dict[str, ElasticLayer] = elastic.elastic_layers()
    return {name: layer for name, layer in layers.items() if layer.filter_dims is not None}


def _numpy(tensor: Any) -> Floats:
    array: Floats = tensor.detach().cpu().numpy()
    return array


def _cut(weight: Floats, cuts: dict[int, Kept]) -> Floats:
    for dim, kept in cuts.items():
        index = kept if isinstance(kept, slice) else kept.numpy()
        weight = weight[(slice(None),) * dim + (index,)]
    return weight


def _factors(part: Floats, found: Floats, out: int) -> Floats | None:
    """The factor of each output, shaped to be multiplied; None where that does not give what was found."""
    rows, wanted = (np.moveaxis(each, out, 0).reshape(each.shape[out], -1) for each in (part, found))
    place = np.abs(rows).argmax(1)[:, None]
    largest = np.take_along_axis(rows, place, 1).astype(np.float64)
    of_largest = np.take_along_axis(wanted, place, 1).astype(np.float64)
    about = np.where(largest == 0, 1, of_largest / np.where(largest == 0, 1, largest)).astype(np.float32)
    tried = [about, np.nextafter(about, np.float32(-np.inf)), np.nextafter(about, np.float32(np.inf))]
    errors = np.stack([np.abs(rows * factor - wanted).max(1) for factor in tried])
    best = np.stack(tried)[errors.argmin(0), np.arange(len(rows))]
    if not (errors.min(0) <= _CLOSE * np.abs(wanted).max(1)).all():
        return None
    shape = [1] * part.ndim
    shape[out] = -1
    factors: Floats = best.reshape(shape)
    return factors


def _operators(result: str, name: str, sizes: Any, cuts: dict[int, Kept], factors: Floats) -> list[Any]:
    """Cut a part out of a shared weight, and multiply it."""
    helper, arrays = require("onnx.helper", "onnx"), require("onnx.numpy_helper", "onnx")
    nodes: list[Any] = []

    def constant(what: str, values: Any) -> str:
        nodes.append(helper.make_node("Constant", [], [f"{result}_{what}"], value=arrays.from_array(values)))
        return str(nodes[-1].output[0])

    def apply(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{result}_{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    current = name
    ends = {dim: kept.stop for dim, kept in cuts.items() if isinstance(kept, slice) and kept.stop is not None}
    ends = {dim: end for dim, end in ends.items() if end < sizes[dim]}
    if ends:
        starts = constant("starts", np.zeros(len(ends), np.int64))
        stops = constant("ends", np.array(list(ends.values()), np.int64))
        current = apply("Slice", current, starts, stops, constant("axes", np.array(list(ends), np.int64)))
    for dim, kept in cuts.items():
        if isinstance(kept, Tensor):
            current = apply("Gather", current, constant(f"channels_{dim}", kept.numpy()), axis=dim)
    apply("Mul", current, constant("factors", factors))
    nodes[-1].output[0] = result
    return nodes
