"""Marks where channels move, or are tied to each other, for Torch-Pruning's dependency graph.

That graph follows autograd's operations, and infers from sizes what `cat`, `chunk` or `view` do to channels. Here the
traced network is run operation by operation: what moves channels about is run once more on their numbers, and becomes
a single operation of autograd's that says exactly which channel goes where.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.layers.kinds import axis_sizes, channels_last, is_blind, is_grouped

Positions = Tensor
"""Positions on an axis, int64 (n,)."""

_MOVES = frozenset(
    """cat chunk concat concatenate contiguous expand expand_as flatten getitem movedim narrow permute repeat reshape
    reshape_as select split squeeze stack t tile transpose unbind unflatten unsqueeze view view_as""".split()
)
"""Functions and methods that move or copy values, and compute none."""
_MOVING_LAYERS = (nn.Flatten, nn.Unflatten)
_SIZED = ("cat", "expand", "reshape", "slice", "split", "unbind", "view")
"""Parts of names of autograd's operations whose effect on channels is inferred from sizes."""


@dataclass(frozen=True)
class Joint:
    """An operation through which channels go in a known way.

    Attributes:
        pairs: for each input its positions, and for each of them one of the result that holds the same channel.
        operation: its name.
        layer: the layer that it is; None for other operations.
        reason: why channels cannot be followed through it; empty if they can.
    """

    pairs: tuple[tuple[Positions, Positions], ...]
    operation: str
    layer: nn.Module | None = None
    reason: str = ""


