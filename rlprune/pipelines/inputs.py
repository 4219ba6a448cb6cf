"""From what a user names to a network and images that fit each other."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.loading import SHARES
from rlprune.data.splitting import SPLIT_RULE
from rlprune.elastic.module import ElasticModule
from rlprune.errors import BundleError, LevelsError, ModelError, RLPruneError
from rlprune.models import registry
from rlprune.models.checkpoints import weights_in_folder
from rlprune.models.classes import KnownClasses, in_folder, keep_classes, match, matches_any, of_library, of_names
from rlprune.models.libraries import library_of
from rlprune.models.weights import OtherClassesError, load_weights
from rlprune.pipelines.class_names import assumed_classes
from rlprune.pipelines.identity import n_seen, same_source, sample_of
from rlprune.pipelines.options import DataOptions, without_unset
from rlprune.pipelines.preparation import classes_noted, confirmed, whole
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.data_format import DataFormat
from rlprune.storage.folders import MOST_JSON, malformed, schema
from rlprune.storage.networks import load_network
from rlprune.utils.files import read_regular, read_text
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
    notes = network_notes(made_from)
    before = notes.get("source") or {}
    split = notes["split"]
    same = same_source(before.get("data"), options.data)
    if same:
        options = _as_trained(before, options)
    if options.image_size is not None and expected.preprocessing.sizes:
        raise RLPruneError(
            f"--image-size is {options.image_size}, and the network says itself how its pictures come to size "
            f"({expected.preprocessing.text}): leave it out"
        )
    preprocessing = confirmed(whole(expected), options.preprocess, notes.get("model") or "")
    splits = options.load(split.get("rule", 1) if same else SPLIT_RULE, preprocessing)
    shape = tuple(splits.network.images.shape[1:])
    n_classes = len(splits.network.classes)
    if shape != tuple(image_shape) or n_classes != len(expected.classes):
        raise RLPruneError(
            f"the network takes images of shape {tuple(image_shape)} in {len(expected.classes)} classes, "
            f"{options.data} has {shape} in {n_classes}; use the data that it was adapted to, or --image-size"
        )
    _check_classes(expected.classes, splits.network.classes, options.data)
    _check_unseen(splits, split.get("sample", ()), before, options.data, same=same)
    parts = (splits.network, splits.policy, splits.validation, splits.test)
    network, policy, validation, test = (part.prepared_for(expected) for part in parts)
    return Splits(network, policy, validation, test, splits.test_set_aside)


def source_notes(options: DataOptions) -> dict[str, Any]:
    """What is stored of where images came from: as earlier versions do, if nothing is given that they did not know."""
    return without_unset(dataclasses.asdict(options))


def network_notes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The notes on a network, out of its own or those of a bundle, which keeps them next to others.

    They are to be shown and compared; nothing that they name is imported, opened or downloaded.

    Raises:
        BundleError: what the program reads of them is of another kind than it writes.
    """
    notes = metadata.get("network", metadata)
    if not isinstance(notes, dict):
        raise BundleError(f"the stored notes are malformed: network is {reprlib.repr(notes)}; an object is needed")
    notes = {**notes, "split": metadata.get("split") or {}}
    schema().check(schema().NetworkNotes, notes, "note on the network")
    return notes


def split_notes(splits: Splits, rule: int = SPLIT_RULE) -> dict[str, Any]:
    """What is stored with a network of the split that it was trained on, for `load_fitting`."""
    return {"rule": rule, "sample": sample_of(splits)}


def split_rule_of(folder: Path) -> int:
    """By which rule the images of a run folder are split: the one of the network in it, if there is one yet."""
    manifest = folder / "adapted" / "manifest.json"
    if not manifest.exists():
        return SPLIT_RULE
    with malformed("manifest"):
        about = json.loads(read_regular(manifest, MOST_JSON))["about"]
        return int(network_notes(about)["split"].get("rule", 1))


def _as_trained(before: Mapping[str, Any], options: DataOptions) -> DataOptions:
    """The options, with the shares that the network was trained with.

    Raises:
        RLPruneError: they divide the same images otherwise.
    """
    if before.get("split_seed") != options.split_seed:
        raise RLPruneError(
            f"the network was trained on the split of seed {before.get('split_seed')}; with --split-seed "
            f"{options.split_seed} some of its training images would be measured on"
        )
    shares = before.get("shares") and tuple(before["shares"])
    if options.shares not in (None, shares or SHARES):
        raise RLPruneError(
            f"the network was trained on splits of {shares or SHARES}; with --shares {options.shares} some of its "
            "training images would be measured on"
        )
    test_split = before.get("test_split")
    if options.test_split not in (None, test_split):
        raise RLPruneError(
            f"the network was trained where {test_split or 'the split that is called so'} tests; with --test-split "
            f"{options.test_split} the images are split otherwise: leave it out, or adapt the network anew"
        )
    return dataclasses.replace(options, shares=shares, test_split=test_split)


def _check_classes(expected: Sequence[str], found: Sequence[str], data: str) -> None:
    """Make sure that the same names stand for the same logits.

    Raises:
        RLPruneError: the classes are the network's, but in another order.
    """
    names, ours = ([unicodedata.normalize("NFC", name) for name in each] for each in (expected, found))
    if names != ours and sorted(names) == sorted(ours):
        raise RLPruneError(
            f"{data} has the network's classes in another order ({', '.join(ours[:5])}, ... and not "
            f"{', '.join(names[:5])}, ...); rename its folders or labels so that they come in the network's"
        )


def _check_unseen(splits: Splits, sample: Collection[str], before: Mapping[str, Any], data: str, *, same: bool) -> None:
    """Make sure that no image trained the network but those of its own split.

    Args:
        splits: the images, split now.
        sample: digests of some images that trained the network; none of older networks.
        before: where it says they came from.
        data: where the images come from now.
        same: whether that is the same place.

    Raises:
        RLPruneError: the network has been trained on some of the others.
    """
    if not sample:
        return
    others = (splits.policy, splits.validation, splits.test)
    seen = sum(n_seen(part, sample) for part in others)
    if seen:
        shares = " ".join(f"{share:g}" for share in before.get("shares") or SHARES)
        if same:
            cure = "its pictures have changed: take them as they were then"
        else:
            seed = before.get("split_seed", 0)
            cure = f"it was {before.get('data')!r}, split otherwise: give --split-seed {seed} and --shares {shares}"
        raise RLPruneError(
            f"{data} has images that trained the network where others are needed: of {len(sample)} that are known, "
            f"{seen} are for the policy, validation or test; {cure}, or adapt the network anew"
        )
    known = n_seen(splits.network, sample)
    if same and known < len(sample):
        say(
            f"{data} has changed since the network was trained on it: of {len(sample)} training images that are known, "
            f"{len(sample) - known} are not there, or not the same"
        )
