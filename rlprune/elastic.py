"""A pretrained CNN of adjustable width: one set of weights, a choice of keep levels per image or per batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlprune import adjust, graph
from rlprune.adjust import Setting
from rlprune.body import BodyRun, cut
from rlprune.convert import make_elastic
from rlprune.data import ImageSet
from rlprune.errors import LevelsError, ModelError
from rlprune.groups import Group, LeftAlone
from rlprune.importance import GroupLayer
from rlprune.layers import Choice, ElasticBatchNorm, ElasticLayer
from rlprune.wrap import wrap

KEEP_RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MAX_RUNS = 64


class ElasticCNN(nn.Module):
    """A network that computes with as many channels of each group as it is told to.

    The stem runs whole; the body runs under keep levels. Build one with `ElasticCNN.from_model`.

    Where no levels are given it runs under its default profile: everything, until `set_width`, `set_depth` or
    `set_profile` say otherwise. They touch no weights: what is set back computes what it did. Each also gives a context
    at whose end things are as they were before: `with network.set_width(0.5): ...`. It is not stored with the network.

    Attributes:
        groups: the channel groups, G of them.
        left_alone: layers whose outputs are not pruned, with the reason.
        keep_ratios: ascending; a keep level is an index into it.
        widths: int64 (G, L), the channels each group keeps at each level.
        min_level: int64 (G,), the lowest level each group may take.
        image_shape: (C, H, W) of the images it was made for.
        feature_shape: (F, H', W') of the stem's features.
        n_classes: how many logits it gives.
        codebook: int64 (K, G), the profiles that the norms are specialised to; None if they are not.
        own_bodies: those of the codebook's profiles, K of them, once they are separated; else none.
        ranked_order: what `rank_depth` found, if it was called; else None.
    """

    widths: Tensor
    min_level: Tensor
    codebook: Tensor | None

    def __init__(
        self,
        stem: fx.GraphModule,
        body: fx.GraphModule,
        groups: Sequence[Group],
        image_shape: Sequence[int],
        *,
        keep_ratios: Sequence[float] = KEEP_RATIOS,
        round_to: int = 8,
        left_alone: Sequence[LeftAlone] = (),
    ) -> None:
        super().__init__()
        self.groups, self.left_alone = tuple(groups), tuple(left_alone)
        self.keep_ratios, self.round_to = _checked_ratios(keep_ratios), round_to
        self.image_shape = tuple(image_shape)
        if round_to < 1:
            raise LevelsError(f"round_to is {round_to}; it must be 1 or more channels")
        if not groups:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in left_alone)
            raise ModelError(f"nothing in this network can be pruned. {reasons}")
        self.register_buffer("widths", torch.tensor([self._widths(g) for g in groups]), persistent=False)
        lowest = [0 if group.skippable else self.narrowest for group in groups]
        self.register_buffer("min_level", torch.tensor(lowest), persistent=False)
        features = graph.measure(stem, torch.zeros(1, *self.image_shape))
        self.n_classes = graph.measure(body, features).shape[-1]
        self.feature_shape = tuple(features.shape[1:])
        self.stem, self.body = stem, body
        self.register_buffer("codebook", None, persistent=False)
        self.own_bodies = nn.ModuleList()
        make_elastic(body, self.groups, self.n_levels, drops=self.narrowest > 0)
        self._runs: dict[frozenset[str], BodyRun] = {}
        self.ranked_order: tuple[int, ...] | None = None
        self._kept, self._dropped = self.full, torch.zeros(self.n_groups, dtype=torch.bool)

    def __getstate__(self) -> dict[str, Any]:
        """Copies prepare their runs anew: those of another network's graph are of no use to them."""
        return self.__dict__ | {"_runs": {}}

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        image_shape: Sequence[int],
        *,
        keep_ratios: Sequence[float] = KEEP_RATIOS,
        round_to: int = 8,
        importance: str = "l1",
        residual: bool = False,
        calibration: ImageSet | None = None,
    ) -> ElasticCNN:
        """Find the groups of a pretrained CNN, rank their channels, and give its norms statistics per level.

        Args:
            model: float32 images (B, C, H, W) -> logits (B, classes); it is copied, not changed.
            image_shape: (C, H, W) of its images.
            keep_ratios: ascending shares in [0, 1], the last one 1; 0 drops a whole branch where that is possible.
            round_to: widths round up to multiples of this many channels.
            importance: what channels are ranked by: `l1`, `l2` or `bn_scale`; or, with calibration images, `gradient`,
                `taylor` or `hessian` (`rlprune.sensitivity`).
            residual: also prune the channels of residual streams, which many blocks share.
            calibration: labelled images that the network was trained for.

        Raises:
            ModelError: the network cannot be traced, or nothing in it can be pruned.
        """
        how = {"keep_ratios": keep_ratios, "round_to": round_to}
        return wrap(cls, model, image_shape, how, importance=importance, residual=residual, calibration=calibration)

    @property
    def n_groups(self) -> int:
        """How many groups, G."""
        return len(self.groups)

    @property
    def n_levels(self) -> int:
        """How many keep levels, L."""
        return len(self.keep_ratios)

    @property
    def full(self) -> Tensor:
        """The profile that keeps everything, int64 (G,)."""
        return torch.full((self.n_groups,), self.n_levels - 1)

    @property
    def narrowest(self) -> int:
        """The lowest level that keeps channels: 1 where level 0 drops them all, else 0."""
        return int(self.keep_ratios[0] == 0)

    def uniform(self, level: int) -> Tensor:
        """The profile of one level for all groups (for each its lowest, where that is higher), int64 (G,)."""
        return self.min_level.cpu().clamp_min(level)

    @property
    def drop_order(self) -> tuple[int, ...]:
        """The groups that can be dropped, those first that `set_depth` drops first.

        Until `rank_depth` is called, those whose branches end in the smallest scales of norms.
        """
        return adjust.by_scale(self) if self.ranked_order is None else self.ranked_order

    @property
    def profile(self) -> Tensor:
        """What it runs under where no levels are given, int64 (G,)."""
        return torch.where(self._dropped, 0, self._kept)

    def set_profile(self, profile: Tensor | Sequence[int]) -> Setting:
        """Run under this profile, int64 (G,), where no levels are given; branches it drops come back whole.

        Raises:
            LevelsError: not a profile of this network.
        """
        levels = torch.as_tensor(profile)
        dropped = self._choice(levels, None).widths.cpu() == 0
        return self._set(torch.where(dropped, self.full, levels.cpu()), dropped)

    def set_width(self, ratio: float) -> Setting:
        """Keep this share of every group's channels where no levels are given; branches that are dropped stay so.

        Raises:
            LevelsError: not a keep ratio of this network above 0.
        """
        return self._set(torch.full_like(self._kept, adjust.level_of(self, ratio)), self._dropped)

    def set_depth(self, share: float) -> Setting:
        """Keep this share of the branches that can be dropped, the last of `drop_order`, where no levels are given.

        Their number is rounded up, and they have the width that was set last.

        Raises:
            LevelsError: the share is outside [0, 1], or below 1 where no branch can be dropped.
        """
        return self._set(self._kept, adjust.dropped_at(self, share))

    def rank_depth(self, images: Tensor) -> None:
        """Order the branches that can be dropped by how much predictions change without each; it is kept from then on.

        Args:
            images: normalised, float (B, C, H, W), to predict; some hundreds are enough.

        Raises:
            LevelsError: there are none.
        """
        training = self.training
        self.ranked_order = adjust.by_change(self.eval(), images)
        self.train(training)

    def _set(self, kept: Tensor, dropped: Tensor) -> Setting:
        setting = Setting(self, self._kept, self._dropped)
        self._kept, self._dropped = kept, dropped
        return setting

    def forward(self, images: Tensor, levels: Tensor | None = None) -> Tensor:
        """Classify images under keep levels.

        Args:
            images: normalised, float (B, C, H, W).
            levels: int64 (B, G), every image its own (computed with masks: all the work, the right numbers); or (G,),
                one profile for all (computed with slices: only the work that it keeps); the default one if None.

        Returns:
            Logits (B, classes).

        Raises:
            LevelsError: levels of another shape or outside what the groups have.
        """
        return self.run_body(self.stem(images), self.profile if levels is None else levels)

    def run_body(self, features: Tensor, levels: Tensor) -> Tensor:
        """The same, from the stem's features (B, F, H', W') on."""
        choice = self._choice(levels, len(features))
        if levels.ndim == 1:
            own = self._own_body(choice.levels)
            return self._run_shared(features, choice) if own is None else own(features)
        if not self.own_bodies:
            return self._run_shared(features, choice)
        rest = torch.arange(len(features), device=features.device)
        parts: list[tuple[Tensor, Tensor]] = []
        for profile, own in self._own_profiles():  # the first of equal profiles counts, as it does for one
            here = (choice.levels[rest] == profile).all(1)
            rows, rest = rest[here], rest[~here]
            if len(rows):
                parts.append((rows, own(features[rows])))
        if len(rest) or not parts:
            parts.append((rest, self._run_shared(features[rest], self._choice(choice.levels[rest], len(rest)))))
        rows, logits = map(torch.cat, zip(*parts, strict=True))
        return logits[rows.argsort()]

    def _run_shared(self, features: Tensor, choice: Choice) -> Tensor:
        """Logits of the body that all profiles share."""
        exits = self._dropped_exits(choice.levels) if choice.levels.ndim == 1 else frozenset()
        if exits not in self._runs:
            if len(self._runs) >= _MAX_RUNS:
                self._runs.pop(next(iter(self._runs)))
            self._runs[exits] = BodyRun(self.body, exits)
        logits: Tensor = self._runs[exits].under(choice, features)
        return logits

    def check_levels(self, levels: Tensor) -> Tensor:
        """Return the levels as int64 on this network's device.

        Raises:
            LevelsError: another shape than (G,) or (B, G), another dtype, or a level that a group does not have.
        """
        if levels.ndim not in (1, 2) or levels.shape[-1] != self.n_groups:
            raise LevelsError(
                f"levels have shape {tuple(levels.shape)}; this network has {self.n_groups} groups, "
                f"so ({self.n_groups},) or (B, {self.n_groups}) is needed"
            )
        if levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool:
            raise LevelsError(f"levels have dtype {levels.dtype}; int64 indices into {self.keep_ratios} are needed")
        levels = levels.to(self.min_level.device, torch.int64)
        wrong = ((levels < self.min_level) | (levels >= self.n_levels)).nonzero()
        if len(wrong):
            group = int(wrong[0, -1])
            raise LevelsError(
                f"level {int(levels[tuple(wrong[0])])} of group {group} ({self.groups[group].name}) does not exist; "
                f"allowed: {int(self.min_level[group])} to {self.n_levels - 1}"
            )
        return levels

    def slice(self, profile: Tensor | Sequence[int] | None = None) -> nn.Sequential:
        """The network of one profile, physically small and ordinary: no masks, no unused weights, no elastic layers.

        Args:
            profile: int64 (G,); the default one if None.

        Returns:
            `stem` and `body` in sequence, in eval mode, with copies of the weights: images (B, C, H, W) -> logits.

        Raises:
            LevelsError: not a profile of this network.
        """
        levels = self.profile if profile is None else torch.as_tensor(profile)
        choice = self._choice(levels, None)
        own = self._own_body(choice.levels)
        body = cut(self.body, choice, self._dropped_exits(levels)) if own is None else copy.deepcopy(own)
        network = nn.Sequential()
        network.add_module("stem", copy.deepcopy(self.stem))
        network.add_module("body", body)
        return network.to(self.widths.device).eval()

    def rank(self, score: Any) -> None:
        """Order the channels of every group by falling importance; what the network computes does not change.

        Args:
            score: a criterion of `rlprune.importance`.
        """
        scores = [score(self.layers_of(index), group.n_channels) for index, group in enumerate(self.groups)]
        for index, of_group in enumerate(scores):
            order = of_group.argsort(descending=True, stable=True)
            for layer in self.elastic_layers().values():
                layer.reorder(index, order)

    def specialise(self, codebook: Tensor) -> None:
        """Give every norm one set of parameters and statistics per profile of a codebook, instead of per level.

        What a profile of the codebook computes does not change; any other uses the sets of the nearest from now on.

        Args:
            codebook: int64 (K, G).

        Raises:
            LevelsError: not profiles of this network, or it is specialised already.
        """
        if self.codebook is not None:
            raise LevelsError("the network is specialised to a codebook already; start from the one it was before")
        codebook = self.check_levels(codebook)
        if codebook.ndim != 2:
            raise LevelsError(f"a codebook has shape (K, {self.n_groups}), not {tuple(codebook.shape)}")
        for layer in self.elastic_layers().values():
            if isinstance(layer, ElasticBatchNorm):
                layer.specialise(codebook)
        self.codebook = codebook

    def separate(self) -> None:
        """Give every profile of the codebook a body of its own: its slice, whose weights no other shares from now on.

        What the network computes does not change. The stem, which profiles go on sharing, stays as it is from now on,
        whatever trains them; any other profile is still a slice of the shared body.

        Raises:
            LevelsError: the network is specialised to no codebook, or separated already.
        """
        if self.codebook is None or self.own_bodies:
            state = "specialised to no codebook" if self.codebook is None else "separated already"
            raise LevelsError(f"the network is {state}; only profiles of a codebook can be separated, and only once")
        bodies = [self.slice(profile).get_submodule("body") for profile in self.codebook]
        self.own_bodies.extend(bodies)
        self.stem.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ElasticCNN:
        """Enter training mode, or leave it; the stem of a separated network stays out of it."""
        super().train(mode)
        if self.own_bodies:
            self.stem.eval()
        return self

    def elastic_layers(self) -> dict[str, ElasticLayer]:
        """All layers of the body that have a width, by name."""
        return {name: layer for name, layer in self.body.named_modules() if isinstance(layer, ElasticLayer)}

    def layers_of(self, group: int) -> list[GroupLayer]:
        """The layers that hold a group's channels, axis by axis."""
        found = []
        for member in self.groups[group].members:
            layer = self.body.get_submodule(member.layer)
            assert isinstance(layer, ElasticLayer)
            axis = layer.in_axis if member.axis == "in" else layer.out_axis
            positions = ((axis.group == group) & (axis.channel >= 0)).nonzero().flatten()
            found.append(GroupLayer(layer, member.axis, positions, axis.channel[positions]))
        return found

    def _widths(self, group: Group) -> list[int]:
        steps = [math.ceil(ratio * group.n_channels / self.round_to - 1e-9) for ratio in self.keep_ratios]
        return [min(group.n_channels, n * self.round_to) for n in steps]

    def _choice(self, levels: Tensor, n_images: int | None) -> Choice:
        levels = self.check_levels(levels)
        if levels.ndim == 2 and n_images != len(levels):
            allowed = "one profile (G,)" if n_images is None else f"levels for {n_images} images, or one profile (G,)"
            raise LevelsError(f"levels are for {len(levels)} images; {allowed} is needed")
        widths = self.widths[torch.arange(self.n_groups, device=levels.device), levels]
        nearest = None if self.codebook is None else (levels[..., None, :] - self.codebook).abs().sum(-1).argmin(-1)
        return Choice(levels, widths, nearest)

    def _own_body(self, profile: Tensor) -> nn.Module | None:
        """The body that a checked profile (G,) has of its own, if it has one."""
        return next((body for own, body in self._own_profiles() if own.equal(profile)), None)

    def _own_profiles(self) -> list[tuple[Tensor, nn.Module]]:
        """All profiles (G,) that have a body of their own, with it."""
        if self.codebook is None or not self.own_bodies:
            return []
        return list(zip(self.codebook, self.own_bodies, strict=True))

    def _dropped_exits(self, profile: Tensor) -> frozenset[str]:
        """Nodes that become constants under a profile, because the group they consume is dropped."""
        dropped = (self.widths[torch.arange(self.n_groups), profile.to(self.widths.device)] == 0).tolist()
        return frozenset(name for group, gone in zip(self.groups, dropped, strict=True) if gone for name in group.exits)


def _checked_ratios(keep_ratios: Sequence[float]) -> tuple[float, ...]:
    ratios = tuple(float(ratio) for ratio in keep_ratios)
    ascending = all(low < high for low, high in pairwise(ratios))
    if len(ratios) < 2 or not ascending or not ratios[0] >= 0 or ratios[-1] != 1:
        raise LevelsError(
            f"keep ratios are {ratios}; at least two, ascending, from 0 or more up to exactly 1, are needed"
        )
    return ratios
