"""The preprocessing that belongs to a network: what is stored with it, or what its library says."""

from __future__ import annotations

import math
from dataclasses import replace

from rlprune.data.image_set import InputFormat
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import parse
from rlprune.errors import DataError
from rlprune.models.libraries import library_of, own_preprocessing


def whole(stored: InputFormat) -> Preprocessing:
    """The preprocessing that is stored with a network, mean and std included."""
    return replace(stored.preprocessing, mean=stored.mean, std=stored.std)


def confirmed(expected: Preprocessing, text: str | None, model: str = "") -> Preprocessing:
    """The preprocessing that is stored with a network; what the user says must be the same.

    Args:
        expected: what is stored, with mean and std unless a file of ONNX keeps them to itself.
        text: what the user says; needed only where the pictures come from a transform of the user's own.
        model: the network's name, for what its library says.

    Raises:
        DataError: the user says something else; or an own transform is needed and not given.
    """
    if text is None:
        expected.check_transform()
        return expected.without_statistics
    given = parse(text, lambda library: of_library(library, model))
    if given.without_statistics != expected.without_statistics or not _agree(given, expected):
        raise DataError(
            f"preprocess={text!r} is not what the network was trained with ({expected.text}); leave it out, for it is "
            "stored with the network"
        )
    return given.without_statistics


def _agree(given: Preprocessing, stored: Preprocessing) -> bool:
    """Whether mean and std, where both are known, are the same as far as text shows them."""
    if given.mean is None or given.std is None or stored.mean is None or stored.std is None:
        return True
    repeat = len(stored.mean) // len(given.mean)
    pairs = zip((*given.mean * repeat, *given.std * repeat), (*stored.mean, *stored.std), strict=False)
    return all(math.isclose(*pair, rel_tol=1e-4, abs_tol=1e-6) for pair in pairs)


def of_library(library: str, model: str) -> Preprocessing:
    """What a library says of a network that it has."""
    if library_of(model) != library:
        raise DataError(f"preprocess says {library}, which has no {model}; name the network as {library}:NAME")
    told = own_preprocessing(model)
    if told["crop_mode"] in ("border", "cover"):
        raise DataError(
            f"{library} brings pictures of {model} to size in a way that is not known here; give resize, crop, mean "
            "and std with preprocess"
        )
    names = ("resize", "crop", "interpolation", "mean", "std")
    return Preprocessing(**{name: told[name] for name in names}, channels="rgb")
