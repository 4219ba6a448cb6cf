"""From what a user names to what is optimised: a network, and images that are split for it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.data import loading
from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import Transform, read_preprocessing
from rlprune.errors import DataError
from rlprune.intake.notes import split_notes
from rlprune.intake.options import DataOptions, source_notes
from rlprune.intake.preparation import load_for
from rlprune.models import registry
from rlprune.optimization.plan import SHARES
from rlprune.optimization.subject import Subject
from rlprune.pipelines.inputs import build_model
from rlprune.utils.notes import heard, say

Given = str | Preprocessing | Transform | None


def read_subject(
    model: str | nn.Module,
    data: str | Splits,
    *,
    weights: Path | None = None,
    trust_pickle: bool = False,
    preprocess: Given = None,
    options: DataOptions | None = None,
    heldout: str | None = None,
) -> Subject:
    """Load a network and images, and see that they fit each other.

    Args:
        model: a network by name, or itself, which is copied.
        data: as for `rlprune.data.load`; or images that are split already.
        weights: of a network by name.
        trust_pickle: read weights that run code, too.
        preprocess: as for `rlprune.data.load`.
        options: how images are read, instead of `data` and `preprocess`.
        heldout: images of the same classes that the network has not seen, for the decisions and for choosing.

    Raises:
        DataError: images cannot be read, or those that are held out have other classes.
        ModelError: there is no such network, or it does not fit its weights or the images.
    """
    with heard() as said:
        if isinstance(model, nn.Module):
            subject = _of_module(model, data, preprocess, options, heldout)
        else:
            subject = _by_name(model, data, weights, preprocess, options, heldout, trust_pickle=trust_pickle)
    return replace(subject, said=tuple(said))


def _by_name(
    model: str,
    data: str | Splits,
    weights: Path | None,
    preprocess: Given,
    options: DataOptions | None,
    heldout: str | None,
    *,
    trust_pickle: bool,
) -> Subject:
    """A network by name, with its weights."""
    trained = not registry.asks_for_fresh(weights) and (weights is not None or model not in registry.NAMES)
    registry.check(model, pretrained=weights is None)
    if isinstance(data, Splits):
        splits = data
        source: dict[str, Any] = {}
    else:
        options = _options(data, preprocess, options)
        splits = load_for(model, options, weights, trained=trained)
        source = {"source": source_notes(options)}
    splits = _with_heldout(splits, heldout, options)
    network = build_model(model, weights, splits, trust_pickle=trust_pickle)
    if weights is not None and trained:
        say(f"weights: {weights}")
    notes = {"network": {"model": model, **source}, "split": _split_notes(splits, heldout)}
    return Subject(model, network.eval(), trained, splits, _name_of(data), notes)


def _of_module(
    model: nn.Module, data: str | Splits, preprocess: Given, options: DataOptions | None, heldout: str | None
) -> Subject:
    """A network that the caller has, which stays as it is."""
    name = type(model).__name__
    if isinstance(data, Splits):
        splits = data
    elif options is None and not isinstance(preprocess, str | None):
        splits = loading.load(data, preprocess=read_preprocessing(preprocess), shares=SHARES)
    else:
        splits = _options(data, preprocess, options).load()
    splits = _with_heldout(splits, heldout, options)
    network = copy.deepcopy(model).cpu().eval()
    registry.check_outputs(network, splits.network.images.shape[1:], len(splits.network.classes))
    notes = {"network": {"model": name}, "split": _split_notes(splits, heldout)}
    return Subject(name, network, True, splits, _name_of(data), notes)


def _options(data: str, preprocess: Given, options: DataOptions | None) -> DataOptions:
    """How images are read; their shares are those of this module unless others are given."""
    if options is None:
        if not isinstance(preprocess, str | None):
            raise DataError("preprocess is no text: with a network by name, give text such as resize=256,crop=224")
        options = DataOptions(data, preprocess=preprocess)
    return options if options.shares is not None else replace(options, shares=SHARES)


def _split_notes(splits: Splits, heldout: str | None) -> dict[str, Any]:
    """What is stored of the split; where images were held out, the network has all of the others but the test images.

    Those others are then no sign of a wrong split, and are not noted.
    """
    return split_notes(splits) if heldout is None else split_notes(splits) | {"sample": []}


def _name_of(data: str | Splits) -> str:
    return data if isinstance(data, str) else "images in memory"


def _with_heldout(splits: Splits, heldout: str | None, options: DataOptions | None) -> Splits:
    """The images, those held out in the place of the ones that decisions are learnt and chosen by."""
    if heldout is None:
        return splits
    others = loading.load(
        heldout,
        preprocess=replace(splits.network.preprocessing, mean=splits.network.mean, std=splits.network.std),
        seed=0 if options is None else options.split_seed,
        image_size=None if options is None else options.image_size,
    )
    found = others.network.classes
    if found != splits.network.classes:
        missing = [name for name in splits.network.classes if name not in found]
        lacking = f"; it lacks {', '.join(missing[:5])}" if missing else ""
        raise DataError(
            f"heldout={heldout!r} has the classes {', '.join(found[:5])}, ... ({len(found)}), and not those of the "
            f"other images ({len(splits.network.classes)}){lacking}: give images of the same classes"
        )
    every = joined([others.network, others.policy, others.validation, others.test]).prepared_for(splits.network)
    if every.images.shape[1:] != splits.network.images.shape[1:]:
        raise DataError(
            f"heldout={heldout!r} has images of shape {tuple(every.images.shape[1:])}, the others have "
            f"{tuple(splits.network.images.shape[1:])}: give images of the same size, or resize them with preprocess"
        )
    if len(every) < 2:
        raise DataError(f"heldout={heldout!r} has one image; two or more are needed, some hundreds make sense")
    half = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).chunk(2)
    network = joined([splits.network, splits.policy, splits.validation])
    return Splits(network, every.subset(half[0]), every.subset(half[1]), splits.test)


def joined(parts: Sequence[ImageSet]) -> ImageSet:
    """Several sets of images as one."""
    images = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels for part in parts])
    return replace(parts[0], images=images, labels=labels)
