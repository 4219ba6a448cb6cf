"""A recipe carried out step by step, from a data set to a measured bundle; a step that was interrupted is resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from rlprune.agents.joint.tuning import tune
from rlprune.agents.train import train_policy
from rlprune.baselines.cascade_codebook import codebook_for_cascades
from rlprune.data.image_set import Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LatestLogitCache
from rlprune.errors import RLPruneError
from rlprune.evaluation.controls import Controls, Point
from rlprune.evaluation.dynamic import evaluate, mean_reward
from rlprune.evaluation.per_image.rivals import tuned_cascades
from rlprune.evaluation.plots import budgets_plot
from rlprune.evaluation.results import PenaltyResult, RecipeResult
from rlprune.intake.identity import same_source
from rlprune.intake.notes import split_rule_of
from rlprune.intake.preparation import load_for, note_of
from rlprune.models.weights import find_weights, save_weights
from rlprune.pipelines.inputs import build_model, load_profiles
from rlprune.pipelines.penalty_chain import PenaltyChain
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.recipe_run import RecipeRun
from rlprune.pipelines.static_networks import StaticNetworks
from rlprune.pipelines.step_settings import FILES, FOLDERS, StepName, check_static, settings_of, told, weights_noted
from rlprune.pipelines.teachers import Teachers, check_networks
from rlprune.policies.policy import Policy
from rlprune.profiles.search import best_within
from rlprune.storage.bundle import save_bundle
from rlprune.storage.policies import load_policy
from rlprune.storage.provenance import check_targets, noted, plain
from rlprune.training.adaptation import adapt
from rlprune.training.parallel.group import current
from rlprune.training.parallel.measuring import shared_accuracy, shared_rows
from rlprune.training.pretraining import pretrain
from rlprune.utils.files import write_json
from rlprune.utils.hardware import memory_for
from rlprune.utils.imports import require


class Steps(RecipeRun):
    """The steps of a recipe, in a folder; what the folder has already is not made again.

    | step | makes |
    |---|---|
    | `teacher` | `teacher.safetensors`, `teacher-refit.safetensors`: the final teachers' logits on kept views |
    | `dense` | `dense.safetensors`: the ordinary network |
    | `adapt` | `adapted/`: the elastic network, ranked, then trained under random profiles |
    | `search` | `codebook.json`: the best profiles found for the budgets |
    | `specialise` | `specialised/`: the network trained on under those profiles alone |
    | `tune` | `tuned/`: the network trained on under a policy's decisions, the policy learnt anew, while that pays |
    | `policies` | `policies/PENALTY/`: a policy for the tuned network at every penalty, from the highest down; |
    | | `policies-up/PENALTY/`: the same from the lowest penalty up; `policies-up/rewards.json`: which is better |
    | `refit` | `refitted/`: the network, or other weights for it, trained on, on every image that is not for testing |
    | `static` | `static/BUDGET/`: networks that are each pruned for all images and trained as long, if asked for |
    | `evaluate` | `results.json`, `frontier.png`, `bundle/` |

    Args:
        recipe: what to do.
        out: folder of everything that is made, checkpoints and TensorBoard's events included.
        recipe_dir: folder in which the files are that the recipe names.
    """

    NAMES: tuple[StepName, ...] = get_args(StepName)

    def __init__(self, recipe: Recipe, out: str | Path, recipe_dir: str | Path) -> None:
        super().__init__(recipe, out, recipe_dir)
        self._chain = PenaltyChain(self.out / "policies")

    def run(self, last: str = NAMES[-1]) -> None:
        """Do every step up to the last one.

        Raises:
            RLPruneError: there is no such step, or the folder holds one that was made under other settings.
            ModelError: a network cannot be stored, or its weights are not there, or do not fit.
            MissingExtraError: the last step needs matplotlib, which is not installed.
        """
        if last not in self.NAMES:
            raise RLPruneError(f"step {last!r} is unknown; allowed: {', '.join(self.NAMES)}")
        if last == "evaluate":
            require("matplotlib", "plots")
        current().from_first(self._check)
        for name in self.NAMES[: self.NAMES.index(last) + 1]:
            if name == "static" and self.recipe.static is None:
                continue  # nor is it noted, so that a recipe may ask for it later
            print(f"{name} ...", flush=True)
            note = noted(
                self.out / "steps" / f"{name}.json",
                plain(settings_of(self.recipe)[name]),
                what=f"the step {name!r} in {self.out}",
                cure="go back to those, or name another folder",
                values_only=True,
                same=same_source,
            )
            less = "smaller batches, fewer views or smaller images need less"
            with current().first(note), memory_for(f"doing the step {name!r}", less):
                getattr(self, name)()
            current().wait()  # for what the first writes, which the next step reads

    def _check(self) -> None:
        """Make sure, before anything long begins, that the steps can be done."""
        check_targets(self.out, FOLDERS, FILES)
        if not (self.out / "steps").exists():
            check_networks(self.recipe, self.recipe_dir)
            self.teachers.check_all()
        check_static(self.recipe, self.out)

    def teacher(self) -> None:
        """Cache the final teachers' logits on all views, if the recipe keeps views; and on those of a refit."""
        self.teachers.cache_logits()

    def dense(self) -> None:
        """Train the ordinary network, or load it."""
        if (path := self.out / "dense.safetensors").exists():
            return
        settings = self.seeded(self.recipe.dense)
        torch.manual_seed(self.recipe.seed)
        model, trained = self.teachers.own()
        if not trained:
            teacher = self.teachers.first(settings) if self.recipe.teacher else None
            pretrain(model, self.splits.network, settings, teacher=teacher, **self.checkpointing("dense"))
        if current().leads:
            save_weights(model, path, note_of(self.splits.network))

    def adapt(self) -> None:
        """Make it elastic, rank its channels, train it under random profiles."""
        if (self.out / "adapted").exists():
            return
        settings = self.seeded(self.recipe.adapt)
        elastic, teacher = self.elastic(self.teachers.dense()), self.teachers.first(settings)
        adapt(elastic, self.splits.network, settings, teacher=teacher, **self.checkpointing("adapt"))
        self.save("adapted", elastic)

    def search(self) -> None:
        """Find the best profile for every budget, or take those that the recipe names."""
        if current().from_first((path := self.out / "codebook.json").exists):  # which the first may be quick to write
            return
        settings, elastic = self.recipe.search, self.load("adapted")
        found = self.searched(elastic) if settings.codebook is None else None

        def choose() -> None:
            if found is None:
                book = load_profiles(elastic, self.recipe_dir / str(settings.codebook))
            elif settings.mean_budgets:
                n_profiles = len(settings.budgets)
                book = codebook_for_cascades(elastic, found, self.selection_set, n_profiles, settings.mean_budgets)
            else:
                book = best_within(elastic, found, settings.budgets)
            write_json(path, book.tolist())

        current().from_first(choose)

    def specialise(self) -> None:
        """Train the network on under the codebook's profiles alone."""
        if (self.out / "specialised").exists():
            return
        elastic, settings = self.load("adapted"), self.seeded(self.recipe.specialise)
        elastic.specialise(self.codebook)
        teacher = self.teachers.final(settings)
        checkpointing = self.checkpointing("specialise")
        adapt(elastic, self.splits.network, settings, teacher=teacher, codebook=self.codebook, **checkpointing)
        self.save("specialised", elastic)

    def tune(self) -> None:
        """Learn a policy, train the network under its decisions, learn it anew; and again, while that pays.

        `tuning/rewards.json` holds the policy's reward before the first and after every round, on the images that all
        policies learn from and no network does. The policies of the network that stays are the first of `policies`.
        """
        if (self.out / "tuned").exists():
            return
        folder = self.out / "tuning"
        settings = self.seeded(self.recipe.tune)
        teacher = self.teachers.final(settings)
        best = self.load("specialised")
        best_chain = PenaltyChain(folder / "policies-0")
        policy, reward = self._learn_alone(partial(self._learn_own, best, best_chain), best)
        rewards = [reward]
        for n in range(settings.rounds):
            tuned = copy.deepcopy(best)
            how: dict[str, Any] = {"held_out": self.splits.policy, "teacher": teacher}
            tune(tuned, policy, self.splits.network, settings, **how, **self.checkpointing(f"tuning/network-{n}"))
            chain = PenaltyChain(folder / f"policies-{n + 1}")
            policy, reward = self._learn_alone(partial(self._learn_own, tuned, chain), tuned)
            rewards.append(reward)
            if rewards[-1] < rewards[-2]:
                break
            best, best_chain = tuned, chain
        if current().leads:
            write_json(folder / "rewards.json", rewards)
            self._chain.take(best_chain)
        self.save("tuned", best)

    def policies(self) -> None:
        """Learn a policy for the tuned network at every penalty: from the highest down, then from the lowest up."""
        elastic = self.load("tuned")
        self._learn_alone(partial(self._learn_policies, elastic), elastic)

    def _learn_policies(self, elastic: ElasticCNN) -> None:
        learn = partial(self._train, elastic)
        learnt = self._chain.learn_down(learn, self._penalties)
        if self._chain.rewards.exists() or (self.out / "results.json").exists():  # measured as they are
            return
        self._chain.learn_up_from_best(learn, learnt, partial(self._reward, elastic))

    def chosen(self, penalty: float) -> Path:
        """The folder of a penalty's policy: of the two that were learnt, the one of the higher reward.

        Raises:
            RLPruneError: they are still being learnt.
        """
        return self._chain.chosen(penalty)

    def refit(self) -> None:
        """Train the network on, or other weights for it, on all images, if the recipe says so; the rest stays."""
        if self.recipe.refit is None or (self.out / "refitted").exists():
            return
        settings = self.seeded(self.recipe.refit)
        if self.recipe.refit_weights is None:
            elastic = self.load("tuned")
        else:
            weights = find_weights(self.recipe.refit_weights, self.recipe_dir)
            elastic = self.elastic(build_model(self.recipe.model, weights, self.splits))
            elastic.specialise(self.codebook)
        teacher = self.teachers.for_refit()
        checkpointing = self.checkpointing("refit")
        adapt(elastic, self.splits.training, settings, teacher=teacher, codebook=self.codebook, **checkpointing)
        self.save("refitted", elastic)

    def static(self) -> None:
        """Prune and train a network for each of the budgets that the recipe names for it, if it does."""
        if self.recipe.static is not None:
            StaticNetworks(self, self.recipe.static, self.teachers).train()

    def evaluate(self) -> None:
        """Measure every policy on the test images, next to its controls, and pack the first into a bundle."""
        if (self.out / "results.json").exists():
            return
        tuned = self.load("tuned")
        elastic = tuned if self.recipe.refit is None else self.load("refitted")
        networks, test, asked = (elastic, self.load("adapted")), self.splits.test, self.recipe.static
        controls = Controls.measure(networks, self.codebook, test, self.selection_set, seed=self.recipe.seed)
        static_trained = () if asked is None else StaticNetworks(self, asked, self.teachers).points(test)
        dense_accuracy = shared_accuracy(self.teachers.reference(), test)
        known: tuple[Tensor, tuple[Point, ...]] | None = None  # the same for all policies
        results: list[PenaltyResult] = []
        for penalty in self._penalties:
            saved = load_policy(self.chosen(penalty) / "policy")
            dynamic = DynamicCNN.for_images(elastic, saved.policy, self.splits.network)
            if known is None:
                logits = shared_rows(partial(codebook_logits, dynamic), test, dim=1)
                before = DynamicCNN.for_images(tuned, saved.policy, self.splits.network)
                known = logits, tuned_cascades(dynamic, test, self.splits.policy, logits, learnt_with=before)
            figures = evaluate(
                dynamic,
                test,
                self.splits.policy,
                dense=dense_accuracy,
                controls=controls,
                logits=known[0],
                cascades=known[1],
                static_trained=static_trained,
            )
            choice = saved.metadata.get("choice")
            kept = choice.get("kept") if isinstance(choice, dict) else None
            results.append(PenaltyResult(penalty=penalty, evaluation=figures, kept=kept))
            if penalty == self.recipe.policy.penalty:
                metadata = {"network": self.made_of, **self.split_noted, "policy": saved.metadata, "penalty": penalty}
                metadata |= {"metrics": figures.headline(), "refitted": self.recipe.refit is not None}
                packed = (elastic, saved.policy, self.splits.network, metadata)
                current().from_first(partial(save_bundle, self.out / "bundle", *packed))
        if not current().leads:
            return
        result = RecipeResult(recipe=told(self.recipe, elastic.round_to), budgets=tuple(results))
        budgets_plot(self.out / "frontier.png", result)
        write_json(self.out / "results.json", result.to_json())

    @cached_property
    def splits(self) -> Splits:
        """The images."""
        return load_for(
            self.recipe.model,
            self.recipe.data,
            weights_noted(self.recipe, self.out, self.recipe_dir),
            trained=self.recipe.weights is not None,
            split_rule=split_rule_of(self.out),
        )

    @cached_property
    def teachers(self) -> Teachers:
        """Whom trainings learn from."""
        return Teachers(self.recipe, self.out, self.recipe_dir, self.splits)

    @cached_property
    def _logit_caches(self) -> LatestLogitCache:
        """The logits of the network that policies are learnt for, on the images that they are learnt from."""
        return LatestLogitCache(self.splits.policy, self.splits.validation)

    @property
    def _penalties(self) -> tuple[float, ...]:
        """The recipe's own first, then the further ones."""
        return (self.recipe.policy.penalty, *self.recipe.penalties)

    def _learn_alone(self, learn: Callable[[], Any], elastic: ElasticCNN) -> Any:
        """Let the first of several processes learn policies, from logits that all of them compute."""
        if current().size > 1 and self.recipe.policy.action == "profiles":
            for cache in self._logit_caches.of(elastic, self.codebook):
                cache.fill()
        return current().from_first(learn)

    def _learn_own(self, elastic: ElasticCNN, chain: PenaltyChain) -> tuple[Policy, float]:
        """The policy of the recipe's own penalty, after those of all higher ones; and its reward."""
        own = self.recipe.policy.penalty
        penalties = [penalty for penalty in self._penalties if penalty >= own]
        policy = chain.learn_down(partial(self._train, elastic), penalties)[own]
        return policy, self._reward(elastic, own, policy)

    def _train(self, elastic: ElasticCNN, penalty: float, folder: Path, start: Path | None) -> Policy:
        """One policy, begun with that of another folder."""
        codebook = self.codebook if self.recipe.policy.action == "profiles" else None
        return train_policy(
            elastic,
            self.splits.policy,
            self.splits.validation,
            folder,
            replace(self.recipe.policy, penalty=penalty, seed=self.recipe.seed),
            codebook=codebook,
            latency=self.latency(elastic),
            start=start,
            resume=True,
            logit_caches=self._logit_caches.of(elastic, codebook),
        )

    def _reward(self, elastic: ElasticCNN, penalty: float, policy: Policy) -> float:
        """What a policy's decisions are worth on the images that it learnt from."""
        dynamic = DynamicCNN.for_images(elastic, policy, self.splits.network, elastic.widths.device)
        return mean_reward(dynamic, self.splits.policy, penalty, self.latency(elastic) or self.recipe.policy.cost)
