"""The command line: `rlprune VERB`, the same as `python -m rlprune VERB`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console

from rlprune import bundle, data, models, tables
from rlprune.actions import MAX_PROFILES
from rlprune.adapt import AdaptSettings, adapt
from rlprune.agents.train import PolicySettings, check_run, train_policy
from rlprune.benchmark import bench
from rlprune.bundle import DataFormat
from rlprune.data import ImageSet, Splits
from rlprune.decode import read_images
from rlprune.demo import run_demo
from rlprune.elastic import ElasticCNN
from rlprune.envs.benchmark import bench_env
from rlprune.errors import ModelError, RLPruneError
from rlprune.evaluate import evaluate, evaluate_dense
from rlprune.events import scalar_log
from rlprune.files import write_json
from rlprune.options import DataOptions, ElasticOptions, build_model, load_fitting
from rlprune.pretrain import accuracy, pretrain
from rlprune.recipe import Recipe
from rlprune.runtime import DynamicCNN
from rlprune.search import choose_codebook, search
from rlprune.steps import Steps
from rlprune.training import TrainingSettings


@dataclass(frozen=True)
class Inspect:
    """Show the channel groups of a network: channels, parameters, multiply-adds, skippable, or why not prunable."""

    model: str
    """A name such as resnet20, or package.module:callable returning an nn.Module."""
    image_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of its images."""
    n_classes: int = 10
    """Classes of a network built by name."""
    elastic: tyro.conf.OmitArgPrefixes[ElasticOptions] = field(default_factory=ElasticOptions)

    def run(self) -> None:
        """Do it."""
        model = models.build(self.model, self.n_classes, self.image_shape[0])
        Console().print(*tables.groups(self.elastic.build(model, self.image_shape)))


@dataclass(frozen=True)
class Pretrain:
    """Train an ordinary network from scratch, or further."""

    model: str
    """A name such as resnet20, or package.module:callable returning an nn.Module."""
    out: Path
    """File to write, FILE.safetensors. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    weights: Path | None = None
    """Weights to start from, safetensors or a state dict."""
    resume: bool = False
    """Go on with an interrupted run."""
    settings: tyro.conf.OmitArgPrefixes[TrainingSettings] = field(default_factory=TrainingSettings)

    def run(self) -> None:
        """Do it."""
        if self.out.suffix != ".safetensors":
            raise RLPruneError(f"--out is {self.out}; weights are written as safetensors, so name it FILE.safetensors")
        splits = self.source.load()
        torch.manual_seed(self.settings.seed)
        model = build_model(self.model, self.weights, splits)
        checkpoint = _checkpoint(self.out, self.resume)
        pretrain(
            model,
            splits.network,
            self.settings,
            checkpoint=checkpoint,
            log=scalar_log(self.out.parent / "logs", "pretrain"),
        )
        models.save_weights(model, self.out)
        checkpoint.unlink()
        print(f"validation accuracy {accuracy(model.cpu(), splits.validation):.4f}; weights are in {self.out}")


@dataclass(frozen=True)
class Adapt:
    """Make a pretrained network elastic and fine-tune it, so that its slices stay accurate."""

    model: str
    """A name such as resnet20, or package.module:callable returning an nn.Module."""
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    weights: Path | None = None
    """The network's weights, safetensors or a state dict; not needed if the callable loads its own."""
    resume: bool = False
    """Go on with an interrupted run."""
    elastic: tyro.conf.OmitArgPrefixes[ElasticOptions] = field(default_factory=ElasticOptions)
    settings: tyro.conf.OmitArgPrefixes[AdaptSettings] = field(default_factory=AdaptSettings)

    def run(self) -> None:
        """Do it."""
        if self.weights is None and ":" not in self.model:
            raise ModelError(
                f"--weights is missing: {self.model} alone has random weights; `rlprune pretrain` makes some"
            )
        bundle.check_target(self.out, "network")
        splits = self.source.load()
        model = build_model(self.model, self.weights, splits)
        print(f"validation accuracy before: {accuracy(model.eval(), splits.validation):.4f}")
        network = self.elastic.build(model, tuple(splits.network.images.shape[1:]))
        checkpoint = _checkpoint(self.out, self.resume)
        adapt(
            network,
            splits.network,
            self.settings,
            checkpoint=checkpoint,
            log=scalar_log(self.out.parent / "logs", "adapt"),
        )
        network.cpu()
        about = {"model": self.model, "source": dataclasses.asdict(self.source)}
        bundle.save_network(self.out, network, splits.network, about)
        checkpoint.unlink()
        for level in range(network.narrowest, network.n_levels):
            share = accuracy(network.slice(network.uniform(level)), splits.validation)
            print(f"validation accuracy at keep ratio {network.keep_ratios[level]:g}: {share:.4f}")
        print(f"the elastic network is in {self.out}")


