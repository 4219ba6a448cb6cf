"""How well a gated network does on images it has never seen, and what its gates keep of each layer, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlprune.baselines.gated_cnn import GatedCNN, GatedOutput
from rlprune.data.image_set import ImageSet
from rlprune.metrics import accuracy, wilson_interval
from rlprune.utils.hardware import conditions


def evaluate_gated(
    network: GatedCNN,
    test: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a gated network, and two controls that tell what deciding per image is worth.

    | control | what it is |
    |---|---|
    | `shuffled` | what gates want for one image is given to another, drawn at random, once |
    | `average` | what gates want on average is given to all images: the static network that they come to |

    Args:
        network: in eval mode, on the CPU.
        test: what everything is measured on, normalised as the network is used to.
        dense: the network without gates, on the CPU and in eval mode; what gates were put into, if None.
        seed: of the shuffling.

    Returns:
        `accuracy` with its 95 % `accuracy_interval`, `dense_accuracy`, `macs_cut` and `params_cut` (means; the gates
        included), `controls` and `controls_macs_cut`, `gates_macs_share`, `saves_time` (whether what is cut is not
        computed, or only hidden), `density` (share of what is gated that stays) and `layers`: of every group with a
        gate its `name`, `channels`, how many are `kept` on average, and the means `by_class`; further `distinct`, how
        many different decisions there were, and what the figures were measured with.
    """
    found = decide_all(network, test)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    controls = {
        "shuffled": decide_all(network, test, [of_gate[order] for of_gate in found.gate_probs]),
        "average": decide_all(network, test, [of_gate.mean(0).expand_as(of_gate) for of_gate in found.gate_probs]),
    }
    n_correct = int((found.logits.argmax(1) == test.labels).sum())
    original = network.source[0]
    return {
        "accuracy": n_correct / len(test),
        "accuracy_interval": wilson_interval(n_correct, len(test)),
        "dense_accuracy": accuracy(original.slice(original.full) if dense is None else dense, test),
        "dense": "original" if dense is None else "given",
        "macs_cut": 1 - _share(network, found, "macs"),
        "params_cut": 1 - _share(network, found, "params"),
        "n_images": len(test),
        "controls": {n: float((c.logits.argmax(1) == test.labels).double().mean()) for n, c in controls.items()},
        "controls_macs_cut": {name: 1 - _share(network, control, "macs") for name, control in controls.items()},
        "gates_macs_share": float(network.gates_cost.macs / network.cost.dense.macs),
        "kind": network.kind,
        "saves_time": network.kind == "branches",
        "density": float((torch.cat(found.gate_probs, 1) > network.threshold).double().mean()),
        "distinct": len(found.kept.unique(dim=0)),
        "layers": _layers(network, found.kept, test),
        **conditions(),
    }


def decide_all(
    network: GatedCNN, data: ImageSet, wanted: Sequence[Tensor] | None = None, batch_size: int = 256
) -> GatedOutput:
    """What a gated network makes of a whole set; `wanted` is what gates are told to say of its images."""
    parts = []
    for number, (images, _) in enumerate(data.batches(batch_size)):
        here = slice(number * batch_size, number * batch_size + len(images))
        parts.append(network.decide(images, None if wanted is None else [of_gate[here] for of_gate in wanted]))
    return GatedOutput.joined(parts)


def _share(network: GatedCNN, decided: GatedOutput, kind: str) -> float:
    """Mean cost over that of the whole network without gates."""
    return float(decided.compute.of_kind(kind).double().mean() / network.cost.dense.of_kind(kind))


def _layers(network: GatedCNN, kept: Tensor, data: ImageSet) -> list[dict[str, Any]]:
    """What stays of every gated group, on average, and for the images of each class."""
    means = kept.double()
    return [
        {
            "name": network.source[0].groups[index].name,
            "channels": network.source[0].groups[index].n_channels,
            "kept": float(means[:, index].mean()),
            "by_class": {
                name: float(means[data.labels == number, index].mean())
                for number, name in enumerate(data.classes)
                if (data.labels == number).any()
            },
        }
        for index in network.gated
    ]
