"""From what a user names to what is optimised: a network, and images that are split for it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.data.image_set import Splits
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import Transform, read_preprocessing
from rlprune.data.sources import find, path_of
from rlprune.data.splitting import SPLIT_RULE
from rlprune.errors import DataError, RLPruneError
from rlprune.intake.notes import split_notes
from rlprune.intake.options import DataOptions, source_notes
from rlprune.intake.preparation import load_for
from rlprune.models import registry
from rlprune.optimization.entry.heldout import with_heldout
from rlprune.optimization.plan import SHARES
from rlprune.optimization.subject import Subject
from rlprune.pipelines.class_names import check_names
from rlprune.pipelines.inputs import build_model, known_classes
from rlprune.utils.notes import heard, say

Given = str | Preprocessing | Transform | None


def read_subject(
    model: str | nn.Module,
    data: str | Path | Splits,
    *,
    weights: Path | None = None,
    trust_pickle: bool = False,
    preprocess: Given = None,
    heldout: str | Path | None = None,
    **how: Any,
) -> Subject:
    """Load a network and images, and see that they fit each other.

    Args:
        model: a network by name, or itself, which is copied.
        data: as for `rlprune.data.load`; or images that are split already.
        weights: of a network by name.
        trust_pickle: read weights that run code, too.
        preprocess: as for `rlprune.data.load`.
        heldout: images of the same classes that the network has not seen, for the decisions and for choosing.
        how: further options of `rlprune.intake.options.DataOptions`, which say how images are read and split.

    Raises:
        DataError: images cannot be read, or those that are held out have other classes or are no others.
        ModelError: there is no such network, or it does not fit its weights or the images.
        RLPruneError: an argument is for another kind of network or of images.
    """
    how = {name: value for name, value in how.items() if value is not None}
    _check_useful(model, data, how | {"preprocess": preprocess}, weights, heldout, trust_pickle=trust_pickle)
    with heard() as said:
        if isinstance(model, str):
            registry.check(model, pretrained=weights is None)
        if isinstance(data, Splits):
            options, splits = None, data
        else:
            text = preprocess if isinstance(preprocess, str) else None
            options = DataOptions(str(data), **{"shares": SHARES} | how, preprocess=text)
            splits = _images(model, options, weights, preprocess, trust_pickle=trust_pickle)
        if heldout is not None:
            splits = with_heldout(splits, str(heldout), options)
        network = _network(model, weights, splits, trust_pickle=trust_pickle)
        if weights is not None and not registry.asks_for_fresh(weights):
            say(f"weights: {weights}")
    name = model if isinstance(model, str) else type(model).__name__
    notes: dict[str, Any] = {"network": {"model": name}, "split": _split_notes(splits, heldout)}
    if options is not None and isinstance(model, str):
        notes["network"]["source"] = source_notes(options)
    source = "images in memory" if options is None else options.data
    return Subject(name, network, _is_trained(model, weights), splits, source, notes, tuple(said))


def _check_useful(
    model: str | nn.Module,
    data: str | Path | Splits,
    how: dict[str, Any],
    weights: Path | None,
    heldout: str | Path | None,
    *,
    trust_pickle: bool,
) -> None:
    """Refuse arguments that would do nothing.

    Raises:
        RLPruneError: there is one.
    """
    if isinstance(model, nn.Module):
        if weights is not None:
            raise RLPruneError(
                f"weights={str(weights)!r} is for a network by name; load them into yours, and leave this out"
            )
        if trust_pickle:
            raise RLPruneError("trust_pickle=True is for weights of a network by name; leave it out")
    elif trust_pickle and weights is None and model in registry.NAMES:
        raise RLPruneError("trust_pickle=True is for weights; give them, or leave it out")
    useless = next((name for name, value in how.items() if value), None)
    if isinstance(data, Splits) and useless is not None:
        raise RLPruneError(
            f"{useless}={how[useless]!r} says how images are read, and yours are split and in memory: leave it out"
        )
    if heldout is not None and how.get("shares"):
        raise RLPruneError(
            f"shares={how['shares']}: with heldout, whatever does not test trains the network, so this would do "
            "nothing; leave it out"
        )
    if isinstance(model, str) and not isinstance(how["preprocess"], str | None):
        raise DataError("preprocess is no text: with a network by name, give text such as resize=256,crop=224")


def _is_trained(model: str | nn.Module, weights: Path | None) -> bool:
    """Whether a network has been trained; one of this project's own by name has not, unless it has weights."""
    if isinstance(model, nn.Module):
        return True
    return not registry.asks_for_fresh(weights) and (weights is not None or model not in registry.NAMES)


def _images(
    model: str | nn.Module, options: DataOptions, weights: Path | None, preprocess: Given, *, trust_pickle: bool
) -> Splits:
    """The images, prepared as the network takes them; names of classes are compared before pictures are read."""
    if isinstance(model, nn.Module):
        own = None if isinstance(preprocess, str | None) else read_preprocessing(preprocess)
        return options.load(SPLIT_RULE, own)
    if path_of(options.data) is not None:  # a callable or the hub would be asked twice
        found = find(options.data, options.image_column, options.label_column, options.test_split)
        if found.classes is not None:
            check_names(model, weights, known_classes(model, weights), found.classes, trust_pickle=trust_pickle)
    return load_for(model, options, weights, trained=_is_trained(model, weights))


def _network(model: str | nn.Module, weights: Path | None, splits: Splits, *, trust_pickle: bool) -> nn.Module:
    """The network, in eval mode; one of the caller's is copied."""
    if isinstance(model, str):
        return build_model(model, weights, splits, trust_pickle=trust_pickle).eval()
    network = copy.deepcopy(model).cpu().eval()
    registry.check_outputs(network, splits.network.images.shape[1:], len(splits.network.classes))
    return network


def _split_notes(splits: Splits, heldout: str | Path | None) -> dict[str, Any]:
    """What is stored of the split; where images were held out, the network has all of the others but the test images.

    Those others are then no sign of a wrong split, and are not noted.
    """
    return split_notes(splits) if heldout is None else split_notes(splits) | {"sample": []}
