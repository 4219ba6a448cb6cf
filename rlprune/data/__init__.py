"""Images and labels: from any source into memory, split four ways, decoded, augmented.

May import `rlprune.graph` and below; a data set knows no network.
"""

from rlprune.data.augmentation import augment
from rlprune.data.decoding import read_images
from rlprune.data.image_set import ImageSet, Splits, normalise
from rlprune.data.loading import SHARES, load

__all__ = ["SHARES", "ImageSet", "Splits", "augment", "load", "normalise", "read_images"]
