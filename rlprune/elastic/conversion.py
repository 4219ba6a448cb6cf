"""Converts an ordinary network into an elastic one: traces it, splits it, finds its groups, and checks the result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, fx, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.channels import Group, UnprunableLayer
from rlprune.elastic.groups import find_groups
from rlprune.elastic.importance import check_importance, criterion, rank
from rlprune.elastic.layers.kinds import is_dense, is_grouped
from rlprune.elastic.module import ElasticModule
from rlprune.errors import ModelError
from rlprune.graph import nodes, tracing
from rlprune.graph.flattening import read_chunks, read_flattening
from rlprune.graph.plain import plain_copy

_Elastic = TypeVar("_Elastic", bound=ElasticModule)
_CLOSE = 1e-4
"""Logits count as equal if they differ by no more than this share of the largest."""


class _Traced(NamedTuple):
    """A network split into stem and body, example images float32 (2, C, H, W), and its logits for them."""

    stem: fx.GraphModule
    body: fx.GraphModule
    images: Tensor
    logits: Tensor


def convert(
    kind: type[_Elastic],
    model: nn.Module,
    image_shape: Sequence[int],
    *,
    keep_ratios: Sequence[float],
    round_to: int,
    importance: str,
    residual: bool,
    calibration: ImageSet | None,
    output: str | int | None = None,
) -> _Elastic:
    """Convert a network; arguments and errors are those of `rlprune.elastic.cnn.ElasticCNN.from_model`.

    Args:
        kind: class of the elastic network.
        model: the network.
        image_shape: (C, H, W) of its images.
        keep_ratios: ascending shares in [0, 1], the last one 1.
        round_to: widths round up to multiples of this many channels.
        importance: criterion that ranks channels.
        residual: also prune the channels of residual streams.
        calibration: labelled images, for criteria that need them.
        output: key or index of the logits where the network returns more than them.
    """
    check_importance(importance, calibration)
    traced = _trace(model, image_shape, output)
    groups, unprunable = find_groups(traced.stem, traced.body, traced.images[:1], residual=residual)
    unprunable = unprunable + _other_layers(traced.body, groups, unprunable)
    if not groups and not residual:
        streams = find_groups(traced.stem, traced.body, traced.images[:1], residual=True)[0]
        if streams:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in unprunable)
            found = f"residual=True would give {len(streams)} groups"
            raise ModelError(f"nothing in this network can be pruned without residual=True; {found}. {reasons}")

    def build(chosen: Sequence[Group]) -> _Elastic:
        elastic = kind(
            copy.deepcopy(traced.stem),
            copy.deepcopy(traced.body),
            chosen,
            image_shape,
            keep_ratios=keep_ratios,
            round_to=round_to,
            unprunable=unprunable,
        ).eval()
        rank(elastic, criterion(importance, elastic, calibration))
        return elastic

    elastic = build(groups)
    if _is_exact(elastic, traced):
        return elastic
    # Something in the network mixes channels without the dependency graph seeing it: find the groups it touches.
    exact = _exact_groups(groups, lambda chosen: _is_exact(build(chosen), traced))
    reason = "slicing it changes other channels, so masks and slices would differ"
    unprunable += [UnprunableLayer(g.name, g.n_channels, reason) for g in groups if g not in exact]
    elastic = build(exact)
    if not _is_exact(elastic, traced):
        raise ModelError("masks and slices of this network differ even though those of each group agree")
    return elastic


def _exact_groups(groups: Sequence[Group], is_exact: Callable[[Sequence[Group]], bool]) -> list[Group]:
    """Those of the groups that mix no channels, found by halving."""
    if is_exact(groups):
        return list(groups)
    if len(groups) == 1:
        return []
    middle = len(groups) // 2
    return _exact_groups(groups[:middle], is_exact) + _exact_groups(groups[middle:], is_exact)


def _other_layers(
    body: fx.GraphModule, groups: Sequence[Group], unprunable: Sequence[UnprunableLayer]
) -> list[UnprunableLayer]:
    """Layers with weights that are of no kind that can be pruned, and that nothing else has named."""
    named = {item.name for item in unprunable} | {member.layer for group in groups for member in group.members}
    found = {}
    for node in body.graph.nodes:
        layer = body.get_submodule(str(node.target)) if node.op == "call_module" else None
        if layer is None or node.target in named or not any(p.ndim > 1 for p in layer.parameters()):
            continue
        if not (is_dense(layer) or is_grouped(layer)):
            n_channels = (node.meta.get("shape") or (0, 0))[1]
            reason = f"a {type(layer).__name__} is no layer of a kind that can be pruned"
            found[str(node.target)] = UnprunableLayer(str(node.target), n_channels, reason)
    return list(found.values())


def _logits(outputs: object, output: str | int | None, kind: str) -> object:
    """What a network returns, or the one of its outputs that was asked for.

    Raises:
        ModelError: it returns several things and it was not said which are the logits, or there is no such output.
    """
    if not isinstance(outputs, dict | tuple | list):
        if output is not None:
            raise ModelError(f"output={output!r} is given, but {kind} returns a single result: leave it out")
        return outputs
    keys: list[Any] = list(outputs) if isinstance(outputs, dict) else list(range(len(outputs)))
    if output in keys:
        return outputs[output]  # type: ignore[index]
    told = "" if output is None else f"; output={output!r} is none of them"
    raise ModelError(
        f"{kind} returns a {type(outputs).__name__}; logits of shape (B, classes) are needed; say which of {keys} "
        f"they are: output={(keys or [0])[0]!r}{told}"
    )


@torch.no_grad()
def _trace(model: nn.Module, image_shape: Sequence[int], output: str | int | None) -> _Traced:
    """Trace a copy of a network, and check that it gives the network's logits."""
    model = plain_copy(model)
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    kind = type(model).__name__
    logits = _logits(_run(model, images), output, kind)
    network = tracing.trace(model, images[:1], output)
    nodes.measure(network, images[:1])
    read_flattening(network)
    read_chunks(network)
    stem, body = tracing.split_stem(network)
    nodes.measure(body, nodes.measure(stem, images[:1]))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = f"tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{kind} returns a {given}; logits of shape (B, classes) are needed")
    if logits.shape[1] == 1:
        raise ModelError(
            f"{kind} returns 1 logit, which tells no two classes apart; a network of two classes needs 2 logits: of a "
            "binary classifier, 0 and this logit"
        )
    if not _close(body(stem(images)), logits):
        raise ModelError(
            f"the traced {kind} gives other logits than the network itself; "
            "its forward may change views in place, or depend on the batch size"
        )
    return _Traced(stem, body, images, logits)


