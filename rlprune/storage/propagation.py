"""One image's way through a stored graph, node by node, without memory or arithmetic: what it would take is bounded."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.storage.tensors import MalformedError
from rlprune.utils.finite import check_numbers

MAX_MACS = 100e9
"""How many multiply-adds one image may take by default, each value that a node gives counted as `PER_VALUE` of them."""
PER_VALUE = 32
"""What it takes to write one value, in multiply-adds."""
VALUES_AT_ONCE = 1e-3
"""How many values there may be at a time, for each multiply-add that is allowed."""
PARAMETERS = 1e-2
"""How many parameters there may be, likewise."""
VARIABLE = "RLPRUNE_MAX_MACS"
"""The environment variable with the limit of whoever gives none, such as the command line."""
_BATCHES = (2, 720_720)
"""Numbers of images that a graph is asked about: few, and more than any memory holds, a multiple of all up to 16."""
_MOST_PIECES = 4096
_MOST_INTEGER = 2**40
_MOST_TEXT = 200
_ARITHMETIC = frozenset(
    getattr(operator, name) for name in "add sub mul truediv floordiv neg mod gt ge lt le eq ne".split()
)
"""What is also done with numbers that come from a shape."""
_POOLS = ("max_pool", "avg_pool", "lp_pool", "MaxPool", "AvgPool", "LPPool")
_NORMS = {nn.BatchNorm1d: "num_features", nn.BatchNorm2d: "num_features", nn.GroupNorm: "num_channels"} | {
    nn.InstanceNorm1d: "num_features",
    nn.InstanceNorm2d: "num_features",
}


_SAME_SHAPE = frozenset((nn.BatchNorm1d, nn.BatchNorm2d)).union(
    (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Mish, nn.ELU),
    (nn.LeakyReLU, nn.Hardtanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d),
)
"""Layers whose result has the shape of what they are given; on the meta device torch takes long to find that out."""
_SAME_SHAPE_FUNCTIONS = frozenset((torch.nn.functional.relu, torch.relu, torch.sigmoid, torch.tanh))


def limit_of(max_macs: float | None) -> float:
    """The limit that a caller gives, else that of the environment variable `RLPRUNE_MAX_MACS`, else `MAX_MACS`.

    Raises:
        SettingsError: it is no number of 1 or more; NaN would bound nothing.
    """
    given = os.environ.get(VARIABLE) if max_macs is None else None
    if not given:
        check_numbers(max_macs=MAX_MACS if max_macs is None else max_macs, least=1, most=math.inf)
        return MAX_MACS if max_macs is None else float(max_macs)
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    check_numbers(**{VARIABLE: found}, least=1, most=math.inf)
    return found


def how_to_raise(max_macs: float) -> str:
    """What a message says of a limit."""
    return f"max_macs is {max_macs:.3g}; for a network that you trust give more, on the command line by ${VARIABLE}"


class Meter:
    """Adds up what an image takes, and says where that is too much.

    Args:
        max_macs: the most multiply-adds, values counted as `PER_VALUE` of them.

    Attributes:
        used: multiply-adds so far.
    """

    def __init__(self, max_macs: float) -> None:
        self.max_macs = max_macs
        self.used = 0.0

    def add(self, macs: float, n_values: int) -> None:
        """Count the work of one node.

        Raises:
            MalformedError: it is too much.
        """
        self.used += macs + PER_VALUE * n_values
        if self.used > self.max_macs:
            raise MalformedError(
                f"one image takes more than {self.max_macs:.3g} multiply-adds ({how_to_raise(self.max_macs)})"
            )

    def hold(self, n_values: int) -> None:
        """Make sure that so many values may be there at a time.

        Raises:
            MalformedError: they are too many.
        """
        if n_values > self.max_macs * VALUES_AT_ONCE:
            most = f"{self.max_macs * VALUES_AT_ONCE:.3g}"
            raise MalformedError(f"one image takes more than {most} values at a time ({how_to_raise(self.max_macs)})")


@torch.no_grad()
def propagate(network: fx.GraphModule, example: Tensor, meter: Meter, where: str) -> Tensor:
    """Send an image without content through a graph, and note what `rlprune.graph.nodes.measure` would.

    Args:
        network: the graph, on the meta device.
        example: an image or features, float32 (1, ...) on the meta device.
        meter: what counts the work.
        where: name of the graph, for messages.

    Returns:
        What the graph gives, on the meta device.

    Raises:
        MalformedError: the graph cannot take them, takes too much, or a node does something else than computing with
            tensors; the message names the node.
    """
    env: dict[fx.Node, Any] = {}
    last_reader = {source: node for node in network.graph.nodes for source in node.all_input_nodes}
    finished: dict[fx.Node, list[fx.Node]] = {}
    for source, reader in last_reader.items():
        finished.setdefault(reader, []).append(source)
    held = 0
    with FlopCounterMode(display=False) as counter:
        before = 0
        for node in network.graph.nodes:
            try:
                env[node] = _result(network, node, env, example)
                macs = counter.get_total_flops() // 2
                node.meta["macs"] = macs - before
                node.meta["shape"] = tuple(env[node].shape) if isinstance(env[node], Tensor) else None
                before = macs
                n_values = _size(env[node])
                meter.add(node.meta["macs"] + _window(network, node, env) * n_values, n_values)
                held += n_values
                meter.hold(held)
            except Exception as error:
                raise _blamed(error, f"{where}.nodes.{node.name}") from error
            for source in finished.get(node, ()):
                held -= _size(env.pop(source))
    given: Tensor = env[node]
    return given


def _blamed(error: Exception, entry: str) -> MalformedError:
    said = " ".join(str(error)[:300].split())
    kind = "" if isinstance(error, MalformedError) else f"{type(error).__name__}: "
    return MalformedError(f"{entry[:200]}: {kind}{said}")


def _result(
    network: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any], example: Tensor, *, checked: bool = False
) -> Any:
    """What a node gives, once it is seen that it may, unless it has been checked before."""
    if node.op == "placeholder":
        return example
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
    if node.op == "output":
        if not (len(args) == 1 and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            raise MalformedError("the output is no tensor of floating-point numbers")
        return args[0]
    if node.op == "get_attr":
        result: Any = operator.attrgetter(str(node.target))(network)
    elif node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if not checked:
            _check_layer(layer, args, kwargs)
        result = args[0] if type(layer) in _SAME_SHAPE else layer(*args)
    else:
        if not checked:
            _check_call(node, args, kwargs)
        called: Any = getattr(args[0], str(node.target)) if node.op == "call_method" else node.target
        same = node.target in _SAME_SHAPE_FUNCTIONS and len(args) == 1 and kwargs.keys() <= {"inplace"}
        result = args[0] if same else called(*(args[1:] if node.op == "call_method" else args), **kwargs)
    if not checked:
        _check_result(result)
    return result


@torch.no_grad()
def check_batches(network: fx.GraphModule, example: Tensor, where: str) -> None:
    """Make sure that a graph takes any number of images as it takes one, before one of them is refused at work.

    Every size and number that a node gives must be the same for all of them, or grow as the number of images does.

    Args:
        network: the graph, on the meta device, which `propagate` has checked.
        example: as there.
        where: name of the graph, for messages.

    Raises:
        MalformedError: it does not; the message names the node.
    """
    alone = _outlines(network, example, where)
    for n_images in _BATCHES:
        batch = torch.empty(n_images, *example.shape[1:], dtype=example.dtype, device=example.device)
        among = _outlines(network, batch, where)
        for node, one in alone.items():
            compared = isinstance(one, bool) and any(alone[source] != among[source] for source in node.all_input_nodes)
            if compared or not _grows(one, among[node], n_images):
                raise MalformedError(f"{where}.nodes.{node.name}: it does not take every number of images alike")


def _outlines(network: fx.GraphModule, batch: Tensor, where: str) -> dict[fx.Node, Any]:
    """What each node gives for a batch; of tensors, the shape."""
    env: dict[fx.Node, Any] = {}
    for node in network.graph.nodes:
        try:
            env[node] = _result(network, node, env, batch, checked=True)
        except Exception as error:
            raise _blamed(error, f"{where}.nodes.{node.name}, for {len(batch):,} images") from error
    return {node: _outline(value) for node, value in env.items()}


def _outline(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(_outline, value))
    return tuple(value.shape) if isinstance(value, Tensor) else value


def _grows(one: Any, many: Any, n_images: int) -> bool:
    """Whether what is given for many images is the same as for one, or so many times as much."""
    if isinstance(one, tuple):
        return len(one) == len(many) and all(_grows(*pair, n_images) for pair in zip(one, many, strict=True))
    if isinstance(one, int | float) and not isinstance(one, bool):
        return math.isclose(many, one) or math.isclose(many, one * n_images)
    return bool(one == many)


def _check_layer(layer: nn.Module, args: Sequence[Any], kwargs: Any) -> None:
    """A layer takes a tensor, and says how many channels that has."""
    if kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
        raise MalformedError("a layer takes one tensor")
    name = _NORMS.get(type(layer))
    if name is not None and args[0].shape[1 : 2 if args[0].ndim > 1 else 1] != (getattr(layer, name),):
        raise MalformedError(f"{name} is {getattr(layer, name)}, and it is given {tuple(args[0].shape)}")


def _check_call(node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """A function or method takes a tensor, or computes with numbers that come from a shape."""
    values = list(_flat((args, list(kwargs.values()))))
    texts = [value for value in values if isinstance(value, str)]
    if any(len(text) > _MOST_TEXT for text in texts):
        raise MalformedError(f"a text of more than {_MOST_TEXT} letters is among its arguments")
    if kwargs.get("out") is not None or (texts and (node.target == "to" or "device" in kwargs)):
        raise MalformedError("where its result is kept may not be said")
    if node.op == "call_method" and not (args and isinstance(args[0], Tensor)):
        raise MalformedError("it takes no tensor")
    if node.op == "call_function" and node.target in _ARITHMETIC:
        _check_arithmetic(node, args, kwargs)
    elif node.target is operator.getitem:
        if not (node.all_input_nodes and len(args) == 2 and isinstance(args[0], Tensor | tuple | list)):
            raise MalformedError("it takes no tensor")
    elif node.target is operator.pow and not any(isinstance(value, Tensor) for value in args):
        raise MalformedError("it takes no tensor")
    elif not any(isinstance(value, Tensor) for value in values):
        raise MalformedError("it takes no tensor")
    _check_pieces(node, args, kwargs)


def _check_arithmetic(node: fx.Node, args: Sequence[Any], kwargs: Any) -> None:
    """Tensors and numbers; or two shapes that are joined."""
    if kwargs or not node.all_input_nodes:
        raise MalformedError("it takes no tensor")
    joined = node.target is operator.add and all(isinstance(value, tuple) for value in args)
    compared = node.target in (operator.eq, operator.ne)
    if not (joined or compared or all(isinstance(value, Tensor | int | float) for value in args)):
        raise MalformedError("it takes tensors and numbers only")


def _check_pieces(node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """What makes many tensors of one makes few."""
    name = str(getattr(node.target, "__name__", node.target))
    if name not in ("unbind", "split", "chunk"):
        return
    longest = max(args[0].shape, default=0) if args and isinstance(args[0], Tensor) else 0
    given = next((value for value in (*args[1:], *kwargs.values()) if name != "unbind"), None)
    if name == "split" and isinstance(given, int):
        n_pieces = longest // max(given, 1)
    else:
        n_pieces = longest if given is None else min(given, longest) if isinstance(given, int) else len(given)
    if n_pieces > _MOST_PIECES:
        raise MalformedError(f"it makes {n_pieces} pieces; at most {_MOST_PIECES} are allowed")


def _check_result(result: Any) -> None:
    """A tensor, a number, or something of a tensor's; or few of them."""
    if isinstance(result, Tensor):
        if result.device.type != "meta" or result.is_complex():
            raise MalformedError(f"it gives {result.dtype} on {result.device.type}")
    elif isinstance(result, tuple | list):
        if len(result) > _MOST_PIECES:
            raise MalformedError(f"it gives {len(result)} values")
        for each in result:
            _check_result(each)
    elif isinstance(result, bool | torch.dtype | torch.device):
        return
    elif not (isinstance(result, int | float) and abs(result) <= _MOST_INTEGER):
        raise MalformedError(f"it gives {reprlib.repr(result)}; tensors, and whole numbers of at most 2^40, are needed")


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value


def _size(value: Any) -> int:
    """How many numbers a result holds."""
    if isinstance(value, Tensor):
        return value.numel()
    return sum(_size(each) for each in value) if isinstance(value, tuple | list) else 0


def _window(network: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any]) -> int:
    """How many values each value of a pooling's result is made of; 0 for everything else."""
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if isinstance(layer, nn.LocalResponseNorm):
            return layer.size
        size = getattr(layer, "kernel_size", None) if any(name in type(layer).__name__ for name in _POOLS) else None
    elif node.op == "call_function":
        name = str(getattr(node.target, "__name__", ""))
        if not any(pool in name for pool in _POOLS) or "adaptive" in name:
            return 0
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
        size = kwargs.get("kernel_size", (*args, *(None,) * 3)[2 if "lp_pool" in name else 1])
    else:
        return 0
    sides = [side for side in _flat(size) if isinstance(side, int)]
    return math.prod(sides) ** (2 if len(sides) == 1 else 1) if sides else 0
