"""Observations of the user's own: what is checked once, and what is stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.named import built, class_of, described, name_of, told
from rlprune.policies.protocol import Observation, Seen
from rlprune.utils.finite import check_whole
from rlprune.utils.process import CachedProperty

_SURE = 100.0
"""A logit of a network that is very sure."""
_STEM = 0.02
"""MACs of a stem, as a share of the network's."""


@dataclass(frozen=True, eq=False)
class OwnObservation:
    """An observation that is not the default one, with its sizes.

    Attributes:
        observation: the user's object.
        n_features: how many numbers are kept of an image between its passes, K.
        size: how many entries it has, D; a range of penalties adds one.

    Raises:
        RLPruneError: its bounds or its cost are no such numbers.
    """

    observation: Observation
    n_features: int
    size: int

    def __post_init__(self) -> None:
        if not bool((self.low <= self.high).all()):  # nor is NaN
            raise RLPruneError(f"the observation {self.name} has bounds that do not ascend: low above high, or NaN")
        check_whole(**{f"cost[{i}] of {self.name}": part for i, part in enumerate(self.cost)}, least=0, most=2**62)

    @classmethod
    @torch.no_grad()
    def tried(cls, observation: Observation, stem_features: Tensor, n_classes: int, max_passes: int) -> OwnObservation:
        """Try an observation on some images, before and after passes whose logits are made up.

        Args:
            observation: which has measured what it needs.
            stem_features: of one image or more, float (n, F, H, W).
            n_classes: classes of the network.
            max_passes: the most passes of an image.

        Raises:
            RLPruneError: what it gives has the wrong shape or number format, is not finite or out of its bounds, is
                another for the same input, or depends on other images, or on something that is not stored.
        """
        name = name_of(type(observation))
        features = _features(observation, stem_features)
        _check(f"features of {name}", features, len(stem_features))
        again, size = _made_again(observation), None
        for seen in _tries(features, n_classes, max_passes):
            entries = _called(f"observation {name}", observation, seen)
            size = _check(f"observation {name}", entries, len(features), size)
            own = cls(observation, features.shape[1], size)
            own._check_range(entries)
            _check_alone(name, observation, stem_features, seen, entries)
            _check_again(name, again, stem_features, seen, entries)
        return own

    @property
    def name(self) -> str:
        """Its class, as ``module:Class``."""
        return name_of(type(self.observation))

    @CachedProperty
    def low(self) -> Tensor:
        """Smallest value of every entry, float32 (D,)."""
        return self._bound("low")

    @CachedProperty
    def high(self) -> Tensor:
        """Largest value of every entry, float32 (D,)."""
        return self._bound("high")

    @property
    def cost(self) -> tuple[int, int]:
        """Parameters and MACs of an observation."""
        found = getattr(self.observation, "cost", (0, 0))
        if not isinstance(found, Sequence) or len(found) != 2:
            raise RLPruneError(f"the observation {self.name} has cost={found!r}; parameters and MACs are needed")
        return found[0], found[1]

    def features(self, stem_features: Tensor) -> Tensor:
        """What is kept of images: stem features float (n, F, H, W) -> float32 (n, K), on the CPU."""
        return _features(self.observation, stem_features)

    @torch.no_grad()
    def check_sizes(self, feature_shape: Sequence[int], n_classes: int, max_passes: int) -> None:
        """Make sure that it takes stem features of this shape, (F, H, W), and gives as many entries as it had.

        Raises:
            RLPruneError: it fails, or does not.
        """
        features = self.features(torch.zeros(2, *feature_shape))
        _check(f"features of {self.name}", features, 2, self.n_features)
        first = next(_tries(features, n_classes, max_passes))
        _check(f"observation {self.name}", _called(self.name, self.observation, first), 2, self.size)

    def tensors(self) -> dict[str, Tensor]:
        """What it has measured, by name."""
        return _tensors(self.observation)

    def to_json(self) -> dict[str, Any]:
        """Class, settings and sizes, for storage."""
        named = described("observation", self.observation)
        assert named is not None
        return named | {"n_features": self.n_features}

    def _bound(self, name: str) -> Tensor:
        given = getattr(self.observation, name, None)
        try:
            return torch.as_tensor(given, dtype=torch.float32).broadcast_to((self.size,))
        except (TypeError, ValueError, RuntimeError) as error:
            raise RLPruneError(
                f"the observation {self.name} has {name}={given!r}; a number is needed, or one for each of its "
                f"{self.size} entries"
            ) from error

    def _check_range(self, entries: Tensor) -> None:
        wrong = (entries < self.low) | (entries > self.high)
        if bool(wrong.any()):
            row, entry = wrong.nonzero()[0].tolist()
            raise RLPruneError(
                f"the observation {self.name} gives {float(entries[row, entry]):g} for entry {entry}; by its bounds it "
                f"lies from {float(self.low[entry]):g} to {float(self.high[entry]):g}: clamp it, or give other bounds"
            )


