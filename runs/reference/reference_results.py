"""Results that only the scripts of this folder measure, as types that read and write their JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlprune.evaluation.results import Conditions
from rlprune.utils.json_codec import INLINE, JsonResult


@dataclass(frozen=True, kw_only=True)
class Point(JsonResult):
    """Accuracy, and mean MACs over the dense network's."""

    accuracy: float
    macs_share: float


@dataclass(frozen=True, kw_only=True)
class BudgetRow(JsonResult):
    """A policy learnt for one penalty, and the policy for all budgets asked for that penalty or for the same budget."""

    penalty: float
    alone: Point
    one: Point
    one_at_that_budget: Point


@dataclass(frozen=True, kw_only=True)
class StreamRow(JsonResult):
    """MACs over the dense network's: the target, what a controller held, and both halves of the stream without one."""

    target: float
    held: float
    without: float
    without_when_hard: float


@dataclass(frozen=True, kw_only=True)
class BudgetsResult(JsonResult):
    """What `compare_budgets.py` writes."""

    rows: tuple[BudgetRow, ...]
    frontier: tuple[Point, ...]
    streams: tuple[StreamRow, ...]
    seed: int
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class BatchGrowth(JsonResult):
    """At one batch size: milliseconds per image, dense and dynamic, and the most MB that the process took so far."""

    batch: int
    dense: float
    dynamic: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class ProfilesGrowth(JsonResult):
    """With one number of profiles: seconds to prepare them and to run 64 images; parameters held, over dense ones."""

    profiles: int
    prepare_s: float
    held: float
    run_64_s: float


@dataclass(frozen=True, kw_only=True)
class GroupsGrowth(JsonResult):
    """With one number of groups: seconds to find them, to slice the network, and to price 256 profiles."""

    groups: int
    find_s: float
    slice_s: float
    price_256_s: float


@dataclass(frozen=True, kw_only=True)
class GrowthResult(JsonResult):
    """What `growth.py` writes; `resnet50` holds seconds by step."""

    batch: tuple[BatchGrowth, ...]
    profiles: tuple[ProfilesGrowth, ...]
    groups: tuple[GroupsGrowth, ...]
    resnet50: dict[str, float]
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class ServingRow(JsonResult):
    """Of a network in so many replicas: images a second that are answered in time, and what a million of them cost."""

    network: str
    kind: str
    replicas: int
    batch: int
    rate: float
    core_hours_per_million: float
    dollars_per_million: float


@dataclass(frozen=True, kw_only=True)
class LoadRow(JsonResult):
    """A fleet under a load that grows: shares of images refused, and answered for less than usual, and what it used."""

    network: str
    way: str
    refused: float
    cheaper: float
    accuracy: float
    replica_hours: float


@dataclass(frozen=True, kw_only=True)
class StorageRow(JsonResult):
    """Gigabytes of a data set, and of what trainings keep of it."""

    data: str
    pictures: float
    decoded: float
    teacher: float
    logits: float
    labels: float


@dataclass(frozen=True, kw_only=True)
class ScaleResult(JsonResult):
    """What `scale.py` writes."""

    late_ms: float
    price: float
    serving: tuple[ServingRow, ...]
    loads: tuple[LoadRow, ...]
    storage: tuple[StorageRow, ...]
    seed: int
    conditions: Conditions = field(metadata=INLINE)
