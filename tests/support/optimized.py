"""A result of an optimisation as it might come out for a network of CIFAR's size, and test images for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.evaluation.results import Conditions
from rlprune.optimization.result import Bounds, CheckResult, ClassCost, GoalResult, OptimizeResult, Point, Row

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", '<b>&"', "horse", "ship", "truck")
CHECK = CheckResult(
    lines=(
        "network: resnet20 from checkpoint.pth, read under the key 'model', prefix 'module.' removed",
        "accuracy: 92.6 % on 1,000 validation images with this preprocessing; not your number? stop here",
        "images: 2,600, of 10 classes, from pictures/: 1,000 for the network, 400 policy, 600 validation, 600 test",
        "can be pruned: 19 of 20 layers; 6.1 % of the multiply-adds always run",
        "time: about 14 minutes, from 12 measured steps",
    ),
    warnings=(
        "the network is right on 100 % of the policy's images: it has probably seen them; name others: --heldout",
    ),
    network="resnet20",
    data="pictures/",
    classes=CLASSES,
    image_shape=(3, 32, 32),
    preprocessing="rgb,mean=0.485,0.456,0.406,std=0.229,0.224,0.225",
    n_images={"network": 1000, "policy": 400, "validation": 600, "test": 600},
    accuracy=0.926,
    always_runs=0.061,
    dense_macs=40_816_640,
    dense_params=272_474,
    seconds=840.0,
)
CONDITIONS = Conditions(
    hardware="AMD EPYC 7R13 Processor", threads=2, dtype="float32", torch="2.13.0", date="2026-11-26"
)


def make_row(name: str, title: str, kind: str, figures: tuple[float, ...], meets: bool = False) -> Row:
    """A row of the table.

    Args:
        name: of the row.
        title: of the row.
        kind: what is deployed if this row is.
        figures: accuracy, drop, lower and upper end of the drop, share of the MACs, milliseconds, speed-up.
        meets: the goal.
    """
    accuracy, drop, low, high, macs_share, ms, speedup = figures
    return Row(
        name=name,
        title=title,
        backend="onnxruntime" if "onnxruntime" in title else "pytorch",
        kind=kind,
        accuracy=accuracy,
        accuracy_interval=(accuracy - 0.022, min(1.0, accuracy + 0.019)),
        drop=drop,
        drop_interval=(low, high),
        macs_share=macs_share,
        ms=ms,
        ms_low=0.97 * ms,
        ms_high=1.04 * ms,
        speedup=speedup,
        validation_drop=drop + 0.03,
        meets=meets,
    )


ROWS = (
    make_row("dense", "yours (eager)", "dense", (0.925, 0.0, 0.0, 0.0, 1.0, 3.41, 0.52)),
    make_row("dense onnxruntime", "yours (onnxruntime)", "dense", (0.925, 0.0, 0.0, 0.0, 1.0, 1.78, 1.0)),
    make_row("dense int8", "yours (int8)", "int8", (0.9217, 0.33, -0.42, 1.08, 1.0, 1.21, 1.47)),
    make_row("static", "static", "static", (0.9117, 1.33, 0.41, 2.26, 0.43, 0.86, 2.07)),
    make_row("static int8", "static (int8)", "int8", (0.9083, 1.67, 0.66, 2.67, 0.43, 0.66, 2.7)),
    make_row("cascade", "cascade", "dynamic", (0.9167, 0.83, 0.02, 1.65, 0.44, 0.88, 2.02)),
    make_row("rlprune", "rlprune", "dynamic", (0.9217, 0.33, -0.44, 1.11, 0.42, 0.84, 2.12), True),
)
POINTS = (
    Point(name="dense", macs_share=1.0, accuracy=0.926),
    *(Point(name="static", macs_share=x, accuracy=y) for x, y in ((0.22, 0.881), (0.31, 0.901), (0.6, 0.919))),
    Point(name="static", macs_share=0.43, accuracy=0.913, chosen=True),
    *(Point(name="cascade", macs_share=x, accuracy=y) for x, y in ((0.27, 0.894), (0.58, 0.924), (0.74, 0.926))),
    Point(name="cascade", macs_share=0.44, accuracy=0.918, chosen=True),
    *(Point(name="rlprune", macs_share=x, accuracy=y) for x, y in ((0.25, 0.899), (0.33, 0.914), (0.59, 0.926))),
    Point(name="rlprune", macs_share=0.42, accuracy=0.923, chosen=True),
)
RESULT = OptimizeResult(
    goal=GoalResult(
        text="at most 0.5 points lost, at least 2 times as fast (batch 1, onnxruntime)",
        max_drop=0.5,
        min_speedup=2.0,
        batch=1,
        backend="onnxruntime",
    ),
    reached=True,
    deploy="dynamic",
    deploy_row="rlprune",
    deploy_file="deploy/dynamic.onnx",
    sentences=(
        "The goal is reached: 0.33 points are lost where 0.5 may be, and it is 2.12 times as fast where 2 were asked.",
        "600 test images are too few to be sure: the 95 % interval of the drop, -0.44 to 1.11, goes beyond 0.5; about "
        "3,100 would do.",
        "Deploy deploy/dynamic.onnx, the network that decides per image: at the same cost, the static network loses "
        "1.00 points more and the cascade 0.50.",
    ),
    advice=(),
    rows=ROWS,
    left_out={"rlprune int8": "its accuracy on the validation images falls by 7.2 points"},
    points=POINTS,
    bounds=Bounds(stem_share=0.011, always_runs=0.061, narrowest_ms_share=0.31, decision_ms=0.06),
    check=CHECK,
    plan={
        "adapt_epochs": 24,
        "n_views": 4,
        "policy_steps": 150_000,
        "penalty": 0.0125,
        "max_passes": 2,
        "n_profiles": 6,
    },
    classes=tuple(
        ClassCost(name=name, n_images=60, accuracy=0.96 - 0.012 * n, dense_accuracy=0.965 - 0.012 * n, macs_share=share)
        for n, (name, share) in enumerate(
            zip(CLASSES, (0.36, 0.31, 0.47, 0.66, 0.44, 0.55, 0.38, 0.37, 0.32, 0.34), strict=True)
        )
    ),
    easiest=(3, 17, 31, 44, 58, 60, 75, 82),
    hardest=(599, 402, 311, 270, 266, 141, 90, 12),
    n_needed=3100,
    seed=0,
    seconds=792.0,
    seconds_estimated=840.0,
    conditions=CONDITIONS,
    version="0.2.0",
)


def make_result(**changes: Any) -> OptimizeResult:
    """The result with some fields changed."""
    return replace(RESULT, **changes)


def missed() -> OptimizeResult:
    """The same where nothing reaches the goal."""
    return make_result(
        reached=False,
        deploy="dense",
        deploy_row="dense onnxruntime",
        deploy_file=None,
        sentences=(
            "The goal is not reached: nothing is 4 times as fast and loses 0.5 points or less.",
            "600 test images can tell that: the fastest within 0.5 points is 2.12 times as fast.",
            "Leave your network as it is, in onnxruntime; rlprune comes nearest.",
        ),
        advice=(
            "Nearest: rlprune, 2.12 times as fast with 0.33 points lost.",
            "What bounds it: the narrowest slice takes 31 % of the dense network's time for 6 % of its multiply-adds.",
            "What would help: --batch 8 or more, or --max-drop 1.5, at which static int8 is 2.70 times as fast.",
        ),
        goal=replace(RESULT.goal, min_speedup=4.0, text="at most 0.5 points lost, at least 4 times as fast (batch 1)"),
        rows=tuple(replace(row, meets=False) for row in ROWS),
    )


def make_test(n: int = 600, shape: tuple[int, int, int] = (3, 32, 32), classes: tuple[str, ...] = CLASSES) -> ImageSet:
    """Test images of noise in blocks."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape
    blocks = torch.randint(0, 256, (n, channels, -(-height // 8), -(-width // 8)), generator=generator)
    images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :height, :width].to(torch.uint8)
    return ImageSet(images, torch.arange(n) % len(classes), classes, (0.5,) * channels, (0.25,) * channels)


def make_answers(test: ImageSet) -> tuple[Tensor, Tensor]:
    """What images cost, float32 (N,), and what is answered, int64 (N,): dearer ones are more often wrong."""
    generator = torch.Generator().manual_seed(1)
    which = torch.rand(len(test), generator=generator)
    shares = torch.tensor([0.18, 0.31, 0.52, 1.07])[torch.bucketize(which, torch.tensor([0.35, 0.7, 0.9]))]
    wrong = torch.rand(len(test), generator=generator) < 0.2 * shares
    return shares, (test.labels + wrong.long()) % len(test.classes)
