"""Which layers and operations a layer's channels run through, as Torch-Pruning's dependency graph sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.joints import Joint, joint_of, run_with_joints
from rlprune.elastic.layers.kinds import is_dense
from rlprune.errors import ModelError


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
        self._results: list[Any] = []  # torch 2.6 forgets operations with what they gave

        def run(model: nn.Sequential, images: Tensor) -> Any:
            self._results.append(run_with_joints(model, images))
            return self._results[-1]

        try:
            with torch.enable_grad():
                self._graph = dependencies.DependencyGraph().build_dependency(
                    network, example, forward_fn=run, verbose=False
                )
        except Exception as error:
            raise ModelError(
                f"Torch-Pruning cannot follow this network's channels: {type(error).__name__}: {error}"
            ) from error
        self._nodes = self._graph.module2node
        joints = {node: joint_of(node.grad_fn) for node in self._nodes.values()}
        self._joints: dict[Any, Joint] = {node: joint for node, joint in joints.items() if joint is not None}
        self._ended = {joint.layer: joint.reason for joint in self._joints.values() if joint.layer and joint.reason}
        by_operation = {node.grad_fn: node for node in self._nodes.values()}
        self._sources = {node: _sources(node, by_operation) for node in self._joints}

    def of(self, layer: nn.Module, width: int) -> tuple[list[Item], int]:
        """All layers and operations that a layer's output channels run through.

        Channels that are tied to each other, such as those of one convolution group, count as one.

        Args:
            layer: a dense layer of the network.
            width: how many channels it has.

        Returns:
            What they run through, and how many channels they count as.

        Raises:
            Uncoupled: they cannot be followed.
        """
        if layer in self._ended:
            raise Uncoupled(self._ended[layer])
        if layer not in self._nodes:
            raise Uncoupled(
                "no gradient gets from the output to it, as behind `>` or round; `rlprune gate` builds gates that can "
                "be trained"
            )
        prune = self._graph.get_pruner_of_module(layer).prune_out_channels
        walk = _Walk(self._joints, self._sources, width)
        walk.run(self._nodes[layer], prune)
        channel_of = walk.channels()
        items = []
        for (node, handler), labels in walk.labels.items():
            positions = (labels >= 0).nonzero().flatten()
            channels = channel_of[labels[positions]]
            joint = self._joints.get(node)
            module = node.module if joint is None or joint.layer is None else joint.layer
            is_input = self._graph.is_in_channel_pruning_fn(handler) and is_dense(module)
            operation = _operation(node, joint)
            items.append(Item(module, "in" if is_input else "out", positions.tolist(), channels.tolist(), operation))
        return items, int(channel_of.max()) + 1


class _Walk:
    """Follows channels through a dependency graph, from where they are produced to all that holds them.

    Args:
        joints: the operations that say themselves where channels go, by their nodes.
        sources: for each of them the numbers of its inputs, by the nodes that these come from.
        width: how many channels there are.

    Attributes:
        labels: for each node, and the side of it that channels reach, the channel at each position; -1 for none.
    """

    def __init__(self, joints: dict[Any, Joint], sources: dict[Any, dict[Any, list[int]]], width: int) -> None:
        self.labels: dict[tuple[Any, Any], Tensor] = {}
        self._joints = joints
        self._sources = sources
        self._tied = list(range(width))
        self._waiting: list[tuple[Any, Any, Tensor, Tensor]] = []

    def run(self, node: Any, side: Any) -> None:
        """Follow all channels of a layer.

        Raises:
            Uncoupled: they reach an operation through which they cannot be followed.
        """
        everything = torch.arange(len(self._tied))
        self._arrive(node, side, everything, everything)
        while self._waiting:
            node, side, positions, labels = self._waiting.pop()
            for dependency in node.dependencies:
                if dependency.is_triggered_by(side):
                    mapped = self._mapped(dependency, node, positions, labels)
                    self._arrive(dependency.target, dependency.handler, *mapped)

    def channels(self) -> Tensor:
        """For each label the number of its channel, where labels that are tied count as one, int64 (width,)."""
        roots = torch.tensor([self._root(label) for label in range(len(self._tied))])
        channels: Tensor = roots.unique(return_inverse=True)[1]
        return channels

    def _root(self, label: int) -> int:
        while self._tied[label] != label:
            self._tied[label] = self._tied[self._tied[label]]
            label = self._tied[label]
        return label

    def _arrive(self, node: Any, side: Any, positions: Tensor, labels: Tensor) -> None:
        """Label positions of a node; those that have a label already tie it to the new one."""
        if not len(positions):
            return
        joint = self._joints.get(node)
        if joint is not None and joint.reason:
            raise Uncoupled(joint.reason)
        known = self.labels.get((node, side), torch.empty(0, dtype=torch.int64))
        missing = int(positions.max()) + 1 - len(known)
        known = F.pad(known, (0, max(0, missing)), value=-1)
        self.labels[node, side] = known
        fresh = known[positions] < 0
        new = positions[fresh].unique()
        known[positions[fresh]] = labels[fresh]
        self._tie(known[positions], labels)
        if len(new):
            self._waiting.append((node, side, new, known[new]))

    def _tie(self, labels: Tensor, others: Tensor) -> None:
        """Tie labels to others, each to its own."""
        differ = labels != others
        for one, other in set(zip(labels[differ].tolist(), others[differ].tolist(), strict=True)):
            first, second = sorted((self._root(one), self._root(other)))
            self._tied[second] = first

    def _mapped(self, dependency: Any, node: Any, positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where positions of a node are on the node that depends on it."""
        target = dependency.target
        pairs: list[tuple[Tensor, Tensor]] = []
        if target in self._joints and node in self._sources[target]:
            pairs = [self._joints[target].pairs[number] for number in self._sources[target][node]]
        elif node in self._joints and target in self._sources[node]:
            backwards = [self._joints[node].pairs[number] for number in self._sources[node][target]]
            pairs = [(after, before) for before, after in backwards]
        if pairs:
            return _join(pairs, positions, labels)
        indices: Any = [_Index(*index) for index in zip(positions.tolist(), labels.tolist(), strict=True)]
        for mapping in filter(None, dependency.index_mapping):
            indices = mapping(indices)
        moved = torch.tensor([(index.idx, index.root_idx) for index in indices], dtype=torch.int64).view(-1, 2)
        return moved[:, 0], moved[:, 1]