def fitted(observation: Observation, batches: Iterable[Tensor]) -> Observation:
    """A copy of an observation that has measured what it needs, and does not learn.

    Args:
        observation: the user's object, which stays as it is.
        batches: stem features of the images that train the policy, float (n, F, H, W).

    Raises:
        RLPruneError: it fails, or what it measures would not be stored.
    """
    name = name_of(type(observation))
    measured: Observation = _called(f"copying {name}", copy.deepcopy, observation)
    fit: Any = getattr(measured, "fit", None)
    if fit is not None:
        if not isinstance(measured, nn.Module):
            raise RLPruneError(
                f"the observation {name} has a method fit and is no nn.Module; make it one, with a buffer for "
                "everything that it measures: those are stored"
            )
        with torch.no_grad():
            _called(f"fit of {name}", fit, batches)
    return measured.eval().requires_grad_(False) if isinstance(measured, nn.Module) else measured


def stored_observation(
    stored: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], size: int, given: Any
) -> OwnObservation | None:
    """The observation that is stored with a policy, of a class that the caller gives.

    Args:
        stored: what `OwnObservation.to_json` gave; None for the default observation.
        tensors: what `OwnObservation.tensors` gave.
        size: how many entries it has.
        given: the class, or its name, ``"module:Class"``; None if none is given.

    Raises:
        BundleError: the class is not given, or another one, or it does not take what is stored.
        RLPruneError: the name that is given cannot be imported.
    """
    if stored is None:
        if given is not None:
            raise BundleError("the policy has rlprune's own observation, and another one is given; leave it out")
        return None
    name = stored["class"]
    if given is None:
        raise BundleError(
            f"the policy has an observation of its own, {name}, and loading runs no code that a file names; if you "
            f"trust it, give the class: observation=..., or --observation {name}"
        )
    found = class_of("observation", given)
    if found.__qualname__ != name.rpartition(":")[2]:
        raise BundleError(f"the policy has the observation {name}, and {name_of(found)} is given; give that class")
    try:
        observation = built("observation", found, stored["settings"])
        _restore(observation, tensors)
    except RLPruneError as error:
        raise BundleError(str(error)) from error
    return OwnObservation(observation, stored["n_features"], size)


def check_own(own: OwnObservation, feature_shape: Sequence[int], n_classes: int, max_passes: int) -> None:
    """Make sure that an observation is for a network.

    Args:
        own: the observation.
        feature_shape: of the network's stem features, (F, H, W).
        n_classes: classes of the network.
        max_passes: the most passes of an image.

    Raises:
        BundleError: it is for another one.
    """
    try:
        own.check_sizes(feature_shape, n_classes, max_passes)
    except RLPruneError as error:
        raise BundleError(f"the policy was trained for another network: {error}") from error


def _tensors(observation: Observation) -> dict[str, Tensor]:
    """The buffers and parameters of an observation, by name."""
    return dict(observation.state_dict()) if isinstance(observation, nn.Module) else {}


def _made_again(observation: Observation) -> Observation:
    """An observation that is made of what would be stored of one.

    Raises:
        RLPruneError: it cannot be made.
    """
    named, tensors = described("observation", observation), _tensors(observation)
    assert named is not None
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise RLPruneError(f"the observation {named['class']} has tensors that are not finite (NaN or infinite)")
    again: Observation = built("observation", type(observation), named["settings"])
    _restore(again, tensors)
    return again


