"""How well a gated network does on images it has never seen, and what its gates keep of each layer, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlprune.baselines.gated_cnn import GatedCNN, GatedOutput
from rlprune.data.image_set import ImageSet
from rlprune.evaluation.results import Conditions, GatedLayer, GatedResult
from rlprune.metrics import wilson_interval
from rlprune.training.parallel.group import current
from rlprune.training.parallel.measuring import own_rows, shared_accuracy


def evaluate_gated(
    network: GatedCNN,
    test: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    controls: bool = True,
) -> GatedResult:
    """Measure a gated network, and two controls that tell what deciding per image is worth.

    | control | what it is |
    |---|---|
    | `shuffled` | the gates of one image are given to another, drawn at random, once |
    | `average` | the mean gates are given to all images: the static network that they come to |

    Args:
        network: in eval mode, on any device.
        test: what everything is measured on, normalised as the network is used to.
        dense: the network without gates, which takes images on the CPU, in eval mode; if None, what the gates were put
            into.
        seed: of the shuffling.
        controls: whether to measure them, too.
    """
    found = decide_all(network, test)
    beside = _controls(network, test, found, seed) if controls else {}
    n_correct = int((found.logits.argmax(1) == test.labels).sum())
    original = network.source[0]
    return GatedResult(
        accuracy=n_correct / len(test),
        accuracy_interval=wilson_interval(n_correct, len(test)),
        dense_accuracy=shared_accuracy(original.slice(original.full) if dense is None else dense, test),
        dense="original" if dense is None else "given",
        macs_cut=1 - _share(network, found, "macs"),
        params_cut=1 - _share(network, found, "params"),
        n_images=len(test),
        controls={name: _accuracy(control, test.labels) for name, control in beside.items()},
        controls_macs_cut={name: 1 - _share(network, control, "macs") for name, control in beside.items()},
        gates_macs_share=float(network.gates_cost.macs / network.cost.dense.macs),
        kind=network.kind,
        saves_time=network.kind == "branches",
        density=float((torch.cat(found.gate_probs, 1) > network.threshold).double().mean()),
        distinct=len(found.kept.unique(dim=0)),
        layers=_layers(network, found.kept, test),
        conditions=Conditions.now(_device(network)),
    )


def _controls(network: GatedCNN, test: ImageSet, found: GatedOutput, seed: int) -> dict[str, GatedOutput]:
    """What the network predicts with the gates of other images, and with the mean ones."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    return {
        "shuffled": decide_all(network, test, [of_gate[order] for of_gate in found.gate_probs]),
        "average": decide_all(network, test, [of_gate.mean(0).expand_as(of_gate) for of_gate in found.gate_probs]),
    }


def decide_all(
    network: GatedCNN, data: ImageSet, gate_probs: Sequence[Tensor] | None = None, batch_size: int = 256
) -> GatedOutput:
    """What a gated network predicts for a whole set; `gate_probs`, (N, gates) for each layer, replaces its own.

    What it gives is on the CPU, wherever the network is. Several processes share the images.
    """
    device, own = _device(network), own_rows(data, batch_size)
    parts = []
    for number, (images, _) in enumerate(data.subset(own).batches(batch_size)):
        start = own.start + number * batch_size
        here = slice(start, start + len(images))
        given = None if gate_probs is None else [of_gate[here].to(device) for of_gate in gate_probs]
        found = network.decide(images.to(device), given)
        used = tuple(of_gate.cpu() for of_gate in found.gate_probs)
        parts.append(found._replace(logits=found.logits.cpu(), gate_probs=used))
    return GatedOutput.joined([part for of_one in current().each(parts) for part in of_one])


def _device(network: GatedCNN) -> torch.device:
    return next(network.parameters()).device


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
