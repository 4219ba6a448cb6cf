"""The last training, on all images that are not for testing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import network
from recipe_runs import copy_of, recipe_of, stamps, steps_of
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.storage.networks import load_network
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.distillation import cache_teacher_logits


def test_a_refit_trains_the_tuned_network_on_all_images_and_keeps_codebook_and_policies(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = [f"steps/{name}.json" for name in ("teacher", "tune", "policies", "refit", "evaluate")]
    out = copy_of(root, tmp_path, "tuned", "tuning", "policies", "results.json", "bundle", *later)
    already: list[Tensor | None] = []
    recipe = recipe_of(root)

    def asked(*of: Any, known: Tensor | None) -> Tensor:
        already.append(known)
        return cache_teacher_logits(*of, known=known)

    refit = replace(recipe.specialise, epochs=2, shares=(1.0, 2.0))
    steps = steps_of(root, out, policy=replace(recipe.policy, pool=0), refit=refit)
    monkeypatch.setattr("rlprune.pipelines.teachers.cache_teacher_logits", asked)
    steps.run("policies")
    (known,) = already  # the network's own images were asked about before
    assert known is not None and len(known) == len(steps.splits.network)
    before, trainings = stamps(out / "policies"), []
    tuned = load_network(out / "tuned").network.state_dict()

    def watched(elastic: ElasticCNN, images: ImageSet, settings: AdaptSettings, **more: Any) -> None:
        assert elastic.codebook is not None and elastic.codebook.equal(steps.codebook)
        assert all(value.equal(tuned[name]) for name, value in elastic.state_dict().items())
        assert more["teacher"].shape == (len(images), settings.views, 5)
        assert settings.shares == (1.0, 2.0)
        trainings.append((len(images), settings.epochs))
        adapt(elastic, images, settings, **more)

    monkeypatch.setattr("rlprune.pipelines.steps.adapt", watched)
    steps.run()
    splits = steps.splits
    assert trainings == [(len(splits.network) + len(splits.policy) + len(splits.validation), 2)]
    assert stamps(out / "policies") == before
    assert (out / "teacher-refit.safetensors").exists()
    refitted, bundled = load_network(out / "refitted").network, load_network(out / "bundle").network
    assert all(value.equal(bundled.state_dict()[name]) for name, value in refitted.state_dict().items())
    assert not any(value.equal(tuned[name]) for name, value in refitted.state_dict().items() if name.endswith("weight"))


def test_a_refit_may_begin_with_other_weights_than_those_that_policies_are_learnt_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy_of(root, tmp_path)
    recipe, begun = recipe_of(root), []

    def watched(elastic: ElasticCNN, images: ImageSet, settings: AdaptSettings, **_: Any) -> None:
        begun.append(elastic)
        assert len(images) == len(steps.splits.training) and settings.separate

    refit = replace(recipe.specialise, separate=True)
    policy = replace(recipe.policy, pool=0)
    steps = steps_of(root, out, policy=policy, refit=refit, refit_weights="known.safetensors")
    monkeypatch.setattr("rlprune.pipelines.steps.adapt", watched)
    steps.refit()
    (elastic,) = begun
    assert elastic.codebook is not None and elastic.codebook.equal(steps.codebook)
    images = steps.splits.test.normalised(slice(0, 4))
    expected = network("residual", seed=4).eval()(images)
    torch.testing.assert_close(elastic.eval()(images, elastic.full), expected, rtol=1e-4, atol=1e-4)
