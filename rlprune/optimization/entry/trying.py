"""How a network does on some images of each part, before anything long begins."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import wilson_interval
from rlprune.optimization.plan import MOST_MIRROR_LOSS
from rlprune.optimization.subject import Subject

N_CHECKED = 512
"""Images of each kind that the network is tried on, at most."""
_FEWEST = 64
"""And at least, however long an image takes."""
_SECONDS = 5.0
"""That each kind may take."""
_SURE = 3.0
"""Standard errors from which a difference between two sets of images is taken for real."""


class Findings:
    """How a network does on some images of each kind.

    Args:
        subject: what is optimised.
        elastic: it, made elastic; at full width it computes the same.
        device: where it runs.

    Attributes:
        accuracy: on some validation images; None if it has yet to be trained.
        interval: of 95 %.
        mirrored: whether it is right as often on mirrored ones; one that has yet to be trained cannot be asked.
        n_tried: how many images.

    Raises:
        RLPruneError: it is no better than guessing.
    """

    def __init__(self, subject: Subject, elastic: ElasticCNN, device: str = "cpu") -> None:
        self._trained = subject.trained
        self._n_classes = len(subject.splits.network.classes)
        if not subject.trained:
            self.accuracy: float | None = None
            self.interval = (0.0, 1.0)
            self.mirrored = False
            self.n_tried = N_CHECKED
            return
        run = _Running(optimize_for_inference(elastic.slice(elastic.full)), device)
        splits = subject.splits
        n_tried = _n_within(run, splits.validation)
        chosen = splits.validation.subset(slice(0, n_tried))
        right, _ = _answers(run, chosen)
        self.accuracy = float(right.mean())
        self.interval = wilson_interval(int(right.sum()), len(right))
        self.mirrored = _may_mirror(run, chosen, right)
        guessing = 1 / self._n_classes
        if self.interval[0] <= guessing and self.interval[1] <= 1.5 * guessing:
            raise RLPruneError(
                f"the network is right on {100 * self.accuracy:.1f} % of {len(right)} images, no better than guessing "
                f"among {self._n_classes} classes: are the classes in its order, the weights its own, and the pictures "
                "prepared as it was trained (preprocess)?"
            )
        self.n_tried = len(right)
        self._policy = _answers(run, splits.policy.subset(slice(0, n_tried)))
        self._test = _answers(run, splits.test.subset(slice(0, n_tried)))

    def warnings(self) -> Iterator[str]:
        """Whether it has probably seen images that are to teach the decisions."""
        if not self._trained:
            return
        ours, others = self._policy[1], self._test[1]
        error = math.sqrt(float(ours.var() / len(ours) + others.var() / len(others)) + 1e-12)
        if min(len(ours), len(others)) >= 20 and float(others.mean() - ours.mean()) > _SURE * error:
            seen, unseen = (100 * float(right.mean()) for right, _ in (self._policy, self._test))
            yield (
                f"the network is right on {seen:.1f} % of the images that are to teach the decisions and on "
                f"{unseen:.1f} % of the test images: it has probably been trained on the former, where it is too sure; "
                "give a folder of images that it has not seen with --heldout"
            )


class _Running:
    """Runs a network on a device, for whom neither images nor logits are there.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        device: where it runs.
    """

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network = network.to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels.to(self.device))
        return logits.float().cpu()


def may_mirror(network: nn.Module, images: ImageSet, device: str = "cpu") -> bool:
    """Whether a network is right as often on mirrored images, so that it may be trained on them.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), in eval mode; it stays on the processor.
        images: that choose.
        device: where it runs.
    """
    run = _Running(network, device)
    chosen = images.subset(slice(0, _n_within(run, images)))
    found = _may_mirror(run, chosen, _answers(run, chosen)[0])
    network.cpu()
    return found


def _may_mirror(run: _Running, images: ImageSet, right: Tensor) -> bool:
    mirrored, _ = _answers(run, images, mirror=True)
    return float(right.mean() - mirrored.mean()) <= MOST_MIRROR_LOSS


def _n_within(run: _Running, images: ImageSet) -> int:
    """How many images a network can be tried on in the time for it."""
    pixels = images.normalised(slice(0, 8))
    run(pixels)
    start = time.perf_counter()
    run(pixels)
    per_image = (time.perf_counter() - start) / len(pixels)
    return int(min(N_CHECKED, max(_FEWEST, _SECONDS / per_image)))


def _answers(run: _Running, images: ImageSet, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Whether it is right, and its loss, on images, float64 (N,) each."""
    batches = images.batches(images.at_once)
    found = torch.cat([run(pixels.flip(3) if mirror else pixels) for pixels, _ in batches])
    loss = F.cross_entropy(found, images.labels, reduction="none")
    return (found.argmax(1) == images.labels).double(), loss.double()
