"""What measuring gives, as types: figures of evaluations, benchmarks and comparisons, which read and write their JSON.

Shares, accuracies and cuts are in [0, 1]; MACs and parameters are those of one image; times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import device as Device

from rlprune.utils.hardware import conditions
from rlprune.utils.json_codec import INLINE, JsonResult

Interval = tuple[float, float]
"""The lower and the upper end."""
Points = tuple[tuple[float, float], ...]
"""Networks, each as its share of the dense network's MACs and its accuracy."""


@dataclass(frozen=True, kw_only=True)
class Conditions(JsonResult):
    """What figures were measured with.

    Attributes:
        hardware: the processor.
        threads: that torch may use.
        dtype: number format of the network.
        torch: its version.
        date: of the measurement, YYYY-MM-DD.
    """

    hardware: str
    threads: int
    dtype: str
    torch: str
    date: str

    @classmethod
    def now(cls, device: str | Device = "cpu") -> Conditions:
        """Those of this process, for what runs on a device."""
        return cls(**conditions(device))


@dataclass(frozen=True, kw_only=True)
class ControlFigures(JsonResult):
    """One figure for each control of a dynamic network; `rlprune.evaluation.dynamic.evaluate` says what they are."""

    uniform: float
    random: float
    best_static: float
    shuffled: float
    cascade: float | None = None
    static_trained: float | None = None
    oracle: float | None = None


@dataclass(frozen=True, kw_only=True)
class DecisionFigures(JsonResult):
    """What another pass is worth, and how well that can be told from the first one; for all test images.

    The earlier prediction is that of each image's own first pass. The later one is that after the pass which would come
    next: where a policy chooses profiles, the one it ranks highest of those that differ from the first; where it
    chooses levels or ratios, those that it would run, even if they are the first again. An image is repaired if the
    earlier prediction is wrong and the later one right. Where passes combine their logits, the later prediction is the
    combined one.

    Attributes:
        breaks: share of the images that were right whose later prediction is wrong; None if none were right.
        repairs: share of the images that were wrong whose later prediction is right; None if none were wrong.
        policy_auroc: probability that the policy ranks an image that is repaired above one that is not, equal ranks
            counting half: by its output for that pass (for levels: for choosing again) minus the one for accepting; for
            ratios, by how little it is for accepting.
            None if no image is repaired, or all are.
        margin_auroc: the same by the margin between the two largest logits of the first pass, the smallest first.
    """

    breaks: float | None = None
    repairs: float | None = None
    policy_auroc: float | None = None
    margin_auroc: float | None = None


@dataclass(frozen=True, kw_only=True)
class Frontier(JsonResult):
    """Static networks at all costs.

    Attributes:
        uniform: one keep ratio for all groups.
        static: the best that a search found.
        codebook: the profiles that the policy chooses from.
        cascade: tuned cascades of that codebook, some of all costs.
        static_trained: networks that were each trained for their cost.
    """

    uniform: Points
    static: Points
    codebook: Points
    cascade: Points | None = None
    static_trained: Points | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(JsonResult):
    """How well a dynamic network does, beside its controls.

    Attributes:
        accuracy: top-1.
        accuracy_interval: of 95 % (Wilson's).
        dense_accuracy: of the dense network.
        macs_cut: saved on average, of the dense network's; every pass and the policy are counted.
        params_cut: the same for active parameters, counted once per pass.
        n_images: test images.
        distinct_profiles: profiles of the codebook that were run at all.
        mean_passes: per image.
        dense: which network that is: the `original`, or the adapted one at `full width`.
        controls: their accuracies.
        controls_macs_cut: what they save: as much, except where no such network is that cheap, or a cheaper one is
            as good.
        penalty: at which the policy decided, if it was learnt for a range of penalties.
        policy_macs_share: MACs of deciding once, over the dense network's.
        runs_per_image: how often each profile of the codebook is run.
        frontier: static networks at other costs, and cascades.
        decisions: what another pass is worth, and how well that can be told; None where images have but one.
        dense_macs: of the dense network.
        dense_params: of the dense network.
        n_candidates: static profiles that the search tried.
        seed: of the search and of the random profiles.
        conditions: what the figures were measured with.
        seconds: that everything took until here, where that was measured.
    """

    accuracy: float
    accuracy_interval: Interval
    dense_accuracy: float
    macs_cut: float
    params_cut: float
    n_images: int
    distinct_profiles: int
    mean_passes: float
    dense: str
    controls: ControlFigures
    controls_macs_cut: ControlFigures
    penalty: float | None = None
    policy_macs_share: float
    runs_per_image: tuple[float, ...]
    frontier: Frontier
    decisions: DecisionFigures | None = None
    dense_macs: int
    dense_params: int
    n_candidates: int
    seed: int
    conditions: Conditions = field(metadata=INLINE)
    seconds: float | None = None

    def headline(self) -> dict[str, float]:
        """The five figures that a bundle carries along."""
        names = ("accuracy", "dense_accuracy", "macs_cut", "params_cut", "mean_passes")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class BundleResult(JsonResult):
    """How well a dynamic network does, beside nothing but its dense network; attributes as of `EvaluationResult`."""

    accuracy: float
    accuracy_interval: Interval
    dense_accuracy: float
    macs_cut: float
    params_cut: float
    n_images: int
    distinct_profiles: int
    mean_passes: float
    dense: str
    penalty: float | None = None
    policy_macs_share: float
    runs_per_image: tuple[float, ...]
    dense_macs: int
    dense_params: int
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class PenaltyResult(JsonResult):
    """The policy of one penalty.

    Attributes:
        penalty: that it was learnt for.
        evaluation: how well it does.
        kept: `learnt`, or `cascade` where the policy is the cascade that it began as, because learning was not surely
            ahead of it on validation images; None where it began at random.
    """

    penalty: float
    evaluation: EvaluationResult = field(metadata=INLINE)
    kept: str | None = None


