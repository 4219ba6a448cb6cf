"""An elastic network's structure as JSON holds it, without its weights."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from rlprune.elastic.axes import Run
from rlprune.elastic.channels import Group, Member, UnprunableLayer
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.depth import droppable_groups
from rlprune.elastic.layers.kinds import axis_sizes
from rlprune.graph import serialization
from rlprune.graph.nodes import attach
from rlprune.storage.folders import malformed
from rlprune.storage.layers import check_layers
from rlprune.storage.propagation import PARAMETERS, Meter, check_batches, how_to_raise, propagate
from rlprune.storage.tensors import MalformedError, TensorFile

_MOST_ENTRIES = 2**24
"""How many nodes x groups x levels a network may have: that many numbers `rlprune.profiles.cost.Cost` holds."""


def describe(elastic: ElasticCNN) -> Any:
    """Describe the structure of a network for `rebuild`; the weights are not included.

    Raises:
        ModelError: it holds a layer or calls a function that cannot be stored without its code.
    """
    stem, body = elastic.slice(elastic.full)
    assert isinstance(stem, fx.GraphModule) and isinstance(body, fx.GraphModule)
    return {
        "stem": serialization.to_json(stem),
        "body": serialization.to_json(body),
        "groups": [dataclasses.asdict(group) for group in elastic.groups if not group.is_resolution],
        "left_alone": [dataclasses.asdict(item) for item in elastic.unprunable],
        "keep_ratios": elastic.keep_ratios,
        "round_to": elastic.round_to,
        "image_shape": elastic.image_shape,
        "codebook": None if elastic.codebook is None else elastic.codebook.tolist(),
        "separated": bool(elastic.own_bodies),
        "drop_order": elastic.ranked_order,
    } | ({"resolution": True} if elastic.resolution else {})


def rebuild(description: Any, device: str = "cpu") -> ElasticCNN:
    """Build the network that `describe` described, with fresh weights, in eval mode.

    Args:
        description: what `describe` returned; see `assemble` where it comes from somebody else.
        device: where the weights are; on the meta device they take no memory.

    Raises:
        BundleError: the description is malformed, or names something that a stored network may not hold.
    """
    with malformed("network"):
        parts = [serialization.from_json(description[part], device) for part in ("stem", "body")]
        return _elastic(description, *parts)


def assemble(description: Any, file: TensorFile, max_macs: float, prefix: str = "") -> ElasticCNN:
    """Build a network that somebody else described, on the meta device, once it is known to be bounded.

    Args:
        description: as JSON holds it.
        file: the tensors that are there for it.
        max_macs: the most multiply-adds that one image may take.
        prefix: of the names of its tensors in the file.

    Raises:
        MalformedError: the description is malformed, does not fit the tensors, or takes too much.
    """
    stem, body = (build_graph(description[part], part, file, prefix + part) for part in ("stem", "body"))
    check_claims((stem, body), file, max_macs)
    meter = Meter(max_macs)
    image = torch.empty(1, *description["image_shape"], device="meta")
    features = propagate(stem, image, meter, "stem")
    if features.ndim != 4 or len(features) != 1:
        raise MalformedError(f"the stem gives {_said(features)} for an image; (1, F, H, W) is needed")
    logits = propagate(body, features, meter, "body")
    check_logits(logits)
    check_batches(stem, image, "stem")
    check_batches(body, features, "body")
    check_groups(description, body)
    elastic = _elastic(description, stem, body, measured=True)
    file.check({prefix + name: tensor for name, tensor in elastic.state_dict().items()}, prefix)
    return elastic


def build_graph(description: Any, where: str, file: TensorFile, prefix: str) -> fx.GraphModule:
    """A graph that somebody else described, on the meta device.

    Args:
        description: as `rlprune.graph.serialization.to_json` returns it, checked against its schema.
        where: its name in messages.
        file: the tensors; those that belong to no layer, such as masks and indices, have the number format there.
        prefix: of the names of its tensors in the file, without the dot.

    Raises:
        MalformedError: it is malformed, or holds layers or tensors that no node uses.
    """
    check_layers(description["layers"], where)
    nodes = description["nodes"]
    ops = [node["op"] for node in nodes]
    if ops[0] != "placeholder" or ops[-1] != "output" or ops.count("placeholder") + ops.count("output") != 2:
        raise MalformedError(f"{where}.nodes needs one placeholder first, one output last")
    names = [node["name"] for node in nodes]
    if len(set(names)) < len(names):
        raise MalformedError(f"{where}.nodes has a name twice")
    for op, kind in (("call_module", "layers"), ("get_attr", "tensors")):
        used = {node["target"] for node in nodes if node["op"] == op}
        unused = next((name for name in description[kind] if name not in used), None)
        if unused is not None:
            raise MalformedError(f"{where}.{kind}.{unused[:100]} is used by no node")
    graph = serialization.from_json(description, "meta")
    for name, buffer in list(graph.named_buffers()):
        if name in description["tensors"] and (claim := file.claims.get(f"{prefix}.{name}")) is not None:
            attach(graph, name, buffer.to(claim.dtype))
    return graph


def check_claims(parts: Iterable[nn.Module], file: TensorFile, max_macs: float) -> None:
    """Make sure that there are as many numbers in a file as layers claim to have, before anything depends on them.

    Args:
        parts: graphs on the meta device.
        file: the tensors.
        max_macs: the most multiply-adds that one image may take.

    Raises:
        MalformedError: there are fewer, or too many.
    """
    layers = [layer for part in parts for layer in part.modules()]
    claimed = sum(tensor.numel() for layer in layers for tensor in layer.parameters(recurse=False))
    without_weights = [layer for layer in layers if not any(True for _ in layer.parameters(recurse=False))]
    channels = [getattr(layer, "num_features", 0) or getattr(layer, "num_channels", 0) for layer in without_weights]
    n_there = file.n_elements
    if claimed > n_there or sum(channels) > n_there:
        raise MalformedError(
            f"the layers need {max(claimed, sum(channels)):,} numbers, and {file.path.name} has {n_there:,} (a size "
            "mismatch)"
        )
    if n_there > max_macs * PARAMETERS:
        raise MalformedError(
            f"{file.path.name} has {n_there:,} numbers; at most {max_macs * PARAMETERS:,.0f} are allowed "
            f"({how_to_raise(max_macs)})"
        )


def check_logits(logits: torch.Tensor) -> None:
    """Make sure that a graph gives logits for an image.

    Raises:
        MalformedError: it does not.
    """
    if logits.ndim != 2 or len(logits) != 1 or not logits.shape[1]:
        raise MalformedError(f"the network gives {_said(logits)} for an image; (1, classes) is needed")


def check_groups(description: Any, body: fx.GraphModule) -> None:
    """Make sure that channel groups are of layers that are there, and within their channels.

    Raises:
        MalformedError: they are not; the message names the group.
    """
    groups = description["groups"]
    n_table = len(body.graph.nodes) * len(groups) * len(description["keep_ratios"])
    if n_table > _MOST_ENTRIES:
        raise MalformedError(f"nodes x groups x levels are {n_table:,}, too many")
    nodes = {node.name for node in body.graph.nodes}
    taken: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for index, group in enumerate(groups):
        where = f"groups.{index}"
        if group["name"] not in description["body"]["layers"]:
            raise MalformedError(f"{where}.name is {reprlib.repr(group['name'])}, which is no layer of the body")
        missing = next((name for name in group["exits"] if name not in nodes), None)
        if missing is not None:
            raise MalformedError(f"{where}.exits has {reprlib.repr(missing)}, which is no node of the body")
        for member in group["members"]:
            _check_member(member, group["n_channels"], body, description["body"]["layers"], where)
            spans = taken.setdefault((member["layer"], member["axis"]), [])
            spans += [(run[0], run[0] + run[2] * run[3]) for run in member["runs"]]
    for (layer, axis), spans in taken.items():
        spans.sort()
        if any(one[1] > other[0] for one, other in pairwise(spans)):
            raise MalformedError(f"groups overlap at {layer[:100]} ({axis})")


def _check_member(member: Any, n_channels: int, body: fx.GraphModule, layers: Any, where: str) -> None:
    """Make sure that a member's runs are inside both its group and its layer."""
    name = member["layer"]
    sizes = axis_sizes(body.get_submodule(name)) if name in layers else None
    if sizes is None:
        raise MalformedError(f"{where}.members has {reprlib.repr(name)}, which is no layer with channels")
    size = sizes[0 if member["axis"] == "in" else 1]
    for start, channel, n_run, repeat in member["runs"]:
        if n_run < 1 or repeat < 1 or channel + n_run > n_channels or start + n_run * repeat > size:
            raise MalformedError(
                f"{where}: the run {[start, channel, n_run, repeat]} of {name[:100]} leaves its channels"
            )
    if sum(run[2] * run[3] for run in member["runs"]) < n_channels:
        raise MalformedError(f"{where}: {name[:100]} holds fewer channels than the group has")


