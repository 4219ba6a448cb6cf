"""From an ordinary network to an elastic one: traced, cut into stem and body, its groups found, everything checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, fx, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.groups import Group, UnprunableLayer, find_groups
from rlprune.elastic.importance import check_importance, criterion, rank
from rlprune.elastic.module import ElasticModule
from rlprune.errors import ModelError
from rlprune.graph import nodes, tracing

_Elastic = TypeVar("_Elastic", bound=ElasticModule)
_CLOSE = 1e-4
"""Logits that differ by no more than this share of the largest are the same."""


class _Traced(NamedTuple):
    """A network in two halves, some images, and what it says of them."""

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
) -> _Elastic:
    """What `rlprune.elastic.cnn.ElasticCNN.from_model` does, for any kind of elastic network."""
    check_importance(importance, calibration)
    traced = _trace(model, image_shape)
    groups, unprunable = find_groups(traced.stem, traced.body, traced.images[:1], residual=residual)

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
    # Something in the network mixes channels where the dependency graph sees none: find the groups it touches.
    exact = [group for group in groups if _is_exact(build([group]), traced)]
    mixed = "slicing it changes other channels, so masks and slices would differ"
    unprunable += [UnprunableLayer(g.name, g.n_channels, mixed) for g in groups if g not in exact]
    elastic = build(exact)
    if not _is_exact(elastic, traced):
        raise ModelError("masks and slices of this network differ even though those of each group agree")
    return elastic


@torch.no_grad()
def _trace(model: nn.Module, image_shape: Sequence[int]) -> _Traced:
    """Trace a copy of a network, and see that it says what the network says."""
    model = copy.deepcopy(model).cpu().eval()
    stem, body = tracing.split_stem(tracing.trace(model))
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    nodes.measure(body, nodes.measure(stem, images[:1]))
    logits = model(images.clone())
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = f"tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{type(model).__name__} returns a {given}; logits of shape (B, classes) are needed")
    if not _close(body(stem(images)), logits):
        raise ModelError(
            f"the traced {type(model).__name__} gives other logits than the network itself; "
            "its forward may change views in place, or depend on the batch size"
        )
    return _Traced(stem, body, images, logits)


@torch.no_grad()
def _is_exact(elastic: ElasticModule, traced: _Traced) -> bool:
    """Whether full keep gives the network's logits, and narrow slices the same as masks."""
    images = traced.images
    narrow = elastic.uniform(0)
    rng = torch.Generator().manual_seed(0)
    mixed = torch.stack([torch.randint(int(low), elastic.n_levels, (), generator=rng) for low in elastic.min_level])
    try:
        return _close(elastic(images, elastic.full), traced.logits) and all(
            _close(elastic.slice(profile)(images), elastic(images, profile.expand(len(images), -1)))
            for profile in (narrow, narrow.clamp_min(1), mixed)
        )
    except RuntimeError:  # a slice that does not even fit, such as after a view with a fixed number of channels
        return False


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _CLOSE * b.abs().max().clamp_min(1e-6))
