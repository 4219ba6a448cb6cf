"""From what a user names to a network and images that fit each other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.loading import SHARES
from rlprune.elastic.module import ElasticModule
from rlprune.errors import LevelsError, ModelError, RLPruneError
from rlprune.models import registry
from rlprune.models.checkpoints import weights_in_folder
from rlprune.models.weights import load_weights
from rlprune.pipelines.options import DataOptions
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.data_format import DataFormat
from rlprune.storage.networks import load_network


def build_model(name: str, weights: Path | None, splits: Splits, *, trust_pickle: bool = False) -> nn.Module:
    """Build a network for images, with its weights if they are named, and see that it gives the right logits.

    The weights may be the folder of an elastic network or a bundle: the network is all of that then.

    Args:
        name: as for `rlprune.models.registry.build`.
        weights: what it begins with; None leaves it as it was built.
        splits: the images.
        trust_pickle: read weights that run code, too; see `rlprune.models.weights.load_weights`.

    Raises:
        ModelError: there is no such network, or it does not fit its weights or the images.
        BundleError: the folder holds nothing like that.
    """
    n_classes, image_shape = len(splits.network.classes), splits.network.images.shape[1:]
    if weights is not None and weights.is_dir() and weights_in_folder(weights) is None:
        return _whole(name, weights, splits.network)
    model = registry.build(name, n_classes, image_shape[0])
    if weights is not None:
        load_weights(model, weights, trust_pickle=trust_pickle)
    registry.check_outputs(model, image_shape, n_classes)
    return model


def _whole(name: str, folder: Path, images: ImageSet) -> nn.Module:
    """All of the elastic network in a folder."""
    saved = load_network(folder)
    made_of = saved.metadata.get("network", saved.metadata).get("model", name)
    if made_of != name:
        raise ModelError(f"{folder} holds a network made of {made_of}, not of {name}")
    expected = tuple(images.images.shape[1:]), DataFormat(images.mean, images.std, images.classes)
    if (saved.network.image_shape, saved.data) != expected:
        raise ModelError(
            f"the network in {folder} was trained on images of another shape, or other classes, mean or std; these are "
            f"{expected[0]} in {len(images.classes)} classes"
        )
    return saved.network.slice(saved.network.full)


def load_profiles(elastic: ElasticModule, path: Path) -> Tensor:
    """Read the codebook that a recipe names, int64 (K, G), cheapest profile first.

    Raises:
        RLPruneError: the file is not there, or holds no profiles of this network.
    """
    try:
        profiles = elastic.check_codebook(torch.tensor(json.loads(path.read_text())))
        return sorted_codebook(profiles, Cost(elastic))
    except (OSError, ValueError, TypeError, RuntimeError, LevelsError) as error:
        raise RLPruneError(
            f"search.codebook={path.name!r}: {path} has no profiles of this network, one list of levels for each, "
            f"of {elastic.n_groups} levels: {error}"
        ) from error


def load_fitting(
    image_shape: Sequence[int], expected: DataFormat, made_from: dict[str, Any], options: DataOptions
) -> Splits:
    """Load images and see that they are what a stored network takes; they are normalised as it is used to.

    Args:
        image_shape: (C, H, W) that it takes.
        expected: what else it expects of them.
        made_from: the notes stored with it.
        options: where the images are.

    Raises:
        RLPruneError: they have another shape or other classes, or are split so that training images would be measured.
    """
    before = made_from.get("source", {})
    if before.get("data") == options.data and before.get("split_seed") != options.split_seed:
        raise RLPruneError(
            f"the network was trained on the split of seed {before['split_seed']}; with --split-seed "
            f"{options.split_seed} some of its training images would be measured on"
        )
    if before.get("data") == options.data:
        shares = before.get("shares") and tuple(before["shares"])
        if options.shares not in (None, shares or SHARES):
            raise RLPruneError(
                f"the network was trained on splits of {shares or SHARES}; with --shares {options.shares} some of its "
                "training images would be measured on"
            )
        options = dataclasses.replace(options, shares=shares)
    splits = options.load()
    shape, n_classes = tuple(splits.network.images.shape[1:]), len(splits.network.classes)
    if shape != tuple(image_shape) or n_classes != len(expected.classes):
        raise RLPruneError(
            f"the network takes images of shape {tuple(image_shape)} in {len(expected.classes)} classes, "
            f"{options.data} has {shape} in {n_classes}; use the data that it was adapted to, or --image-size"
        )
    parts = (splits.network, splits.policy, splits.validation, splits.test)
    return Splits(*(dataclasses.replace(part, mean=expected.mean, std=expected.std) for part in parts))
