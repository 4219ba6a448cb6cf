"""Traces a network into a `torch.fx` graph of its layers, and splits it into stem and body."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import traceback
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlprune.errors import ModelError
from rlprune.graph.flattening import read_flattening
from rlprune.graph.functional import fold_constants, read_functional_layers
from rlprune.graph.names import make_safe
from rlprune.graph.operators import METHODS
from rlprune.graph.plain import plain_copy
from rlprune.graph.traced import TracedNetwork
from rlprune.graph.tracer import Tracer

_OUT_OF_PLACE: dict[Any, Any] = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
_OUT_OF_PLACE |= {torch.relu_: torch.relu, torch.sigmoid_: torch.sigmoid}
_METHOD_OF: dict[str, tuple[str, tuple[int, ...]]] = {
    "data": ("detach", ()),
    "T": ("t", ()),
    "mT": ("transpose", (-2, -1)),
}
"""Attributes of tensors that are computed, with the method and its arguments that compute the same."""

# Functions that only training needs; traced in eval mode they return their first argument.
_IDENTITIES = frozenset({"dropout", "dropout2d", "stochastic_depth", "drop_path", "drop_block_2d"})

# Layers that a stem may hold beside its convolution: they mix no channels and have one input.
_STEM_LAYERS = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.LeakyReLU,
    nn.Identity,
    nn.MaxPool2d,
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
_STEM_FUNCTIONS = (F.relu, torch.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.max_pool2d, F.pad)


def trace(model: nn.Module, example: Tensor | None = None, output: str | int | None = None) -> fx.GraphModule:
    """The network as a `torch.fx` graph of its layers, on a copy of the weights and without in-place operations.

    In-place operations would let one pass overwrite the features that the next pass starts from.

    Args:
        model: takes one float32 tensor (B, C, H, W), returns logits (B, classes).
        example: one input, float32 (1, C, H, W), so that what depends on shapes can be traced.
        output: key or index of the logits, where the network returns several things.

    Raises:
        ModelError: it is no network, the top-level forward cannot be traced, or it uses more than one input.
    """
    model = plain_copy(model)  # functional dropout and auxiliary heads are traced as inference runs them
    graph = _traced(model, example)
    _drop_assertions(graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for extra in placeholders[1:]:
        if extra.users:
            raise ModelError(
                f"{type(model).__name__} takes {len(placeholders)} inputs; a network with one image input is needed"
            )
        graph.erase_node(extra)
    if output is not None:
        _keep_one_output(graph, output)
    make_safe(model, graph)
    network = TracedNetwork(model, graph)
    _simplify(network)
    network.graph.eliminate_dead_code()
    fold_constants(network)
    read_functional_layers(network)
    read_flattening(network)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _traced(model: nn.Module, example: Tensor | None) -> fx.Graph:
    """The graph of a forward, with sizes as plain numbers where that is what it takes."""
    reasons = []
    for fixed_sizes in (False, True)[: 1 if example is None else 2]:
        tracer = Tracer(example)
        tracer.fixed_sizes = fixed_sizes
        try:
            return tracer.trace(model, _defaults(model))
        except Exception as error:
            reasons.append(error)
    raise ModelError(
        f"torch.fx cannot trace the forward of {type(model).__name__}: {reasons[0]}\n{_line_of(reasons[0], model)}"
        "Control flow that depends on a tensor must move into a submodule, which then stays one opaque layer."
    ) from reasons[0]


def _drop_assertions(graph: fx.Graph) -> None:
    """Drop assertions and what only they read; torch.fx makes one for each optional argument."""
    asserted: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        is_assertion = getattr(node.target, "__name__", "").startswith("_assert")
        if is_assertion or (node in asserted and not node.users and node.op != "placeholder"):
            asserted.update(node.all_input_nodes)
            graph.erase_node(node)


def _keep_one_output(graph: fx.Graph, output: str | int) -> None:
    """Let a graph return one of its outputs alone."""
    (last,) = (node for node in graph.nodes if node.op == "output")
    outputs: Any = last.args[0]
    if isinstance(outputs, fx.Node) and outputs.op == "call_function" and inspect.isclass(outputs.target):
        made = inspect.signature(outputs.target).bind(*outputs.args, **outputs.kwargs)  # a named tuple or data class
        last.args = (made.arguments[output] if isinstance(output, str) else made.args[output],)
    elif isinstance(outputs, fx.Node):  # of a layer that is not traced
        with graph.inserting_before(last):
            last.args = (graph.call_function(operator.getitem, (outputs, output)),)
    else:
        last.args = (outputs[output],)


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The optional arguments of a forward, which are traced as their defaults."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    return {p.name: p.default for p in parameters[1:] if p.default is not p.empty}


def _line_of(error: Exception, model: nn.Module) -> str:
    """The line of the user's own code at which tracing failed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getsourcefile(type(model).forward)]
    return f"It fails at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}\n" if own else ""


def _simplify(network: fx.GraphModule) -> None:
    """Drop identities, and turn in-place operations into ordinary ones."""
    _read_results_of_in_place_nodes(network)
    _clear_in_place_flags(network)
    for node in network.graph.nodes:
        if getattr(node.target, "__name__", "") in _IDENTITIES or _is_identity_layer(network, node):
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
        elif node.target is getattr and node.args[1] in _METHOD_OF:
            node.op, source = "call_method", node.args[0]
            node.target, arguments = _METHOD_OF[str(node.args[1])]
            node.args = (source, *arguments)
        elif node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
        elif node.op == "call_method" and node.target.rstrip("_") in METHODS:
            node.target = node.target.rstrip("_")


