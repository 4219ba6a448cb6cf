"""Converts an ordinary network into an elastic one: traces it, splits it, finds its groups, and checks the result."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, fx, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.body import changed_cost
from rlprune.elastic.channels import Group, UnprunableLayer
from rlprune.elastic.groups import find_groups
from rlprune.elastic.importance import check_importance, criterion, orders, reorder
from rlprune.elastic.layers.kinds import is_dense, is_grouped
from rlprune.elastic.module import ElasticModule
from rlprune.errors import ModelError
from rlprune.graph import nodes, tracing
from rlprune.graph.flattening import read_chunks, read_flattening
from rlprune.graph.plain import plain_copy
from rlprune.utils.finite import check_whole
from rlprune.utils.notes import say

_Elastic = TypeVar("_Elastic", bound=ElasticModule)
_LITTLE = 0.9
"""Where more of the MACs than this share is left at least, it is said."""
_MUCH = 0.5
"""Where more than this share is left, it is said what residual streams would save."""
_CLOSE = 1e-4
"""Logits count as equal if they differ by no more than this share of the largest."""
_SILENT = 1e-3
"""Weights below this, such as layer scales before training, leave no trace in logits."""


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
    resolution: bool = False,
) -> _Elastic:
    """Convert a network to this kind of elastic one; all else is described at `ElasticCNN.from_model`."""
    check_importance(importance, calibration)
    check_whole(round_to=round_to)
    check_whole(**{f"image_shape[{i}]": side for i, side in enumerate(image_shape)}, least=1, most=2**16)
    traced = _trace(model, image_shape, output)
    groups, unprunable = find_groups(traced.stem, traced.body, traced.images[:1], residual=residual)
    unprunable = unprunable + _other_layers(traced.body, groups, unprunable)

    def build(parts: _Traced, chosen: Sequence[Group]) -> tuple[_Elastic, list[Tensor]]:
        """An elastic network of the parts, which it changes, and the order that channels are to be put into."""
        elastic = kind(
            parts.stem,
            parts.body,
            chosen,
            image_shape,
            keep_ratios=keep_ratios,
            round_to=round_to,
            unprunable=unprunable,
            resolution=resolution,
        ).eval()
        return elastic, orders(elastic, criterion(importance, elastic, calibration))

    if not groups and not residual:
        streams = find_groups(traced.stem, traced.body, traced.images[:1], residual=True)[0]
        if streams:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in unprunable)
            found = f"residual=True would give {len(streams)} groups{_worth(build(traced, streams)[0])}"
            raise ModelError(f"nothing in this network can be pruned without residual=True; {found}. {reasons}")

    images = traced.images
    elastic, order = build(traced, groups)
    _check_full(elastic, traced)
    exact = exact_groups(elastic, images, order)
    if resolution and (not exact or exact.pop() < len(groups)):
        raise ModelError("resolution: masks and slices of this network differ where its features are shrunk")
    if len(exact) < len(groups):
        # Something in the network mixes channels without the dependency graph seeing it: leave what it touches alone.
        left = [index for index in range(len(groups)) if index not in exact]
        unprunable += [UnprunableLayer(groups[i].name, groups[i].n_channels, _why_inexact(elastic, i)) for i in left]
        del elastic, traced
        elastic, order = build(_trace(model, image_shape, output), [groups[index] for index in exact])
        if len(exact_groups(elastic, images, order)) < elastic.n_groups:
            raise ModelError("masks and slices of this network differ even though those of each group agree")
    for index, of_group in enumerate(order):
        reorder(elastic, index, of_group)
    least = _least_share(elastic)
    more = "" if residual or least <= _MUCH else _with_streams(kind, model, elastic, output)
    if least > _LITTLE:
        say(_why_little(elastic) + more)
    elif more:
        say(f"this network saves MACs down to {100 * least:.0f} %{more}")
    return elastic


def _least_share(elastic: ElasticModule) -> float:
    """Which share of the MACs is left where every group keeps as little as it may."""
    small = elastic.slice(elastic.uniform(0)).get_submodule("body")
    assert isinstance(small, fx.GraphModule)
    nodes.measure(small, torch.zeros(1, *elastic.feature_shape))
    stem = _macs(elastic.stem)
    return (stem + _macs(small)) / max(1, stem + _macs(elastic.body))


def _macs(network: fx.GraphModule) -> int:
    return sum(int(node.meta["macs"]) for node in network.graph.nodes)


def _why_little(elastic: ElasticModule) -> str:
    """A line that says how little can be saved, and what holds most of the MACs."""
    macs = {str(node.target): node.meta["macs"] for part in (elastic.stem, elastic.body) for node in part.graph.nodes}
    reasons = {item.name: item.reason for item in elastic.unprunable}
    for index, group in enumerate(elastic.groups):
        if elastic.widths[index, elastic.narrowest] == group.n_channels:
            reasons |= dict.fromkeys(group.layers("out"), f"its widths round up to multiples of {elastic.round_to}")
    held: dict[str, int] = {}
    for name, reason in reasons.items():
        held[reason] = held.get(reason, 0) + macs.get(name, 0)
    line = f"less than a tenth can be saved: from 100 % down to {100 * _least_share(elastic):.1f} % of the MACs"
    if not any(held.values()):
        return line
    most = max(held, key=lambda reason: held[reason])
    largest = max((name for name in reasons if reasons[name] == most), key=lambda name: macs.get(name, 0))
    share = 100 * held[most] / max(1, _macs(elastic.stem) + _macs(elastic.body))
    return f"{line}; {share:.0f} % of them are in layers such as {largest}: {most}"


def _with_streams(kind: type[_Elastic], model: nn.Module, elastic: _Elastic, output: str | int | None) -> str:
    """What residual=True would give, if it gives more."""
    shape = elastic.image_shape
    traced = _trace(model, shape, output)
    groups = find_groups(traced.stem, traced.body, traced.images[:1], residual=True)[0]
    if len(groups) <= elastic.n_groups:
        return ""
    ratios = elastic.keep_ratios
    worth = _worth(kind(traced.stem, traced.body, groups, shape, keep_ratios=ratios, round_to=elastic.round_to).eval())
    return f"; residual=True would give {len(groups)} groups{worth}" if worth else ""


def _worth(elastic: ElasticModule) -> str:
    """What groups that are not tried yet would save; nothing where their slice does not even run."""
    try:
        return f", and save MACs down to {100 * _least_share(elastic):.0f} %"
    except (ModelError, RuntimeError):
        return ""


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


@torch.no_grad()
def _trace(model: nn.Module, image_shape: Sequence[int], output: str | int | None) -> _Traced:
    """Trace a copy of a network, and check that it gives the network's logits."""
    model = plain_copy(model)
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    kind = type(model).__name__
    logits = tracing.logits_of(tracing.run(model, images), output, kind)
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
    if not (_close(body(stem(images)), logits) and _close(body(stem(images[:1])), logits[:1])):
        raise ModelError(
            f"the traced {kind} gives other logits than the network itself; "
            "its forward may change views in place, draw random numbers, have hooks, or depend on the batch size"
        )
    return _Traced(stem, body, images, logits)


