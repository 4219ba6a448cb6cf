"""Put dedicated static networks into the results of refitted bundles: each pruned for all images, then trained.

    python runs/reference/train_static.py runs/reference/resnet20 cifar10 --budgets 0.35 0.5 --epochs 36 --out OUT

Each begins as the whole network of the bundle, trained as long as that has been, is pruned to the best profile that a
search finds within its budget (or, with `--how global`, to the most important channels anywhere), and trains for so
many epochs more on all images but those for testing. Teachers are the whole networks of the bundles that `--teachers`
names, the mean of their logits. `--profiles` takes profiles of the codebook, by their numbers, in place of a search,
and `--as-recipe` trains as the recipe's `[specialise]` says, on its images, taught by the whole network of the bundle:

    python runs/reference/train_static.py runs/reference/mobilenet_v2 imagenette224 --profiles 1 --as-recipe \
        --bundle RUN/bundle --out OUT

`static_trained` in results.json is then what they come to at the cost of each policy, neighbours mixed: where a policy
is cheaper than all of them, the cheapest. An interrupted training goes on. The networks are left in the folder, for
`rlprune bench --static`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import rlprune
from rlprune.baselines.static_pruning import static_profile
from rlprune.baselines.stored import load_plain, save_sliced
from rlprune.data.image_set import ImageSet, Splits
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


def train(name: str, dynamic: DynamicCNN, splits: Splits, named: argparse.Namespace) -> Point:
    """Prune and train a network, if it is not there yet; its share of the dense MACs, and its accuracy.

    Args:
        name: its budget, or the number of its profile.
        dynamic: the bundle.
        splits: the images.
        named: what the command names.
    """
    folder = named.out / name
    if not folder.exists():
        recipe = Recipe.read(named.reference / "recipe.toml")
        whole = dynamic.elastic.slice(dynamic.elastic.full).eval()
        images = splits.network.subset(slice(0, _N_IMAGES))
        elastic = recipe.elastic.build(whole, dynamic.image_shape, images)
        if named.profiles:
            profile = dynamic.codebook[int(name)]
        else:
            profile = static_profile(elastic, float(name), named.how, images)
        network = elastic.slice(profile)
        settings, seen = _settings(recipe, named), splits.network if named.as_recipe else splits.training
        kept = {"checkpoint": named.out / f"{name}.pt", "log": scalar_log(named.out / "logs", f"static-{name}")}
        pretrain(network, seen, settings, teacher=_teacher(whole, seen, settings, named), **kept)
        notes = dynamic.metadata["network"] | {"split": dynamic.metadata.get("split") or {}, "pruned_to": name}
        save_sliced(folder, network, elastic, profile, splits.network, notes)
    (point,) = static_points([load_plain(folder).network.eval()], splits.test, int(dynamic.prices.dense.macs))
    return point


def _settings(recipe: Recipe, named: argparse.Namespace) -> TrainingSettings:
    """How networks are trained."""
    if named.as_recipe:
        own = {field.name: getattr(recipe.specialise, field.name) for field in fields(TrainingSettings)}
        return TrainingSettings(**own | {"device": named.device})
    return TrainingSettings(
        epochs=named.epochs,
        learning_rate=named.learning_rate,
        views=4,
        early_size=24,
        temperature=3.0,
        distillation=0.8,
        seed=1,
        device=named.device,
    )


def _teacher(whole: nn.Module, seen: ImageSet, settings: TrainingSettings, named: argparse.Namespace) -> Tensor:
    """The teachers' logits on all views, computed once."""
    path = named.out / "teacher.safetensors"
    if not path.exists():
        teacher = whole
        if not named.as_recipe:
            networks = [rlprune.load(named.reference.parent / name / "bundle").elastic for name in named.teachers]
            teacher = Ensemble([elastic.slice(elastic.full) for elastic in networks]).eval()
        save_file({"logits": cache_teacher_logits(teacher, seen, settings)}, path)
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
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of networks, checkpoints and their teacher's logits"
    )
    pruned = parser.add_mutually_exclusive_group(required=True)
    pruned.add_argument("--budgets", type=float, nargs="+", help="shares of the dense MACs")
    pruned.add_argument("--profiles", type=int, nargs="+", help="profiles of the codebook, by their numbers")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--epochs", type=int)
    length.add_argument("--as-recipe", action="store_true", help="train as [specialise] says")
    parser.add_argument("--bundle", type=Path, help="if it is not in the first folder")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--how", choices=("searched", "global", "uniform"), default="searched", help="what stays")
    parser.add_argument("--device", default="cpu", help="where networks are trained, such as cuda")
    parser.add_argument("--teachers", nargs="+", default=["resnet20", "resnet56"], help="folders beside the first")
    named = parser.parse_args()
    named.out.mkdir(parents=True, exist_ok=True)
    dynamic = rlprune.load(named.bundle or named.reference / "bundle")
    recipe = json.loads((named.reference / "results.json").read_text())["recipe"]
    splits = load(named.data, shares=tuple(recipe["data"]["shares"]), preprocess=dynamic.preprocessing)
    names = [f"{each:g}" for each in named.budgets or named.profiles]
    put([train(name, dynamic, splits, named) for name in names], named.reference / "results.json")


if __name__ == "__main__":
    main()
