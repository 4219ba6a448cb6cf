"""Which preprocessing a network's images get: what the user says, or its weights, or its library."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rlprune.data.image_set import InputFormat, Splits
from rlprune.data.loading import STATISTICS
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import parse
from rlprune.data.splitting import SPLIT_RULE
from rlprune.intake.options import DataOptions
from rlprune.intake.preprocessing import of_library
from rlprune.models import registry
from rlprune.models.checkpoints import weights_in_folder
from rlprune.models.libraries import library_of
from rlprune.models.weights import notes_in_weights
from rlprune.storage.data_format import DataFormat, format_to_json, read_format
from rlprune.storage.folders import malformed, read_folder
from rlprune.utils.notes import say

_NOTE = "rlprune.data"
"""Under which a file of weights keeps what its network expects of images."""


def load_for(
    model: str,
    options: DataOptions,
    weights: Path | None = None,
    *,
    trained: bool = False,
    split_rule: int = SPLIT_RULE,
) -> Splits:
    """Load images and prepare them as a network takes them.

    What the user says of preprocessing counts; else what a file of weights says that `rlprune pretrain` wrote; else,
    for a network of timm or torchvision that is not to be fresh, what the library says. Otherwise mean and std are
    measured, and if the network has been trained before, a line says so.

    Args:
        model: the network, by name.
        options: where the images are, and how they are prepared.
        weights: the network's; the word none if they are fresh, though timm or torchvision have some.
        trained: whether it has been trained, on images that were normalised in some way.
        split_rule: as for `rlprune.data.loading.load`.

    Raises:
        DataError: the images cannot be loaded or prepared like that.
        ModelError: the library does not know the network.
    """
    chosen = _chosen(model, options, weights)
    splits = options.load(split_rule, chosen)
    fresh = registry.asks_for_fresh(weights)
    if trained and not fresh and chosen.mean is None and options.data not in STATISTICS:
        mean, std = (", ".join(f"{each:g}" for each in numbers) for numbers in (splits.test.mean, splits.test.std))
        say(
            f"pictures are normalised by the mean and std of {options.data} ({mean}; {std}); if the weights were "
            "trained with others, say so: --preprocess imagenet, or --preprocess mean=..,std=.."
        )
    return splits


def _chosen(model: str, options: DataOptions, weights: Path | None) -> Preprocessing:
    """The preprocessing for a network."""
    if options.preprocess is not None:
        return parse(options.preprocess, lambda library: of_library(library, model))
    noted = None if weights is None else _noted(weights)
    library = library_of(model)
    if noted is not None:
        chosen = replace(noted.preprocessing, mean=noted.mean, std=noted.std)
        where = f"as {weights} was trained"
    elif library is not None and not registry.asks_for_fresh(weights):
        chosen = of_library(library, model)
        where = f"as {library} says of {model}"
    else:
        return Preprocessing()
    if options.image_size is not None:
        chosen = replace(chosen, resize=None, crop=None, transform=None, transform_name=None)
    if chosen != Preprocessing():
        say(f"pictures are prepared {where}: {chosen.text}")
    return chosen


def _noted(weights: Path) -> DataFormat | None:
    """What a file of weights, or the folder of a network, says of the images that its network expects."""
    if weights.is_dir() and weights_in_folder(weights) is None:
        return read_format(read_folder(weights, ("network", "bundle")).manifest)
    note = notes_in_weights(weights).get(_NOTE)
    if note is None:
        return None
    with malformed(f"note in {weights}"):
        return read_format({"data": json.loads(note)})


def classes_noted(weights: Path) -> tuple[str, ...] | None:
    """The classes that a file of weights is for, if `rlprune pretrain` wrote it, which notes them; None for others."""
    noted = None if weights.is_dir() else _noted(weights)
    return None if noted is None else noted.classes


def note_of(images: InputFormat) -> dict[str, str]:
    """What a file of weights keeps of the images that its network expects, for `load_for`."""
    return {_NOTE: json.dumps(format_to_json(images))}
