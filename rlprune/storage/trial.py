"""The first image: what has been read runs once, before anybody relies on it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import InputFormat, normalise
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import predicted
from rlprune.elastic.module import ElasticModule
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import PassResult, run_policy
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


@torch.inference_mode()
def try_dynamic(dynamic: DynamicCNN, *, compiled: bool) -> None:
    """Send an image through every profile of a bundle, as far as time allows, and through its policy.

    Args:
        dynamic: the bundle.
        compiled: whether its slices are to be compiled, which would take a while now: the network itself runs instead.

    Raises:
        MalformedError: a profile gives something else than finite logits.
        Exception: whatever the network raises.
    """
    stem = dynamic.elastic.stem if compiled else dynamic.slices.stem
    dtype = torch.float32 if compiled else dynamic.dtype
    images = try_image(dynamic.image_shape, dynamic, 2)
    images = images.to(dynamic.device, dtype, memory_format=torch.channels_last)
    features = stem.forward(images[:1])  # not called, which would print where it fails
    among = stem.forward(images)
    check_alone(features, among)
    deadline = time.perf_counter() + SECONDS
    *cheaper, dearest = dynamic.prices.bodies.macs.argsort().tolist()
    logits = {dearest: _check(_body(dynamic, dearest, features, compiled), dynamic, 1)}
    check_alone(logits[dearest], _check(_body(dynamic, dearest, among, compiled), dynamic, 2))
    for profile in cheaper:
        if time.perf_counter() > deadline:
            break
        logits[profile] = _check(_body(dynamic, profile, features, compiled), dynamic, 1)
    _try_policy(dynamic, features.float(), logits)


def _body(dynamic: DynamicCNN, profile: int, features: Tensor, compiled: bool) -> Tensor:
    if compiled:
        return dynamic.elastic.run_body(features, dynamic.codebook[profile])
    result: Tensor = dynamic.slices.at_hand(profile).forward(features.contiguous(memory_format=torch.channels_last))
    return result


def _check(logits: Tensor, dynamic: DynamicCNN, n_images: int) -> Tensor:
    return check_result(logits, dynamic.elastic.n_classes, n_images, exact=dynamic.dtype == torch.float32)


def _try_policy(dynamic: DynamicCNN, features: Tensor, logits: dict[int, Tensor]) -> None:
    """Let the policy decide on one image alone and on two; the passes give logits that are known already."""
    some = next(iter(logits.values()))

    def run(bucket: Tensor, profile: int) -> Tensor:
        return logits.get(profile, some).expand(len(bucket), -1)

    observed = dynamic.policy.observer.features(features)
    alone = SingleImagePolicy(dynamic.policy, dynamic.prices, dynamic.first).run(observed, run)
    both = run_policy(dynamic.policy, observed.expand(2, -1), dynamic.prices, run, dynamic.first)
    for passes in (alone, both):
        _check_passes(dynamic, passes)


def _check_passes(dynamic: DynamicCNN, passes: PassResult) -> None:
    ratios = torch.tensor(dynamic.elastic.keep_ratios)[dynamic.codebook]
    prediction = predicted(passes.logits, passes.profiles, ratios, dynamic.prices)
    if not bool(prediction.probabilities.isfinite().all()):
        raise MalformedError("the policy gives predictions that are not finite")
