"""Static networks that a recipe trains as long as its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_runs import copy_of, recipe_of, results_of, stamps, steps_of

from rlprune.baselines.stored import load_plain
from rlprune.cli.main import main
from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.pipelines.recipe import StaticNetworkSettings
from rlprune.pipelines.static_networks import StaticNetworks
from rlprune.profiles.cost import Cost
from rlprune.storage.networks import load_network
from rlprune.training.pretraining import pretrain


def test_static_networks_are_trained_as_long_and_are_controls(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy_of(root, tmp_path, "results.json", "frontier.png", "bundle", "steps/evaluate.json")
    trained: list[tuple[int, int, float]] = []

    def watched(network: Any, images: ImageSet, settings: Any, **more: Any) -> None:
        assert more["teacher"].shape == (len(images), settings.views, 5)  # the cached logits of specialise
        trained.append((len(images), settings.epochs, settings.learning_rate))
        if len(trained) == 2:
            raise KeyboardInterrupt
        pretrain(network, images, settings, **more)

    steps = steps_of(root, out, static=StaticNetworkSettings(budgets=(0.6, 0.8), learning_rate=0.01))
    monkeypatch.setattr("rlprune.pipelines.static_networks.pretrain", watched)
    with pytest.raises(KeyboardInterrupt):
        steps.run()
    first = stamps(out / "static" / "0.6")
    steps.run()
    assert stamps(out / "static" / "0.6") == first and (out / "search.json").exists()
    # one epoch of specialise, and one of each of the two rounds of tuning, which stayed; the second was interrupted
    assert trained == [(len(steps.splits.network), 3, 0.01)] * 3
    cost = Cost(load_network(out / "adapted").network)
    kept = [load_plain(out / "static" / f"{budget:g}").metadata for budget in (0.6, 0.8)]
    shares = [float(cost.of(torch.tensor(each["profile"])).macs / cost.dense.macs) for each in kept]
    assert shares[0] <= 0.6 and shares[1] <= 0.8 and kept[0]["dense"]["macs"] == cost.dense.macs
    for figures in results_of(out)["budgets"]:
        points = figures["frontier"]["static_trained"]
        assert [share for share, _ in points] == pytest.approx(sorted(shares))
        accuracies = [right for _, right in points]
        assert min(accuracies) <= figures["controls"]["static_trained"] <= max(accuracies)
    evaluate = ["evaluate", str(out / "bundle"), "--data", "my_data:five_colours", "--n-candidates", "5"]
    main([*evaluate, "--static", str(out / "static" / "0.6"), str(out / "static" / "0.8"), "--json", "again.json"])
    again = json.loads((root / "again.json").read_text())
    assert again["frontier"]["static_trained"] == points
    assert again["controls"]["static_trained"] == results_of(out)["budgets"][0]["controls"]["static_trained"]
    with pytest.raises(RLPruneError, match=r"the step 'evaluate' in .* was made under other settings"):
        steps_of(root, out).run()


def test_static_networks_go_through_what_the_network_of_the_policies_does(root: Path, tmp_path: Path) -> None:
    out = copy_of(root, tmp_path)
    recipe, asked = recipe_of(root), StaticNetworkSettings(budgets=(0.6,))

    def trainings(static: StaticNetworkSettings = asked, **changed: Any) -> list[tuple[str, int, int]]:
        steps = steps_of(root, out, policy=replace(recipe.policy, pool=0), static=static, **changed)
        found = StaticNetworks(steps, static, steps.teachers)._trainings()
        return [(each.name, each.settings.epochs, len(each.images)) for each in found]

    splits = steps_of(root).splits
    some, every = len(splits.network), len(splits.training)
    refit = replace(recipe.specialise, epochs=5, views=0)
    assert trainings() == [("specialise", 3, some)]  # of which two were rounds of tuning
    assert trainings(refit=refit) == [("specialise", 3, some), ("refit", 5, every)]
    assert trainings(refit=refit, refit_weights="known.safetensors") == [("refit", 5, every)]
    assert trainings(replace(asked, epochs=7), refit=refit)[1] == ("refit", 7, every)
    (out / "tuning" / "rewards.json").write_text("[0, 1, 0.5]")
    assert trainings() == [("specialise", 2, some)]  # the second round was undone
