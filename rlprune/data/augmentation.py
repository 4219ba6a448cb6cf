"""Shifted and mirrored views of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def draw_views(n: int, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Draw the random choices of `augment` for n images.

    Args:
        n: how many images.
        generator: source of the random numbers.
        padding: as in `augment`.
        flip: as in `augment`.

    Returns:
        For each image the rows it moves down and the columns it moves right, each in [0, 2 * padding], and whether it
        is mirrored (0 or 1), int64 (n, 3).
    """
    shifts = torch.randint(2 * padding + 1, (2, n), generator=generator, device=generator.device)
    mirrored = torch.rand(n, generator=generator, device=generator.device) < 0.5 if flip else torch.zeros(n)
    return torch.stack([*shifts, mirrored.to(shifts)], 1)


def take_views(images: Tensor, views: Tensor, *, padding: int) -> Tensor:
    """Shift and mirror each image as its view says.

    Args:
        images: uint8 (B, C, H, W), on any device.
        views: int64 (B, 3), as `draw_views` returns them for this padding.
        padding: pixels that are added on each side before (H, W) is cropped again.

    Returns:
        New images, uint8 (B, C, H, W).
    """
    n, _, height, width = images.shape
    # Every window of the padded images as a view: choosing one per image copies whole rows.
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right, mirrored = views.to(images.device).unbind(1)
    cropped = windows[torch.arange(n, device=images.device), :, down, right]
    return torch.where(mirrored.bool()[:, None, None, None], cropped.flip(3), cropped)
