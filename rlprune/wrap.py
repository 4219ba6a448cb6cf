"""From an ordinary network to an elastic one: traced, cut into stem and body, its groups found, everything checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune import graph, sensitivity
from rlprune.data import ImageSet
from rlprune.errors import ModelError
from rlprune.groups import Group, LeftAlone, find_groups
from rlprune.importance import Criterion, criterion

if TYPE_CHECKING:
    from rlprune.elastic import ElasticCNN

_CLOSE = 1e-4
"""Logits that differ by no more than this share of the largest are the same."""


class _Traced(NamedTuple):
    """A network in two halves, some images, and what it says of them."""

    stem: fx.GraphModule
    body: fx.GraphModule
    images: Tensor
    logits: Tensor


def wrap(
    kind: type[ElasticCNN],
    model: nn.Module,
    image_shape: Sequence[int],
    how: Mapping[str, Any],
    *,
    importance: str,
    residual: bool,
    calibration: ImageSet | None,
) -> ElasticCNN:
    """What `ElasticCNN.from_model` does; `how` has the arguments of `kind` that say which levels there are."""
    score_of = _criterion(importance, calibration)
    traced = _trace(model, image_shape)
    groups, alone = find_groups(traced.stem, traced.body, traced.images[:1], residual=residual)

    def build(chosen: Sequence[Group]) -> ElasticCNN:
        stem, body = copy.deepcopy(traced.stem), copy.deepcopy(traced.body)
        elastic = kind(stem, body, chosen, image_shape, left_alone=alone, **how).eval()
        elastic.rank(score_of(elastic))
        return elastic

    elastic = build(groups)
    if _is_exact(elastic, traced):
        return elastic
    # Something in the network mixes channels where the dependency graph sees none: find the groups it touches.
    exact = [group for group in groups if _is_exact(build([group]), traced)]
    mixed = "slicing it changes other channels, so masks and slices would differ"
    alone += [LeftAlone(g.name, g.n_channels, mixed) for g in groups if g not in exact]
    elastic = build(exact)
    if not _is_exact(elastic, traced):
        raise ModelError("masks and slices of this network differ even though those of each group agree")
    return elastic


@torch.no_grad()
def _trace(model: nn.Module, image_shape: Sequence[int]) -> _Traced:
    """Trace a copy of a network, and see that it says what the network says."""
    model = copy.deepcopy(model).cpu().eval()
    stem, body = graph.split_stem(graph.trace(model))
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    graph.measure(body, graph.measure(stem, images[:1]))
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
def _is_exact(elastic: ElasticCNN, traced: _Traced) -> bool:
    """Whether full keep gives the network's logits, and narrow slices the same as masks."""
    images, narrow, rng = traced.images, elastic.uniform(0), torch.Generator().manual_seed(0)
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


def _criterion(importance: str, calibration: ImageSet | None) -> Callable[[ElasticCNN], Criterion]:
    """How to get the criterion of that name for a network."""
    if importance not in sensitivity.SCORES:
        score = criterion(importance)
        return lambda _: score
    if calibration is None:
        raise ModelError(
            f"importance {importance!r} needs calibration images, and none are given; `rlprune adapt` takes those that "
            "it trains on"
        )
    return lambda elastic: sensitivity.criterion(importance, elastic, calibration)
