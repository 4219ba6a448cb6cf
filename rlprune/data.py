"""Images and labels from a name, a folder, a hub data set or a Python callable, split for training and measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlprune.decode import decode
from rlprune.errors import DataError
from rlprune.sources import find

_CHUNK = 4096
SHARES = (0.7, 0.2, 0.1)
"""Of the images that are not test, for the network, the policy and validation, unless said otherwise."""

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's: what the public weights were trained with
    "mnist5k": ((0.1307,), (0.3081,)),
}
"""Mean and standard deviation per channel of known data sets; those of other data are measured."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, their labels, and what is needed to read them.

    Attributes:
        images: pixels in [0, 255], uint8 (N, C, H, W); may be a memory-mapped file.
        labels: class of each image in [0, len(classes)), int64 (N,).
        classes: class names.
        mean: per channel, of pixel values in [0, 1].
        std: per channel, of pixel values in [0, 1].
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | Tensor | slice) -> ImageSet:
        """Take the images of some indices, in their order; a slice shares memory, other indices copy."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes, self.mean, self.std)

    def normalised(self, indices: Sequence[int] | Tensor | slice | None = None) -> Tensor:
        """Return the images of some indices (None: all) as a network takes them, float32 (B, C, H, W)."""
        return normalise(self.images if indices is None else self.images[indices], self.mean, self.std)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the set in order.

        Args:
            batch_size: images at once, at least 1; the last batch may be smaller.

        Yields:
            normalised images float32 (B, C, H, W) and labels int64 (B,).
        """
        for start in range(0, len(self), batch_size):
            batch = slice(start, start + batch_size)
            yield self.normalised(batch), self.labels[batch]


@dataclass(frozen=True)
class Splits:
    """Four disjoint sets of images.

    Attributes:
        network: trains the network.
        policy: trains the policy; the network has not seen them, because it is always right on what it memorised.
        validation: chooses settings.
        test: is only ever measured on.
    """

    network: ImageSet
    policy: ImageSet
    validation: ImageSet
    test: ImageSet

    @property
    def training(self) -> ImageSet:
        """All that are not for testing: for a last training, when nothing is left to be chosen."""
        parts = (self.network, self.policy, self.validation)
        images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        return replace(self.network, images=images, labels=labels)


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
    otherwise ``test_share`` is cut off at random first. The rest is shuffled and cut by ``shares``.

    Args:
        source: in this order of preference a file or folder in ``$RLPRUNE_DATA``; a name: ``mnist5k`` (5,000 digits,
            offline), ``cifar10``, ``cifar100``, ``fashion_mnist``; a folder of class folders, alone or below ``train``
            and ``test``; a parquet file, or a folder of ``train-*.parquet`` and ``test-*.parquet`` as the Hugging Face
            hub has them; ``package.module:callable``, which returns a torch Dataset of (image, label) or a tuple
            (train, test) of two, the image a PIL image, a uint8 tensor or a float tensor in [0, 1]; a hub data set.
        seed: of the shuffle, at least 0.
        image_size: pixels of height and width (shorter side scaled, centre cut out); None keeps images as they are,
            which then must be of one size.
        image_column: column of the images in a table; None finds the only one.
        label_column: column of the labels in a table; None finds ``label``, ``labels``, ``fine_label`` or the only
            one of integers.
        shares: of what is not test, for ``network``, ``policy`` and ``validation``; positive, together 1.
        test_share: of all images, in (0, 1); used where the source has no test split.

    Raises:
        DataError: the source is unknown, unreachable or damaged, its labels do not fit, or it has too few images.
        MissingExtraError: an optional package is needed to read it.
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares are {shares}; give three positive numbers that add up to 1")
    if not 0 < test_share < 1:
        raise DataError(f"test_share is {test_share}; give a number between 0 and 1")
    if seed < 0:
        raise DataError(f"the seed of the split is {seed}; give 0 or more")
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size is {image_size}; give at least 1 pixel")

    found = find(source, image_column, label_column)
    n_test = found.n_test or round(found.n_train * test_share)
    n_rest = found.n_train + found.n_test - n_test
    cuts = [0, round(shares[0] * n_rest), round((shares[0] + shares[1]) * n_rest), n_rest, n_rest + n_test]
    sizes = np.diff(cuts)
    if sizes.min() < 1:
        raise DataError(
            f"{source} has {cuts[-1]} images, too few to split: {' + '.join(map(str, sizes))} for network, policy, "
            "validation and test; each needs at least one: add images or change the shares"
        )

    # Row j of the stored array is record order[j]: the four splits are slices of it, and no image is held twice.
    shuffled = np.random.default_rng(seed).permutation(found.n_train)
    own_test = np.arange(found.n_train, found.n_train + found.n_test)
    order = np.concatenate((shuffled, own_test) if found.n_test else (shuffled[n_test:], shuffled[:n_test]))
    pixels, labels = decode(found, np.argsort(order).tolist(), image_size)
    classes = _check_classes(source, labels[:n_rest], labels, found.classes)
    mean, std = STATISTICS.get(source, ((), ()))
    if len(mean) != pixels.shape[1]:
        mean, std = _statistics(pixels[: cuts[1]])
    everything = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), classes, mean, std)
    return Splits(*(everything.subset(slice(start, stop)) for start, stop in pairwise(cuts)))