@torch.no_grad()
def _check_full(elastic: ElasticModule, traced: _Traced) -> None:
    """Make sure that full keep gives the network's logits.

    Raises:
        ModelError: it does not.
    """
    try:
        same = _close(elastic(traced.images, elastic.full), traced.logits)
    except RuntimeError as error:
        raise ModelError(f"the network does not run as an elastic one: {error}") from error
    if not same:
        raise ModelError("the network gives other logits as an elastic one, even whole; hooks at its layers are lost")


@torch.no_grad()
def exact_groups(elastic: ElasticModule, images: Tensor, order: Sequence[Tensor]) -> list[int]:
    """The groups that mix no channels: these may change places, and masks give the same as slices.

    Tried in float64 and with other values in norms and in what is near zero: neither the rounding of a deep network nor
    a branch that is silent so far hides or feigns that channels mix.

    Args:
        elastic: in eval mode; left as it was.
        images: float32 (B, C, H, W).
        order: for each group, the order that its channels are to be put into, int64 (n_channels,).

    Returns:
        Indices of the groups, ascending.
    """
    gc.collect()  # what is left of tracing refers to itself, and to the weights
    for dtype in (torch.float64, torch.float32):
        with _lively(elastic, dtype):
            try:
                whole = elastic(images.to(dtype), elastic.full)
            except RuntimeError:  # something in the network computes in float32 only
                continue
            return _exact_among(_Trial(elastic, images.to(dtype), whole, order))
    raise ModelError("the network does not run with other values in its norms")


