"""A recipe carried out: from a dataset to measured bundles, step by step, each resumed where it stopped."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rlprune.agents.joint_tuning import tune
from rlprune.agents.train import train_policy
from rlprune.data.image_set import Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LatestLogitCache
from rlprune.errors import LevelsError, RLPruneError
from rlprune.evaluation.controls import Controls
from rlprune.evaluation.dynamic import codebook_logits, evaluate, mean_reward
from rlprune.evaluation.plots import budgets_plot
from rlprune.evaluation.results import PenaltyResult, RecipeResult
from rlprune.metrics import accuracy
from rlprune.models.weights import find_weights, save_weights
from rlprune.pipelines.inputs import build_model
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.teachers import Teachers, views_of
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency, measured
from rlprune.profiles.search import best_within, search_profiles
from rlprune.storage.bundle import save_bundle
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import adapt
from rlprune.training.pretraining import pretrain
from rlprune.utils.files import write_json
from rlprune.utils.imports import require
from rlprune.utils.tensorboard import scalar_log

StepName = Literal["teacher", "dense", "adapt", "search", "specialise", "tune", "policies", "refit", "evaluate"]


class Steps:
    """The steps of a recipe, in a folder; what is there already is not made again.

    | step | makes |
    |---|---|
    | `teacher` | `teacher.safetensors`, `teacher-refit.safetensors`: what the final teachers say of kept views |
    | `dense` | `dense.safetensors`: the ordinary network |
    | `adapt` | `adapted/`: the elastic network, ranked, then trained under random profiles |
    | `search` | `codebook.json`: the best profiles found for the budgets |
    | `specialise` | `specialised/`: the network trained on under those profiles alone |
    | `tune` | `tuned/`: the network trained on under a policy's decisions, the policy learnt anew, while that pays |
    | `policies` | `policies/PENALTY/`: a policy for the tuned network at every penalty, begun where the last ended; |
    | | `policies-up/PENALTY/`: the same from the lowest penalty up; `policies-up/rewards.json`: which is better |
    | `refit` | `refitted/`: the network, or other weights for it, trained on, on every image that is not for testing |
    | `evaluate` | `results.json`, `frontier.png`, `bundle/` |

    Args:
        recipe: what to do.
        out: folder; checkpoints and TensorBoard's events go there as well.
        beside: folder in which files that the recipe names are.
    """

    NAMES: tuple[StepName, ...] = get_args(StepName)

    def __init__(self, recipe: Recipe, out: Path, beside: Path) -> None:
        self.recipe, self.out, self.beside = recipe, out, beside

    def run(self, last: str = NAMES[-1]) -> None:
        """Do every step up to the last one.

        Raises:
            RLPruneError: there is no such step, or the folder holds one that was made under other settings.
            ModelError: weights that the recipe names are not there.
            MissingExtraError: the last step needs matplotlib, which is not installed.
        """
        if last not in self.NAMES:
            raise RLPruneError(f"step {last!r} is unknown; allowed: {', '.join(self.NAMES)}")
        if last == "evaluate":
            require("matplotlib", "plots")
        recipe = self.recipe
        if not (self.out / "steps").exists():  # what is missing is better missed now than in hours
            for trained in (recipe.teacher, *recipe.final_teachers, recipe.reference):
                if trained is not None:
                    self._find(trained.weights)
            if recipe.refit_weights is not None:
                self._find(recipe.refit_weights)
        settings: dict[str, Any] = {
            "teacher": [
                *(recipe.data, recipe.teacher, [*map(asdict, recipe.final_teachers)] or None),
                *(views_of(recipe.specialise), recipe.refit and views_of(recipe.refit)),
            ],
            "dense": [recipe.model, recipe.weights, recipe.dense],
            "adapt": [recipe.elastic, recipe.adapt],
            "search": [recipe.search],
            "specialise": [recipe.specialise],
            "tune": [recipe.policy, recipe.tune, sorted(p for p in recipe.penalties if p > recipe.policy.penalty)],
            "policies": [recipe.penalties],
            "refit": [recipe.refit, recipe.refit_weights],
            "evaluate": [recipe.reference],
        }
        for name in self.NAMES[: self.NAMES.index(last) + 1]:
            print(f"{name} ...", flush=True)
            with self._note(name, json.loads(json.dumps([recipe.seed, *map(_plain, settings[name])]))):
                getattr(self, name)()

    @contextmanager
    def _note(self, step: str, settings: Any) -> Iterator[None]:
        """Write down what a step is done with, before it starts; what was started otherwise is not gone on with."""
        note = self.out / "steps" / f"{step}.json"
        new = not note.exists()
        if new:
            write_json(note, settings)
        elif json.loads(note.read_text()) != settings:
            raise RLPruneError(
                f"the step {step!r} in {self.out} was made or begun under other settings, which {note} holds; "
                "go back to those, or name another folder"
            )
        try:
            yield
        except RLPruneError:
            if new:
                note.unlink()  # such settings cannot be: there is nothing to go back to
            raise

    def teacher(self) -> None:
        """Ask the final teachers once about all views, if the recipe keeps views; and about those of a refit."""
        self.teachers.cache_logits()

    def dense(self) -> None:
        """Train the ordinary network, or load it."""
        path, settings = self.out / "dense.safetensors", replace(self.recipe.dense, seed=self.recipe.seed)
        if path.exists():
            return
        torch.manual_seed(self.recipe.seed)
        weights = None if self.recipe.weights is None else self._find(self.recipe.weights)
        model = build_model(self.recipe.model, weights, self.splits)
        if weights is None:
            teacher = self.teachers.first(settings) if self.recipe.teacher else None
            pretrain(model, self.splits.network, settings, teacher=teacher, **self._kept("dense"))
        save_weights(model, path)

    def adapt(self) -> None:
        """Make it elastic, rank its channels, train it under random profiles."""
        if (self.out / "adapted").exists():
            return
        settings = replace(self.recipe.adapt, seed=self.recipe.seed)
        elastic, teacher = self._elastic(self.teachers.dense()), self.teachers.first(settings)
        adapt(elastic, self.splits.network, settings, teacher=teacher, **self._kept("adapt"))
        self._save("adapted", elastic)

    def search(self) -> None:
        """Find the best profile for every budget, or take those that the recipe names."""
        path, settings = self.out / "codebook.json", self.recipe.search
        if path.exists():
            return
        elastic = self._load("adapted")
        if settings.codebook is not None:
            write_json(path, self._profiles(elastic, self.beside / settings.codebook).tolist())
            return
        images = self.splits.policy.subset(slice(0, settings.n_images))
        found = search_profiles(
            elastic, images, settings.n_candidates, self.recipe.seed, latency=self._latency(elastic)
        )
        write_json(path, best_within(elastic, found, settings.budgets).tolist())

    def specialise(self) -> None:
        """Train the network on under the codebook's profiles alone."""
        if (self.out / "specialised").exists():
            return
        elastic, settings = self._load("adapted"), replace(self.recipe.specialise, seed=self.recipe.seed)
        elastic.specialise(self.codebook)
        teacher = self.teachers.final(settings)
        adapt(
            elastic, self.splits.network, settings, teacher=teacher, codebook=self.codebook, **self._kept("specialise")
        )
        self._save("specialised", elastic)

    def tune(self) -> None:
        """Learn a policy, train the network under its decisions, learn it anew; and again, while that pays.

        `tuning/rewards.json` holds the policy's reward before the first and after every round, on the images that all
        policies learn from and no network does. Those of the network that is kept are the first of `policies`.
        """
        if (self.out / "tuned").exists():
            return
        elastic, settings = self._load("specialised"), replace(self.recipe.tune, seed=self.recipe.seed)
        teacher, folder = self.teachers.final(settings), self.out / "tuning"
        policy = self._learn(elastic, kept := folder / "policies-0", self.recipe.policy.penalty)
        rewards = [self._reward(elastic, policy, self.recipe.policy.penalty)]
        for n in range(settings.rounds):
            tuned, training = copy.deepcopy(elastic), self._kept(f"tuning/network-{n}")
            tune(tuned, policy, self.splits.network, settings, teacher=teacher, **training)
            policy = self._learn(tuned, learnt := folder / f"policies-{n + 1}", self.recipe.policy.penalty)
            rewards.append(self._reward(tuned, policy, self.recipe.policy.penalty))
            if rewards[-1] < rewards[-2]:
                break
            elastic, kept = tuned, learnt
        write_json(folder / "rewards.json", rewards)
        shutil.copytree(kept, self.out / "policies", dirs_exist_ok=True)
        self._save("tuned", elastic)

    def policies(self) -> None:
        """Learn a policy for the tuned network at every penalty: from the highest down, then from the lowest up.

        What is seldom found where compute is dear, such as a cascade, comes there from below; the better of both stays.
        """
        elastic, rewards = self._load("tuned"), self.out / "policies-up" / "rewards.json"
        self._learn(elastic, self.out / "policies", min(self._penalties))
        if rewards.exists() or (self.out / "results.json").exists():  # measured as they are
            return
        found: dict[str, dict[str, float]] = {}
        start = self._ways(min(self._penalties))["down"]
        for penalty in sorted(self._penalties)[1:]:
            ways = self._ways(penalty)
            self._train(elastic, ways["up"], penalty, start)
            learnt = {way: load_policy(folder / "policy").policy for way, folder in ways.items()}
            of_ways = {way: self._reward(elastic, policy, penalty) for way, policy in learnt.items()}
            found[f"{penalty:g}"], start = of_ways, ways[max(of_ways, key=lambda way: of_ways[way])]
        write_json(rewards, found)

    def chosen(self, penalty: float) -> Path:
        """The folder of a penalty's policy: of the two that were learnt, the one of the higher reward.

        Raises:
            RLPruneError: they are still being learnt.
        """
        path = self.out / "policies-up" / "rewards.json"
        if path.parent.exists() and not path.exists():
            raise RLPruneError(f"{path} is not there yet: the policies are not all learnt; finish that step first")
        rewards = json.loads(path.read_text()).get(f"{penalty:g}", {}) if path.exists() else {}
        return self._ways(penalty)[max(rewards, key=lambda way: float(rewards[way]), default="down")]

    def _ways(self, penalty: float) -> dict[str, Path]:
        """Where the policies of a penalty are, by how they were begun."""
        return {"down": _folder_of(penalty, self.out / "policies"), "up": _folder_of(penalty, self.out / "policies-up")}

    def refit(self) -> None:
        """Train the network on, or other weights for it, on all images, if the recipe says so; the rest stays."""
        if self.recipe.refit is None or (self.out / "refitted").exists():
            return
        settings, weights = replace(self.recipe.refit, seed=self.recipe.seed), self.recipe.refit_weights
        if weights is None:
            elastic = self._load("tuned")
        else:
            elastic = self._elastic(build_model(self.recipe.model, self._find(weights), self.splits))
            elastic.specialise(self.codebook)
        teacher = self.teachers.of_refit()
        adapt(elastic, self.splits.training, settings, teacher=teacher, codebook=self.codebook, **self._kept("refit"))
        self._save("refitted", elastic)

    def evaluate(self) -> None:
        """Measure every policy on the test images, beside its controls, and pack the first into a bundle."""
        if (self.out / "results.json").exists():
            return
        elastic, adapted = self._load("tuned" if self.recipe.refit is None else "refitted"), self._load("adapted")
        splits, selection_set = self.splits, self.splits.policy.subset(slice(0, self.recipe.search.n_images))
        controls = Controls.measure(
            (elastic, adapted), self.codebook, splits.test, selection_set, seed=self.recipe.seed
        )
        dense = self.teachers.dense() if self.recipe.reference is None else self.teachers.load(self.recipe.reference)
        dense_accuracy = accuracy(dense, splits.test)
        logits: Tensor | None = None
        results: list[PenaltyResult] = []
        for penalty in self._penalties:
            learnt = load_policy(self.chosen(penalty) / "policy")
            policy = learnt.policy
            dynamic = DynamicCNN(elastic, policy, *self._of_images)
            if logits is None:
                logits = codebook_logits(dynamic, splits.test)
            figures = evaluate(
                dynamic, splits.test, splits.policy, dense=dense_accuracy, controls=controls, logits=logits
            )
            results.append(PenaltyResult(penalty=penalty, evaluation=figures))
            if penalty == self.recipe.policy.penalty:
                notes = {"network": self._made_of, "policy": learnt.metadata, "penalty": penalty}
                metadata = notes | {"metrics": figures.headline()}
                save_bundle(self.out / "bundle", elastic, policy, splits.network, metadata)
        result = RecipeResult(recipe=self.recipe.to_json(), budgets=tuple(results))
        budgets_plot(self.out / "frontier.png", result)
        write_json(self.out / "results.json", result.to_json())

    @cached_property
    def splits(self) -> Splits:
        """The images."""
        return self.recipe.data.load()

    @cached_property
    def teachers(self) -> Teachers:
        """Whom trainings learn from."""
        return Teachers(self.recipe, self.out, self.beside, self.splits)

    @cached_property
    def _answers(self) -> LatestLogitCache:
        """What a network says of the images that policies learn from."""
        return LatestLogitCache(self.splits.policy, self.splits.validation)

    @property
    def _of_images(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
        """Mean, std and classes."""
        images = self.splits.network
        return images.mean, images.std, images.classes

    @property
    def _penalties(self) -> tuple[float, ...]:
        """The recipe's own first, then the further ones."""
        return (self.recipe.policy.penalty, *self.recipe.penalties)

    @property
    def _made_of(self) -> dict[str, Any]:
        return {"model": self.recipe.model, "source": asdict(self.recipe.data)}

    @property
    def codebook(self) -> Tensor:
        """The profiles found, int64 (K, G), cheapest first."""
        return torch.tensor(json.loads((self.out / "codebook.json").read_text()))

    def _elastic(self, dense: nn.Module) -> ElasticCNN:
        """An ordinary network made elastic, its channels ranked."""
        images = self.splits.network
        return self.recipe.elastic.build(dense, tuple(images.images.shape[1:]), images)

    def _profiles(self, elastic: ElasticCNN, path: Path) -> Tensor:
        """Those of a file, cheapest first."""
        try:
            profiles = elastic.check_codebook(torch.tensor(json.loads(path.read_text())))
            return sorted_codebook(profiles, Cost(elastic))
        except (OSError, ValueError, TypeError, RuntimeError, LevelsError) as error:
            raise RLPruneError(
                f"search.codebook={path.name!r}: {path} has no profiles of this network, one list of levels for each, "
                f"of {elastic.n_groups} levels: {error}"
            ) from error

    def _learn(self, elastic: ElasticCNN, folder: Path, last: float) -> Policy:
        """The policy of the last penalty, after those of all higher ones, each begun where the one before ended."""
        start = None
        for penalty in sorted((p for p in self._penalties if p >= last), reverse=True):
            to = _folder_of(penalty, folder)
            policy = self._train(elastic, to, penalty, start)
            start = to
        return policy

    def _train(self, elastic: ElasticCNN, folder: Path, penalty: float, start: Path | None) -> Policy:
        """One policy, begun with that of another folder."""
        codebook = self.codebook if self.recipe.policy.action == "profiles" else None
        return train_policy(
            *(elastic, self.splits.policy, self.splits.validation, folder),
            replace(self.recipe.policy, penalty=penalty, seed=self.recipe.seed),
            codebook=codebook,
            latency=self._latency(elastic),
            start=start,
            resume=True,
            answers=self._answers.of(elastic, codebook),
        )

    def _reward(self, elastic: ElasticCNN, policy: Policy, penalty: float) -> float:
        """What a policy's decisions are worth on the images that it learnt from."""
        dynamic = DynamicCNN(elastic, policy, *self._of_images, device=elastic.widths.device)
        return mean_reward(dynamic, self.splits.policy, penalty, self._latency(elastic) or self.recipe.policy.cost)

    def _latency(self, elastic: ElasticCNN) -> Latency | None:
        """What is paid for, if that is time; measured once."""
        paid = self.recipe.policy.cost == "latency"
        return measured(self.out / "latency.json", elastic, seed=self.recipe.seed) if paid else None

    def _kept(self, step: str) -> dict[str, Any]:
        """Where a training's checkpoint and events go."""
        return {"checkpoint": self.out / f"{step}.checkpoint.pt", "log": scalar_log(self.out / "logs", step)}

    def _save(self, name: str, elastic: ElasticCNN) -> None:
        save_network(self.out / name, elastic.cpu(), self.splits.network, self._made_of)

    def _load(self, name: str) -> ElasticCNN:
        return load_network(self.out / name).network

    def _find(self, name: str) -> Path:
        return find_weights(name, self.beside)


def _folder_of(penalty: float, policies: Path) -> Path:
    return policies / f"{penalty:g}"


def _plain(settings: Any) -> Any:
    return asdict(settings) if hasattr(settings, "__dataclass_fields__") else settings
