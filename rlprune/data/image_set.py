"""Images with their labels, in memory or streamed, and the four splits that everything works on."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from rlprune.data.preprocessing import Preprocessing
from rlprune.data.streamed.fetching import Workers, fetch
from rlprune.data.streamed.pixels import Pixels, StreamedPixels, join_pixels
from rlprune.errors import DataError


class InputFormat(Protocol):
    """What a network expects of its images: an image set has it, and what is stored with a network."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixel values in [0, 1]."""

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, likewise."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures come to their size, and the order of channels that the network reads."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, their labels, and the statistics that normalise them.

    Attributes:
        images: pixels in [0, 255], uint8 (N, C, H, W): a tensor, or what decodes them whenever they are asked for.
        labels: class of each image in [0, len(classes)), int64 (N,).
        classes: class names.
        mean: per channel, of pixel values in [0, 1]; C numbers.
        std: per channel, of pixel values in [0, 1]; C numbers.
        preprocessing: how pictures became these pixels, and the order of channels that a network reads.
    """

    images: Pixels
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """In one line."""
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"ImageSet({len(self)} images of {shape} in {len(self.classes)} classes)"

    def subset(self, indices: Sequence[int] | Tensor | slice) -> ImageSet:
        """The images at some indices, in that order; a slice shares memory, other indices copy what is in memory."""
        images = self.images.at(indices) if isinstance(self.images, StreamedPixels) else self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])

    @property
    def streamed(self) -> bool:
        """Whether images are decoded when they are asked for, and not held in memory."""
        return isinstance(self.images, StreamedPixels)

    def fingerprint(self) -> dict[str, str]:
        """Short texts that differ where images have changed: of their labels; of streamed ones of names and sizes, too.

        They cost no decoding.
        """
        labels = hashlib.blake2b(self.labels.numpy().tobytes(), digest_size=8)
        labels.update(str(tuple(self.images.shape)).encode())
        found = {"labels": labels.hexdigest(), "kept": "streamed" if self.streamed else "in memory"}
        return found | (self.images.marks() if isinstance(self.images, StreamedPixels) else {})

    def prepared_for(self, network: InputFormat) -> ImageSet:
        """The same images, normalised as a network expects."""
        return replace(self, mean=network.mean, std=network.std, preprocessing=network.preprocessing)

    def normalised(self, indices: Sequence[int] | Tensor | slice | None = None) -> Tensor:
        """The images at some indices (None: all) as a network takes them, normalised, float32 (B, C, H, W)."""
        return self.normalise(self.images[slice(None) if indices is None else indices])

    def held(self, most: int = 1024) -> Tensor:
        """All pixels, if they are in memory; else so many, from all over the set, to measure times on."""
        step = -(-len(self) // most) or 1
        return self.images if isinstance(self.images, Tensor) else self.images[::step]

    def normalise(self, images: Tensor) -> Tensor:
        """Turn pixels like those of this set, uint8 (B, C, H, W), into what a network takes, float32."""
        return normalise(images, self.mean, self.std, bgr=self.preprocessing.bgr)

    @property
    def at_once(self) -> int:
        """Images that run through a network together in good time: fewer of large ones, for memory's sake."""
        return 256 if max(self.images.shape[2:]) < 128 else 16

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the set in order.

        Args:
            batch_size: images per batch, at least 1; the last batch may be smaller.

        Yields:
            Normalised images float32 (B, C, H, W) and labels int64 (B,).
        """
        for pixels, labels in zip(self.pixels(batch_size), self.labels.split(batch_size), strict=False):
            yield self.normalise(pixels), labels

    def pixels(self, batch_size: int) -> Generator[Tensor, None, None]:
        """Iterate over pixels in order, uint8 (B, C, H, W), the last batch maybe smaller; streamed, decoded ahead."""
        batches = [slice(start, start + batch_size) for start in range(0, len(self), batch_size)]
        return self.pixels_at(batches)

    def pixels_at(self, batches: Sequence[Sequence[int] | Tensor | slice]) -> Generator[Tensor, None, None]:
        """Iterate over the pixels at the indices of one batch after the other, uint8 (B, C, H, W)."""
        workers = Workers(None if len(batches) > 1 else 0)
        return fetch(self.images, ((batch, None) for batch in batches), workers=workers)


@dataclass(frozen=True)
class Splits:
    """Four disjoint sets of images.

    Attributes:
        network: trains the network.
        policy: trains the policy; the network has not seen them, because it is always right on what it memorised.
        validation: chooses settings.
        test: measures the result, and chooses nothing.
        test_set_aside: whether those are a share, drawn at random, of images that have no part for testing: whatever
            was trained on all of them before has seen them.
    """

    network: ImageSet
    policy: ImageSet
    validation: ImageSet
    test: ImageSet
    test_set_aside: bool = False

    @property
    def training(self) -> ImageSet:
        """All images but the test set: for a last training, once every choice has been made."""
        return joined((self.network, self.policy, self.validation))


def joined(parts: Sequence[ImageSet]) -> ImageSet:
    """Several sets of images as one; streamed ones are not copied."""
    images = join_pixels([part.images for part in parts])
    return replace(parts[0], images=images, labels=torch.cat([part.labels for part in parts]))


def normalise(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, *, bgr: bool = False
) -> Tensor:
    """Turn pixels into what a network takes: ``(value - mean) / std`` of values in [0, 1].

    Args:
        images: (B, C, H, W), uint8 in [0, 255] or float in [0, 1].
        mean: one per channel, in the network's order; or float32 (C, 1, 1) on the images' device, which is faster.
        std: one per channel, likewise.
        bgr: whether the network reads blue, green, red where the images have red, green, blue.

    Returns:
        float32 (B, C, H, W).

    Raises:
        DataError: the images have another shape than (B, C, H, W), are neither uint8 nor float, or are floats outside
            [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise DataError(
            f"images are of shape {tuple(images.shape)}; give (B, {len(mean)}, H, W), for one image images[None]"
        )
    values = _unit_values(images)
    if bgr:
        values = values[:, [2, 1, 0]]
    centre = mean if isinstance(mean, Tensor) else values.new_tensor(mean)[:, None, None]
    scale = std if isinstance(std, Tensor) else values.new_tensor(std)[:, None, None]
    return _divided(values - centre, scale)


class PixelScale(nn.Module):
    """Does what `normalise` does with uint8 on the CPU, by one product and one sum for each number.

    Args:
        data: says by what images are normalised, and in which order channels go in.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, data: InputFormat) -> None:
        super().__init__()
        mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (data.mean, data.std))
        self._bgr = data.preprocessing.bgr
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images: uint8 in [0, 255] -> float32, (B, C, H, W)."""
        pixels = images.float()
        if self._bgr:
            pixels = pixels[:, [2, 1, 0]]
        if torch.compiler.is_compiling():  # where torch 2.6 takes for constants what changes in place
            return pixels * self.scale + self.shift
        return pixels.mul_(self.scale).add_(self.shift)


def _unit_values(images: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1], of the same shape."""
    if images.dtype == torch.uint8:
        return _divided(images.float(), 255)
    if not images.is_floating_point():
        raise DataError(
            f"images are {images.dtype}; give uint8 in [0, 255] (images.to(torch.uint8)) or float in [0, 1]"
        )
    check_range(images)
    return images.float()


def check_range(images: Tensor) -> None:
    """Make sure that float pixels are in [0, 1].

    Raises:
        DataError: some are not, or are NaN.
    """
    low, high = (value.item() for value in images.aminmax()) if images.numel() else (0, 1)
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"images have float values from {low:.4g} to {high:.4g}; give values in [0, 1], not yet normalised, "
            "or uint8 in [0, 255]"
        )


def _divided(values: Tensor, divisor: Tensor | float) -> Tensor:
    """Divide in place, but where the call is traced, in which torch 2.6 takes the values for constants."""
    return values / divisor if torch.compiler.is_compiling() else values.div_(divisor)
