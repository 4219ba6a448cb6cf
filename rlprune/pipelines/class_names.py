"""Classes of a network and of images by their names, compared before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlprune.errors import ModelError
from rlprune.models import registry
from rlprune.models.classes import KnownClasses, match, of_library
from rlprune.models.libraries import library_of
from rlprune.models.weights import OtherClassesError, load_weights
from rlprune.utils.notes import heard


def check_names(
    name: str, weights: Path | None, known: KnownClasses | None, classes: Sequence[str], *, trust_pickle: bool = False
) -> None:
    """Look for the images' classes among the network's.

    Args:
        name: of the network, as for `rlprune.models.registry.build`.
        weights: it begins with, if not those of its library.
        known: the classes that they are for, where they or their library say so.
        classes: the images'.
        trust_pickle: read weights that run code, too.

    Raises:
        ModelError: some classes of the images are not known to the network.
    """
    known = known or _classes_of_file(name, weights, classes, trust_pickle=trust_pickle)
    if known is not None and len(known) != len(classes):
        match(known, classes)


def _classes_of_file(
    name: str, weights: Path | None, classes: Sequence[str], *, trust_pickle: bool
) -> KnownClasses | None:
    """The classes that a file for a library's network is for, if it has as many as the library's own weights."""
    known = None if weights is None or weights.is_dir() else assumed_classes(name)
    if known is None or weights is None or len(known) == len(classes):
        return None
    with heard():  # what is said of the file is said when it is read for good
        try:
            load_weights(registry.build(name, len(classes)), weights, trust_pickle=trust_pickle)
        except OtherClassesError as error:
            return known if len(known) == error.n_classes else None
        except ModelError:
            return None
    return None


def assumed_classes(name: str) -> KnownClasses | None:
    """The classes that a file for a library's network is likely to be for: those of the library's own weights."""
    try:
        return None if library_of(name) is None else of_library(name, certain=False)
    except ModelError:
        return None  # it has none
