"""Images and labels from any source, split for training and measuring."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.data.decoding import Source, TooLargeError, decode, labels_of
from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.preprocessing_forms import Transform, read_preprocessing
from rlprune.data.sources import find, may_have_columns
from rlprune.data.splitting import SPLIT_RULE, Division, divide, exchanges
from rlprune.data.streamed.decoded import DecodedRecords
from rlprune.data.streamed.pixels import StreamedPixels
from rlprune.errors import DataError
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.notes import say_once

_CHUNK = 4096
_MEMORY = 2.0
"""GiB that pixels may take, if nothing is said."""
_MOST_MEASURED = 50_000
"""Streamed images on which mean and std are measured: a hundredth of the error of one image's mean, or less."""
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
    preprocess: str | Preprocessing | Transform | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    shares: tuple[float, float, float] = SHARES,
    test_share: float = 0.2,
    test_split: str | None = None,
    split_rule: int = SPLIT_RULE,
    memory: float | None = None,
) -> Splits:
    """Load images and labels and split them, the same way for the same seed on any machine.

    Pixels that need no more than ``memory`` are loaded; others stay where they are, and are decoded by workers whenever
    they are needed. A line says so. Splits are the same either way.

    A test split of the source's own is taken whole and in its order, and so is its validation split; that tests where
    there is no test split with labels. Without either, ``test_share`` of the images is set aside at random first. The
    rest is shuffled and split by ``shares``, so that every class of two images or more reaches the network, and the
    test set where that was set aside.

    Args:
        source: in this order of preference a file or folder in ``$RLPRUNE_DATA``; a name: ``mnist5k`` (5,000 digits,
            offline), ``cifar10``, ``cifar100``, ``fashion_mnist``; a folder of class folders, alone or below ``train``
            and ``test``; a parquet file, or a folder of ``train-*.parquet`` and ``test-*.parquet`` as the Hugging Face
            hub has them; likewise of ``train-*.tar``, shards of WebDataset; ``package.module:callable``, which returns
            a torch Dataset of (image, label), a tuple or list (train, test) of two, or a dictionary of such as are
            called train, val and test; their items may be dictionaries with ``image`` and ``label``, too, and an image
            is a PIL image, or a tensor or array of uint8 or of floats in [0, 1]; or which returns what
            ``datasets.load_dataset`` gives, with ``streaming=True`` too; a hub data set.
        seed: seed of the shuffle, at least 0.
        image_size: pixels of height and width (shorter side scaled, centre cropped); None keeps images as they are,
            which must then all have one size.
        preprocess: how the network's pictures are scaled, cut and normalised, as it was trained: text such as
            ``resize=256,crop=224,imagenet``, a transform of torchvision or timm, or any callable, PIL image -> picture;
            mean and std are measured on the network's images unless it gives them.
        image_column: column of the images in a table; None finds the only one.
        label_column: column of the labels in a table, whole numbers or text, which names the classes; None finds
            ``label``, ``labels``, ``fine_label`` or the only one of integers.
        shares: of the images outside the test set, for ``network``, ``policy`` and ``validation``; positive, adding up
            to 1.
        test_share: of all images, in (0, 1); used where the source has no test split.
        test_split: name of the source's part that tests, such as ``val``; None takes its test split, else its
            validation split.
        split_rule: 2, or 1 as networks were trained by that were stored without one; see
            `rlprune.data.splitting.SPLIT_RULE`.
        memory: GiB that the pixels may take; 0 streams any images. None takes ``$RLPRUNE_MEMORY``, else 2.

    Raises:
        DataError: an option is out of range; the source is unknown, unreachable or damaged; its labels do not fit; or
            it has too few images.
        MissingExtraError: an optional package is needed to read it.
    """
    _check_options(seed, image_size, shares, test_share, split_rule)
    preprocessing = read_preprocessing(preprocess)
    if image_size is not None and preprocessing.sizes:
        raise DataError(f"image_size is {image_size}, and preprocess says a size, too; give one of them")
    found = find(source, image_column, label_column, test_split)
    if split_rule == 1 and found.n_validation:
        records = islice(found.records, found.n_train + found.n_test)
        found = replace(found, records=records, n_validation=0)
    division = divide(source, found, seed, shares, test_share)

    # Row j is record order[j]: the four splits are slices of all rows, and no image is held twice.
    pixels, labels = _read(source, found, division.order, image_size, preprocessing, memory)
    if len(labels) and labels.max() >= len(labels):  # such as identifiers: no table of them is made
        _check_classes(source, labels, labels, found.classes)
    if split_rule > 1:
        for pair in exchanges(division, labels):
            for rows in (pixels.rows if isinstance(pixels, StreamedPixels) else pixels, labels):
                rows[list(pair)] = rows[list(pair[::-1])]
    classes = _check_classes(source, labels[: division.bounds[3]], labels, found.classes)
    _say_missing(source, labels, division, classes)
    images = pixels if isinstance(pixels, StreamedPixels) else torch.from_numpy(pixels)
    everything = ImageSet(images, torch.from_numpy(labels), classes, (), (), preprocessing.without_statistics)
    mean, std = _normalisation(source, preprocessing, everything.subset(division.slices[0]))
    everything = replace(everything, mean=mean, std=std)
    network, policy, validation, test = map(everything.subset, division.slices)
    return Splits(network, policy, validation, test, test_set_aside=not found.n_test)


