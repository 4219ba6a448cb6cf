"""Networks that were pruned for all images, beside a bundle: on its test images, and learnt from none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rlprune.baselines import stored
from rlprune.baselines.stored import SavedPlain
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions


def test_images(folder: Path, plain: SavedPlain, test: ImageSet, source: DataOptions) -> ImageSet:
    """The bundle's test images as such a network takes them.

    Args:
        folder: of the network, for messages.
        plain: the network.
        test: of the bundle.
        source: where the images are.

    Raises:
        RLPruneError: it is for other images, or learnt from some of these.
    """
    try:
        own = load_fitting(plain.image_shape, plain.data, plain.metadata, source).test
    except RLPruneError as error:
        raise RLPruneError(f"--static {folder}: {error}") from error
    if not torch.equal(own.labels, test.labels):
        raise RLPruneError(
            f"--static {folder}: {len(own)} images are for testing there, {len(test)} for the bundle, and not the "
            "same ones; prune and train it on the same data"
        )
    return own


def load_rows(folders: Sequence[Path], dynamic: DynamicCNN) -> Mapping[str, SavedPlain]:
    """Such networks by the names of their rows in a benchmark, once it is seen that they take what a bundle takes.

    Raises:
        BundleError: a folder holds none.
        RLPruneError: one takes other images.
    """
    found = {}
    for folder in folders:
        alone = [each.name for each in folders].count(folder.name) == 1
        plain = stored.load_plain(folder)
        data = plain.data
        if plain.image_shape != dynamic.image_shape or (data.mean, data.std) != (dynamic.mean, dynamic.std):
            raise RLPruneError(
                f"--static {folder}: it takes images of {plain.image_shape}, mean {data.mean} and std {data.std}, the "
                f"bundle {dynamic.image_shape}, {dynamic.mean} and {dynamic.std}; prune and train it on the same data"
            )
        found[f"static {folder.name if alone else folder}"] = plain
    return found
