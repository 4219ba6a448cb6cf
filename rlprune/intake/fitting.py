"""Images for a stored network: divided and prepared as it was trained, and none measured that it was trained on."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rlprune.data.image_set import Splits
from rlprune.data.loading import SHARES
from rlprune.data.splitting import SPLIT_RULE
from rlprune.errors import RLPruneError
from rlprune.intake.identity import n_seen, same_source
from rlprune.intake.notes import network_notes
from rlprune.intake.options import DataOptions
from rlprune.intake.preprocessing import confirmed, whole
from rlprune.storage.data_format import DataFormat
from rlprune.utils.notes import say


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