def _read(
    source: str,
    found: Source,
    order: NDArray[np.int64],
    image_size: int | None,
    preprocessing: Preprocessing,
    memory: float | None,
) -> tuple[NDArray[np.uint8] | StreamedPixels, NDArray[np.int64]]:
    """The pixels of all records in an order, in memory or streamed, and their labels, int64 (N,)."""
    most = _most_bytes(memory) if found.open is not None else math.inf
    try:
        return decode(found, np.argsort(order).tolist(), image_size, preprocessing, most)
    except TooLargeError as error:
        assert found.open is not None
        records = found.open()
        say_once(
            f"{source}: the pixels of {len(order)} images take {error.args[0] / 2**30:.1f} GiB, more than "
            f"{most / 2**30:g} (RLPRUNE_MEMORY), so they are streamed: decoded whenever they are needed"
        )
    labels = labels_of(records, len(order), found.classes)
    pictures = DecodedRecords(records, image_size, preprocessing)
    return StreamedPixels((pictures,), order.copy(), pictures.shape(len(order))), labels[order]


def _most_bytes(memory: float | None) -> float:
    """How many bytes pixels may take."""
    named = os.environ.get("RLPRUNE_MEMORY")
    try:
        found = float(named) if memory is None and named else _MEMORY if memory is None else memory
    except ValueError:
        found = math.nan
    if not found >= 0:  # also of NaN
        given = f"RLPRUNE_MEMORY is {named!r}" if memory is None else f"memory is {memory}"
        raise DataError(f"{given}; give the GiB that pixels may take, 0 or more")
    return found * 2**30


def load_whole(
    source: str,
    like: ImageSet,
    *,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    memory: float | None = None,
) -> ImageSet:
    """Load all images of a source, which is not split: further images of the classes of some that are known.

    Args:
        source: as for `load`.
        like: those, whose preparation and classes these get; classes are compared before any image is read, where the
            source names them.
        image_size: as for `load`.
        image_column: as for `load`; it counts where the source is a table.
        label_column: likewise.
        memory: as for `load`.

    Raises:
        DataError: the source has other classes, or cannot be read.
        MissingExtraError: an optional package is needed to read it.
    """
    found = find(source, *((image_column, label_column) if may_have_columns(source) else ()))
    if found.classes is not None:
        _check_same_classes(source, like.classes, found.classes)
    n_images = found.n_train + found.n_test + found.n_validation
    pixels, labels = _read(source, found, np.arange(n_images), image_size, like.preprocessing, memory)
    if found.classes is None:
        _check_same_classes(source, like.classes, tuple(map(str, range(int(labels.max(initial=-1)) + 1))))
    images = pixels if isinstance(pixels, StreamedPixels) else torch.from_numpy(pixels)
    return replace(like, images=images, labels=torch.from_numpy(labels))