class _Index(NamedTuple):
    """A position and its channel, as Torch-Pruning's index mappings expect them."""

    idx: int
    root_idx: int


def _join(pairs: Sequence[tuple[Tensor, Tensor]], positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where positions are after going through pairs of (position before, position after), with their labels."""
    label_at = torch.full((1 + max(int(part.max()) for part in (positions, *(b for b, _ in pairs)) if len(part)),), -1)
    label_at[positions] = labels
    after = torch.cat([after for _, after in pairs])
    found = torch.cat([label_at[before] for before, _ in pairs])
    return after[found >= 0], found[found >= 0]


def _sources(node: Any, by_operation: dict[Any, Any]) -> dict[Any, list[int]]:
    """The numbers of a joint's inputs, by the nodes that they come from."""
    found: dict[Any, list[int]] = {}
    for number, (operation, _) in enumerate(node.grad_fn.next_functions[1:]):
        if operation in by_operation:
            found.setdefault(by_operation[operation], []).append(number)
    return found


def _operation(node: Any, joint: Joint | None) -> str:
    """What Torch-Pruning's node does, in autograd's words or the joint's."""
    if joint is not None:
        return joint.operation
    return "" if node.grad_fn is None or _pads_positions_only(node.grad_fn) else str(node.grad_fn.name())


def _pads_positions_only(operation: Any) -> bool:
    """Whether an autograd operation pads height and width by constants, and channels by nothing."""
    padding = getattr(operation, "_saved_pad", ())
    return operation.name().startswith("ConstantPad") and not any(padding[4:])
