"""`rlprune.optimize` on five thousand digits, offline: everything from pretraining to a verdict in a few minutes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rlprune.data import loading
from rlprune.data.image_set import ImageSet, Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import predict_all
from rlprune.evaluation.dynamic import evaluate
from rlprune.evaluation.image_strips import ImageStrip
from rlprune.evaluation.plots import frontier_plot
from rlprune.evaluation.results import EvaluationResult
from rlprune.optimization.deploy import FOLDER
from rlprune.optimization.goal import PlanOptions
from rlprune.optimization.plan import SHARES
from rlprune.optimization.result import REPORT, OptimizeResult
from rlprune.storage.bundle import load
from rlprune.utils.files import write_json

MODEL = "digits_cnn"
SOURCE = "mnist5k"
MINUTES = 60.0
PLAN = PlanOptions(pretrain_epochs=16, slice_epochs=12, profile_epochs=16, flip="no", n_candidates=32)
RESULTS = "results.json"
PICTURE = "digits.png"
FILES = ("work", FOLDER, "report.html", REPORT, RESULTS, PICTURE)
"""What it leaves."""


def remove_finished(out: Path) -> None:
    """Remove a demo that is finished; one that was interrupted stays, to be gone on with."""
    if (out / REPORT).exists():
        for name in FILES:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def measure_demo(out: Path, splits: Splits, result: OptimizeResult, seed: int) -> EvaluationResult:
    """Measure the dynamic network beside its controls, and draw what it spends on digits.

    Args:
        out: folder of the optimisation; gets `results.json` and `digits.png`.
        splits: the digits.
        result: of the optimisation.
        seed: of the controls.
    """
    dynamic = load(out / FOLDER / "bundle")
    dense = result.row("dense")
    static = result.row("static")
    results = evaluate(
        dynamic,
        splits.test,
        splits.policy,
        dense=None if dense is None else dense.accuracy,
        n_candidates=32,
        seed=seed,
        static_trained=() if static is None else [(static.macs_share, static.accuracy)],
    )
    results = replace(results, seconds=result.seconds)
    draw_demo(out / PICTURE, dynamic, splits.test, results)
    write_json(out / RESULTS, results.to_json())
    return results


def demo_images() -> ImageSet:
    """The digits that test, as the demo splits them."""
    return loading.load(SOURCE, shares=SHARES).test


def draw_demo(path: Path, dynamic: DynamicCNN, test: ImageSet, results: EvaluationResult, n: int = 12) -> None:
    """Draw the policy beside its controls, above the images that it spends least and most on; a PNG.

    Args:
        path: the file to write.
        dynamic: the network with its policy.
        test: the images.
        results: of the policy.
        n: images in each strip.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    predicted = predict_all(dynamic, test)
    shares = predicted.macs / dynamic.prices.dense.macs
    order = shares.argsort(stable=True)
    parts = {"Least compute": order[:n], "Most compute": order[-n:].flip(0)}
    strips = {
        f"{title}: true class, right (✓) or wrong (✗ and the answer), MACs in % of the dense network": ImageStrip.of(
            test, predicted, shares, part
        )
        for title, part in parts.items()
    }
    frontier_plot(path, results, strips, "Digits: one policy and its controls")
