"""What a profile of time gives, as types that read and write their JSON; as in `rlprune.evaluation.results`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlprune.evaluation.results import Conditions
from rlprune.utils.json_codec import INLINE, JsonResult

PIECES = {
    "normalise": "pixels become float32, normalised",
    "stem": "the stem, which all images share",
    "decide": "observations and the policy",
    "gather": "copies of the features of a bucket",
    "body": "the slices of the profiles",
    "check": "whether the logits are finite",
    "scatter": "who runs what next, and whose logits these are",
    "after": "the prediction is built",
    "other": "checks of the images, splitting, joining, calling",
}
"""The pieces of a call, in their order, and what happens in each."""


@dataclass(frozen=True, kw_only=True)
class PieceTime(JsonResult):
    """The time of one piece of a call.

    Attributes:
        name: one of `PIECES`.
        ms: median milliseconds in a call, without what other pieces take inside it.
        dense_share: the same over the time of the dense network.
    """

    name: str
    ms: float
    dense_share: float


@dataclass(frozen=True, kw_only=True)
class BodyTime(JsonResult):
    """The time of the slice of one profile, on buckets of about one size.

    Attributes:
        profile: index into the codebook.
        bucket: the most images that a bucket of this row has, a power of two; it has more than half as many.
        mean_images: of these buckets.
        runs: how often it ran on such a bucket, per call.
        image_ms: median milliseconds of a run, per image.
        full_image_ms: the same in full buckets: as many images at a time as a call has.
    """

    profile: int
    bucket: int
    mean_images: float
    runs: float
    image_ms: float
    full_image_ms: float


@dataclass(frozen=True, kw_only=True)
class ProfileRow(JsonResult):
    """Where the time of a call goes, at one batch size.

    Attributes:
        batch: images in a call.
        backend: `pytorch`.
        dense_ms: median milliseconds of the dense network, folded, on normalised images.
        dynamic_ms: of a call of the dynamic network, on pixels, as users call it.
        timed_ms: of a call while its pieces are timed, which takes a little longer; they add up to about this.
        slices_ms: of stem and bodies within such a call: `dynamic_ms` without what surrounds them.
        floor_ms: of the same slices alone on the same images, in full buckets.
        overhead_ms: `dynamic_ms` less `floor_ms`.
        overhead_share: the same over `dense_ms`.
        macs_ratio: dense MACs over the mean dynamic ones, of these images.
        n_images: how many images each repeat ran.
        n_repeats: how often each was timed.
        pieces: of a call.
        bodies: each profile's slice, by the size of its buckets.
    """

    batch: int
    backend: str
    dense_ms: float
    dynamic_ms: float
    timed_ms: float
    slices_ms: float
    floor_ms: float
    overhead_ms: float
    overhead_share: float
    macs_ratio: float
    n_images: int
    n_repeats: int
    pieces: tuple[PieceTime, ...]
    bodies: tuple[BodyTime, ...]


@dataclass(frozen=True, kw_only=True)
class ProfileResult(JsonResult):
    """Where the time of a dynamic network goes.

    Attributes:
        rows: one for each batch size.
        conditions: what the figures were measured with.
    """

    rows: tuple[ProfileRow, ...]
    conditions: Conditions = field(metadata=INLINE)
