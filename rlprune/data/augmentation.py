"""Shifted, cut out and mirrored views of training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CropScale = tuple[float, float]
_LOG_RATIO = math.log(4 / 3)
"""Of width and height of what is cut out, at the most; as torchvision has it."""


def augment(images: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Shift each image at random within a black border, and mirror a random half.

    Args:
        images: uint8 (B, C, H, W), on any device.
        generator: source of the random numbers.
        padding: pixels that are added on each side before (H, W) is cropped again at random.
        flip: whether each image is mirrored left to right with probability 1/2.

    Returns:
        New images, uint8 (B, C, H, W).
    """
    return take_views(images, draw_views(len(images), generator, padding=padding, flip=flip), padding=padding)


def draw_views(
    n: int, generator: torch.Generator, *, padding: int, flip: bool, crop_scale: CropScale | None = None
) -> Tensor:
    """Draw the random choices of `augment` for n images, or those of parts to be cut out.

    Args:
        n: how many images.
        generator: source of the random numbers.
        padding: as in `augment`.
        flip: as in `augment`.
        crop_scale: smallest and largest share of a picture's area that is cut out, in place of shifts.

    Returns:
        For each image the rows it moves down and the columns it moves right, each in [0, 2 * padding], and whether it
        is mirrored (0 or 1), int64 (n, 3); or `crops_of` random numbers, float32 (n, 5).
    """
    if crop_scale is not None:
        return crops_of(torch.rand(n, 5, generator=generator, device=generator.device), crop_scale, flip)
    shifts = torch.randint(2 * padding + 1, (2, n), generator=generator, device=generator.device)
    mirrored = torch.rand(n, generator=generator, device=generator.device) < 0.5 if flip else torch.zeros(n)
    return torch.stack([*shifts, mirrored.to(shifts)], 1)


def crops_of(chance: Tensor, scale: CropScale, flip: bool) -> Tensor:
    """Turn numbers in [0, 1), float32 (..., 5), into views that are cut out of pictures of any size.

    Returns:
        Share of the area, logarithm of width / height, place from left to right and from top to bottom in [0, 1), and
        whether it is mirrored (0 or 1), float32 (..., 5).
    """
    low, high = scale
    shares = low + (high - low) * chance[..., :1]
    ratios = _LOG_RATIO * (2 * chance[..., 1:2] - 1)
    return torch.cat([shares, ratios, chance[..., 2:4], ((chance[..., 4:] < 0.5) & flip).float()], -1)


def crop(image: Image.Image, view: Sequence[float], size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Cut a view out of a picture and scale it to a size (random resized crop), mirrored if the view says so.

    Where the wanted shape is longer than the picture, it becomes as long as that.

    Args:
        image: of any size.
        view: one row of what `crops_of` returns.
        size: (height, width) of the result.
        how: how it is scaled.
    """
    share, log_ratio, x, y, mirrored = view
    area = share * image.width * image.height
    ratio = min(max(math.exp(log_ratio), area / image.height**2), image.width**2 / area)
    width = min(max(1, round(math.sqrt(area * ratio))), image.width)
    height = min(max(1, round(math.sqrt(area / ratio))), image.height)
    left = int(x * (image.width - width + 1))
    top = int(y * (image.height - height + 1))
    found = image.crop((left, top, left + width, top + height)).resize(size[::-1], how)
    return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else found


def take_views(images: Tensor, views: Tensor, *, padding: int) -> Tensor:
    """Shift and mirror each image as its view says, or cut it out.

    Args:
        images: uint8 (B, C, H, W), on any device; on the CPU where views are cut out.
        views: int64 (B, 3) or float32 (B, 5), as `draw_views` returns them for this padding.
        padding: pixels that are added on each side before (H, W) is cropped again.

    Returns:
        New images, uint8 (B, C, H, W).
    """
    if views.is_floating_point():
        return _cut(images, views)
    n, _, height, width = images.shape
    # Every window of the padded images as a view: choosing one per image copies whole rows.
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right, mirrored = views.to(images.device).unbind(1)
    cropped = windows[torch.arange(n, device=images.device), :, down, right]
    return torch.where(mirrored.bool()[:, None, None, None], cropped.flip(3), cropped)


def _cut(images: Tensor, views: Tensor) -> Tensor:
    """Cut views out of images, channel by channel where they have neither one nor three."""
    size = (images.shape[2], images.shape[3])
    taken = np.empty(tuple(images.shape), np.uint8)
    for new, image, view in zip(taken, images.numpy(), views.tolist(), strict=True):
        layers = image.transpose(1, 2, 0)[None] if len(image) == 3 else image
        cut = [np.asarray(crop(Image.fromarray(each), view, size, Image.Resampling.BILINEAR)) for each in layers]
        new[...] = cut[0].transpose(2, 0, 1) if len(image) == 3 else np.stack(cut)
    return torch.from_numpy(taken)