def _elastic(description: Any, stem: fx.GraphModule, body: fx.GraphModule, *, measured: bool = False) -> ElasticCNN:
    elastic = ElasticCNN(
        stem,
        body,
        [_group(group) for group in description["groups"]],
        description["image_shape"],
        keep_ratios=description["keep_ratios"],
        round_to=description["round_to"],
        unprunable=[UnprunableLayer(**item) for item in description["left_alone"]],
        measured=measured,
        resolution=description.get("resolution", False),
    ).eval()
    if description["codebook"] is not None:
        elastic.specialise(torch.tensor(description["codebook"]))
    if description.get("separated", False):  # the first networks were stored without this key and the next
        elastic.separate()
    if description.get("drop_order") is not None:
        elastic.ranked_order = tuple(description["drop_order"])
        if sorted(elastic.ranked_order) != droppable_groups(elastic):
            said = reprlib.repr(elastic.ranked_order)
            raise MalformedError(f"drop_order {said}")
    return elastic


def _said(tensor: torch.Tensor) -> str:
    return reprlib.repr(tuple(tensor.shape))


def _group(stored: Any) -> Group:
    members = [Member(m["layer"], m["axis"], tuple(Run(*run) for run in m["runs"])) for m in stored["members"]]
    return Group(stored["name"], stored["n_channels"], tuple(members), tuple(stored["exits"]))
