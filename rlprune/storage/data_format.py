"""The format of the images that a stored network takes: preprocessing, normalisation and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlprune.data.image_set import InputFormat
from rlprune.data.preprocessing import Preprocessing
from rlprune.storage.folders import malformed, schema
from rlprune.storage.tensors import MalformedError


@dataclass(frozen=True)
class DataFormat:
    """Preprocessing, normalisation and class names that belong to a network.

    Attributes:
        mean: per channel, of pixel values in [0, 1].
        std: per channel, of pixel values in [0, 1].
        classes: class names, in the order of the logits.
        preprocessing: how pictures come to their size, and the order of channels that it reads.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @classmethod
    def of(cls, data: InputFormat) -> DataFormat:
        """The format of a set of images, or of a network that runs."""
        return cls(data.mean, data.std, data.classes, data.preprocessing)


def format_to_json(data: InputFormat) -> dict[str, Any]:
    """The format as a manifest holds it."""
    told = {"mean": data.mean, "std": data.std, "classes": data.classes}
    preprocessing = data.preprocessing.to_json()
    return told | {"preprocessing": preprocessing} if preprocessing else told


def check_data(data: DataFormat, image_shape: Sequence[int], n_classes: int) -> None:
    """Make sure that a format is one of a network's images.

    Args:
        data: the format.
        image_shape: (C, H, W) of its images.
        n_classes: how many logits it gives.

    Raises:
        MalformedError: it is not.
    """
    if not len(data.mean) == len(data.std) == image_shape[0]:
        found = f"mean has {len(data.mean)} numbers and std {len(data.std)}"
        raise MalformedError(f"the manifest's data: {found}; images have {image_shape[0]} channels")
    if data.preprocessing.bgr and image_shape[0] != 3:
        raise MalformedError(f"the manifest's data: images of {image_shape[0]} channels are not bgr")
    if len(data.classes) != n_classes:
        raise MalformedError(
            f"the manifest's data: {len(data.classes)} classes, and the network gives {n_classes} logits"
        )


def read_format(manifest: Mapping[str, Any]) -> DataFormat:
    """The format in a manifest.

    Raises:
        BundleError: it is malformed.
    """
    with malformed("manifest"):
        data = manifest["data"]
        schema().check(schema().Data, data, "manifest")
        preprocessing = Preprocessing.from_json(data.get("preprocessing") or {})
        return DataFormat(tuple(data["mean"]), tuple(data["std"]), tuple(data["classes"]), preprocessing)