def _run(model: nn.Module, images: Tensor) -> object:
    """What a network gives for images; a ModelError where it fails on them."""
    try:
        return model(images.clone())
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        shape = tuple(images.shape)
        raise ModelError(f"the network does not run on an input of shape {shape}: {reason}") from error


@torch.no_grad()
def _is_exact(elastic: ElasticModule, traced: _Traced) -> bool:
    """Whether full keep gives the network's logits, and narrow slices give the same logits as masks.

    Masks and slices are compared once more on a copy in float64, whose norms have other values: neither the rounding
    of a deep network nor a norm that is zero hides or feigns that channels mix.
    """
    try:
        if not _close(elastic(traced.images, elastic.full), traced.logits):
            return False
        try:
            return _slices_as_masked(_lively(elastic), traced.images.double())
        except RuntimeError:  # something in the network computes in float32 only
            return _slices_as_masked(elastic, traced.images)
    except (RuntimeError, IndexError, ValueError):  # the slice does not run at all: sizes in it are fixed
        return False


def _lively(elastic: ElasticModule) -> ElasticModule:
    """A copy in float64 whose norms scale and shift every channel."""
    lively = copy.deepcopy(elastic).double()
    generator = torch.Generator().manual_seed(0)
    for norm in lively.elastic_layers().values():
        if norm.filter_dims is None:
            for tensor in norm.parameters():
                tensor.add_(0.1 + 0.2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return lively


def _slices_as_masked(elastic: ElasticModule, images: Tensor) -> bool:
    """Whether narrow profiles, and a mixed one, give the same logits as slices and as masks."""
    narrow = elastic.uniform(0)
    rng = torch.Generator().manual_seed(0)
    mixed = torch.stack([torch.randint(int(low), elastic.n_levels, (), generator=rng) for low in elastic.min_level])
    profiles = (narrow, narrow.clamp_min(1), mixed)
    return all(_close(elastic.slice(p)(images), elastic(images, p.expand(len(images), -1))) for p in profiles)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _CLOSE * b.abs().max().clamp_min(1e-6))