class _Mark(torch.autograd.Function):
    """Puts a joint into the autograd graph, between a value and what it was computed from."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, joint: Joint, *_: Tensor) -> Tensor:
        ctx.joint = joint
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise NotImplementedError("this graph is only looked at")


def joint_of(grad_fn: object) -> Joint | None:
    """The joint that an operation of the autograd graph stands for, if it is one."""
    joint = getattr(grad_fn, "joint", None)
    return joint if isinstance(joint, Joint) else None


def run_with_joints(network: nn.Sequential, images: Tensor) -> Tensor:
    """Run stem and body, with joints in the autograd graph of the result.

    Args:
        network: stem and body in sequence, traced.
        images: one input, float32 (1, C, H, W).
    """
    for part in network:
        assert isinstance(part, fx.GraphModule)
        images = _Marker(part).run(images)
    return images


class _Marker(fx.Interpreter):
    """Runs a graph, and knows for each of its values which dimension holds the channels.

    Attributes:
        axes: that dimension; None where channels are spread over several.
        numbers: for values that only move others, the number of the channel that each element holds, float64; -1 for
            none.
        sources: for these the values that they move.
    """

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__(part)
        self.axes: dict[fx.Node, int | None] = {}
        self.numbers: dict[fx.Node, Any] = {}
        self.sources: dict[fx.Node, tuple[fx.Node, ...]] = {}
        self._split: set[fx.Node] = set()
        self._values: dict[fx.Node, Tensor] = {}
        self._first: dict[fx.Node, int] = {}
        self._n_numbers = 0

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, marked where channels go another way than one by one."""
        value = super().run_node(n)
        numbers = self._numbers_of(n) if self._only_moves(n) else None
        if numbers is not None:
            return self._moved(n, value, numbers)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        self.axes[n] = self._axis_of(n, value)
        joint = self._joint(n, value) if n.op in ("call_function", "call_method", "call_module") else None
        if joint is not None:
            value = self._marked(value, joint, self._tensors_read(n))
        self._values[n] = value
        return value

    def _marked(self, value: Tensor, joint: Joint, sources: tuple[fx.Node, ...]) -> Tensor:
        marked: Tensor = _Mark.apply(value.detach(), joint, *(self._values[source] for source in sources))
        return marked

    def _tensors_read(self, n: fx.Node) -> tuple[fx.Node, ...]:
        """The values with channels that a node reads."""
        read: list[fx.Node] = []
        for source in n.all_input_nodes:  # what returns several things, such as a recurrent layer, is looked through
            read.extend((source,) if source in self._values else self._tensors_read(source))
        return tuple(dict.fromkeys(read))

    def _layer(self, n: fx.Node) -> nn.Module | None:
        if n.op != "call_module":
            return None
        layer = self.fetch_attr(str(n.target))
        assert isinstance(layer, nn.Module)
        return layer

    # Which dimension holds the channels.

    def _axis_of(self, n: fx.Node, value: Tensor) -> int | None:
        """The dimension of the input that has most of them: the same, the second, or the last."""
        read = [source for source in self._tensors_read(n) if source.op != "get_attr"]
        if not read:
            return min(1, value.ndim - 1)
        source = max(read, key=lambda node: self._values[node].ndim)
        axis = self.axes[source]
        ndim = self._values[source].ndim
        if value.ndim == ndim:
            return axis
        if axis in (None, 1) and value.ndim > 1:
            return 1
        return value.ndim - 1 if axis == ndim - 1 else None

    def _size(self, node: fx.Node) -> int | None:
        axis = self.axes[node]
        return None if axis is None else self._values[node].shape[axis]

    # Operations that compute.

    def _joint(self, n: fx.Node, value: Tensor) -> Joint | None:
        layer = self._layer(n)
        if any(source.op == "call_module" and source not in self._values for source in n.all_input_nodes):
            return self._end(n, f"{n.all_input_nodes[0].target} returns several things")
        if layer is None:
            return self._joint_of_function(n, value)
        if is_blind(layer):  # it may be called anywhere, for any number of channels
            return Joint(self._everything(n), type(layer).__name__)
        sizes = axis_sizes(layer)
        name = f"{n.target} ({type(layer).__name__})"
        if isinstance(layer, nn.LocalResponseNorm):  # by too little for the check of masks and slices to see
            return self._end(n, f"{name} reads neighbouring channels", layer)
        if sizes is None and not any(True for _ in layer.parameters()):
            return self._joint_of_function(n, value)
        if sizes is None:
            return self._end(n, f"{name} is no layer of a kind that can be pruned", layer)
        if self.axes[n] is None or not self._reads_channels(n, layer):
            return self._end(n, f"{name} does not read its input channel by channel", layer)
        if is_grouped(layer) or isinstance(layer, nn.GroupNorm):
            return Joint((_tied(layer, *sizes),), type(layer).__name__, layer)
        return None

    def _reads_channels(self, n: fx.Node, layer: nn.Module) -> bool:
        (source, *others) = self._tensors_read(n) or (None,)
        if source is None or others:
            return source is None
        ndim = self._values[source].ndim
        return self.axes[source] == (ndim - 1 if channels_last(layer) else 1)

    def _end(self, n: fx.Node, reason: str, layer: nn.Module | None = None) -> Joint:
        return Joint(self._everything(n), str(n.target), layer, reason)

    def _everything(self, n: fx.Node) -> tuple[tuple[Positions, Positions], ...]:
        """Each position of what a node reads at its own place, whichever dimension holds them."""
        return tuple(self._all_of(source) for source in self._tensors_read(n))

    def _all_of(self, node: fx.Node) -> tuple[Positions, Positions]:
        positions = torch.arange(max(self._values[node].shape, default=1))
        return positions, positions

    def _joint_of_function(self, n: fx.Node, value: Tensor) -> Joint | None:
        """One for an operation whose channels do not simply line up, or which autograd sees as several moves."""
        read = self._tensors_read(n)
        axis = self.axes[n]
        size = None if axis is None else value.shape[axis]
        features = [source for source in read if source.op != "get_attr"]
        broadcasts = size is not None and len(features) > 1 and any(self._size(node) != size for node in features)
        if not broadcasts and not self._infers_from_sizes(value, read):
            return None
        whole = torch.arange(size or 0)
        none = torch.arange(0)
        lines_up = [node.op == "get_attr" or self._size(node) == size for node in read]
        if size is None or not any(lines_up):
            return self._end(n, f"its channels cannot be followed through {n.name}")
        pairs = tuple((whole, whole) if lined_up else (none, none) for lined_up in lines_up)
        return Joint(pairs, str(getattr(n.target, "__name__", n.target)))

    def _infers_from_sizes(self, value: Tensor, read: tuple[fx.Node, ...]) -> bool:
        """Whether autograd's operations between a value and what it was computed from include rearrangements."""
        ends = {self._values[source].grad_fn for source in read}
        waiting = [value.grad_fn]
        seen: set[object] = set()
        while waiting:
            operation = waiting.pop()
            if operation is None or operation in ends or operation in seen:
                continue
            seen.add(operation)
            name = operation.name().lower()
            if any(part in name for part in _SIZED):
                return True
            waiting.extend(before for before, _ in operation.next_functions)
        return False

    # Operations that move.

    def _only_moves(self, n: fx.Node) -> bool:
        if n.op == "call_module":
            return isinstance(self.fetch_attr(str(n.target)), _MOVING_LAYERS)
        if n.op not in ("call_function", "call_method"):
            return False
        name = str(getattr(n.target, "__name__", n.target))
        return name in _MOVES and any(node in self._values or node in self.numbers for node in n.all_input_nodes)

    def _moved(self, n: fx.Node, value: Any, numbers: Any) -> Any:
        """The value of a node that only moves others, marked with where each channel goes."""
        self.numbers[n] = numbers
        sources = [self.sources.get(node, (node,)) for node in n.all_input_nodes if self._has_numbers(node)]
        self.sources[n] = tuple(dict.fromkeys(node for several in sources for node in several))
        if not isinstance(value, Tensor):
            return value
        axis = _axis_along(numbers)
        self.axes[n] = axis
        if axis is None or self._split.intersection(n.all_input_nodes):
            self._split.add(n)
            reason = f"its channels are split up where they are reshaped ({n.name})"
            joint = Joint(tuple(self._all_of(source) for source in self.sources[n]), n.name, reason=reason)
        else:
            parts = [_along(part, axis) for part in (numbers, *self._other_parts(n, numbers))]
            joint = Joint(tuple(self._from(source, parts) for source in self.sources[n]), n.name)
        marked = self._marked(value, joint, self.sources[n])
        self._values[n] = marked
        return marked

    def _from(self, source: fx.Node, parts: list[Tensor]) -> tuple[Positions, Positions]:
        """Which positions of a source a value holds, and where: by the numbers along its axis, and those tied to it."""
        first = self._first.get(source)
        size = self._size(source)
        if first is None or size is None:
            return torch.arange(0), torch.arange(0)
        here = [((part >= first) & (part < first + size)).nonzero().flatten() for part in parts]
        if size == 1 and len(here[0]) == len(parts[0]) > 1:  # expanded, to be multiplied by any number of channels
            return torch.arange(0), torch.arange(0)
        befores = [part[places] - first for part, places in zip(parts, here, strict=True)]
        return torch.cat(befores), torch.cat(here)

    def _other_parts(self, n: fx.Node, numbers: Tensor) -> list[Tensor]:
        """The numbers of the other parts, where a value is one of equal ones: as many channels must stay in each."""
        cut = n.all_input_nodes[0]
        if n.target is not operator.getitem or str(getattr(cut.target, "__name__", cut.target)) != "chunk":
            return []
        return [part for part in self.numbers[cut] if part.shape == numbers.shape]

    def _has_numbers(self, node: fx.Node) -> bool:
        return node in self.numbers or (node in self._values and node.op != "get_attr")

    def _numbers_of(self, n: fx.Node) -> Any:
        """What a node gives for the numbers of channels; None if it takes no numbers in place of features."""
        args, kwargs = fx.node.map_arg((n.args, n.kwargs), self._numbers_or_value)
        target: Any = n.target
        try:
            if n.op == "call_module":
                return self.fetch_attr(target)(*args, **kwargs)
            if n.op == "call_function":
                return target(*args, **kwargs)
            return getattr(args[0], "reshape" if target == "view" else target)(*args[1:], **kwargs)
        except (RuntimeError, TypeError):
            return None

    def _numbers_or_value(self, node: fx.Node) -> Any:
        if node in self.numbers:
            return self.numbers[node]
        value = self.env[node]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        axis = self.axes.get(node)
        if node.op == "get_attr" or axis is None:
            return torch.full(value.shape, -1.0, dtype=torch.float64)
        if node not in self._first:
            self._first[node] = self._n_numbers
            self._n_numbers += value.shape[axis]
        first = self._first[node]
        numbers = torch.arange(first, first + value.shape[axis], dtype=torch.float64)
        inner = (1,) * (value.ndim - axis - 1)
        return numbers.view(-1, *inner).expand(value.shape).contiguous()


