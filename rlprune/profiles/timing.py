"""Slices timed in what they will run in: what prices and widths follow from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from rlprune.elastic.module import ElasticModule
from rlprune.graph.folding import optimize_for_inference
from rlprune.utils.process import keep_freed, on_threads
from rlprune.utils.progress import progress_bar
from rlprune.utils.timing import interleaved

_CHUNK = 16
"""How many slices are timed in turns."""
FEWEST = 10
"""Slices by whose times others' can be told."""
_N_FURTHER = 4
"""Numbers that a policy sees beside the class probabilities."""


@dataclass(frozen=True)
class Backend:
    """What runs slices where they are deployed.

    Attributes:
        name: such as `pytorch`.
        fold: a slice in eval mode -> a copy of it that is ready to run, as a sequence of the same parts.
        bind: a module, such as a part of that, and its input (B, ...) -> what runs it once.
    """

    name: str
    fold: Callable[[nn.Sequential], nn.Sequential]
    bind: Callable[[nn.Module, Tensor], Callable[[], object]]


PYTORCH = Backend("pytorch", optimize_for_inference, partial)
"""As `rlprune.load` runs a bundle."""


def times_of_bodies(
    elastic: ElasticModule,
    slices: Mapping[str, nn.Sequential],
    batch: int,
    seconds: float,
    backend: Backend = PYTORCH,
    threads: int | None = None,
) -> dict[str, float]:
    """The fewest milliseconds that the bodies of slices took, all timed in turns: other load only ever adds to them.

    Args:
        elastic: the network that they are of.
        slices: by name.
        batch: images at once.
        seconds: duration of all timing together.
        backend: what runs them.
        threads: that it computes with; as many as PyTorch does here if None.
    """
    keep_freed()
    with on_threads(threads), torch.inference_mode():
        features = _features(elastic.slice(elastic.full), _images(elastic, batch))
        rows = {
            name: backend.bind(backend.fold(network).get_submodule("body"), features)
            for name, network in slices.items()
        }
        return {name: min(times) for name, times in interleaved(rows, seconds).items()}


class _Decision(nn.Module):
    """One decision of a policy of the default size: logits (B, classes) -> actions (B,)."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.policy = nn.Sequential(
            nn.Linear(n_classes + _N_FURTHER, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)
        )

    def forward(self, logits: Tensor) -> Tensor:
        further = torch.zeros_like(logits[:, :1]).expand(-1, _N_FURTHER)
        actions: Tensor = self.policy(torch.cat([logits.softmax(1).sort(1).values, further], 1)).argmax(1)
        return actions


def time_stem_and_decision(
    elastic: ElasticModule, batch: int, seconds: float, backend: Backend
) -> tuple[dict[str, float], Tensor]:
    """Milliseconds of the stem and of the decisions, by name, and the features that the stem gives."""
    whole = elastic.slice(elastic.full)
    images = _images(elastic, batch)
    stem = backend.bind(backend.fold(whole).get_submodule("stem"), images)
    decision = backend.bind(_Decision(elastic.n_classes), torch.zeros(batch, elastic.n_classes))
    with torch.inference_mode():
        times = _medians({"stem": stem, "decision": decision}, seconds)
    return times, _features(whole, images)


def _images(elastic: ElasticModule, batch: int) -> Tensor:
    return torch.randn(batch, *elastic.image_shape).to(memory_format=torch.channels_last)


def _features(network: nn.Sequential, images: Tensor) -> Tensor:
    with torch.inference_mode():
        features: Tensor = optimize_for_inference(network).get_submodule("stem")(images)
    return features


def _medians(rows: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    return {name: median(times) for name, times in interleaved(rows, seconds).items()}


def time_bodies(
    elastic: ElasticModule,
    profiles: Tensor,
    features: Tensor,
    seconds: float,
    backend: Backend,
    late: Callable[[], bool] | None = None,
) -> Tensor:
    """Milliseconds of the body of every profile (n, G), float64 (n,); profile 0, full keep, is timed in every round.

    Other load on the machine slows all slices of a round alike, so each is measured relative to full keep. Once it is
    late, those that are ready are timed, `FEWEST` at least, and no more.
    """
    n = len(profiles)
    relative = [1.0]
    whole = []
    for part in progress_bar(torch.arange(1, n).split(_CHUNK), desc="latency", unit="chunk"):
        rows: dict[str, Callable[[], object]] = {}
        for k in [0, *part.tolist()]:
            if max(k, len(relative)) >= FEWEST and late is not None and late():
                break
            body = backend.fold(elastic.slice(profiles[k])).get_submodule("body")
            rows[str(k)] = backend.bind(body, features)
        if len(rows) > 1:
            with torch.inference_mode():
                times = _medians(rows, seconds * (len(rows) - 1) / n)
            whole.append(times.pop("0"))
            relative += [ms / whole[-1] for ms in times.values()]
    return torch.tensor(relative, dtype=torch.float64) * median(whole)
