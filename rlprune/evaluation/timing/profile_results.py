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
ONNX_PIECES = {
    "multiply": "convolutions and matrix products of stem and slices",
    "reorder": "features go into the blocks in which convolutions read them, and out again",
    "layers": "whatever else stem and slices do; pixels are normalised",
    "gather": "features of a bucket are copied, logits go to their images",
    "decide": "observations and the policy; who runs what next; labels and costs",
    "between": "no operator: onnxruntime itself, checks of the images, the prediction",
}
"""The pieces of a call in onnxruntime, in their order, and what happens in each."""


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
class PieceShare(JsonResult):
    """The time of operators of one kind in onnxruntime.

    Attributes:
        name: one of `ONNX_PIECES`.
        share: of the time of calls under onnxruntime's profiler, which slows small operators down.
    """

    name: str
    share: float


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
class CallTime(JsonResult):
    """The time of a call at one batch size, beside that of its slices alone.

    Attributes:
        batch: images in a call.
        backend: `pytorch` or `onnxruntime`.
        dense_ms: median milliseconds of the dense network, folded, on normalised images.
        dynamic_ms: of a call of the dynamic network, on pixels, as users call it.
        timed_ms: of a call while its pieces are timed, which takes longer.
        floor_ms: of the same slices alone on the same images, in full buckets.
        overhead_ms: `dynamic_ms` less `floor_ms`.
        overhead_share: the same over `dense_ms`.
        macs_ratio: dense MACs over the mean dynamic ones, of these images.
        n_images: how many images each repeat ran.
        n_repeats: how often each was timed.
    """

    batch: int
    backend: str
    dense_ms: float
    dynamic_ms: float
    timed_ms: float
    floor_ms: float
    overhead_ms: float
    overhead_share: float
    macs_ratio: float
    n_images: int
    n_repeats: int


@dataclass(frozen=True, kw_only=True)
class OnnxRow(CallTime):
    """Where the time of a call of the exported file goes in onnxruntime, at one batch size.

    Attributes:
        pieces: of a call, by kinds of operators; they add up to `timed_ms`.
    """

    pieces: tuple[PieceShare, ...]


@dataclass(frozen=True, kw_only=True)
class ProfileRow(CallTime):
    """Where the time of a call goes in PyTorch, at one batch size.

    Attributes:
        slices_ms: median milliseconds of stem and bodies within a call: `dynamic_ms` without what surrounds them.
        pieces: of a call; they add up to about `timed_ms`.
        bodies: each profile's slice, by the size of its buckets.
    """

    slices_ms: float
    pieces: tuple[PieceTime, ...]
    bodies: tuple[BodyTime, ...]


@dataclass(frozen=True, kw_only=True)
class ProfileResult(JsonResult):
    """Where the time of a dynamic network goes.

    Attributes:
        rows: of PyTorch, one for each batch size.
        onnxruntime: the same of the exported file, if that was asked for and can be made.
        versions: of what that needs.
        conditions: what the figures were measured with.
    """

    rows: tuple[ProfileRow, ...]
    onnxruntime: tuple[OnnxRow, ...] | None = None
    versions: dict[str, str] | None = None
    conditions: Conditions = field(metadata=INLINE)
