"""`ElasticModule`, a network that runs under keep levels: levels per image, or one profile for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.body import BodyInterpreter, extract_subnet, replace_layers
from rlprune.elastic.channels import Group, UnprunableLayer, resolution_of
from rlprune.elastic.layers import Choice, ElasticLayer, GroupLayer
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.layers.resolution import measure_smaller, parted, shrink
from rlprune.elastic.levels import KEEP_RATIOS, MAX_PROFILES, levels_of, nearest_profiles, widths_of
from rlprune.errors import LevelsError, ModelError
from rlprune.graph.nodes import given_shape, measure

_MAX_RUNS = 64
"""How many interpreters are cached, one for each set of dropped branches."""


class ElasticModule(nn.Module):
    """A stem that runs whole, and a body that runs under keep levels.

    Args:
        stem: images (B, C, H, W) -> features (B, F, H', W').
        body: features -> logits (B, classes); its layers are replaced by elastic ones, in place.
        groups: the channel groups of the body, G of them.
        image_shape: (C, H, W).
        keep_ratios: ascending shares in [0, 1], the last one 1; L of them.
        round_to: widths round up to multiples of this many channels; where a group's channels stand for several of its
            layers each (`Group.layer_channels`), to as few of them as stand for that many.
        unprunable: layers whose outputs are not pruned, with the reason.
        measured: whether the nodes of both graphs say already what `rlprune.graph.nodes.measure` notes.
        resolution: whether the resolution of the stem's features is chosen, too: then it is the last group.

    Raises:
        LevelsError: keep ratios that are not ascending up to 1, or `round_to` below 1.
        ModelError: there are no groups, or the network does not run on images of this shape, or at a lower resolution.

    Attributes:
        groups: the channel groups, and the resolution if it is chosen; G of them.
        resolution: whether the last group is the resolution.
        unprunable: layers whose outputs are not pruned, with the reason.
        keep_levels: which levels each group may take, on the CPU.
        widths: int64 (G, L), the channels each group keeps at each level, counted as in `Group.n_channels`.
        min_level: int64 (G,), the lowest level each group may take.
        image_shape: (C, H, W) of the images it was made for.
        feature_shape: (F, H', W') of the stem's features.
        n_classes: number of logits.
        codebook: int64 (K, G), the profiles that the norms are specialised to; None if they are not.
        own_bodies: bodies of the codebook's profiles, K of them after `separate`; before that none.
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
        unprunable: Sequence[UnprunableLayer] = (),
        measured: bool = False,
        resolution: bool = False,
    ) -> None:
        super().__init__()
        if round_to < 1:
            raise LevelsError(f"round_to is {round_to}; it must be 1 or more channels")
        if not groups:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in unprunable)
            raise ModelError(f"nothing in this network can be pruned. {reasons}")
        if not measured:
            measure(body, measure(stem, torch.zeros(1, *image_shape)))
        self.image_shape, self.feature_shape = tuple(image_shape), given_shape(stem)[1:]
        self.n_classes, self.round_to = given_shape(body)[-1], round_to
        self.groups = (*groups, resolution_of(self.feature_shape)) if resolution else tuple(groups)
        self.unprunable, self.resolution = tuple(unprunable), resolution
        self.keep_levels = levels_of(self.groups, keep_ratios)
        self.register_buffer("widths", widths_of(self.groups, self.keep_levels, round_to), persistent=False)
        self.register_buffer("min_level", self.keep_levels.min_level.clone(), persistent=False)
        self.register_buffer("codebook", None, persistent=False)
        if resolution:
            measure_smaller(body, self.feature_shape, self.keep_ratios[int(self.min_level[-1]) : -1])
        self.stem, self.body = stem, body
        self.own_bodies = nn.ModuleList()
        replace_layers(body, self.groups, self.n_levels, drops=self.narrowest > 0)
        self._runs: dict[frozenset[str], BodyInterpreter] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave cached interpreters out of copies: they belong to this network's graph."""
        return self.__dict__ | {"_runs": {}}

    @property
    def keep_ratios(self) -> tuple[float, ...]:
        """Ascending; a keep level is an index into it."""
        return self.keep_levels.keep_ratios

    @property
    def n_groups(self) -> int:
        """How many groups, G."""
        return self.keep_levels.n_groups

    @property
    def n_levels(self) -> int:
        """How many keep levels, L."""
        return self.keep_levels.n_levels

    @property
    def full(self) -> Tensor:
        """The profile that keeps everything, int64 (G,)."""
        return self.keep_levels.full

    @property
    def narrowest(self) -> int:
        """The lowest level that keeps channels: 1 where level 0 drops them all, else 0."""
        return self.keep_levels.narrowest

    def uniform(self, level: int) -> Tensor:
        """The profile of one level for all groups (for each its lowest, where that is higher), int64 (G,)."""
        return self.keep_levels.uniform(level)

    @property
    def profile(self) -> Tensor:
        """The default profile, under which it runs where no levels are given, int64 (G,)."""
        return self.full

    def forward(self, images: Tensor, levels: Tensor | None = None) -> Tensor:
        """Classify images under keep levels.

        Args:
            images: normalised, float (B, C, H, W).
            levels: int64 (B, G), for every image its own (computed with masks: the right numbers at full cost); or
                (G,), one profile for all (computed with slices, at its own cost); None for the default profile.

        Returns:
            Logits (B, classes).

        Raises:
            LevelsError: levels of another shape, or a level that a group does not have.
        """
        return self.run_body(self.stem(images), self.profile if levels is None else levels)

    def run_body(self, features: Tensor, levels: Tensor) -> Tensor:
        """Run the body under keep levels.

        Args:
            features: of the stem, float (B, F, H', W').
            levels: int64 (B, G) or (G,), as in `forward`.

        Returns:
            Logits (B, classes).

        Raises:
            LevelsError: as in `forward`.
        """
        choice = self._choice(levels, len(features))
        if levels.ndim == 1:
            own = self._own_body(choice.levels)
            return self._run_shared(features, choice) if own is None else own(features)
        if self.own_bodies or self.resolution:
            return self._run_apart(features, choice.levels)
        return self._run_shared(features, choice)

    def _run_apart(self, features: Tensor, levels: Tensor) -> Tensor:
        """Logits of images with levels (B, G) of their own, where profiles have own bodies, or resolutions differ."""
        rest = torch.arange(len(features), device=features.device)
        parts: list[tuple[Tensor, Tensor]] = []
        for profile, own in self._own_profiles():  # of equal profiles the first counts, as in `_own_body`
            here = (levels[rest] == profile).all(1)
            rows = rest[here]
            rest = rest[~here]
            if len(rows):
                parts.append((rows, own(features[rows])))
        for rows in parted(rest, levels[rest, -1]) if self.resolution else [rest]:
            if len(rows) or not parts:
                parts.append((rows, self._run_shared(features[rows], self._choice(levels[rows], len(rows)))))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([logits for _, logits in parts])[order]

    def _run_shared(self, features: Tensor, choice: Choice) -> Tensor:
        """Logits of the body that all profiles share; the resolution is one for all images."""
        exits = self._dropped_exits(choice.levels) if choice.levels.ndim == 1 else frozenset()
        if exits not in self._runs:
            if len(self._runs) >= _MAX_RUNS:
                self._runs.pop(next(iter(self._runs)))
            self._runs[exits] = BodyInterpreter(self.body, exits, self.groups)
        if self.resolution and len(features):
            features = shrink(features, self._positions(choice.levels.reshape(-1, self.n_groups)[0]))
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

    def check_codebook(self, codebook: Tensor) -> Tensor:
        """Return a codebook of this network's profiles, int64 (K, G) with K from 1 to 16, on the CPU.

        Raises:
            LevelsError: another shape, or a level that a group does not have.
        """
        if codebook.ndim != 2 or not 1 <= len(codebook) <= MAX_PROFILES:
            raise LevelsError(
                f"codebook has shape {tuple(codebook.shape)}; (K, G) with K from 1 to {MAX_PROFILES} is needed"
            )
        return self.check_levels(codebook).cpu()

    def slice(self, profile: Tensor | Sequence[int] | None = None) -> nn.Sequential:
        """The network of one profile, physically small and ordinary: no masks, no unused weights, no elastic layers.

        Args:
            profile: int64 (G,); None for the default profile.

        Returns:
            `stem` and `body` in sequence, in eval mode, with copies of the weights: images (B, C, H, W) -> logits.

        Raises:
            LevelsError: not a profile of this network.
        """
        levels = self.profile if profile is None else torch.as_tensor(profile)
        choice = self._choice(levels, None)
        own = self._own_body(choice.levels)
        body = copy.deepcopy(own)
        if body is None:
            body = extract_subnet(self.body, choice, self._dropped_exits(levels), self._positions(choice.levels))
        network = nn.Sequential()
        network.add_module("stem", copy.deepcopy(self.stem))
        network.add_module("body", body)
        return network.eval()

    def specialise(self, codebook: Tensor) -> None:
        """Give every norm one set of parameters and statistics per profile of a codebook, instead of per level.

        Profiles of the codebook compute the same as before; any other profile uses the sets of the nearest one.

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
        """Give every profile of the codebook a body of its own: its slice, whose weights it shares with no other.

        The network computes the same as before. Profiles still share the stem, which is frozen from now on; any other
        profile is still a slice of the shared body.

        Raises:
            LevelsError: the network is not specialised to a codebook, or separated already.
        """
        if self.codebook is None or self.own_bodies:
            state = "specialised to no codebook" if self.codebook is None else "separated already"
            raise LevelsError(f"the network is {state}; only profiles of a codebook can be separated, and only once")
        bodies = [self.slice(profile).get_submodule("body") for profile in self.codebook]
        self.own_bodies.extend(bodies)
        self.stem.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ElasticModule:
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

    def _choice(self, levels: Tensor, n_images: int | None) -> Choice:
        levels = self.check_levels(levels)
        if levels.ndim == 2 and n_images != len(levels):
            allowed = "one profile (G,)" if n_images is None else f"levels for {n_images} images, or one profile (G,)"
            raise LevelsError(f"levels are for {len(levels)} images; {allowed} is needed")
        widths = self.widths[torch.arange(self.n_groups, device=levels.device), levels]
        nearest = None if self.codebook is None else nearest_profiles(levels, self.codebook)
        return Choice(levels, widths, nearest)

    def _positions(self, profile: Tensor) -> float:
        """The share of the features' positions that a profile (G,) keeps."""
        return self.keep_ratios[int(profile[-1])] if self.resolution else 1.0

    def _own_body(self, profile: Tensor) -> nn.Module | None:
        """The body that a checked profile (G,) has of its own, if it has one."""
        return next((body for own, body in self._own_profiles() if own.equal(profile)), None)

    def _own_profiles(self) -> list[tuple[Tensor, nn.Module]]:
        """The profiles (G,) that have a body of their own, each with its body."""
        if self.codebook is None or not self.own_bodies:
            return []
        return list(zip(self.codebook, self.own_bodies, strict=True))

    def _dropped_exits(self, profile: Tensor) -> frozenset[str]:
        """Nodes that are not needed under a profile, because the group they consume is dropped."""
        dropped = (self.widths[torch.arange(self.n_groups), profile.to(self.widths.device)] == 0).tolist()
        return frozenset(name for group, gone in zip(self.groups, dropped, strict=True) if gone for name in group.exits)
