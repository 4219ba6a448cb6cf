"""An observation of the user's own is tried before anybody relies on it: what it gives, and for what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.policies.named import name_of, told
from rlprune.policies.protocol import Observation, Seen

_SURE = 100.0
"""A logit of a network that is very sure."""
_STEM = 0.02
"""MACs of a stem, as a share of the network's."""


def features_of(observation: Observation, stem_features: Tensor) -> Tensor:
    """What an observation keeps of images, (n, F, H, W) -> (n, K), on the CPU; nothing if it has no method for that.

    Raises:
        RLPruneError: the method fails.
    """
    find = getattr(observation, "features", None)
    if find is None:
        return stem_features[:, :0, 0, 0].float().cpu()
    found: Tensor = called(f"features of {name_of(type(observation))}", find, stem_features.float().cpu())
    return found


def tries(features: Tensor, n_classes: int, max_passes: int) -> Iterator[Seen]:
    """What is seen of images before the first pass, and after others: at random, undecided, and very sure."""
    n = len(features)
    undecided, sure = torch.zeros(2, n, n_classes)
    sure[:, 0] = _SURE
    at_random = 5 * torch.randn(n, n_classes, generator=torch.Generator().manual_seed(0))
    for n_pass in range(max_passes + 1):
        passes, spent = torch.full((n,), n_pass), torch.full((n,), n_pass + _STEM)
        for logits in (undecided, at_random, sure) if n_pass else (undecided,):
            yield Seen(features, logits.clone(), passes, spent, max_passes)


def called(what: str, function: Callable[[Any], Any], given: Any) -> Any:
    """What a function of the user's gives.

    Raises:
        RLPruneError: it fails; the message says what failed, and why.
    """
    try:
        return function(given)
    except RLPruneError:
        raise
    except Exception as error:  # of the user's own code
        raise RLPruneError(f"{what} failed ({told(error)})") from error


def checked_size(what: str, found: Any, n: int, size: int | None = None) -> int:
    """The size of something, if it is float32 (n, size) and finite.

    Raises:
        RLPruneError: it is not.
    """
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


def check_alone(name: str, observation: Observation, stem_features: Tensor, seen: Seen, entries: Tensor) -> None:
    """Make sure that the last image gives the same alone, and so a second time.

    Raises:
        RLPruneError: it gives something else.
    """
    alone = Seen(
        features_of(observation, stem_features[-1:]),
        seen.logits[-1:],
        seen.passes[-1:],
        seen.spent[-1:],
        seen.max_passes,
    )
    again = called(f"observation {name}", observation, alone)
    if not _same(again, entries[-1:]):
        raise RLPruneError(
            f"the observation {name} gives something else for an image alone than for the same among others; each row "
            "must depend on its own image alone, and on nothing random"
        )


def check_again(name: str, again: Observation, stem_features: Tensor, seen: Seen, entries: Tensor) -> None:
    """Make sure that an observation which is made of what would be stored gives the same.

    Raises:
        RLPruneError: it gives something else.
    """
    found = called(f"observation {name}", again, seen._replace(features=features_of(again, stem_features)))
    if not _same(found, entries):
        raise RLPruneError(
            f"the observation {name}, made again with its settings, gives something else; what it measures or draws "
            "must be buffers or parameters of an nn.Module: those are stored"
        )


def _same(found: Any, entries: Tensor) -> bool:
    """Whether two observations are equal but for rounding."""
    fits = isinstance(found, Tensor) and found.shape == entries.shape and found.dtype == entries.dtype
    return fits and torch.allclose(found, entries, rtol=1e-3, atol=1e-4)
