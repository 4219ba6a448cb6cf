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

_ROUNDING = 0.05
"""By which results of the same image differ at most, as a share of the largest; in 16 bits, too."""


def try_image(image_shape: tuple[int, ...], data: InputFormat, n_images: int = 1) -> Tensor:
    """Noise as a network takes it, of every image another one, always the same, float32 (n_images, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n_images, *image_shape), dtype=torch.uint8, generator=generator)
    return normalise(pixels, data.mean, data.std, bgr=data.preprocessing.bgr)


def check_alone(alone: Tensor, among: Tensor) -> None:
    """Make sure that an image alone gives what it gives among others, but for rounding.

    Args:
        alone: what the first image gave alone, float (1, ...).
        among: what two images gave, float (2, ...).

    Raises:
        MalformedError: it does not, or there is not one result for each image.
    """
    if among.shape != (2, *alone.shape[1:]) or len(alone) != 1:
        raise MalformedError(f"the network gives {tuple(alone.shape)} for an image, {tuple(among.shape)} for two")
    scale = float(alone.abs().nan_to_num(0, 0, 0).max()) if alone.numel() else 0.0
    if not torch.allclose(alone, among[:1], rtol=_ROUNDING, atol=_ROUNDING * scale, equal_nan=True):
        raise MalformedError("the network gives something else for an image alone than for the same among others")


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
    """Send images through a network: whole, at its narrowest, each at its own, and with any two groups at others.

    Args:
        network: in eval mode.
        data: what it expects of images.

    Raises:
        MalformedError: it gives something else than finite logits.
        Exception: whatever the network raises.
    """
    images = try_image(network.image_shape, data, 2)
    features = network.stem.forward(images[:1])  # not called, which would print its failure
    among = network.stem.forward(images)
    check_alone(features, among)
    profiles = [network.full, network.uniform(0), *_mixed(network)]
    if network.codebook is not None:
        profiles += list(network.codebook)
    deadline = time.perf_counter() + SECONDS
    whole, *others = profiles
    alone = check_result(network.run_body(features, whole), network.n_classes)
    both = check_result(network.run_body(among, torch.stack(profiles[:2])), network.n_classes, 2)
    check_alone(alone, both)
    for profile in others:
        if time.perf_counter() > deadline:
            return
        check_result(network.run_body(features, profile), network.n_classes)


def _mixed(network: ElasticModule) -> list[Tensor]:
    """Few profiles of which at least one keeps all of one and least of the other of any two groups."""
    numbers = torch.arange(len(network.full))
    bits = range(int(numbers[-1]).bit_length())
    return [torch.where((numbers >> bit) % 2 > 0, network.full, network.uniform(0)) for bit in bits]