def _restore(observation: Observation, tensors: Mapping[str, Tensor]) -> None:
    """Give a new observation what it had measured.

    Raises:
        RLPruneError: it has other tensors.
    """
    own = observation if isinstance(observation, nn.Module) else nn.Module()
    there = own.state_dict()
    if set(there) != set(tensors):
        raise RLPruneError(
            f"the observation {name_of(type(observation))} has the tensors {sorted(there)}, and {sorted(tensors)} are "
            "stored; give the class that the policy was trained with"
        )
    for name, tensor in tensors.items():  # of any shape: what is measured depends on the network
        module, _, last = name.rpartition(".")
        place = own.get_submodule(module)
        setattr(place, last, nn.Parameter(tensor, requires_grad=False) if last in place._parameters else tensor)
    own.eval()


def _features(observation: Observation, stem_features: Tensor) -> Tensor:
    """What an observation keeps of images, (n, F, H, W) -> (n, K), on the CPU; nothing if it has no method for that."""
    find = getattr(observation, "features", None)
    if find is None:
        return stem_features[:, :0, 0, 0].float().cpu()
    found: Tensor = _called(f"features of {name_of(type(observation))}", find, stem_features.float().cpu())
    return found


def _tries(features: Tensor, n_classes: int, max_passes: int) -> Iterator[Seen]:
    """What is seen of images before the first pass, and after others: at random, undecided, and very sure."""
    n = len(features)
    undecided, sure = torch.zeros(2, n, n_classes)
    sure[:, 0] = _SURE
    at_random = 5 * torch.randn(n, n_classes, generator=torch.Generator().manual_seed(0))
    for n_pass in range(max_passes + 1):
        passes, spent = torch.full((n,), n_pass), torch.full((n,), n_pass + _STEM)
        for logits in (undecided, at_random, sure) if n_pass else (undecided,):
            yield Seen(features, logits.clone(), passes, spent, max_passes)


def _called(what: str, function: Callable[[Any], Any], given: Any) -> Any:
    """What a function of the user's gives."""
    try:
        return function(given)
    except RLPruneError:
        raise
    except Exception as error:  # of the user's own code
        raise RLPruneError(f"{what} failed ({told(error)})") from error


def _check(what: str, found: Any, n: int, size: int | None = None) -> int:
    """The size of something, if it is float32 (n, size) and finite."""
    if not isinstance(found, Tensor):
        raise RLPruneError(f"{what}: a {type(found).__name__} is given; a float32 tensor ({n}, entries) is needed")
    fits = found.ndim == 2 and len(found) == n and size in (None, found.shape[1])
    if not fits or found.dtype != torch.float32:
        needed = "entries" if size is None else size
        raise RLPruneError(
            f"{what}: {found.dtype} of shape {tuple(found.shape)} is given for {n} images; "
            f"torch.float32 ({n}, {needed}) is needed"
        )
    if not bool(found.isfinite().all()):
        raise RLPruneError(f"{what}: some numbers are not finite (NaN or infinite)")
    return found.shape[1]


def _check_alone(name: str, observation: Observation, stem_features: Tensor, seen: Seen, entries: Tensor) -> None:
    """Make sure that the last image gives the same alone, and so a second time."""
    alone = Seen(
        _features(observation, stem_features[-1:]),
        seen.logits[-1:],
        seen.passes[-1:],
        seen.spent[-1:],
        seen.max_passes,
    )
    again = _called(f"observation {name}", observation, alone)
    if not _same(again, entries[-1:]):
        raise RLPruneError(
            f"the observation {name} gives something else for an image alone than for the same among others; each row "
            "must depend on its own image alone, and on nothing random"
        )


def _check_again(name: str, again: Observation, stem_features: Tensor, seen: Seen, entries: Tensor) -> None:
    """Make sure that an observation which is made of what would be stored gives the same."""
    found = _called(f"observation {name}", again, seen._replace(features=_features(again, stem_features)))
    if not _same(found, entries):
        raise RLPruneError(
            f"the observation {name}, made again with its settings, gives something else; what it measures or draws "
            "must be buffers or parameters of an nn.Module: those are stored"
        )


def _same(found: Any, entries: Tensor) -> bool:
    """Whether two observations are equal but for rounding."""
    fits = isinstance(found, Tensor) and found.shape == entries.shape and found.dtype == entries.dtype
    return fits and torch.allclose(found, entries, rtol=1e-3, atol=1e-4)
