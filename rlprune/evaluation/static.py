"""How well ordinary networks do, dense or pruned once and for all. Several processes share the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.baselines.static_pruning import share_of_zeros
from rlprune.data.image_set import ImageSet
from rlprune.evaluation.results import Conditions, DenseResult, StaticResult
from rlprune.metrics import wilson_interval
from rlprune.storage.folders import schema
from rlprune.training.parallel.measuring import shared_accuracy


def evaluate_dense(model: Callable[[Tensor], Tensor], test: ImageSet, device: str = "cpu") -> DenseResult:
    """Measure an ordinary network.

    Args:
        model: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        test: the images.
        device: where it is.
    """
    share = shared_accuracy(model, test, device=device)
    return DenseResult(
        accuracy=share,
        accuracy_interval=wilson_interval(round(share * len(test)), len(test)),
        dense_accuracy=share,
        n_images=len(test),
        conditions=Conditions.now(device),
    )


def evaluate_static(
    network: nn.Sequential,
    test: ImageSet,
    metadata: Mapping[str, Any],
    dense: Callable[[Tensor], Tensor] | None = None,
    device: str = "cpu",
) -> StaticResult:
    """Measure a network that was pruned once and for all.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), on the CPU and in eval mode.
        test: the images.
        metadata: what `rlprune prune` noted: `how` it was pruned, and the `dense` network's cost.
        dense: the network that it was before, to be measured too; it takes images on the CPU.
        device: where to run it, and leave it.
    """
    macs = count_macs(network, test.normalised(slice(0, 1)))
    params = sum(parameter.numel() for parameter in network.parameters())
    notes = schema().check(schema().PlainNotes, dict(metadata), "note on the network")
    before = notes.dense or schema().Size(params=params, macs=macs)
    share = shared_accuracy(network.to(device), test, device=device)
    return StaticResult(
        accuracy=share,
        accuracy_interval=wilson_interval(round(share * len(test)), len(test)),
        dense_accuracy=None if dense is None else shared_accuracy(dense, test),
        n_images=len(test),
        macs_cut=1 - macs / before.macs,
        params_cut=1 - params / before.params,
        dense="given",
        conditions=Conditions.now(device),
        how=notes.how,
        zeros=share_of_zeros(network),
        saves_time=notes.how != "unstructured",
    )


def static_points(
    networks: Iterable[nn.Module], test: ImageSet, dense_macs: int, device: str | torch.device = "cpu"
) -> tuple[tuple[float, float], ...]:
    """Cost and accuracy of networks that were pruned once and for all, as controls of a dynamic one.

    Args:
        networks: each takes normalised images (B, C, H, W) and gives logits (B, classes); on the CPU and in eval mode.
        test: the images, normalised as the networks expect.
        dense_macs: of the dense network.
        device: where to run them, and leave them.

    Returns:
        Of each its MACs over the dense network's, and its accuracy.
    """
    image = test.normalised(slice(0, 1))
    return tuple(
        (count_macs(network, image) / dense_macs, shared_accuracy(network.to(device), test, device=device))
        for network in networks
    )


@torch.no_grad()
def count_macs(network: nn.Module, images: Tensor) -> int:
    """MACs of a batch, counted while the network runs: half of the floating-point operations.

    Args:
        network: takes the images.
        images: normalised, float32 (B, C, H, W).
    """
    with FlopCounterMode(display=False) as counter:
        network(images)
    return int(counter.get_total_flops()) // 2