def _check_classes(
    source: str, learnt: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Check that every class can be learnt, and name the classes where the source does not."""
    present = set(np.unique(learnt).tolist())
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
    weights, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1)).round(4)
    return tuple(mean.round(4).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn pixels into what a network takes: ``(value - mean) / std`` of values in [0, 1].

    Args:
        images: (B, C, H, W), uint8 in [0, 255] or float in [0, 1].
        mean: one per channel.
        std: one per channel.

    Returns:
        float32 (B, C, H, W).

    Raises:
        DataError: the images are of another shape, type or range.
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise DataError(
            f"images are of shape {tuple(images.shape)}; give (B, {len(mean)}, H, W), for one image images[None]"
        )
    if images.dtype == torch.uint8:
        values = images.float().div_(255)
    elif images.is_floating_point():
        values = images.float()
        low, high = (value.item() for value in values.aminmax()) if values.numel() else (0, 1)
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise DataError(
                f"images have float values from {low:.4g} to {high:.4g}; give values in [0, 1], not yet normalised, "
                "or uint8 in [0, 255]"
            )
    else:
        raise DataError(
            f"images are {images.dtype}; give uint8 in [0, 255] (images.to(torch.uint8)) or float in [0, 1]"
        )
    centre, scale = (values.new_tensor(statistic)[:, None, None] for statistic in (mean, std))
    return (values - centre).div_(scale)


def augment(images: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Shift each image at random within a black border, and mirror a random half.

    Args:
        images: uint8 (B, C, H, W), on any device.
        generator: where the chance comes from.
        padding: pixels that are added on each side before (H, W) is cut out again at random.
        flip: whether each image is mirrored left to right with probability 1/2.

    Returns:
        new images, uint8 (B, C, H, W).
    """
    return take_views(images, draw_views(len(images), generator, padding=padding, flip=flip), padding=padding)


def draw_views(n: int, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Draw what `augment` does to n images: rows down, columns right, and whether mirrored (0 or 1), int64 (n, 3)."""
    shifts = torch.randint(2 * padding + 1, (2, n), generator=generator, device=generator.device)
    mirrored = torch.rand(n, generator=generator, device=generator.device) < 0.5 if flip else torch.zeros(n)
    return torch.stack([*shifts, mirrored.to(shifts)], 1)


def take_views(images: Tensor, views: Tensor, *, padding: int) -> Tensor:
    """Shift and mirror each image as its view says.

    Args:
        images: uint8 (B, C, H, W), on any device.
        views: int64 (B, 3), as `draw_views` gives them for this padding.
        padding: pixels that are added on each side before (H, W) is cut out again.

    Returns:
        new images, uint8 (B, C, H, W).
    """
    n, _, height, width = images.shape
    # Every window of the padded images as a view: choosing one per image copies whole rows.
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right, mirrored = views.to(images.device).unbind(1)
    cropped = windows[torch.arange(n, device=images.device), :, down, right]
    return torch.where(mirrored.bool()[:, None, None, None], cropped.flip(3), cropped)
