"""Does it pay to learn when to look again? Policies of five seeds beside thresholds, on images new to both.

    python runs/reference/compare_decisions.py runs/reference/resnet20 cifar10 --out runs/decisions/resnet20

takes the bundle in a folder, and writes decisions.json next to it. The network of a bundle may have seen all images
but those for testing. So, for each seed, a random half of them is what policies learn from (a fifth of it validates),
and what the margins of cascades are tuned on; the other half measures both. Penalties, seeds and halves are fixed here,
and nothing is chosen by what is measured.

| condition | what is different |
|---|---|
| `clean` | nothing: policies begin as the best cascade for their penalty |
| `random` | policies begin with random weights |
| `noisy labels` | a fifth of the labels that policies and cascades are made with is wrong, whichever class it names |
| `noise 1` to `3`, `blur`, `contrast` | images are measured that are spoiled: what was made for clean ones decides |

Each row has the policy's figures and those of the best cascade of the same MACs, two neighbours mixed. The summary has
the mean over seeds of what the policy is ahead, and half the width of its 95 % interval (Student's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from arguments import bundle_of
from offline_cnn import OfflineCNN
from torch import Tensor

from rlprune.agents import PolicySettings, train_policy
from rlprune.agents.settings import Begin
from rlprune.baselines import Cascade, best_cascades
from rlprune.baselines.cascade import WEIGHTS
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.envs.logit_cache import LogitCache
from rlprune.evaluation.controls import Point, best_at, shuffled_accuracy
from rlprune.evaluation.per_image import cascade_point, decision_figures, oracle_points
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

PENALTIES = (0.2, 0.1, 0.05, 0.02)
N_SEEDS = 5
WRONG = 0.2
"""Share of the labels that are wrong where labels are noisy."""
_T = 2.776
"""Student's, for 95 % and five seeds."""


def noise(pixels: Tensor, strength: int) -> Tensor:
    """Add independent normal noise to pixels in [0, 1]."""
    generator = torch.Generator().manual_seed(strength)
    return pixels + torch.randn(pixels.shape, generator=generator) * (0.03, 0.06, 0.1)[strength - 1]


def blur(pixels: Tensor, strength: int) -> Tensor:
    """Average over a normal window, whose width grows with the image."""
    sigma = (0.5, 0.75, 1.0)[strength - 1] * pixels.shape[-1] / 32
    reach = int(3 * sigma + 1)
    window = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    window = (window / window.sum()).expand(pixels.shape[1], 1, 1, -1)
    padded = F.pad(pixels, (reach,) * 4, mode="reflect")
    groups = pixels.shape[1]
    return F.conv2d(F.conv2d(padded, window, groups=groups), window.transpose(2, 3), groups=groups)


def contrast(pixels: Tensor, strength: int) -> Tensor:
    """Bring pixels nearer to the image's mean."""
    middle = pixels.mean((1, 2, 3), keepdim=True)
    return middle + (pixels - middle) * (0.6, 0.4, 0.25)[strength - 1]


SPOILED: dict[str, tuple[Callable[[Tensor, int], Tensor], int]] = {
    f"{how.__name__} {strength}": (how, strength) for how in (noise, blur, contrast) for strength in (1, 2, 3)
}
CONDITIONS = ("clean", "random", "noisy labels", *SPOILED)


def spoiled(data: ImageSet, condition: str) -> ImageSet:
    """The images as a condition has them."""
    if condition not in SPOILED:
        return data
    how, strength = SPOILED[condition]
    parts = [how(pixels / 255, strength) for pixels in data.images.split(256)]
    return replace(data, images=torch.cat([(part.clamp(0, 1) * 255).round().byte() for part in parts]))