@dataclass(frozen=True)
class Train:
    """Train the policy that chooses keep ratios for each image."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder for TensorBoard's events, the checkpoint, and the policy (in policy/)."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    n_profiles: int = 6
    """Profiles in the codebook, at most 16."""
    n_candidates: int = 64
    """Static profiles tried in the search for it."""
    resume: bool = False
    """Go on with an interrupted run."""
    ppo: str = "{}"
    """Further arguments of Stable-Baselines3's PPO, as JSON, such as '{"clip_range": 0.1}'."""
    settings: tyro.conf.OmitArgPrefixes[PolicySettings] = field(default_factory=PolicySettings)

    def run(self) -> None:
        """Do it."""
        arguments = _json_object(self.ppo, "--ppo")
        if not 1 <= self.n_profiles <= MAX_PROFILES:
            raise RLPruneError(f"--n-profiles is {self.n_profiles}; 1 to {MAX_PROFILES} are allowed")
        check_run(self.out, self.settings, resume=self.resume, ppo=arguments)
        saved = bundle.load_network(self.network)
        splits = load_fitting(saved.network, saved.data, saved.about, self.source)
        codebook = self._codebook(saved.network, splits) if self.settings.action == "profiles" else None
        policy = train_policy(
            saved.network,
            splits.policy,
            splits.validation,
            self.out,
            self.settings,
            codebook=codebook,
            resume=self.resume,
            ppo=arguments,
        )
        Console().print(tables.codebook(saved.network, policy.codebook))
        figures = bundle.load_policy(self.out / "policy").about["validation"]
        print(f"validation accuracy {figures['accuracy']:.4f} at {figures['active_macs']:.3f} of the dense MACs")
        print(f"the policy is in {self.out / 'policy'}; watch it with: tensorboard --logdir {self.out}")

    def _codebook(self, network: ElasticCNN, splits: Splits) -> torch.Tensor:
        """Search profiles, or take those that an interrupted run found."""
        path = self.out / "codebook.json"
        if self.resume and path.exists():
            return torch.tensor(json.loads(path.read_text()))
        found = search(network, splits.policy, self.n_candidates, self.settings.seed)
        codebook = choose_codebook(network, found, self.n_profiles)
        write_json(path, codebook.tolist())
        return codebook


@dataclass(frozen=True)
class Evaluate:
    """Measure a bundle beside its controls, or an ordinary network, on the test split."""

    source: tyro.conf.OmitArgPrefixes[DataOptions]
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="BUNDLE")] = None
    """Folder that `rlprune export` wrote."""
    model: str | None = None
    """Instead of a bundle, a network by name or package.module:callable; beside one, the network it was made from."""
    weights: Path | None = None
    """That network's weights."""
    json: Path | None = None
    """File to write the figures to."""
    n_candidates: int = 64
    """Static profiles that the search for the best one may try."""
    seed: int = 0
    """Of that search, and of the random profiles."""

    def run(self) -> None:
        """Do it."""
        if self.bundle is None and self.model is None:
            raise RLPruneError("nothing to evaluate: name a bundle, or a network with --model and --weights")
        if self.bundle is None:
            splits = self.source.load()
            assert self.model is not None
            results = evaluate_dense(build_model(self.model, self.weights, splits).eval(), splits.test)
        else:
            dynamic = bundle.load(self.bundle)
            expected = DataFormat(dynamic.mean, dynamic.std, dynamic.classes)
            splits = load_fitting(dynamic.elastic, expected, dynamic.about.get("network", {}), self.source)
            model = None if self.model is None else build_model(self.model, self.weights, splits).eval()
            results = evaluate(
                dynamic, splits.test, splits.policy, dense=model, n_candidates=self.n_candidates, seed=self.seed
            )
        Console().print(tables.evaluation(results))
        if self.json is not None:
            write_json(self.json, results)


