"""Whether images are those that trained a network, whatever their folder is called and however it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.sources import path_of

_N_SAMPLED = 64


def sample_of(splits: Splits) -> list[str]:
    """Digests of some of the images that train a network, for its notes.

    They are those with the smallest digests, at most 64, so that the same images give the same sample in any order. No
    image is among them that policy, validation or test images equal. Of streamed images there are none, since all would
    have to be decoded.
    """
    if splits.network.streamed:
        return []
    others = digests(splits.policy) | digests(splits.validation) | digests(splits.test)
    return sorted(digests(splits.network) - others)[:_N_SAMPLED]


def n_seen(images: ImageSet, sample: Collection[str]) -> int:
    """How many images of a network's sample are among some."""
    return len(digests(images) & set(sample))


def digests(images: ImageSet) -> set[str]:
    """A digest of the pixels of every image."""
    return set(digest_of_each(images))


def digest_of_each(images: ImageSet) -> list[str]:
    """A digest of the pixels of each image, in their order; equal images have the same."""
    return [
        hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest()
        for pixels in images.pixels(images.at_once)
        for image in pixels
    ]


def same_source(one: str | None, other: str) -> bool:
    """Whether two names are the same, or lead to the same file or folder."""
    if one is None:
        return False
    return one == other or _resolved(one) == _resolved(other) is not None


def _resolved(source: str) -> Path | None:
    """Where a file or folder is; None for a name that can be none, as notes may hold."""
    try:
        path = path_of(source)
        return None if path is None else path.resolve()
    except (OSError, ValueError):
        return None
