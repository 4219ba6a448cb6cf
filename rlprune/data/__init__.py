"""Images and labels: found in any source, decoded into memory, split four ways, augmented.

May import `rlprune.utils` and `rlprune.errors`; a data set knows no network.
"""

from rlprune.data.augmentation import augment
from rlprune.data.decoding import read_images
from rlprune.data.image_set import ImageSet, Splits, normalise
from rlprune.data.loading import SHARES, load
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.sources import NAMES

__all__ = ["NAMES", "SHARES", "ImageSet", "Preprocessing", "Splits", "augment", "load", "normalise", "read_images"]