@dataclass(frozen=True)
class Export:
    """Put network and policy into one bundle that needs neither pickle nor the learning library."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    policy: Path
    """Folder that `rlprune train` wrote, the policy/ in it, or a bundle."""
    out: Path
    """Bundle to write."""

    def run(self) -> None:
        """Do it."""
        inner = self.policy / "policy"
        policy, network = (
            bundle.load_policy(inner if inner.is_dir() else self.policy),
            bundle.load_network(self.network),
        )
        notes = policy.about.get("policy", policy.about)  # a bundle keeps those of its policy beside others
        about = {
            "network": network.about.get("network", network.about),
            "policy": notes,
            "penalty": notes.get("settings", {}).get("penalty"),
            "metrics": notes.get("validation"),
        }
        bundle.save_bundle(self.out, network.network, policy.policy, network.data, about)
        print(f"the bundle is in {self.out}; in Python: rlprune.load({str(self.out)!r})")


@dataclass(frozen=True)
class Predict:
    """Classify image files with a bundle, and say what each cost."""

    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")]
    """Folder that `rlprune export` wrote."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGES")]
    """Image files of the size that the network takes; others are resized."""
    json: Path | None = None
    """File to write the predictions to."""

    def run(self) -> None:
        """Do it."""
        dynamic = bundle.load(self.bundle)
        predicted = dynamic(read_images(self.images, dynamic.elastic.image_shape))
        rows = [
            {
                "image": str(path),
                "class": dynamic.classes[int(predicted.labels[i])],
                "probability": float(predicted.probabilities[i].max()),
                "passes": int(predicted.passes[i]),
                "keep_ratio": float(predicted.keep_ratios[i].mean()),
                "macs_share": float(predicted.macs[i] / dynamic.dense_cost.macs),
            }
            for i, path in enumerate(self.images)
        ]
        Console().print(tables.predictions(rows))
        if self.json is not None:
            write_json(self.json, rows)


@dataclass(frozen=True)
class Bench:
    """Time a bundle beside the dense network, or the environment beside the network alone."""

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
    """A bundle; or the word env, for the environment's speed."""
    data: str | None = None
    """Images to run on, as for other verbs; else those that the bundle was made with, else noise."""
    image_size: int | None = None
    """Resize and crop images to squares of this many pixels."""
    batch: tuple[int, ...] | None = None
    """Batch sizes (1 64); for env, how many images at once (256)."""
    seconds: float = 5.0
    """Time to spend on each batch size."""
    json: Path | None = None
    """File to write the rows to."""
    model: str = "resnet20"
    """For env: the network, by name or package.module:callable."""

    def run(self) -> None:
        """Do it."""
        if self.target == "env":
            known = None if self.data is None else self._images(self.data)
            shape, n_classes = ((3, 32, 32), 10) if known is None else (known.images.shape[1:], len(known.classes))
            network = ElasticCNN.from_model(models.build(self.model, n_classes, shape[0]), shape)
            images = _noise(shape, network.n_classes) if known is None else known
            if len(images.classes) != network.n_classes:
                raise ModelError(f"{self.model} gives {network.n_classes} logits, {self.data} has {n_classes} classes")
            results = bench_env(network, images, (self.batch or (256,))[0], 4 * self.seconds)
        else:
            dynamic = bundle.load(self.target)
            pixels = self._pixels(dynamic)
            results = bench(dynamic, pixels, self.batch or (1, min(64, len(pixels))), self.seconds)
        Console().print(tables.benchmark(results))
        if self.json is not None:
            write_json(self.json, results)

    def _images(self, source: str) -> ImageSet:
        return data.load(source, image_size=self.image_size).policy.subset(slice(0, 1024))

    def _pixels(self, dynamic: DynamicCNN) -> torch.Tensor:
        """Test images of the data that were asked for, or that the bundle was made with, or noise."""
        if self.data is not None:
            return DataOptions(self.data, self.image_size).load().test.images
        made_with = dynamic.about.get("network", {}).get("source")
        try:
            if made_with is not None:
                return DataOptions(**made_with).load().test.images
        except RLPruneError as error:
            print(f"rlprune: the data that the bundle was made with are not here ({error})", file=sys.stderr)
        print(
            "rlprune: timing on noise; what is spent on real images may differ: name some with --data", file=sys.stderr
        )
        return _noise(dynamic.elastic.image_shape).images