def _is_identity_layer(network: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and type(network.get_submodule(str(node.target))) is nn.Identity and bool(node.args)


def _read_results_of_in_place_nodes(network: fx.GraphModule) -> None:
    """Let nodes that come after an in-place operation read its result, where they read the tensor that it changed."""
    before: set[fx.Node] = set()
    for node in network.graph.nodes:
        before.add(node)
        if _is_in_place(network, node):
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user: user not in before)


def _clear_in_place_flags(network: fx.GraphModule) -> None:
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            cast(Any, layer).inplace = False
    for node in network.graph.nodes:
        if node.kwargs.get("inplace", False):
            node.update_kwarg("inplace", False)
        if "out" in node.kwargs and node.kwargs["out"] is None:  # torch.fx notes it of functions such as F.normalize
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "out"}


def _is_in_place(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace", False)) or node.target in _OUT_OF_PLACE


def run(model: nn.Module, images: Tensor) -> object:
    """What a network gives for images.

    Args:
        model: the network.
        images: float32 (B, C, H, W).

    Raises:
        ModelError: it fails on them; the message names the layer.
    """
    entered: list[str] = []

    def enter(name: str, layer: nn.Module, inputs: tuple[object, ...]) -> None:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
        kind = type(layer).__name__ if any(True for _ in layer.children()) else str(layer)
        entered.append(f"; {name or 'it'} ({kind}) gets {shapes}")

    hooks = [
        hook
        for name, layer in model.named_modules()
        for hook in (
            layer.register_forward_pre_hook(lambda m, inputs, name=name: enter(name, m, inputs)),
            layer.register_forward_hook(lambda *_: entered.pop() and None),
        )
    ]
    try:
        return model(images.clone())
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        where = entered[-1] if entered else ""
        raise ModelError(
            f"the network does not run on an input of shape {tuple(images.shape)}: {reason}{where}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def split_stem(network: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split the network behind its first convolution and the norm, activation and pooling that follow in a chain.

    Every pass starts from the stem's features and the policy reads them, so the stem runs once per image and is never
    pruned. It is empty where the images go to more than one layer at once.

    Args:
        network: traced, images (B, C, H, W) -> logits (B, classes).

    Returns:
        The stem, images (B, C, H, W) -> features (B, F, H', W'), and the body, features -> logits.
    """
    stem = _stem_nodes(network)
    body = [node for node in network.graph.nodes if node not in stem and node.op != "output"]
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    return _copy_nodes(network, stem, None, stem[-1]), _copy_nodes(network, body, stem[-1], output.args[0])


def _stem_nodes(network: fx.GraphModule) -> list[fx.Node]:
    """The images, and the chain of stem layers that begins there; the images alone if it holds no convolution."""
    modules = dict(network.named_modules())
    chain = [next(node for node in network.graph.nodes if node.op == "placeholder")]
    found_convolution = False
    while len(chain[-1].users) == 1:
        (user,) = chain[-1].users
        layer = modules.get(user.target) if user.op == "call_module" else None
        first_convolution = isinstance(layer, nn.Conv2d) and not found_convolution
        stem_layer = isinstance(layer, _STEM_LAYERS) or user.target in _STEM_FUNCTIONS
        if len(user.all_input_nodes) != 1 or not (first_convolution or stem_layer):
            break
        found_convolution |= first_convolution
        chain.append(user)
    return chain if found_convolution else chain[:1]


def _copy_nodes(network: fx.GraphModule, nodes: list[fx.Node], entry: fx.Node | None, result: Any) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {} if entry is None else {entry: graph.placeholder("features")}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(fx.node.map_arg(result, lambda n: copies[n]))
    return TracedNetwork(network, graph)


def logits_of(outputs: object, output: str | int | None, kind: str) -> object:
    """What a network returns, or the one of its outputs that was asked for.

    Raises:
        ModelError: it returns several things and it was not said which are the logits, or there is no such output.
    """
    named = _named(outputs)
    if not named and not isinstance(outputs, dict | tuple | list):
        if output is not None:
            raise ModelError(f"output={output!r} is given, but {kind} returns a single result: leave it out")
        return outputs
    if output in named:
        return named[output]
    keys: list[Any] = list(named) or list(range(len(outputs)))  # type: ignore[arg-type]
    if isinstance(outputs, tuple | list) and isinstance(output, int) and 0 <= output < len(outputs):
        return outputs[output]
    told = "" if output is None else f"; output={output!r} is none of them"
    raise ModelError(
        f"{kind} returns a {type(outputs).__name__}; logits of shape (B, classes) are needed; say which of {keys} "
        f"they are: output={(keys or [0])[0]!r}{told}"
    )


def _named(outputs: object) -> dict[Any, object]:
    """The entries of a dict, or the fields of a named tuple or data class; nothing where results have no names."""
    if isinstance(outputs, dict):
        return dict(outputs)
    if dataclasses.is_dataclass(outputs):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    names = getattr(outputs, "_fields", ())
    return {name: getattr(outputs, name) for name in names}
