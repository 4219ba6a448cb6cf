"""From what a user names to a network and profiles."""

from __future__ import annotations

import json
import reprlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.elastic.module import ElasticModule
from rlprune.errors import LevelsError, ModelError, RLPruneError
from rlprune.intake.notes import network_notes
from rlprune.intake.preparation import classes_noted
from rlprune.models import registry
from rlprune.models.checkpoints import weights_in_folder
from rlprune.models.classes import KnownClasses, in_folder, keep_classes, match, matches_any, of_library, of_names
from rlprune.models.libraries import library_of
from rlprune.models.weights import OtherClassesError, load_weights
from rlprune.pipelines.class_names import assumed_classes
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.data_format import DataFormat
from rlprune.storage.networks import load_network
from rlprune.utils.files import read_text
from rlprune.utils.notes import say

_MOST_SHOWN = 10


def build_model(
    name: str, weights: Path | None, splits: Splits, *, trust_pickle: bool = False, new_head: bool = False
) -> nn.Module:
    """Build a network for images, with its weights if they are named, and see that it gives the right logits.

    The weights may be the folder of an elastic network or a bundle: the network is all of that then. Where they are for
    more classes than the images have, and say which (or the library does that the network is of), the logits of the
    images' classes are kept, in their order, and a line says so.

    Args:
        name: as for `rlprune.models.registry.build`.
        weights: what it begins with; None leaves it as it was built, or with the weights that come with a network of
            timm or torchvision; the word none leaves that one as it was built, too.
        splits: the images.
        trust_pickle: read weights that run code, too; see `rlprune.models.weights.load_weights`.
        new_head: take weights that come with a network for other classes, too; its last layer begins anew then.

    Raises:
        ModelError: there is no such network, or it does not fit its weights or the images.
        BundleError: the folder holds nothing like that.
    """
    images = splits.network
    n_classes, image_shape = len(images.classes), images.images.shape[1:]
    if weights is not None and weights.is_dir() and weights_in_folder(weights) is None:
        return _whole(name, weights, images)
    known = None if new_head else known_classes(name, weights)
    if weights is None:
        if known is not None and len(known) != n_classes:
            match(known, images.classes)  # before anything is fetched
        n_logits = n_classes if known is None else len(known)
        model = registry.begin(name, n_logits, image_shape[0], new_head=new_head)
    else:
        model = registry.build(name, n_classes, image_shape[0])
    if weights is not None and not registry.asks_for_fresh(weights):
        try:
            load_weights(model, weights, trust_pickle=trust_pickle, new_head=new_head)
        except OtherClassesError as error:
            known = known or assumed_classes(name)
            if known is None or len(known) != error.n_classes:
                raise
            match(known, images.classes)  # before the network is built again
            model = registry.build(name, error.n_classes, image_shape[0])
            load_weights(model, weights, trust_pickle=trust_pickle)
    if known is not None:
        _take_classes(model, known, images)
    registry.check_outputs(model, image_shape, n_classes)
    return model


def known_classes(name: str, weights: Path | None) -> KnownClasses | None:
    """The classes that a network's weights are for, where they or their library say so."""
    if weights is None:
        return None if library_of(name) is None else of_library(name)
    noted = classes_noted(weights)
    return in_folder(weights) if noted is None else of_names(str(weights), noted)


def _take_classes(model: nn.Module, known: KnownClasses, images: ImageSet) -> None:
    """Leave a network the logits of the images' classes, in their order, if it has those of the known ones."""
    n_known, classes = len(known), images.classes
    image_shape = images.images.shape[1:]
    same_number = n_known == len(classes)
    if registry.shape_of_output(model, image_shape) != (1, n_known) or (same_number and not known.certain):
        return
    try:
        rows = match(known, classes)
    except ModelError:
        if not same_number:
            raise
        if matches_any(known, classes):
            say(f"{known.source}: some of the images' classes have other names; they are taken in the logits' order")
        return
    if rows == list(range(n_known)):
        return
    keep_classes(model, rows, image_shape)
    names = [known.names[row][0].partition(",")[0] for row in rows]
    shown = ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
    which = "its classes in the images' order" if same_number else f"{len(rows)} of its {n_known} classes"
    assumed = "" if known.certain else " (the weights are taken to be for the same classes as those that come with it)"
    say(f"{known.source}: {which}: {shown}{assumed}")


def _whole(name: str, folder: Path, images: ImageSet) -> nn.Module:
    """All of the elastic network in a folder; of its classes those that the images have."""
    saved = load_network(folder)
    made_of = network_notes(saved.metadata).get("model") or name
    if made_of != name:
        raise ModelError(f"{folder} holds a network made of {reprlib.repr(made_of)[1:-1]}, not of {name}")
    expected = tuple(images.images.shape[1:]), replace(DataFormat.of(images), classes=saved.data.classes)
    if (saved.network.image_shape, saved.data) != expected:
        raise ModelError(
            f"the network in {folder} was trained on images of another shape, other classes, or "
            f"prepared otherwise; these are {expected[0]} in {len(images.classes)} classes"
        )
    model = saved.network.slice(saved.network.full)
    unnamed = tuple(map(str, range(len(images.classes))))  # as classes are called that had no names then
    if saved.data.classes not in (images.classes, unnamed):
        known = of_names(str(folder), saved.data.classes)
        match(known, images.classes)
        _take_classes(model, known, images)
    return model


def load_profiles(elastic: ElasticModule, path: Path) -> Tensor:
    """Read the codebook that a recipe names, int64 (K, G), cheapest profile first.

    Raises:
        RLPruneError: the file is not there, or holds no profiles of this network.
    """
    try:
        profiles = elastic.check_codebook(torch.tensor(json.loads(read_text(path))))
        return sorted_codebook(profiles, Cost(elastic))
    except (OSError, ValueError, TypeError, RuntimeError, LevelsError) as error:
        raise RLPruneError(
            f"search.codebook={path.name!r}: {path} has no profiles of this network, one list of levels for each, "
            f"of {elastic.n_groups} levels: {error}"
        ) from error
