"""Which layers and operations a layer's channels run through, as Torch-Pruning's dependency graph sees it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune.errors import ModelError

_MAX_POSITIONS = 500_000
"""How many positions of one group's channels are followed through reshapes, splits and the like."""


class Item(NamedTuple):
    """Channels on one axis of a layer or operation.

    Attributes:
        layer: the layer, or what stands for the operation.
        axis: `in` where it consumes the channels.
        positions: on that axis.
        channels: the group's channel at each position.
        operation: what autograd calls the operation; empty where it only pads height and width.
    """

    layer: nn.Module
    axis: Literal["in", "out"]
    positions: list[int]
    channels: list[int]
    operation: str


class Uncoupled(Exception):
    """A layer's channels cannot be followed; the message says why."""


class _TooMany(Exception):
    """Channels multiply on their way without a bound that is worth waiting for."""


class _Bounded:
    """One of Torch-Pruning's index mappings, which gives up where channels multiply.

    Args:
        mapping: what maps the channels of one operation to those of the next.
        total: how many positions all mappings of a graph have given for one layer.
    """

    def __init__(self, mapping: Any, total: list[int]) -> None:
        self.mapping = mapping
        self.total = total

    def __call__(self, indices: Any) -> Any:
        result = self.mapping(indices)
        self.total[0] += len(result)
        if self.total[0] > _MAX_POSITIONS:
            raise _TooMany
        return result


class Coupling:
    """Torch-Pruning's dependency graph of a network.

    Args:
        network: stem and body in sequence.
        example: one input, float32 (1, C, H, W).
        dependencies: the package `torch_pruning`.

    Raises:
        ModelError: Torch-Pruning fails on the network.
    """

    def __init__(self, network: nn.Sequential, example: Tensor, dependencies: Any) -> None:
        try:
            with torch.enable_grad():
                self._graph = dependencies.DependencyGraph().build_dependency(
                    network, example, forward_fn=_interpret, verbose=False
                )
        except Exception as error:
            raise ModelError(
                f"Torch-Pruning cannot follow this network's channels: {type(error).__name__}: {error}"
            ) from error
        self._total = [0]
        for node in self._graph.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping = [m and _Bounded(m, self._total) for m in dependency.index_mapping]

    def of(self, layer: nn.Module, width: int) -> list[Item]:
        """All layers and operations that a layer's output channels run through.

        Args:
            layer: a dense layer of the network.
            width: how many channels it has.

        Raises:
            Uncoupled: they cannot be followed, or multiply on their way.
        """
        self._total[0] = 0
        if layer not in self._graph.module2node:
            raise Uncoupled(
                "no gradient gets from the output to it, as behind `>` or round; `rlprune gate` builds gates that can "
                "be trained"
            )
        prune = self._graph.get_pruner_of_module(layer).prune_out_channels
        try:
            group = self._graph.get_pruning_group(layer, prune, list(range(width)))
        except _TooMany:
            raise Uncoupled("its channels multiply where they are reshaped, too far to be followed") from None
        except Exception as error:  # it fails in many ways where it cannot follow channels
            raise Uncoupled(f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {error})") from error
        items: list[Item] = []
        for item in group:
            node = item.dep.target
            is_input = self._graph.is_in_channel_pruning_fn(item.dep.handler) and is_dense(node.module)
            operation = "" if node.grad_fn is None or _pads_positions_only(node.grad_fn) else node.grad_fn.name()
            items.append(Item(node.module, "in" if is_input else "out", item.idxs, item.root_idxs, operation))
        return items


def _interpret(network: nn.Sequential, images: Tensor) -> Tensor:
    """Run stem and body node by node; a generated forward would print every failure of Torch-Pruning's probing."""
    for part in network:
        assert isinstance(part, fx.GraphModule)
        images = fx.Interpreter(part).run(images)
    return images


def is_dense(layer: nn.Module) -> bool:
    """Whether each output of a layer reads all of its inputs."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each output of a layer reads the input of its own number alone."""
    return type(layer) is nn.Conv2d and layer.groups == layer.in_channels == layer.out_channels


def _pads_positions_only(operation: Any) -> bool:
    """Whether an autograd operation pads height and width by constants, and channels by nothing."""
    padding = getattr(operation, "_saved_pad", ())
    return operation.name().startswith("ConstantPad") and not any(padding[4:])