def _axis_along(numbers: Tensor) -> int | None:
    """The dimension along which alone numbers differ, the second if they do not; None if there are several."""
    for axis in _likely_axes(numbers.ndim):
        rows = numbers.movedim(axis, 0).flatten(1) if numbers.ndim > 1 else numbers[:, None]
        if rows.numel() and bool((rows == rows[:, :1]).all()):
            return axis
    return None


def _along(numbers: Tensor, axis: int) -> Tensor:
    """The numbers along an axis, where they are the same along all others, int64."""
    return numbers.movedim(axis, 0).flatten(1)[:, 0].long() if numbers.ndim > 1 else numbers.long()


def _likely_axes(ndim: int) -> Iterator[int]:
    yield from dict.fromkeys((min(1, ndim - 1), ndim - 1, *range(1, ndim)))


def _tied(layer: Any, n_in: int, n_out: int) -> tuple[Positions, Positions]:
    """What a layer ties together: the inputs and outputs of each convolution group, the channels of each norm group.

    All of a group are tied to its first output, or to its first input, which is enough.
    """
    inputs = torch.arange(n_in)
    outputs = torch.arange(n_out)
    groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.groups
    if isinstance(layer, nn.GroupNorm) and groups == 1:
        return inputs, outputs
    per_in = n_in // groups
    per_out = n_out // groups
    first_output = inputs // per_in * per_out
    first_input = outputs // per_out * per_in
    return torch.cat([inputs, first_input]), torch.cat([first_output, outputs])
