"""The first image: what has been read runs once, before anybody relies on it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import InputFormat, normalise
from rlprune.elastic.module import ElasticModule
from rlprune.storage.tensors import MalformedError

SECONDS = 2.0
"""After this time, profiles that have not run yet are left: that of a network whose first image takes as long."""


def try_image(image_shape: tuple[int, ...], data: InputFormat, n_images: int = 1) -> Tensor:
    """Noise as a network takes it, always the same, float32 (n_images, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, *image_shape), dtype=torch.uint8, generator=generator)
    return normalise(pixels.repeat(n_images, 1, 1, 1), data.mean, data.std, bgr=data.preprocessing.bgr)


def check_result(logits: Any, n_classes: int, n_images: int = 1, *, exact: bool = True) -> Tensor:
    """Make sure that logits have the right shape, and are finite.

    Args:
        logits: what a network gave.
        n_classes: how many there are of each image.
        n_images: how many images.
        exact: whether the network runs in float32; in other formats, logits may overflow.

    Returns:
        The logits, float32 on the CPU.

    Raises:
        MalformedError: they have not, or are not.
    """
    if tuple(logits.shape) != (n_images, n_classes):
        raise MalformedError(f"the network gives {tuple(logits.shape)} for {n_images} images of {n_classes} classes")
    logits = logits.float().cpu()
    if exact and not bool(logits.isfinite().all()):
        raise MalformedError("the network gives logits that are not finite (NaN or infinite)")
    return logits.nan_to_num()  # type: ignore[no-any-return]


@torch.no_grad()
def try_network(network: ElasticModule, data: InputFormat) -> None:
    """Send images through a network: whole, at its narrowest, and each at its own.

    Args:
        network: in eval mode.
        data: what it expects of images.

    Raises:
        MalformedError: it gives something else than finite logits.
        Exception: whatever the network raises.
    """
    features = network.stem.forward(try_image(network.image_shape, data))  # not called, which would print its failure
    profiles = [network.full, network.uniform(0)]
    if network.codebook is not None:
        profiles += list(network.codebook)
    deadline = time.perf_counter() + SECONDS
    for profile in profiles:
        check_result(network.run_body(features, profile), network.n_classes)
        if time.perf_counter() > deadline:
            return
    both = network.run_body(features.repeat(2, 1, 1, 1), torch.stack(profiles[:2]))
    check_result(both, network.n_classes, 2)
