"""Train some profiles of a refitted bundle on, on all images but those for testing, and measure its policies again.

    python runs/reference/train_on.py runs/reference/resnet20 cifar10 --profiles 0 --epochs 36 --out runs/on/resnet20

The profiles of these bundles have weights of their own, so that those which are not named stay as they are, and so do
the policies: they see how sure a prediction is. Teachers are the whole networks of the bundles that `--teachers` names,
the mean of their logits. When that is done, the bundle and results.json are replaced; an interrupted training goes on.
Nothing is chosen by what is measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from add_rivals import cascades_of_halves, policy_of, put_rivals
from safetensors.torch import load_file, save_file
from torch import Tensor

import rlprune
from rlprune.data.image_set import Splits
from rlprune.data.loading import load
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.evaluation.controls import Controls
from rlprune.evaluation.dynamic import evaluate
from rlprune.evaluation.plots import budgets_plot
from rlprune.evaluation.results import PenaltyResult, RecipeResult
from rlprune.storage.bundle import save_bundle
from rlprune.training.adaptation import SpecialiseSettings, adapt
from rlprune.training.distillation import Ensemble, cache_teacher_logits
from rlprune.utils.files import write_json
from rlprune.utils.tensorboard import scalar_log


def train_on(dynamic: DynamicCNN, splits: Splits, named: argparse.Namespace) -> None:
    """Train the named profiles, in place."""
    settings = SpecialiseSettings(
        epochs=named.epochs,
        learning_rate=named.learning_rate,
        n_random=1,
        sandwich=False,
        views=4,
        early_size=24,
        temperature=3.0,
        distillation=0.8,
        seed=1,
    )
    teacher = _teacher(splits, settings, named)
    codebook = dynamic.codebook[named.profiles]
    kept = {"checkpoint": named.out / "checkpoint.pt", "log": scalar_log(named.out / "logs", "adapt")}
    adapt(dynamic.elastic, splits.training, settings, teacher=teacher, codebook=codebook, **kept)


def _teacher(splits: Splits, settings: SpecialiseSettings, named: argparse.Namespace) -> Tensor:
    """The teachers' logits on all views, computed once."""
    path = named.out / "teacher.safetensors"
    if not path.exists():
        networks = [rlprune.load(named.reference.parent / name / "bundle").elastic for name in named.teachers]
        ensemble = Ensemble([elastic.slice(elastic.full) for elastic in networks]).eval()
        save_file({"logits": cache_teacher_logits(ensemble, splits.training, settings)}, path)
    return load_file(path)["logits"]


def measure(dynamic: DynamicCNN, splits: Splits, reference: Path) -> None:
    """Measure every policy of results.json, and replace that and the bundle."""
    results = json.loads((reference / "results.json").read_text())
    elastic, test = dynamic.elastic, splits.test
    logits = codebook_logits(dynamic, test)
    halves = cascades_of_halves(dynamic, test, logits)
    selection_set = splits.policy.subset(slice(0, results["recipe"]["search"]["n_images"]))
    controls = Controls.measure((elastic,), dynamic.codebook, test, selection_set)
    budgets = []
    for before in results["budgets"]:
        one = DynamicCNN.for_images(elastic, policy_of(reference, dynamic, before["penalty"]), splits.network)
        known = {"dense": before["dense_accuracy"], "controls": controls, "logits": logits, "cascades": halves[0][1]}
        budgets.append(PenaltyResult(penalty=before["penalty"], evaluation=evaluate(one, test, selection_set, **known)))
    found = RecipeResult(recipe=results["recipe"], budgets=tuple(budgets)).to_json()
    put_rivals(found, reference, dynamic, test, logits)
    metadata = dynamic.metadata | {"metrics": budgets[0].evaluation.headline(), "refitted": True}
    save_bundle(reference / "bundle", elastic, dynamic.source_policy, splits.network, metadata)
    write_json(reference / "results.json", found)
    budgets_plot(reference / "frontier.png", RecipeResult.from_json(found))


def main() -> None:
    """Train, measure, replace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="folder with a bundle, its policies and results.json")
    parser.add_argument("data", help="as `rlprune evaluate --data`")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and teachers' logits")
    parser.add_argument("--profiles", type=int, nargs="+", required=True, help="which of the codebook, cheapest first")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--teachers", nargs="+", default=["resnet20", "resnet56"], help="folders beside the first")
    named = parser.parse_args()
    named.out.mkdir(parents=True, exist_ok=True)
    dynamic = rlprune.load(named.reference / "bundle")
    recipe = json.loads((named.reference / "results.json").read_text())["recipe"]
    splits = load(named.data, shares=tuple(recipe["data"]["shares"]), preprocess=dynamic.preprocessing)
    train_on(dynamic, splits, named)
    measure(dynamic, splits, named.reference)


if __name__ == "__main__":
    main()
