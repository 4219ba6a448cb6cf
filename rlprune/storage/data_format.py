"""The format of the images that a stored network takes: normalisation and class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlprune.data.image_set import ImageSet
from rlprune.storage.folders import malformed


@dataclass(frozen=True)
class DataFormat:
    """Normalisation and class names that belong to a network.

    Attributes:
        mean: per channel, of pixel values in [0, 1].
        std: per channel, of pixel values in [0, 1].
        classes: class names, in the order of the logits.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def format_to_json(data: DataFormat | ImageSet) -> dict[str, Any]:
    """The format as a manifest holds it."""
    return {"mean": data.mean, "std": data.std, "classes": data.classes}


def read_format(manifest: Mapping[str, Any]) -> DataFormat:
    """The format in a manifest.

    Raises:
        BundleError: it is malformed.
    """
    with malformed("manifest"):
        data = manifest["data"]
        return DataFormat(tuple(data["mean"]), tuple(data["std"]), tuple(data["classes"]))
