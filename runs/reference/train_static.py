"""Put dedicated static networks into the results of refitted bundles: each pruned for all images, then trained.

    python runs/reference/train_static.py runs/reference/resnet20 cifar10 --budgets 0.35 0.5 --epochs 36 --out OUT

Each begins as the whole network of the bundle, trained as long as that has been, is pruned to the best profile that a
search finds within its budget (or, with `--how global`, to the most important channels anywhere), and trains for so
many epochs more on all images but those for testing. Teachers are the whole networks of the bundles that `--teachers`
names, the mean of their logits. `static_trained` in results.json is then what they come to at the cost of each policy,
neighbours mixed: where a policy is cheaper than all of them, the cheapest. An interrupted training goes on. The
networks are left in the folder, for `rlprune bench --static`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

import rlprune
from rlprune.baselines.static_pruning import static_profile
from rlprune.baselines.stored import load_plain, save_sliced
from rlprune.data.image_set import Splits
from rlprune.data.loading import load
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.evaluation.controls import Point, best_at
from rlprune.evaluation.results import RecipeResult
from rlprune.evaluation.static import static_points
from rlprune.pipelines.recipe import Recipe
from rlprune.training.distillation import Ensemble, cache_teacher_logits
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.tensorboard import scalar_log

_N_IMAGES = 2000
"""Images that a search for a profile measures on."""


def train(budget: float, dynamic: DynamicCNN, splits: Splits, named: argparse.Namespace) -> Point:
    """Prune and train a budget's network, if it is not there yet; its share of the dense MACs, and its accuracy."""
    folder = named.out / f"{budget:g}"
    settings = TrainingSettings(
        epochs=named.epochs,
        learning_rate=named.learning_rate,
        views=4,
        early_size=24,
        temperature=3.0,
        distillation=0.8,
        seed=1,
        device=named.device,
    )
    if not folder.exists():
        whole = dynamic.elastic.slice(dynamic.elastic.full).eval()
        images = splits.network.subset(slice(0, _N_IMAGES))
        elastic = Recipe.read(named.reference / "recipe.toml").elastic.build(whole, dynamic.image_shape, images)
        profile = static_profile(elastic, budget, named.how, images)
        network = elastic.slice(profile)
        kept = {"checkpoint": named.out / f"{budget:g}.pt", "log": scalar_log(named.out / "logs", f"static-{budget:g}")}
        pretrain(network, splits.training, settings, teacher=_teacher(splits, settings, named), **kept)
        notes = dynamic.metadata["network"] | {"split": dynamic.metadata.get("split") or {}, "budget": budget}
        save_sliced(folder, network, elastic, profile, splits.network, notes)
    (point,) = static_points([load_plain(folder).network.eval()], splits.test, int(dynamic.prices.dense.macs))
    return point


def _teacher(splits: Splits, settings: TrainingSettings, named: argparse.Namespace) -> Tensor:
    """The teachers' logits on all views, computed once."""
    path = named.out / "teacher.safetensors"
    if not path.exists():
        networks = [rlprune.load(named.reference.parent / name / "bundle").elastic for name in named.teachers]
        ensemble = Ensemble([elastic.slice(elastic.full) for elastic in networks]).eval()
        save_file({"logits": cache_teacher_logits(ensemble, splits.training, settings)}, path)
    return load_file(path)["logits"]


def put(points: list[Point], path: Path) -> None:
    """Write what the networks come to at the cost of each policy."""
    results = json.loads(path.read_text())
    for figures in results["budgets"]:
        share, accuracy = best_at(1 - figures["macs_cut"], [points])
        figures["controls"]["static_trained"] = accuracy
        figures["controls_macs_cut"]["static_trained"] = 1 - share
        figures["frontier"]["static_trained"] = [list(point) for point in sorted(points)]
        print(figures["penalty"], figures["accuracy"], figures["macs_cut"], accuracy, flush=True)
    write_json(path, RecipeResult.from_json(results).to_json())


def main() -> None:
    """Train, measure, add."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="folder with a bundle and results.json")
    parser.add_argument("data", help="as `rlprune evaluate --data`")
    parser.add_argument("--out", type=Path, required=True, help="folder of networks, checkpoints and teachers' logits")
    parser.add_argument("--budgets", type=float, nargs="+", required=True, help="shares of the dense MACs")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--how", choices=("searched", "global", "uniform"), default="searched", help="what stays")
    parser.add_argument("--device", default="cpu", help="where networks are trained, such as cuda")
    parser.add_argument("--teachers", nargs="+", default=["resnet20", "resnet56"], help="folders beside the first")
    named = parser.parse_args()
    named.out.mkdir(parents=True, exist_ok=True)
    dynamic = rlprune.load(named.reference / "bundle")
    recipe = json.loads((named.reference / "results.json").read_text())["recipe"]
    splits = load(named.data, shares=tuple(recipe["data"]["shares"]), preprocess=dynamic.preprocessing)
    put([train(budget, dynamic, splits, named) for budget in named.budgets], named.reference / "results.json")


if __name__ == "__main__":
    main()