def _why_inexact(elastic: ElasticModule, group: int) -> str:
    if name := _changed_cost(elastic, [group], torch.zeros(1, *elastic.feature_shape)):
        return f"what {name} costs goes by its channels, and is counted for layers alone"
    return "slicing it changes other channels, so masks and slices would differ"


def _changed_cost(elastic: ElasticModule, groups: Sequence[int], features: Tensor) -> str:
    """The first operation that is no layer and takes other MACs where groups are narrow; empty if there is none."""
    profile = elastic.full
    channels = [index for index in groups if not elastic.groups[index].is_resolution]
    profile[channels] = elastic.uniform(0).clamp_min(1)[channels]
    return changed_cost(elastic.body, lambda: elastic.slice(profile).get_submodule("body"), features)


class _Trial(NamedTuple):
    """A network that is tried on images, the logits of all of it, and the order that channels are to be put into."""

    elastic: ElasticModule
    images: Tensor
    logits: Tensor
    order: Sequence[Tensor]

    def passes(self, groups: Sequence[int]) -> bool:
        """Whether some groups mix no channels, all others being kept whole."""
        for index in groups:
            reorder(self.elastic, index, self.order[index])
        try:
            whole = self.elastic(self.images, self.elastic.full)
            exact = _close(whole, self.logits) and all(self._sliced_as_masked(p) for p in self._profiles(groups))
            return exact and not _changed_cost(self.elastic, groups, self.elastic.stem(self.images[:1]))
        except (RuntimeError, IndexError, ValueError):  # the slice does not run at all: sizes in it are fixed
            return False
        finally:
            for index in groups:
                reorder(self.elastic, index, self.order[index].argsort())

    def _profiles(self, groups: Sequence[int]) -> Iterator[Tensor]:
        """Narrow profiles, and a mixed one."""
        rng = torch.Generator().manual_seed(0)
        lowest = self.elastic.min_level
        mixed = torch.stack([torch.randint(int(low), self.elastic.n_levels, (), generator=rng) for low in lowest])
        narrow = self.elastic.uniform(0)
        for levels in (narrow, narrow.clamp_min(1), mixed):
            profile = self.elastic.full
            profile[list(groups)] = levels[list(groups)]
            yield profile

    def _sliced_as_masked(self, profile: Tensor) -> bool:
        """Whether a profile gives the same with masks, with slices of each layer, and, if it is narrow, as a slice."""
        masked = self.elastic(self.images, profile.expand(len(self.images), -1))
        narrow = bool((profile < self.elastic.n_levels - 1).all())
        small = self.elastic.slice(profile) if narrow else None
        sliced = self.elastic(self.images, profile) if small is None else small(self.images)
        return _close(sliced, masked)


def _exact_among(trial: _Trial, groups: Sequence[int] | None = None) -> list[int]:
    """Those of the groups that mix no channels, found by halving."""
    groups = range(trial.elastic.n_groups) if groups is None else groups
    if trial.passes(groups):
        return list(groups)
    if len(groups) == 1:
        return []
    middle = len(groups) // 2
    return _exact_among(trial, groups[:middle]) + _exact_among(trial, groups[middle:])


@contextlib.contextmanager
def _lively(elastic: ElasticModule, dtype: torch.dtype) -> Iterator[None]:
    """A network in which no norm, scale or layer is silent; afterwards as before, without a second copy."""
    generator = torch.Generator().manual_seed(0)
    tensors = [tensor for tensor in (*elastic.parameters(), *elastic.buffers()) if tensor.is_floating_point()]
    types = [tensor.dtype for tensor in tensors]
    norms = [p for layer in elastic.elastic_layers().values() if layer.filter_dims is None for p in layer.parameters()]
    quiet = [p for p in elastic.body.parameters() if p.numel() and p.abs().max() < _SILENT]
    shifted = {id(tensor): (tensor, tensor.data.clone()) for tensor in (*norms, *quiet)}
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype)
        for tensor, _ in shifted.values():
            tensor.data += 0.1 + 0.2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
        yield
    finally:
        for tensor, before in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(before)
        for tensor, value in shifted.values():
            tensor.data = value


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _CLOSE * b.abs().max().clamp_min(1e-6))
