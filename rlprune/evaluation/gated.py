"""How well a gated network does on images it has never seen, and what its gates keep of each layer, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlprune.baselines.gated_cnn import GatedCNN, GatedOutput
from rlprune.data.image_set import ImageSet
from rlprune.evaluation.results import Conditions, GatedLayer, GatedResult
from rlprune.metrics import accuracy, wilson_interval


def evaluate_gated(
    network: GatedCNN,
    test: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> GatedResult:
    """Measure a gated network, and two controls that tell what deciding per image is worth.

    | control | what it is |
    |---|---|
    | `shuffled` | the gates of one image are given to another, drawn at random, once |
    | `average` | the mean gates are given to all images: the static network that they come to |

    Args:
        network: in eval mode, on the CPU.
        test: what everything is measured on, normalised as the network is used to.
        dense: the network without gates, on the CPU and in eval mode; if None, what the gates were put into.
        seed: of the shuffling.
    """
    found = decide_all(network, test)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    controls = {
        "shuffled": decide_all(network, test, [of_gate[order] for of_gate in found.gate_probs]),
        "average": decide_all(network, test, [of_gate.mean(0).expand_as(of_gate) for of_gate in found.gate_probs]),
    }
    n_correct = int((found.logits.argmax(1) == test.labels).sum())
    original = network.source[0]
    return GatedResult(
        accuracy=n_correct / len(test),
        accuracy_interval=wilson_interval(n_correct, len(test)),
        dense_accuracy=accuracy(original.slice(original.full) if dense is None else dense, test),
        dense="original" if dense is None else "given",
        macs_cut=1 - _share(network, found, "macs"),
        params_cut=1 - _share(network, found, "params"),
        n_images=len(test),
        controls={name: _accuracy(control, test.labels) for name, control in controls.items()},
        controls_macs_cut={name: 1 - _share(network, control, "macs") for name, control in controls.items()},
        gates_macs_share=float(network.gates_cost.macs / network.cost.dense.macs),
        kind=network.kind,
        saves_time=network.kind == "branches",
        density=float((torch.cat(found.gate_probs, 1) > network.threshold).double().mean()),
        distinct=len(found.kept.unique(dim=0)),
        layers=_layers(network, found.kept, test),
        conditions=Conditions.now(),
    )


def decide_all(
    network: GatedCNN, data: ImageSet, gate_probs: Sequence[Tensor] | None = None, batch_size: int = 256
) -> GatedOutput:
    """What a gated network predicts for a whole set; `gate_probs`, (N, gates) for each layer, replaces its own."""
    parts = []
    for number, (images, _) in enumerate(data.batches(batch_size)):
        here = slice(number * batch_size, number * batch_size + len(images))
        parts.append(network.decide(images, None if gate_probs is None else [of_gate[here] for of_gate in gate_probs]))
    return GatedOutput.joined(parts)


def _accuracy(decided: GatedOutput, labels: Tensor) -> float:
    return float((decided.logits.argmax(1) == labels).double().mean())


def _share(network: GatedCNN, decided: GatedOutput, kind: str) -> float:
    """Mean cost over that of the whole network without gates."""
    return float(decided.compute.of_kind(kind).double().mean() / network.cost.dense.of_kind(kind))


def _layers(network: GatedCNN, kept: Tensor, data: ImageSet) -> tuple[GatedLayer, ...]:
    """What stays of every gated group, on average, and for the images of each class."""
    means = kept.double()
    groups = network.source[0].groups
    of_class = {name: data.labels == number for number, name in enumerate(data.classes)}
    return tuple(
        GatedLayer(
            name=groups[index].name,
            channels=groups[index].n_channels,
            kept=float(means[:, index].mean()),
            by_class={name: float(means[here, index].mean()) for name, here in of_class.items() if here.any()},
        )
        for index in network.gated
    )