def with_wrong_labels(data: ImageSet, seed: int) -> ImageSet:
    """A share of the labels replaced by one of the other classes, all alike."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(data), generator=generator) < WRONG
    further = torch.randint(1, len(data.classes), (len(data),), generator=generator)
    return replace(data, labels=torch.where(wrong, (data.labels + further) % len(data.classes), data.labels))


class KnownLogits(LogitCache):
    """The logits of a bundle's profiles on images, known before.

    Args:
        dynamic: the bundle's network.
        data: the images.
        logits: of every profile for them, float32 (K, N, classes).
    """

    def __init__(self, dynamic: DynamicCNN, data: ImageSet, logits: Tensor) -> None:
        super().__init__(dynamic.elastic, data, dynamic.codebook)
        self._logits = logits

    def of_profiles(self, images: Tensor, profiles: Tensor) -> Tensor:
        """As those of any cache."""
        return self._logits[profiles, images]


class Comparison:
    """Policies and cascades of one bundle, learnt and measured on halves of the test images.

    Args:
        dynamic: the bundle's network; of its policy, the codebook, the passes and how they combine count.
        test: the images, as the network expects them.
        out: folder for trainings and logits; what is there is not made again.
    """

    def __init__(self, dynamic: DynamicCNN, test: ImageSet, out: Path) -> None:
        self.dynamic = dynamic
        self.test = test
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self._logits = {condition: self._known_logits(condition) for condition in ("clean", *SPOILED)}
        cost = Cost(dynamic.elastic)
        self._shares = (cost.of(dynamic.codebook).macs / cost.dense.macs).double()

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """Every penalty and condition of a seed."""
        learnt, measured = self._halves(seed)
        clean = self.test.subset(learnt)
        ways: tuple[tuple[str, ImageSet, Begin], ...] = (
            ("clean", clean, "auto"),
            ("random", clean, "random"),
            ("noisy labels", with_wrong_labels(clean, seed), "auto"),
        )
        rows = []
        for name, images, begin in ways:
            cascades = self._cascades(learnt, images.labels)
            policies = self._policies(images, seed, begin, self.out / name.replace(" ", "-") / str(seed))
            for condition in ("clean", *SPOILED) if name == "clean" else ("clean",):
                rivals = self._rivals(cascades, measured, condition)
                for penalty, (policy, kept) in policies.items():
                    told = {"condition": name if condition == "clean" else condition, "penalty": penalty, "seed": seed}
                    rows.append(told | {"kept": kept} | self._measure(policy, rivals, measured, condition))
        return rows

    def _known_logits(self, condition: str) -> Tensor:
        """Of every profile for all images, float32 (K, N, classes)."""
        path = self.out / f"logits {condition}.pt"
        if not path.exists():
            images = spoiled(self.test, condition)
            torch.save(codebook_logits(self.dynamic, images, images.at_once), path)
        logits: Tensor = torch.load(path)
        return logits

    def _halves(self, seed: int) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(seed))
        return order[: len(order) // 2], order[len(order) // 2 :]

    def _cascades(self, images: Tensor, labels: Tensor) -> list[Cascade]:
        weights = (*WEIGHTS, self.dynamic.policy.observer.combine)
        logits = self._logits["clean"][:, images]
        return best_cascades(self.dynamic.elastic, self.dynamic.codebook, logits, labels, weights)

    def _policies(
        self, images: ImageSet, seed: int, begin: Begin, folder: Path
    ) -> dict[float, tuple[Policy, str | None]]:
        """A policy for each penalty, and whether it is the one learnt or the cascade that it began as, if it did."""
        dynamic, n = self.dynamic, len(images) // 5
        parts = slice(n, None), slice(n)
        sets = images.subset(parts[0]), images.subset(parts[1])
        logits = self._logits["clean"][:, self._halves(seed)[0]]
        how: dict[str, Any] = {"codebook": dynamic.codebook, "resume": True}
        how["logit_caches"] = [
            KnownLogits(dynamic, each, logits[:, part]) for each, part in zip(sets, parts, strict=True)
        ]
        observer = dynamic.policy.observer
        found = {}
        for penalty in PENALTIES:
            out = folder / f"{penalty:g}"
            settings = PolicySettings(
                penalty=penalty,
                max_passes=observer.max_passes,
                combine=observer.combine,
                pool=0,
                begin=begin,
                seed=seed,
            )
            policy = train_policy(dynamic.elastic, *sets, out, settings, **how)
            choice: Any = load_policy(out / "policy").metadata.get("choice", {})
            found[penalty] = policy, choice.get("kept")
        return found

    def _rivals(self, cascades: list[Cascade], images: Tensor, condition: str) -> dict[str, list[Point]]:
        """Cost and accuracy of cascades, and of an oracle, on images."""
        logits, labels = self._logits[condition][:, images], self.test.labels[images]
        return {
            "cascade": [cascade_point(self.dynamic, cascade, logits, labels) for cascade in cascades],
            "oracle": list(oracle_points(self._shares, logits.argmax(2) == labels)),
        }

    def _measure(
        self, policy: Policy, rivals: dict[str, list[Point]], images: Tensor, condition: str
    ) -> dict[str, Any]:
        logits, test = self._logits[condition][:, images], self.test.subset(images)
        offline = OfflineCNN(self.dynamic.elastic, policy, test, logits)
        predicted = offline(torch.arange(len(test))[:, None, None, None])
        share = float(predicted.macs.double().mean() / offline.prices.dense.macs)
        decisions = decision_figures(offline, test, predicted, logits)
        assert decisions is not None
        return {
            "macs_cut": 1 - share,
            "accuracy": float((predicted.labels == test.labels).double().mean()),
            "shuffled": shuffled_accuracy(predicted, logits, test.labels, policy.observer),
            "decisions": decisions.to_json(),
        } | {name: best_at(share, [points])[1] for name, points in rivals.items()}


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds of every condition and penalty, and how sure it is what the policy is ahead."""
    found = []
    places = dict.fromkeys((row["condition"], row["penalty"]) for row in rows)
    for condition, penalty in sorted(places, key=lambda place: (CONDITIONS.index(place[0]), -place[1])):
        here = [row for row in rows if (row["condition"], row["penalty"]) == (condition, penalty)]
        ahead = [row["accuracy"] - row["cascade"] for row in here]
        means = {name: mean(row[name] for row in here) for name in ("macs_cut", "accuracy", "cascade", "shuffled")}
        width = _T * stdev(ahead) / len(ahead) ** 0.5
        found.append({"condition": condition, "penalty": penalty} | means | {"ahead": mean(ahead), "within": width})
        print(*(f"{value:.4f}" if isinstance(value, float) else value for value in found[-1].values()), flush=True)
    return found


def main() -> None:
    """Learn, measure, write."""
    reference, dynamic, test, out = bundle_of(__doc__, "folder for trainings")
    comparison = Comparison(dynamic, test, out)
    rows = [row for seed in range(N_SEEDS) for row in comparison.rows(seed)]
    write_json(reference / "decisions.json", {"summary": summarised(rows), "rows": rows, **conditions()})


if __name__ == "__main__":
    main()