@dataclass(frozen=True, kw_only=True)
class RecipeResult(JsonResult):
    """What a recipe came to.

    Attributes:
        recipe: as it was carried out.
        budgets: its policies, its own penalty first.
    """

    recipe: dict[str, Any]
    budgets: tuple[PenaltyResult, ...]


@dataclass(frozen=True, kw_only=True)
class DenseResult(JsonResult):
    """How well an ordinary network does.

    Attributes:
        accuracy: top-1.
        accuracy_interval: of 95 % (Wilson's).
        dense_accuracy: of the dense network; None if that was not measured.
        n_images: test images.
        macs_cut: saved, of the dense network's.
        params_cut: saved, of the dense network's.
        distinct_profiles: 1, as all images run through the same.
        mean_passes: 1.
        controls: none.
        dense: which network the dense one is, `original` or `given`.
        controls_macs_cut: none.
        conditions: what the figures were measured with.
    """

    accuracy: float
    accuracy_interval: Interval
    dense_accuracy: float | None
    n_images: int
    macs_cut: float = 0.0
    params_cut: float = 0.0
    distinct_profiles: int = 1
    mean_passes: float = 1.0
    controls: dict[str, float] = field(default_factory=dict)
    dense: str = "original"
    controls_macs_cut: dict[str, float] = field(default_factory=dict)
    conditions: Conditions = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class StaticResult(DenseResult):
    """How well a network does that was pruned once and for all.

    Attributes:
        how: it was pruned.
        zeros: share of the weights that are zero.
        saves_time: whether what was cut is gone, not only zero.
    """

    how: str
    zeros: float
    saves_time: bool


@dataclass(frozen=True, kw_only=True)
class GatedLayer(JsonResult):
    """What gates keep of a layer.

    Attributes:
        name: of the channel group.
        channels: it has.
        kept: of those, on average.
        by_class: the same for the images of each class.
    """

    name: str
    channels: int
    kept: float
    by_class: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class GatedResult(JsonResult):
    """How well a gated network does, beside its controls.

    Attributes:
        accuracy: top-1.
        accuracy_interval: of 95 % (Wilson's).
        dense_accuracy: of the dense network.
        dense: which network that is, `original` or `given`.
        macs_cut: saved on average, of the dense network's; the gates are counted.
        params_cut: the same for active parameters.
        n_images: test images.
        controls: accuracies of `shuffled` and `average`; `rlprune.evaluation.gated.evaluate_gated` says what they are.
        controls_macs_cut: what those save.
        gates_macs_share: MACs of all gates, over the dense network's.
        kind: what gates decide about, `channels` or `branches`.
        saves_time: whether what is cut is not computed, or only hidden.
        density: share of what is gated that stays.
        distinct: how many different decisions there were.
        layers: what stays of each layer that has a gate.
        conditions: what the figures were measured with.
    """

    accuracy: float
    accuracy_interval: Interval
    dense_accuracy: float
    dense: str
    macs_cut: float
    params_cut: float
    n_images: int
    controls: dict[str, float]
    controls_macs_cut: dict[str, float]
    gates_macs_share: float
    kind: str
    saves_time: bool
    density: float
    distinct: int
    layers: tuple[GatedLayer, ...]
    conditions: Conditions = field(metadata=INLINE)
