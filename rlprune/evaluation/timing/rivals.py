"""Rows beside a dynamic network that need images to be made, or were trained: int8, cascades, static networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import nn

from rlprune.baselines.cascade import WEIGHTS, best_cascades, cascade_policy, within
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits, predict_all
from rlprune.errors import RLPruneError
from rlprune.evaluation.static import count_macs
from rlprune.evaluation.timing.runner import Runner, in_parts, onnx_dynamic, onnx_plain
from rlprune.graph.folding import optimize_for_inference

RIVAL_ROWS = ("dense int8 onnxruntime", "cascade", "cascade onnxruntime", "dynamic int8 onnxruntime")
"""Rows that need images which do not test."""
_N_CALIBRATING = 512


@dataclass(frozen=True)
class RowImages:
    """What rows are made with, and measured on.

    Attributes:
        test: what is measured on. Nothing is chosen by it.
        selection: what cascades are tuned on: images that the policy learnt from.
        training: what int8 is calibrated on: images that trained the network.
        static: ordinary networks that were each pruned and trained for all images, by the name of their row.
    """

    test: ImageSet
    selection: ImageSet
    training: ImageSet
    static: Mapping[str, nn.Sequential] = field(default_factory=dict)


def rival_makers(dynamic: DynamicCNN, images: RowImages | None) -> Iterator[tuple[str, Callable[[], Runner]]]:
    """What makes each of these rows, by its name.

    Args:
        dynamic: the network with its policy.
        images: None where there are none; the rows then cannot be made.
    """
    if images is None:
        yield from ((name, _refused) for name in RIVAL_ROWS)
        return
    calibration = images.training.images[:_N_CALIBRATING]
    dense_macs = float(dynamic.prices.dense.macs)
    dense = dynamic.elastic.slice(dynamic.elastic.full)
    cascade = cache(lambda: _cascade(dynamic, images))

    def of_cascade(*, onnx: bool) -> Runner:
        network, macs = cascade()
        backend, run = ("onnxruntime", onnx_dynamic(network)) if onnx else ("pytorch", network)
        return Runner(backend, True, run, macs, "cascade")

    def dense_int8() -> Runner:
        run = onnx_plain(dense, dynamic, dynamic.normalise(calibration))
        return Runner("onnxruntime", False, run, dense_macs, "dense int8")

    yield "dense int8 onnxruntime", dense_int8
    for name, network in images.static.items():
        yield from _static_makers(name, network, dynamic)
    yield "cascade", lambda: of_cascade(onnx=False)
    yield "cascade onnxruntime", lambda: of_cascade(onnx=True)
    yield (
        "dynamic int8 onnxruntime",
        lambda: Runner("onnxruntime", True, onnx_dynamic(dynamic, calibration), network="dynamic int8"),
    )


def _refused() -> Runner:
    raise RLPruneError("it needs images that do not test; name some with --data")


def _static_makers(
    name: str, network: nn.Sequential, dynamic: DynamicCNN
) -> Iterator[tuple[str, Callable[[], Runner]]]:
    macs = float(count_macs(network, torch.zeros(1, *dynamic.image_shape)))

    def in_torch() -> Runner:
        fast = optimize_for_inference(network).to(dynamic.device)
        return Runner("pytorch", False, in_parts(fast, dynamic), macs, name)

    yield name, in_torch
    yield f"{name} onnxruntime", lambda: Runner("onnxruntime", False, onnx_plain(network, dynamic), macs, name)


@torch.inference_mode(False)
def _cascade(dynamic: DynamicCNN, images: RowImages) -> tuple[DynamicCNN, float]:
    """The most accurate cascade of the network that costs no more than its policy does, on the images it learnt from.

    Returns:
        The network with the cascade as its policy, and what a test image costs on average, in MACs.

    Raises:
        RLPruneError: every cascade costs more.
    """
    selection = images.selection.prepared_for(dynamic)
    with torch.inference_mode():
        spent = predict_all(dynamic, selection).macs.double().mean()
        logits = codebook_logits(dynamic, selection, selection.at_once)
    weights = (*WEIGHTS, dynamic.policy.observer.combine)
    found = best_cascades(dynamic.elastic, dynamic.codebook, logits.clone(), selection.labels, weights)
    chosen = within(found, float(spent / dynamic.prices.dense.macs))
    policy = cascade_policy(dynamic.elastic, dynamic.codebook, chosen)
    network = DynamicCNN.for_images(
        dynamic.elastic, policy, dynamic, dynamic.device, max_batch=dynamic.max_batch, dtype=dynamic.dtype
    )
    return network, float(predict_all(network, images.test).macs.double().mean())
