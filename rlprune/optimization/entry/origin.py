"""What an optimisation is begun with, as values to be written down and compared before it is gone on with."""

from __future__ import annotations

import hashlib
from typing import Any

from rlprune.data.image_set import ImageSet
from rlprune.intake.identity import digest_of_each
from rlprune.optimization.subject import Subject
from rlprune.storage.provenance import fingerprint

PARTS = ("network", "policy", "validation", "test")
_SHOWN = 5


def origin_of(subject: Subject) -> dict[str, Any]:
    """Network and images, by what they hold: weights, classes, preparation, and every pixel and label of every part."""
    splits = subject.splits
    images = splits.network
    return {
        "network": subject.name,
        "data": subject.data,
        "made_of": fingerprint(*subject.model.state_dict().values()),
        "classes": _named(images.classes),
        "preprocess": images.preprocessing.text,
        "mean": list(images.mean),
        "std": list(images.std),
        "images": {name: _told(getattr(splits, name)) for name in PARTS},
    }


def _named(classes: tuple[str, ...]) -> str:
    """Class names in a line of bounded length that no others give."""
    if len(classes) <= _SHOWN:
        return ", ".join(classes)
    return f"{', '.join(classes[:_SHOWN])}, ... ({len(classes)}, {fingerprint(repr(classes).encode())[:8]})"


def _told(part: ImageSet) -> str:
    """How many images a part has, and what tells them from others."""
    told = list(part.fingerprint().values()) if part.streamed else digest_of_each(part)
    digest = hashlib.sha256("".join(told).encode())
    digest.update(part.labels.numpy().tobytes())
    kept = ", streamed by RLPRUNE_MEMORY" if part.streamed else ""
    return f"{len(part)}{kept} ({digest.hexdigest()[:16]})"
