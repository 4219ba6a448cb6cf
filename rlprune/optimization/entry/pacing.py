"""How fast this machine trains and runs a network, measured in a few steps before anything long begins."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.graph.folding import optimize_for_inference
from rlprune.optimization.pace import Pace
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings, adapt

ENOUGH = 4.0
"""Seconds of training steps that are enough to measure them."""
_MOST_EPOCHS = 20
_N_RUN = 64
"""Images that are run to time the forward pass."""
_AT_ONCE = ((0.001, 128), (0.003, 64))
"""Images in a step that is timed, by the seconds that one takes to run."""
_LEAST_AT_ONCE = 32
"""As many as the plan trains large pictures in: an image of a larger batch takes longer."""


def measure_pace(elastic: ElasticModule, images: ImageSet, settings: AdaptSettings) -> Pace:
    """Time a forward pass and some training steps.

    Args:
        elastic: the network, which stays as it is.
        images: real ones.
        settings: of the training, whose device counts, and whose number of epochs does not.
    """
    cost = Cost(elastic)
    network = copy.deepcopy(elastic)
    forward = _forward(network, images, settings.device)
    elsewhere = torch.device(settings.device).type != "cpu"
    n_at_once = next((n for most, n in _AT_ONCE if forward < most), _LEAST_AT_ONCE)
    batch = images.subset(slice(0, min(n_at_once, settings.batch_size)))
    return Pace(
        forward=forward,
        adapt=_seconds_of_epoch(network, batch, replace(settings, batch_size=len(batch))) / len(batch),
        narrowest=float(cost.of(elastic.uniform(elastic.narrowest)).macs / cost.dense.macs),
        forward_here=_forward(elastic, images, "cpu") if elsewhere else None,
    )


@torch.inference_mode()
def _forward(elastic: ElasticModule, images: ImageSet, device: str) -> float:
    with torch.inference_mode(False):
        network = optimize_for_inference(elastic.slice(elastic.full)).to(device)
    pixels = images.normalised(slice(0, min(images.at_once, _N_RUN))).contiguous(memory_format=torch.channels_last)
    network(pixels.to(device)).cpu()
    return _seconds(lambda: network(pixels.to(device)).cpu()) / len(pixels)  # a graphics card is done once it is read


def _seconds_of_epoch(elastic: ElasticModule, batch: ImageSet, settings: AdaptSettings) -> float:
    """Seconds of one step, without what every training begins with: the difference of two trainings."""

    def run(n_epochs: int) -> float:
        return _seconds(lambda: adapt(elastic, batch, replace(settings, epochs=n_epochs, views=0)))

    run(1)  # with what is done once in a process
    first = run(1)
    n_more = min(max(round(ENOUGH / first), 1), _MOST_EPOCHS)
    return max(run(1 + n_more) - first, 0.2 * first) / n_more


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
