"""Images and labels from any source, split for training and measuring."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.data.decoding import Source, decode
from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.sources import find
from rlprune.errors import DataError

_CHUNK = 4096
SHARES = (0.7, 0.2, 0.1)
"""Default shares of the images outside the test set: for the network, the policy and validation."""

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's: what the public weights were trained with
    "mnist5k": ((0.1307,), (0.3081,)),
}
"""Mean and standard deviation per channel of known data sets; those of other data are measured."""


def load(
    source: str,
    *,
    seed: int = 0,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    shares: tuple[float, float, float] = SHARES,
    test_share: float = 0.2,
) -> Splits:
    """Load images and labels into memory and split them, the same way for the same seed on any machine.

    A test split of the source's own (``test``, else ``validation`` or ``val``) is taken whole and in its order;
    otherwise ``test_share`` of the images is set aside at random first. The rest is shuffled and split by ``shares``.

    Args:
        source: in this order of preference a file or folder in ``$RLPRUNE_DATA``; a name: ``mnist5k`` (5,000 digits,
            offline), ``cifar10``, ``cifar100``, ``fashion_mnist``; a folder of class folders, alone or below ``train``
            and ``test``; a parquet file, or a folder of ``train-*.parquet`` and ``test-*.parquet`` as the Hugging Face
            hub has them; ``package.module:callable``, which returns a torch Dataset of (image, label) or a tuple
            (train, test) of two, the image a PIL image, a uint8 tensor or a float tensor in [0, 1]; a hub data set.
        seed: seed of the shuffle, at least 0.
        image_size: pixels of height and width (shorter side scaled, centre cropped); None keeps images as they are,
            which must then all have one size.
        image_column: column of the images in a table; None finds the only one.
        label_column: column of the labels in a table; None finds ``label``, ``labels``, ``fine_label`` or the only
            one of integers.
        shares: of the images outside the test set, for ``network``, ``policy`` and ``validation``; positive, adding up
            to 1.
        test_share: of all images, in (0, 1); used where the source has no test split.

    Raises:
        DataError: an option is out of range; the source is unknown, unreachable or damaged; its labels do not fit; or
            it has too few images.
        MissingExtraError: an optional package is needed to read it.
    """
    _check_options(seed, image_size, shares, test_share)
    found = find(source, image_column, label_column)
    n_test = found.n_test or round(found.n_train * test_share)
    n_rest = found.n_train + found.n_test - n_test
    bounds = _split_bounds(source, n_rest, n_test, shares)

    # Row j of the stored array is record order[j]: the four splits are slices of it, and no image is held twice.
    order = _row_order(found, n_test, seed)
    pixels, labels = decode(found, np.argsort(order).tolist(), image_size)
    classes = _check_classes(source, labels[:n_rest], labels, found.classes)
    mean, std = STATISTICS.get(source, ((), ()))
    if len(mean) != pixels.shape[1]:
        mean, std = _statistics(pixels[: bounds[1]])
    everything = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), classes, mean, std)
    network, policy, validation, test = (everything.subset(slice(start, stop)) for start, stop in pairwise(bounds))
    return Splits(network, policy, validation, test)


def _check_options(seed: int, image_size: int | None, shares: tuple[float, float, float], test_share: float) -> None:
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares are {shares}; give three positive numbers that add up to 1")
    if not 0 < test_share < 1:
        raise DataError(f"test_share is {test_share}; give a number between 0 and 1")
    if seed < 0:
        raise DataError(f"the seed of the split is {seed}; give 0 or more")
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size is {image_size}; give at least 1 pixel")


def _split_bounds(source: str, n_rest: int, n_test: int, shares: tuple[float, float, float]) -> list[int]:
    """Where the splits for network, policy, validation and test begin and end: five ascending row numbers."""
    bounds = [0, round(shares[0] * n_rest), round((shares[0] + shares[1]) * n_rest), n_rest, n_rest + n_test]
    sizes = np.diff(bounds)
    if sizes.min() < 1:
        raise DataError(
            f"{source} has {bounds[-1]} images, too few to split: {' + '.join(map(str, sizes))} for network, policy, "
            "validation and test; each needs at least one: add images or change the shares"
        )
    return bounds


def _row_order(found: Source, n_test: int, seed: int) -> NDArray[np.int64]:
    """The record of every row, int64 (N,): shuffled, the test images last."""
    shuffled = np.random.default_rng(seed).permutation(found.n_train)
    if not found.n_test:
        return np.concatenate((shuffled[n_test:], shuffled[:n_test]))
    own_test = np.arange(found.n_train, found.n_train + found.n_test)
    return np.concatenate((shuffled, own_test))


def _check_classes(
    source: str, training_labels: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Check that every class can be learnt, and name the classes where the source does not."""
    present = set(np.unique(training_labels).tolist())
    n_classes = len(classes) if classes else int(labels.max()) + 1
    missing = next((label for label in range(n_classes) if label not in present), None)
    if missing is not None:
        name = f" ({classes[missing]})" if classes else ""
        raise DataError(
            f"{source} has no image of class {missing}{name} to train on; the labels must cover 0 to {n_classes - 1}: "
            "add images of it or renumber the labels"
        )
    return classes or tuple(map(str, range(n_classes)))


def _statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation per channel of (N, C, H, W), rounded to 4 decimals; a constant gets std 1."""
    n_channels = pixels.shape[1]
    counts = np.zeros((n_channels, 256))
    for start in range(0, len(pixels), _CHUNK):  # exact, and no float copy of the images
        for channel in range(n_channels):
            counts[channel] += np.bincount(pixels[start : start + _CHUNK, channel].ravel(), minlength=256)
    weights = counts / counts.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1)).round(4)
    return tuple(mean.round(4).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