def _check_same_classes(source: str, classes: tuple[str, ...], found: tuple[str, ...]) -> None:
    """Make sure that a source has the classes of other images."""
    if found == classes:
        return
    missing = [name for name in classes if name not in found]
    lacking = f"; it lacks {', '.join(missing[:5])}" if missing else ""
    raise DataError(
        f"{source} has the classes {', '.join(found[:5])}, ... ({len(found)}), and not those of the other images "
        f"({len(classes)}){lacking}: give images of the same classes"
    )


def _check_options(
    seed: int, image_size: int | None, shares: tuple[float, float, float], test_share: float, split_rule: int
) -> None:
    check_whole(seed=seed, split_rule=split_rule)
    check_numbers(test_share=test_share, **{f"shares[{i}]": share for i, share in enumerate(shares)})
    if image_size is not None:
        check_whole(image_size=image_size, most=4096)
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares are {shares}; give three positive numbers that add up to 1")
    if not 0 < test_share < 1:
        raise DataError(f"test_share is {test_share}; give a number between 0 and 1")
    if split_rule not in (1, SPLIT_RULE):
        raise DataError(f"split_rule is {split_rule}; 1 and {SPLIT_RULE} are known, so install a later rlprune")
    if seed < 0:
        raise DataError(f"the seed of the split is {seed}; give 0 or more")
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size is {image_size}; give at least 1 pixel")


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
    if n_classes < 2:
        raise DataError(f"{source} has one class, and there is nothing to learn; two are needed at least")
    return classes or tuple(map(str, range(n_classes)))


def _say_missing(source: str, labels: NDArray[np.int64], division: Division, classes: tuple[str, ...]) -> None:
    """Say which classes the network's images or the test set lack."""
    network, _, _, test = division.slices
    for what, rows in (("to train the network", network), ("to test", test)):
        present = set(np.unique(labels[rows]).tolist())
        lacking = [name for label, name in enumerate(classes) if label not in present]
        if lacking:
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            say_once(f"{source}: there are no images {what} of the classes {', '.join(lacking[:5])}{more}")


def _normalisation(
    source: str, preprocessing: Preprocessing, images: ImageSet
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std as the preprocessing gives them, as they are known, or as measured on the network's images."""
    n_channels = images.images.shape[1]
    if preprocessing.mean is None or preprocessing.std is None:
        mean, std = STATISTICS.get(source, ((), ()))
        if len(mean) != n_channels:
            mean, std = _statistics(source, images)
        return (mean[::-1], std[::-1]) if preprocessing.bgr else (mean, std)
    if len(preprocessing.mean) == 1:
        return preprocessing.mean * n_channels, preprocessing.std * n_channels
    if len(preprocessing.mean) != n_channels:
        raise DataError(
            f"preprocess has mean and std of {len(preprocessing.mean)} channels, and the images of {source} have "
            f"{n_channels}; give a number for each channel, or one for all"
        )
    return preprocessing.mean, preprocessing.std


def _statistics(source: str, images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation per channel, rounded to 4 decimals; a constant gets std 1.

    They are those of all images in memory, and of so many of streamed ones: the first, which were drawn at random.
    """
    if images.streamed and len(images) > _MOST_MEASURED:
        say_once(
            f"{source}: mean and std are measured on {_MOST_MEASURED} images drawn at random; preprocess can say them"
        )
        images = images.subset(slice(0, _MOST_MEASURED))
    n_channels = images.images.shape[1]
    counts = np.zeros((n_channels, 256))
    for pixels in images.pixels(images.at_once if images.streamed else _CHUNK):  # exact, and no float copy of them
        for channel in range(n_channels):
            counts[channel] += np.bincount(pixels[:, channel].numpy().ravel(), minlength=256)
    weights = counts / counts.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1)).round(4)
    return tuple(mean.round(4).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
