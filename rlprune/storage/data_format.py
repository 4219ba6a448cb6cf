"""What a stored network expects of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlprune.data.image_set import ImageSet
from rlprune.storage.folders import malformed


@dataclass(frozen=True)
class DataFormat:
    """What a network expects of images, and what its classes are called."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def format_to_json(data: DataFormat | ImageSet) -> dict[str, Any]:
    """What a manifest says of the images."""
    return {"mean": data.mean, "std": data.std, "classes": data.classes}


def read_format(manifest: Mapping[str, Any]) -> DataFormat:
    """The format that a manifest says."""
    with malformed("manifest"):
        return DataFormat(*(tuple(manifest["data"][key]) for key in ("mean", "std", "classes")))
