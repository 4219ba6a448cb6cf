"""What timing and comparing give, as types that read and write their JSON; as in `rlprune.evaluation.results`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlprune.evaluation.results import Conditions, Interval
from rlprune.utils.json_codec import INLINE, JsonResult


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow(JsonResult):
    """The time of one network, or of whatever else is timed, at one batch size.

    Attributes:
        name: of the row.
        backend: `pytorch` or `onnxruntime`; None where there is no choice.
        batch: images at once.
        ms: median milliseconds of a batch.
        ms_low: lower quartile.
        ms_high: upper quartile.
        images_per_s: at the median.
        macs: of an image, on average.
        accuracy: top-1 on the test images, in [0, 1]; None where there are no labels.
        accuracy_interval: of 95 % (Wilson's).
    """

    name: str
    backend: str | None = None
    batch: int
    ms: float
    ms_low: float | None = None
    ms_high: float | None = None
    images_per_s: float
    macs: float | None = None
    accuracy: float | None = None
    accuracy_interval: Interval | None = None

    @property
    def int8(self) -> bool:
        """Whether it computes in eight-bit integers; it is compared with those that do, too."""
        return " int8" in self.name


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult(JsonResult):
    """Time of a dynamic network beside others.

    Attributes:
        rows: one for each network and batch size.
        speedup: of every dynamic row, by batch size, over the best dense row of its backend and number format; None if
            there is none.
        speedup_overall: the same over the best dense row of any backend; None in older files.
        macs_ratio: dense MACs over the mean dynamic ones, by batch size.
        left_out: why rows that were asked for could not be made, by name; None if all could.
        peak_memory_mb: of the process.
        n_images: how many test images the accuracies are of; None if there are none.
        versions: of packages that rows need beside torch, by name; None in older files.
        conditions: what the figures were measured with.
    """

    rows: tuple[BenchmarkRow, ...]
    speedup: dict[str, dict[int, float | None]]
    speedup_overall: dict[str, dict[int, float | None]] | None = None
    macs_ratio: dict[int, float]
    left_out: dict[str, str] | None = None
    peak_memory_mb: float
    n_images: int | None = None
    versions: dict[str, str] | None = None
    conditions: Conditions = field(metadata=INLINE)

    def best_ms(self, kind: str, batch: int, backend: str | None = None) -> float:
        """The lowest median of the float32 rows whose name begins so, of one backend or of all."""
        return min(
            row.ms
            for row in self.rows
            if row.name.startswith(kind) and row.batch == batch and backend in (None, row.backend) and not row.int8
        )


@dataclass(frozen=True, kw_only=True)
class AdaptBenchmark(JsonResult):
    """Time of training steps under uniform profiles, the widest first.

    Attributes:
        rows: one for each profile.
        step_share: time of each over the widest one's.
        macs_share: MACs of each over the widest one's.
        conditions: what the figures were measured with.
    """

    rows: tuple[BenchmarkRow, ...]
    step_share: dict[str, float]
    macs_share: dict[str, float]
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class EnvBenchmark(JsonResult):
    """Time of steps of the environment.

    Attributes:
        rows: the network alone, and environments.
        vec_env_share: images per second of the batched environment over those of the network alone.
        vec_env_speedup: the same over those of single environments.
        conditions: what the figures were measured with.
    """

    rows: tuple[BenchmarkRow, ...]
    vec_env_share: float
    vec_env_speedup: float
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class CallersRow(JsonResult):
    """What callers get who send one image after another at the same time.

    Attributes:
        name: of the network.
        images_per_s: of all callers together.
        p50_ms: milliseconds from an image to its answer, as a caller sees them, in the middle.
        p99_ms: milliseconds within which 99 % of the answers come.
        mean_bucket: images that ran together, on average.
        wait_p50_ms: milliseconds of them in which an image waited for its bucket, in the middle.
        wait_p99_ms: milliseconds within which 99 % of the images did so.
        macs: of an image, on average.
    """

    name: str
    images_per_s: float
    p50_ms: float
    p99_ms: float
    mean_bucket: float
    wait_p50_ms: float
    wait_p99_ms: float
    macs: float


@dataclass(frozen=True, kw_only=True)
class CallersBenchmark(JsonResult):
    """A dynamic network and the dense one, each behind a `rlprune.deployment.streaming.Stream`, under the same callers.

    Attributes:
        rows: the dense network and the dynamic one.
        callers: threads that send single images, the next as soon as one is answered.
        max_batch: images of a full bucket.
        max_wait_ms: milliseconds for which a bucket that is not full may be passed over.
        speedup: images per second of the dynamic network over those of the dense one.
        macs_ratio: dense MACs over the mean dynamic ones.
        conditions: what the figures were measured with.
    """

    rows: tuple[CallersRow, ...]
    callers: int
    max_batch: int
    max_wait_ms: float
    speedup: float
    macs_ratio: float
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(JsonResult):
    """One point of one way of deciding.

    Attributes:
        method: the way of deciding.
        label: at which penalty, density or profile.
        accuracy: top-1.
        accuracy_interval: of 95 % (Wilson's).
        macs_share: mean MACs over the dense network's, all decisions included.
        decision_share: MACs of deciding once, over the dense network's.
        saves_time: whether what is cut is not computed.
        ms: median milliseconds of a batch, by its size.
    """

    method: str
    label: str
    accuracy: float
    accuracy_interval: Interval
    macs_share: float
    decision_share: float
    saves_time: bool
    ms: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class EqualCostRow(JsonResult):
    """What other methods reach at the cost of a learnt policy.

    Attributes:
        method: the policy's.
        label: its penalty.
        macs_share: its mean MACs over the dense network's.
        accuracy: its own.
        accuracies: of each other method at that cost, neighbouring points mixed; None where it is never that cheap.
        beaten: methods that lie above the policy's 95 % interval.
    """

    method: str
    label: str
    macs_share: float
    accuracy: float
    accuracies: dict[str, float | None]
    beaten: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(JsonResult):
    """All ways of deciding, side by side.

    Attributes:
        rows: their points.
        dense: the dense network.
        at_equal_macs: what the others reach at the cost of each learnt policy.
        n_images: test images.
        conditions: what the figures were measured with.
    """

    rows: tuple[ComparisonRow, ...]
    dense: ComparisonRow
    at_equal_macs: tuple[EqualCostRow, ...]
    n_images: int
    conditions: Conditions = field(metadata=INLINE)
