"""Images that the network has not seen: they teach the decisions and choose, in the place of some of the others."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlprune.data.image_set import ImageSet, Splits, joined
from rlprune.data.loading import load_whole
from rlprune.errors import DataError
from rlprune.intake.identity import digest_of_each, digests
from rlprune.intake.options import DataOptions
from rlprune.utils.notes import say

FEWEST = 2
"""Images that are needed: half of them teach, and half choose."""
_HOW = ("image_size", "image_column", "label_column")
"""Options of how the other images are read that these are read by, too."""


def with_heldout(splits: Splits, heldout: str, options: DataOptions | None) -> Splits:
    """The images, those held out in the place of the ones that decisions are learnt and chosen by.

    Args:
        splits: the other images.
        heldout: as for `rlprune.data.load`; it is not split, so all its parts count.
        options: how the other images are read, if they are.

    Raises:
        DataError: those that are held out cannot be read, have other classes or another size, or are too few; or they
            are the other images.
    """
    how = {} if options is None else {name: getattr(options, name) for name in _HOW}
    found = load_whole(heldout, splits.network, **how)
    if found.images.shape[1:] != splits.network.images.shape[1:]:
        raise DataError(
            f"heldout={heldout!r} has images of shape {tuple(found.images.shape[1:])}, the others have "
            f"{tuple(splits.network.images.shape[1:])}: give images of the same size, or resize them with preprocess"
        )
    network = joined([splits.network, splits.policy, splits.validation])
    new = _unseen(found, heldout, network, splits.test)
    if len(new) < FEWEST:
        raise DataError(
            f"heldout={heldout!r} has {len(new)} {'image' if len(new) == 1 else 'images'} beside the others; {FEWEST} "
            "or more are needed, some hundreds make sense"
        )
    half = torch.randperm(len(new), generator=torch.Generator().manual_seed(0)).chunk(2)
    return replace(splits, network=network, policy=new.subset(half[0]), validation=new.subset(half[1]))


def _unseen(found: ImageSet, heldout: str, network: ImageSet, test: ImageSet) -> ImageSet:
    """Those of the images that neither test nor train the network; a line says how many others are left out."""
    ours = digest_of_each(found)
    testing, training = digests(test), digests(network)
    left_out = {
        "test images": sum(each in testing for each in ours),
        "images that train the network": sum(each in training - testing for each in ours),
    }
    kept = [row for row, each in enumerate(ours) if each not in testing and each not in training]
    if len(kept) == len(ours):
        return found
    told = " and ".join(f"{n} are {what}" for what, n in left_out.items() if n)
    if not kept:
        raise DataError(f"heldout={heldout!r}: all {len(ours)} images are others, too ({told}); give new ones")
    say(f"{heldout}: of {len(ours)} images {told}; they are left out")
    return found.subset(kept)
