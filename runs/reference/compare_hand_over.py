"""Does it pay to tell a later pass what the earlier one saw, or to train it for the images that come that far?

    python runs/reference/compare_hand_over.py resnet20.safetensors --out runs/reference/resnet20/hand_over.json

A ResNet-20 with public weights becomes elastic; its narrowest profile and the whole network share one set of weights,
each with norms of its own, and both learn from every batch for a few epochs: the whole network from labels, the narrow
one from the whole. That is `plain`. The others add one thing each:

| variant | what it adds |
|---|---|
| `combined` | what the second look answers with is its logits and the first one's, times a weight that is learnt |
| `hand-over` | the first look's class probabilities scale and shift the second look's features after every norm |
| `late` | the second look learns mostly from the images that the first was least sure of |
| `early` | the first look learns less from those |

Test images run the narrow profile first; those of the smallest margins run the whole network, as many as a mean share
of MACs allows. Nothing is tuned on their labels. A variant that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlprune
from rlprune.data.image_set import ImageSet
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.models.weights import find_weights, load_weights
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import calibrate
from rlprune.training.batches import Batch
from rlprune.training.loop import Step, fit
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

VARIANTS = ("plain", "hand-over", "combined", "late", "late+early", "combined+hand-over+late")
SHARES = (0.36, 0.42, 0.48, 0.54, 0.6)
"""Mean MACs over the dense network's."""
_OFTEN, _WIDTH = 0.35, 0.08
"""Share of a batch that counts as looked at again, and how softly that ends."""
_LEAST = 0.3
"""Weight of other images in a late look, beside the 1 that those have more."""


