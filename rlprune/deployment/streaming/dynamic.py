"""A dynamic network bucket by bucket: new images through the stem, the others through the slice they wait for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rlprune.data.image_set import check_range
from rlprune.deployment.dynamic_cnn import DynamicCNN, gathered
from rlprune.deployment.images import Images, as_batch
from rlprune.deployment.streaming.request import Found
from rlprune.policies.loop import next_profiles

_MOST_DECIDERS = 64
"""Budgets whose policies are kept ready."""


class _Begun:
    """Images whose stem ran together, and what is known of each of them.

    Attributes:
        features: of the stem, (B, F, H', W').
        observed: what policies see of them, float32 (B, K).
        logits: of the predictions so far, float32 (B, classes).
        profiles: of every pass so far, int64 (B, max_passes); -1 where there was none.
    """

    def __init__(self, model: DynamicCNN, images: Tensor) -> None:
        observer = model.policy.observer
        self.features = model.run_stem(model.normalise(images))
        self.observed = observer.features(self.features.float())
        self.logits = torch.zeros(len(images), observer.n_classes)
        self.profiles = torch.full((len(images), observer.max_passes), -1)


class _State:
    """An image between its passes.

    Attributes:
        pixels: (1, C, H, W).
        decider: the network at the image's budget.
        begun: where what is known of it stands, once its stem has run.
        row: its own row there.
    """

    __slots__ = ("begun", "decider", "pixels", "row")

    def __init__(self, pixels: Tensor, decider: DynamicCNN) -> None:
        self.pixels = pixels
        self.decider = decider
        self.begun: _Begun
        self.row: int


class _Part:
    """Images of a bucket whose stem ran together.

    Attributes:
        begun: what is known of them.
        places: of each in the bucket.
        rows: of each in `begun`, int64 (n,); None if they are all of it, in order.
    """

    def __init__(self, begun: _Begun, states: Sequence[_State], places: list[int]) -> None:
        self.begun = begun
        self.places = places
        rows = [states[place].row for place in places]
        self.rows = None if rows == list(range(len(begun.logits))) else torch.tensor(rows)

    def of(self, known: Tensor) -> Tensor:
        """Their rows of what is known of all."""
        return known if self.rows is None else known[self.rows]

    def note(self, logits: Tensor, profiles: Tensor) -> None:
        """Take over what a pass gave, float32 (n, classes) and int64 (n, max_passes)."""
        rows = slice(None) if self.rows is None else self.rows
        self.begun.logits[rows] = logits
        self.begun.profiles[rows] = profiles


class DynamicEngine:
    """Runs a dynamic network bucket by bucket.

    Images that wait for the same profile run together, whatever their pass and their budget; each is decided about at
    its own budget, as `rlprune.policies.loop.run_policy` would.

    Args:
        model: the network.
    """

    def __init__(self, model: DynamicCNN) -> None:
        self._model = model
        self._deciders: dict[float, DynamicCNN] = {}

    def accept(self, images: Images, budget: float | None) -> list[tuple[Hashable, _State]]:
        """As `Engine.accept`; new images wait with others of their number format."""
        decider = self._model if budget is None else self._decider(budget)
        batch = as_batch(images, self._model.image_shape, self._model.preprocessing).detach()
        if batch.is_floating_point():
            check_range(batch)
        return [(batch.dtype, _State(row, decider)) for row in batch.to("cpu", copy=True).split(1)]

    def _decider(self, budget: float) -> DynamicCNN:
        """The network at a budget."""
        if type(budget) not in (int, float):
            return self._model.at(budget=budget)
        known = self._deciders.get(budget)
        if known is None:
            known = self._model.at(budget=budget)
            if len(self._deciders) >= _MOST_DECIDERS:
                self._deciders = {}
            self._deciders[budget] = known
        return known

    @torch.inference_mode()
    def run(self, point: Hashable, states: Sequence[_State], *, alone: bool) -> list[Hashable | Found]:
        """As `Engine.run`; one image alone runs as it would without a stream."""
        if isinstance(point, int):
            return self._pass(point, states)
        if alone and len(states) == 1:
            return [Found(states[0].decider(states[0].pixels), 0)]
        return self._begin(states)

    def _begin(self, states: Sequence[_State]) -> list[Hashable | Found]:
        """Run the stem; and the first slice where images need not be seen for it."""
        begun = _Begun(self._model, torch.cat([state.pixels for state in states]))
        for row, state in enumerate(states):
            state.begun, state.row = begun, row
        firsts = {state.decider.first for state in states}
        if len(firsts) == 1 and None not in firsts:
            return self._pass(firsts.pop() or 0, states)
        no_passes = torch.zeros(len(states), dtype=torch.int64)
        choice = self._decided(states, begun.observed, begun.logits, begun.profiles, no_passes)
        return choice.tolist()

    def _pass(self, profile: int, states: Sequence[_State]) -> list[Hashable | Found]:
        """Run a slice, and decide what comes next."""
        parts = _parts_of(states)
        new = self._model.run_body(profile, _features_of(parts))
        before = torch.cat([part.of(part.begun.logits) for part in parts])
        profiles = torch.cat([part.of(part.begun.profiles) for part in parts])
        passes = (profiles >= 0).sum(1)
        logits = self._model.policy.observer.believe(before, new, passes)
        profiles.scatter_(1, passes[:, None], profile)
        sizes = [len(part.places) for part in parts]
        for part, *found in zip(parts, logits.split(sizes), profiles.split(sizes), strict=True):
            part.note(*found)
        observed = torch.cat([part.of(part.begun.observed) for part in parts])
        places = [place for part in parts for place in part.places]
        choice = self._decided([states[place] for place in places], observed, logits, profiles, passes + 1)
        outcomes: list[Hashable | Found] = choice.tolist()
        done = choice < 0
        if bool(done.any()):
            prediction = self._model.prediction_of(logits[done], profiles[done])
            for row, index in enumerate(done.nonzero()[:, 0].tolist()):
                outcomes[index] = Found(prediction, row)
        return [outcome for _, outcome in sorted(zip(places, outcomes, strict=True), key=lambda each: each[0])]

    def _decided(
        self, states: Sequence[_State], observed: Tensor, logits: Tensor, profiles: Tensor, passes: Tensor
    ) -> Tensor:
        """The next profile of each image, int64 (n,); -1 for those that are done."""
        choice = torch.full_like(passes, -1)
        prices = self._model.prices
        ran = profiles >= 0
        spent = (prices.stem.macs + (prices.bodies.macs[profiles.clamp_min(0)] * ran).sum(1)) / prices.dense.macs
        last = profiles.gather(1, (passes - 1).clamp_min(0)[:, None])[:, 0]
        may_go_on = (passes < profiles.shape[1]).tolist()
        for decider in {state.decider for state in states}:
            own = torch.tensor(
                [i for i, state in enumerate(states) if state.decider is decider and may_go_on[i]], dtype=torch.int64
            )
            if not len(own):
                continue
            if decider.first is not None and not int(passes[own[0]]):
                choice[own] = decider.first
                continue
            choice[own] = next_profiles(decider.folded, observed[own], logits[own], passes[own], spent[own], last[own])
        return choice


def _features_of(parts: Sequence[_Part]) -> Tensor:
    """The features of a bucket, (n, F, H', W'), each of them copied once, as one block of memory, if at all."""
    first = parts[0].begun.features
    if len(parts) == 1:
        return first if parts[0].rows is None else gathered(first, parts[0].rows)
    _, channels, height, width = first.shape
    sizes = [len(part.places) for part in parts]
    features = first.new_empty((sum(sizes), height, width, channels))
    for part, place in zip(parts, features.split(sizes), strict=True):
        rows = torch.arange(len(place)) if part.rows is None else part.rows
        torch.index_select(part.begun.features.permute(0, 2, 3, 1), 0, rows.to(first.device), out=place)
    return features.permute(0, 3, 1, 2)


def _parts_of(states: Sequence[_State]) -> list[_Part]:
    """The images of a bucket, by the stems that they came from."""
    places: dict[_Begun, list[int]] = {}
    for place, state in enumerate(states):
        places.setdefault(state.begun, []).append(place)
    return [_Part(begun, states, each) for begun, each in places.items()]
