"""How well ordinary networks do, dense or pruned once and for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.baselines.static_pruning import share_of_zeros
from rlprune.data.image_set import ImageSet
from rlprune.metrics import accuracy, wilson_interval
from rlprune.utils.hardware import conditions


def evaluate_dense(model: Callable[[Tensor], Tensor], test: ImageSet) -> dict[str, Any]:
    """Measure an ordinary network: the keys of `evaluate` that it has."""
    share = accuracy(model, test)
    interval = wilson_interval(round(share * len(test)), len(test))
    nothing_cut = {"macs_cut": 0.0, "params_cut": 0.0, "distinct_profiles": 1, "mean_passes": 1.0, "controls": {}}
    nothing_cut |= {"dense": "original", "controls_macs_cut": {}}
    figures = {"accuracy": share, "accuracy_interval": interval, "dense_accuracy": share, "n_images": len(test)}
    return figures | nothing_cut | conditions()


def evaluate_static(
    network: nn.Sequential,
    test: ImageSet,
    metadata: Mapping[str, Any],
    dense: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Measure a network that was pruned once and for all.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        test: the images.
        metadata: what `rlprune prune` noted: `how` it was pruned, and the `dense` network's cost.
        dense: the network that it was, if that is to stand beside it.

    Returns:
        Some keys of `evaluate`, and `how`, the share of `zeros` among the weights, and whether it `saves_time`.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(test.normalised(slice(0, 1)))
    found = evaluate_dense(network, test)
    macs, params = counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())
    before = metadata.get("dense", {"params": params, "macs": macs})
    found |= {"macs_cut": 1 - macs / before["macs"], "params_cut": 1 - params / before["params"]}
    found |= {"dense": "given", "dense_accuracy": None if dense is None else accuracy(dense, test)}
    how = metadata.get("how", "as it is")
    return found | {"how": how, "zeros": share_of_zeros(network), "saves_time": how != "unstructured"}