@dataclass(frozen=True)
class Demo:
    """The whole way in a few minutes, offline: digits in, a network pruned per image out."""

    out: Path = Path("runs/demo")
    """Folder for everything it makes; an earlier demo there is replaced."""
    seed: int = 0
    """Fixes everything but times."""

    def run(self) -> None:
        """Do it."""
        run_demo(self.out, self.seed)


@dataclass(frozen=True)
class RunRecipe:
    """Carry out a recipe: dense network, elastic network, codebook, policy, joint tuning, figures, bundle.

    Steps that its folder already has are not made again, and an interrupted one is gone on with.
    """

    recipe: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RECIPE")]
    """A TOML file, such as runs/reference/resnet20/recipe.toml; weights it names are looked for in $RLPRUNE_WEIGHTS."""
    out: Path | None = None
    """Folder for everything it makes; runs/NAME if not given, NAME being the folder of the recipe."""
    until: Literal["teacher", "dense", "adapt", "search", "specialise", "tune", "policies", "evaluate"] = "evaluate"
    """Stop after this step."""
    seed: int | None = None
    """Another seed than the recipe's."""

    def run(self) -> None:
        """Do it."""
        recipe = Recipe.read(self.recipe)
        recipe = recipe if self.seed is None else dataclasses.replace(recipe, seed=self.seed)
        out = Path("runs") / self.recipe.resolve().parent.name if self.out is None else self.out
        Steps(recipe, out, self.recipe.parent).run(self.until)
        print(f"done; everything is in {out}, watch it with: tensorboard --logdir {out}")


Verb = (
    Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[RunRecipe, tyro.conf.subcommand("run")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; a user's mistake ends in one message and exit status 2, not in a traceback."""
    sys.path.insert(0, "")  # package.module:callable is looked for in the current folder too
    try:
        verb = tyro.cli(
            Verb,  # type: ignore[arg-type]
            prog="rlprune",
            description="Prune a pretrained CNN anew for every image, by a policy learnt with reinforcement learning.",
            args=arguments,
        )
        verb.run()
    except (RLPruneError, OSError) as error:
        print(f"rlprune: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("rlprune: interrupted; the same command, with --resume where a verb has it, goes on", file=sys.stderr)
        sys.exit(130)


def _checkpoint(out: Path, resume: bool) -> Path:
    """Where an interrupted run is kept; what is finished is not trained again, nor is anything overwritten."""
    checkpoint = out.with_name(f"{out.name}.checkpoint.pt")
    if checkpoint.exists() and not resume:
        raise RLPruneError(f"{checkpoint} is from an interrupted run: add --resume to go on with it, or remove it")
    if out.exists() and not checkpoint.exists():
        raise RLPruneError(f"{out} is there and finished; name another --out, or remove it to train anew")
    return checkpoint


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RLPruneError(f"{option} is {text!r}, which is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RLPruneError(f"{option} is {text!r}; a JSON object is needed, such as '{{\"clip_range\": 0.1}}'")
    return value


def _noise(shape: Sequence[int], n_classes: int = 10) -> data.ImageSet:
    pixels = torch.randint(0, 256, (1024, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    half = tuple(0.5 for _ in range(shape[0]))
    return data.ImageSet(pixels, torch.arange(1024) % n_classes, tuple(str(n) for n in range(n_classes)), half, half)
