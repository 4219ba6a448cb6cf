"""Records decoded one at a time, as a set in memory is decoded at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlprune.data.augmentation import crop
from rlprune.data.pictures import cover, read_picture
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.streamed.records import Records
from rlprune.errors import DataError


@dataclass(frozen=True)
class DecodedRecords:
    """Records of a source, with how they are decoded.

    Attributes:
        records: where the pictures are.
        image_size: as for `rlprune.data.decoding.decode`.
        preprocessing: likewise.
    """

    records: Records
    image_size: int | None
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.records)

    def shape(self, n: int) -> tuple[int, ...]:
        """Shape (C, H, W) of the first n pictures; C is 1 if all are grey, which are looked at until one is not."""
        mode = self.preprocessing.mode
        found = (
            read_picture(name, item, self._frame, mode).shape
            for name, item, _ in map(self.records.__getitem__, range(n))
        )
        first = next(found)
        return first if mode or len(first) == 3 or all(len(each) == 1 for each in found) else (3, *first[1:])

    def read(self, index: int, shape: tuple[int, ...], view: Sequence[float] | None) -> NDArray[np.uint8]:
        """As `Pictures` says."""
        name, item, _ = self.records[index]
        frame = self._frame
        if view is not None:
            how = Image.Resampling[self.preprocessing.interpolation.upper()]
            own = self.preprocessing.apply if self.preprocessing.transform_name else None

            def frame(name: str, image: Image.Image) -> Image.Image:
                whole = image if own is None else own(name, image)
                if not isinstance(whole, Image.Image):
                    whole = Image.fromarray(read_picture(name, whole).transpose(1, 2, 0).squeeze())
                return crop(whole, view, (shape[1], shape[2]), how)

        found = read_picture(name, item, frame, self.preprocessing.mode or ("L" if shape[0] == 1 else "RGB"))
        if found.shape[1:] != tuple(shape[1:]):
            raise DataError(
                f"{name} is {found.shape[2]}x{found.shape[1]} pixels but others are {shape[2]}x{shape[1]}; all must be "
                "of one size: set image_size, or preprocess with a crop, to scale and crop them"
            )
        return np.broadcast_to(found, shape)

    @property
    def _frame(self) -> Any:
        if self.preprocessing.sizes:
            return self.preprocessing.apply
        return None if self.image_size is None else cover(self.image_size, self.image_size)

    def marks(self) -> tuple[str, str]:
        """Those of the records."""
        return self.records.marks()
