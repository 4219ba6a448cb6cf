"""A `torch.fx` tracer that knows the shapes of features, so that decisions and arithmetic on shapes can be traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

_LAYERS = (nn.Conv2d, nn.Conv1d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers of which there are subclasses that pad their input by its size."""
_SHAPE_METHODS = frozenset({"size", "dim", "numel", "is_floating_point", "ndimension"})
_SHAPE_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "is_quantized"})


class _Proxy(fx.Proxy):
    """A traced value whose height and width are plain numbers where the tracer says so."""

    tracer: Tracer

    def size(self, dim: int | None = None) -> Any:
        """The sizes of a tensor, or one of them."""
        if not self.tracer.fixed_sizes:
            return fx.Proxy.__getattr__(self, "size")(*(() if dim is None else (dim,)))
        sizes = self.tracer.sizes_of(self)
        return sizes if dim is None else sizes[dim]

    def dim(self) -> Any:
        """The number of dimensions of a tensor."""
        if not self.tracer.fixed_sizes:
            return fx.Proxy.__getattr__(self, "dim")()
        return len(self.tracer.sizes_of(self))

    @property
    def shape(self) -> Any:
        """The sizes of a tensor."""
        return self.tracer.sizes_of(self) if self.tracer.fixed_sizes else fx.Proxy.__getattr__(self, "shape")

    @property
    def ndim(self) -> Any:
        """The number of dimensions of a tensor."""
        return len(self.tracer.sizes_of(self)) if self.tracer.fixed_sizes else fx.Proxy.__getattr__(self, "ndim")


class Tracer(fx.Tracer):
    """A tracer for which a submodule whose forward cannot be traced stays one opaque layer.

    A submodule is traced first as it is; then, if that fails, with heights and widths as plain numbers, which Python
    can calculate with. The numbers of images and of channels are always traced: slices change them.

    Args:
        example: one input, float32 (1, C, H, W), to decide what depends on shapes; None traces no such decisions.

    Attributes:
        fixed_sizes: whether heights and widths are plain numbers just now.
        opaque: why submodules that stay one layer could not be traced, by name.
    """

    def __init__(self, example: Tensor | None = None) -> None:
        super().__init__()
        self.example = example
        self.fixed_sizes = False
        self.opaque: dict[str, str] = {}
        self._values: dict[fx.Node, Any] = {}
        self._evaluates = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy that may know sizes."""
        return _Proxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Like the base, but nothing is remembered: what a failed attempt read is erased."""
        return attr_val if self._evaluates else super().getattr(attr, attr_val, {})

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace through a submodule, or let it stay one layer."""
        if self._evaluates:
            return forward(*args, **kwargs)
        before = len(self.graph.nodes)
        stack = self.module_stack.copy()
        outer = self.fixed_sizes
        for fixed in self._attempts(m):
            self.fixed_sizes = fixed
            try:
                return super().call_module(m, forward, args, kwargs)
            except Exception as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                for node in reversed(list(self.graph.nodes)[before:]):
                    self.graph.erase_node(node)
                self.module_stack.clear()
                self.module_stack.update(stack)
            finally:
                self.fixed_sizes = outer
        name = self.path_of_module(m)
        self.opaque = {key: why for key, why in self.opaque.items() if not key.startswith(name + ".")} | {name: reason}
        return self.create_proxy("call_module", name, args, kwargs)

    def _attempts(self, module: nn.Module) -> tuple[bool, ...]:
        """Whether sizes are plain numbers, attempt by attempt; a layer that pads by them is simplest so."""
        if self.example is None or self.fixed_sizes:
            return (self.fixed_sizes,)
        return (True, False) if isinstance(module, _LAYERS) else (False, True)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A decision: on shapes the one that the example leads to; any other cannot be traced."""
        if self.example is not None and _is_of_shapes(obj.node):
            return bool(self._value(obj.node))
        return super().to_bool(obj)

    def sizes_of(self, proxy: fx.Proxy) -> tuple[Any, ...]:
        """The sizes of a tensor (B, C, ...): numbers, but for B and C, which are traced."""
        shape: Any = fx.Proxy.__getattr__(proxy, "shape")
        value = self._value(proxy.node)
        if not isinstance(value, Tensor):
            raise TypeError(f"a {type(value).__name__} has no shape")
        return tuple(shape[dim] if dim < 2 else size for dim, size in enumerate(value.shape))

    @torch.no_grad()
    def _value(self, node: fx.Node) -> Any:
        """What a node gives for the example."""
        waiting = [node]
        evaluated = self._evaluates
        self._evaluates = True  # layers are called for their results, not traced
        try:
            while waiting:
                missing = [source for source in waiting[-1].all_input_nodes if source not in self._values]
                waiting.extend(missing)
                if not missing:
                    last = waiting.pop()
                    self._values[last] = self._run(last)
        finally:
            self._evaluates = evaluated
        return self._values[node]

    def _run(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._values.__getitem__)
        target: Any = node.target
        if node.op == "placeholder":
            return self.example
        if node.op == "get_attr":
            owner, _, leaf = target.rpartition(".")
            return getattr(self.root.get_submodule(owner), leaf)
        if node.op == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)


def _is_of_shapes(node: fx.Node) -> bool:
    """Whether a node depends on the shapes of features alone, never on what they hold."""
    if node.op == "call_method" and node.target in _SHAPE_METHODS:
        return True
    if node.op == "call_function" and node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES:
        return True
    if node.op in ("placeholder", "call_module", "get_attr") or not node.all_input_nodes:
        return False
    return all(_is_of_shapes(source) for source in node.all_input_nodes)
