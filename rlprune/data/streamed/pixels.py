"""Pixels that are decoded when they are asked for, in the place of a tensor that holds them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.data.augmentation import take_views
from rlprune.data.streamed.records import digest

Rows = Sequence[int] | Tensor | slice


class Pixels(Protocol):
    """What an image set asks of its pixels, uint8 (N, C, H, W): a tensor has it, and pixels that are streamed."""

    @property
    def shape(self) -> Any:
        """(N, C, H, W)."""

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, rows: Any, /) -> Tensor:
        """The pixels of some, uint8 (B, C, H, W), or of one, (C, H, W)."""


class Pictures(Protocol):
    """Pictures by their number."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, index: int, shape: tuple[int, ...], view: Sequence[float] | None) -> NDArray[np.uint8]:
        """One of them, uint8 of a shape (C, H, W); a view is cut out of all that there is of it."""

    def marks(self) -> tuple[str, str]:
        """As records have them."""


@dataclass(frozen=True, eq=False)
class _Held:
    """Pixels in memory, beside others that are streamed."""

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int, shape: tuple[int, ...], view: Sequence[float] | None) -> NDArray[np.uint8]:
        """As `Pictures` says."""
        image = self.pixels[index : index + 1]
        if view is not None:
            image = take_views(image, torch.tensor([view]), padding=0)
        return np.broadcast_to(image[0].numpy(), shape)

    def marks(self) -> tuple[str, str]:
        """Of their number."""
        return digest([len(self)]), ""


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Pixels of images that are decoded each time they are asked for; a part of them is a list of their numbers.

    Attributes:
        pictures: where they come from, one source or several.
        rows: which pictures these are, in their order, counted through all sources; int64 (N,).
        image_shape: (C, H, W) of each.
    """

    pictures: tuple[Pictures, ...]
    rows: NDArray[np.int64]
    image_shape: tuple[int, ...]

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.rows), *self.image_shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        """One image after the other, uint8 (C, H, W)."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: int | Rows) -> Tensor:
        """Decode some images, uint8 (B, C, H, W), or one, (C, H, W)."""
        if isinstance(rows, int):
            return self.at([range(len(self))[rows]]).decoded()[0]
        return self.at(rows).decoded()

    def at(self, rows: Rows) -> StreamedPixels:
        """Some of these, in that order; none is decoded."""
        return replace(self, rows=self.rows[rows if isinstance(rows, slice) else np.asarray(rows)])

    def decoded(self, views: Tensor | None = None, padding: int = 0) -> Tensor:
        """Decode all of them, in views if there are any.

        Args:
            views: as `rlprune.data.augmentation.take_views` takes them; those that are cut out are cut out of the whole
                picture.
            padding: likewise.

        Returns:
            uint8 (N, C, H, W).

        Raises:
            DataError: one is damaged, gone, or of another size.
        """
        pixels = np.empty(self.shape, np.uint8)
        cut = views.tolist() if views is not None and views.is_floating_point() else [None] * len(self)
        for new, row, view in zip(pixels, self.rows.tolist(), cut, strict=True):
            new[...] = self._read(row, view)
        found = torch.from_numpy(pixels)
        return found if views is None or views.is_floating_point() else take_views(found, views, padding=padding)

    def _read(self, row: int, view: Sequence[float] | None) -> NDArray[np.uint8]:
        for pictures in self.pictures:
            if row < len(pictures):
                return pictures.read(row, self.image_shape, view)
            row -= len(pictures)
        raise IndexError(row)

    def marks(self) -> dict[str, str]:
        """Digests by which images are known again: of names and of sizes."""
        names, sizes = zip(*(pictures.marks() for pictures in self.pictures), strict=True)
        return {"names": digest((*names, digest(self.rows.tolist()))), "sizes": digest(sizes)}


def join_pixels(parts: Sequence[Pixels]) -> Pixels:
    """Pixels of several sets as one; nothing is copied where some of them are streamed.

    Args:
        parts: those of sets of images of one shape.
    """
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    pictures: list[Pictures] = []
    rows = []
    for part in parts:
        start = 0
        new = part.pictures if isinstance(part, StreamedPixels) else (_Held(part[:]),)
        known = [id(each) for each in pictures]
        if [id(each) for each in new] == known[: len(new)]:  # parts of one whole, as splits are
            new = ()
        else:
            start = sum(map(len, pictures))
        pictures += new
        own = part.rows if isinstance(part, StreamedPixels) else np.arange(len(part))
        rows.append(own + start)
    return StreamedPixels(tuple(pictures), np.concatenate(rows), tuple(parts[0].shape[1:]))