class Looks(nn.Module):
    """Two looks of one network, the second of which may be told of the first.

    Args:
        elastic: specialised to two profiles.
        variant: names, joined by a plus.
    """

    def __init__(self, elastic: rlprune.ElasticCNN, variant: str) -> None:
        super().__init__()
        self.elastic = elastic
        self.told = "hand-over" in variant.split("+")
        self.weight = nn.Parameter(torch.tensor(0.3)) if "combined" in variant.split("+") else None
        self.seen: Tensor | None = None
        norms = [layer for layer in elastic.elastic_layers().values() if isinstance(layer, ElasticBatchNorm)]
        self.maps = nn.ModuleList(nn.Linear(elastic.n_classes, 2 * layer.weight.shape[1]) for layer in norms)
        for norm, linear in zip(norms, self.maps, strict=True):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            norm.register_forward_hook(lambda layer, args, y, linear=linear: self._moved(layer, args[1], y, linear))

    def _moved(self, layer: ElasticBatchNorm, choice: Any, y: Tensor, linear: nn.Linear) -> Tensor:
        """Features (B, C, H, W) after a norm, scaled and shifted by what was seen."""
        if self.seen is None:
            return y
        scale, shift = linear(self.seen)[:, :, None, None].chunk(2, 1)
        kept = layer.out_axis.kept(choice.profile)
        return y * (1 + scale[:, kept]) + shift[:, kept]

    def forward(self, images: Tensor, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
        """Logits of both looks, float32 (B, classes) each."""
        assert self.elastic.codebook is not None
        narrow, whole = self.elastic.codebook
        with settings.autocast():
            first = self.elastic(images, narrow)
        first = first.float()
        self.seen = first.detach().softmax(1) if self.told else None
        with settings.autocast():
            second = self.elastic(images, whole)
        self.seen = None
        second = second.float()
        return first, second if self.weight is None else second + self.weight * first.detach()


def weights_of(first: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    """How much each image of a batch counts in the first look and in the second, (B,) each, 1 on average."""
    top = first.detach().topk(2, 1).values
    rank = (top[:, 0] - top[:, 1]).argsort().argsort() / (len(first) - 1)
    late = torch.sigmoid((_OFTEN - rank) / _WIDTH)
    names = variant.split("+")
    early = 1.2 - late if "early" in names else torch.ones_like(late)
    late = _LEAST + late if "late" in names else torch.ones_like(late)
    return early / early.mean(), late / late.mean()


def train(looks: Looks, data: ImageSet, settings: TrainingSettings, variant: str, checkpoint: Path) -> None:
    """Train both looks in place."""

    def make_step(_: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            first, second = looks(batch.images, settings)
            early, late = weights_of(first, variant)
            soft = (second.detach() / settings.temperature).log_softmax(1)
            own = (first / settings.temperature).log_softmax(1)
            taught = F.kl_div(own, soft, reduction="none", log_target=True).sum(1) * settings.temperature**2
            hard = F.cross_entropy(first, batch.labels, reduction="none")
            each = settings.distillation * taught + (1 - settings.distillation) * hard
            whole = F.cross_entropy(second, batch.labels, reduction="none")
            loss = ((each * early).mean() + (whole * late).mean()) / 2
            loss.backward()  # type: ignore[no-untyped-call]
            return {"loss": loss.item()}

        return step

    fit(looks, data, settings, make_step, checkpoint=checkpoint, label=variant)


@torch.no_grad()
def measure(looks: Looks, test: ImageSet, settings: TrainingSettings) -> dict[str, Any]:
    """Accuracies at all shares, and how often the second look repairs and breaks what the first one said."""
    parts = [looks.eval()(images, settings) for images, _ in test.batches(256)]
    first, second = (torch.cat(each) for each in zip(*parts, strict=True))
    cost, elastic = Cost(looks.elastic), looks.elastic
    assert elastic.codebook is not None
    narrow = float(cost.of(elastic.codebook[0]).macs / cost.dense.macs)
    body = 1 - float(cost.stem.macs / cost.dense.macs)
    right, later = ((logits.argmax(1) == test.labels).double() for logits in (first, second))
    top = first.topk(2, 1).values
    unsure = (top[:, 0] - top[:, 1]).argsort()
    accuracies = []
    for share in SHARES:
        found = right.clone()
        again = unsure[: int((share - narrow) / body * len(test))]
        found[again] = later[again]
        accuracies.append(float(found.mean()))
    return {
        "accuracies": accuracies,
        "first": float(right.mean()),
        "second": float(later.mean()),
        "repairs": float(later[right == 0].mean()),
        "breaks": float(1 - later[right == 1].mean()),
    }


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="of a ResNet-20, in $RLPRUNE_WEIGHTS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS[:2])
    named = parser.parse_args()
    splits = rlprune.data.load("cifar10")
    settings = TrainingSettings(
        epochs=named.epochs,
        learning_rate=0.05,
        views=4,
        early_size=24,
        early_share=0.5,
        temperature=3.0,
        distillation=0.8,
    )
    network = rlprune.models.build("resnet20")
    load_weights(network, find_weights(named.weights, Path()))
    before = json.loads(named.out.read_text()) if named.out.exists() else {"epochs": named.epochs, "variants": {}}
    if before["epochs"] != named.epochs:
        parser.error(f"{named.out} has variants of {before['epochs']} epochs; give --epochs of it, or another file")
    found = before["variants"]
    for variant in named.variants:
        if variant in found:
            continue
        torch.manual_seed(0)
        elastic = rlprune.ElasticCNN.from_model(
            network.eval(), (3, 32, 32), keep_ratios=(0.25, 0.5, 0.75, 1), round_to=4
        )
        elastic.specialise(torch.stack([elastic.uniform(0), elastic.full]))
        calibrate(elastic, splits.network, settings)
        looks = Looks(elastic, variant)
        checkpoint = named.out.with_name(f"{named.out.stem}-{variant}.checkpoint.pt")
        train(looks, splits.network, settings, variant, checkpoint)
        found[variant] = measure(looks, splits.test, settings)
        checkpoint.unlink()
        write_json(named.out, {"shares": SHARES, "epochs": named.epochs, "variants": found, **conditions()})
        print(variant, found[variant], flush=True)


if __name__ == "__main__":
    main()
