"""Latency as a cost: the time a profile takes on one machine, predicted from a table that is measured there once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import random_profiles
from rlprune.profiles.cost import Cost
from rlprune.profiles.timing import FEWEST, PYTORCH, Backend, time_bodies, time_stem_and_decision
from rlprune.utils.files import write_json
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.hardware import conditions
from rlprune.utils.process import keep_freed, on_threads

_HELD_OUT = 5
"""Every fifth profile is held out to test the predictions."""
_RIDGE = 1e-4
"""Ridge penalty, which pulls the coefficients of levels towards 0."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch of an elastic network's parts.

    The body's time is predicted either as a sum over groups, one term for each group's level, or as a linear function
    of the MACs, whichever predicts held-out profiles better.

    Attributes:
        keep_ratios: the network's keep ratios.
        batch: images per batch.
        stem: time of the stem.
        decision: time of the decisions on a batch, by a policy of the default size.
        dense: time of the whole network.
        base: time of the body before the terms of the table.
        table: time that each level of each group adds, (G, L).
        per_mac: time that each MAC of the body adds, if that predicts better; the table is then zero.
        errors: median relative error on held-out profiles, `groups` and `macs`.
        measured_with: hardware, threads, number format, version of torch, date.
        backend: what ran it.
    """

    keep_ratios: tuple[float, ...]
    batch: int
    stem: float
    decision: float
    dense: float
    base: float
    table: tuple[tuple[float, ...], ...]
    per_mac: float
    errors: dict[str, float]
    measured_with: dict[str, Any]
    backend: str = PYTORCH.name

    @property
    def measured_for(self) -> dict[str, Any]:
        """What the times are of: backend, batch, threads, and the hardware."""
        threads, hardware = (self.measured_with.get(name) for name in ("threads", "hardware"))
        return {"backend": self.backend, "batch": self.batch, "threads": threads, "hardware": hardware}

    def predict_ms(self, cost: Cost, levels: Tensor) -> Tensor:
        """Predict the time of stem and body.

        Args:
            cost: of the network.
            levels: int64 (B, G).

        Returns:
            Milliseconds per batch, float64 (B,).
        """
        table = torch.tensor(self.table, dtype=torch.float64)
        groups = table[torch.arange(len(table)), levels].sum(-1)
        macs = (cost.of(levels).macs - cost.stem.macs).double()
        return (self.stem + self.base + groups + self.per_mac * macs).clamp_min(self.stem)

    @classmethod
    def measure(
        cls,
        elastic: ElasticModule,
        *,
        batch: int = 1,
        n_profiles: int = 0,
        seconds: float = 20.0,
        seed: int = 0,
        backend: Backend = PYTORCH,
        threads: int | None = None,
        late: Callable[[], bool] | None = None,
    ) -> Latency:
        """Time random profiles of a network on this machine, in the form in which they are deployed.

        Args:
            elastic: the network.
            batch: images per batch, 1 or more.
            n_profiles: how many profiles, 10 or more; 0 for twice as many as the table has entries.
            seconds: duration of all timing together; making what is timed ready comes on top.
            seed: of the profiles.
            backend: what runs it; `rlprune.evaluation.timing.backends.backend_named` has them all.
            threads: that it computes with; as many as PyTorch does here if None.
            late: says when it has to end: then no more profiles are made ready, once there are 10.

        Raises:
            RLPruneError: `batch` or `threads` is below 1, or there are fewer than 10 profiles.
        """
        check_whole(batch=batch, n_profiles=n_profiles, most=100_000)
        check_whole(seed=seed, least=0, most=2**32 - 1)
        check_numbers(seconds=seconds, least=0, most=86_400)
        check_whole(least=1, most=4096, **({} if threads is None else {"threads": threads}))
        if batch < 1:
            raise RLPruneError(f"batch is {batch}; 1 or more images are needed")
        n_profiles = n_profiles or 2 * elastic.n_groups * (elastic.n_levels - 1)
        if n_profiles < FEWEST:
            raise RLPruneError(f"n_profiles is {n_profiles}; 10 or more profiles are needed to fit their times")
        generator = torch.Generator().manual_seed(seed)
        profiles = torch.stack([elastic.full, *random_profiles(elastic, n_profiles - 1, generator)])
        keep_freed()
        with on_threads(threads):
            times, features = time_stem_and_decision(elastic, batch, seconds / 20, backend)
            bodies = time_bodies(elastic, profiles, features, seconds, backend, late)
            profiles = profiles[: len(bodies)]
            measured_with = conditions()
        cost = Cost(elastic)
        fits = {"groups": _group_columns(elastic, profiles), "macs": _mac_columns(cost, profiles)}
        errors = {name: _error_held_out(columns, bodies) for name, columns in fits.items()}
        best = min(errors, key=errors.__getitem__)
        weights = _fit(fits[best], bodies)
        table = torch.zeros(elastic.n_groups, elastic.n_levels, dtype=torch.float64)
        if best == "groups":
            table = weights[1:].view_as(table)
        return cls(
            keep_ratios=elastic.keep_ratios,
            batch=batch,
            **times,
            dense=times["stem"] + float(bodies[0]),
            base=float(weights[0]),
            table=tuple(map(tuple, table.tolist())),
            per_mac=0.0 if best == "groups" else float(weights[1]) / float(cost.dense.macs),
            errors=errors,
            measured_with=measured_with,
            backend=backend.name,
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_json(Path(path), asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Latency:
        """Read what `save` wrote.

        Raises:
            RLPruneError: the file cannot be read, or holds no latency table.
        """
        try:
            stored = json.loads(Path(path).read_text())
            stored |= {"keep_ratios": tuple(stored["keep_ratios"]), "table": tuple(map(tuple, stored["table"]))}
            return cls(**stored)
        except OSError as error:
            raise RLPruneError(f"{path} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RLPruneError(f"{path} holds no latency table: {error}; measure it anew") from error

    def check(self, elastic: ElasticModule) -> None:
        """Make sure that the table fits a network's groups and levels.

        Raises:
            RLPruneError: it was measured on another network.
        """
        if (len(self.table), self.keep_ratios) != (elastic.n_groups, elastic.keep_ratios):
            raise RLPruneError(
                f"the latency table is of a network with {len(self.table)} groups and keep ratios {self.keep_ratios}; "
                f"this one has {elastic.n_groups} and {elastic.keep_ratios}: measure it"
            )

    def check_deployment(self, path: Path, backend: Backend, batch: int | None, threads: int | None) -> None:
        """Make sure that a stored table has the times of what will be deployed; what is None may be anything.

        Raises:
            RLPruneError: it has those of something else.
        """
        its_own = self.measured_for
        for name, asked in {"backend": backend.name, "batch": batch, "threads": threads}.items():
            if asked is not None and asked != its_own[name]:
                of = "of" if name == "backend" else f"at {name}"
                raise RLPruneError(
                    f"{path} holds times {of} {its_own[name]}, not {of} {asked}: name another folder, or remove it"
                )


def measured(
    path: Path,
    elastic: ElasticModule,
    batch: int | None = None,
    seed: int = 0,
    backend: Backend = PYTORCH,
    threads: int | None = None,
    **how: Any,
) -> Latency:
    """Read the latency table in a file, or measure one and write it there.

    Args:
        path: of the file.
        elastic: the network.
        batch: images per batch; those of the table, or 1, if None.
        seed: of the profiles, where the table is measured.
        backend: what runs it.
        threads: that it computes with; those of the table, or as many as PyTorch does here, if None.
        how: further arguments of `Latency.measure`.

    Raises:
        RLPruneError: the file holds something else, or the table of another network, backend, batch or number of
            threads.
    """
    if path.exists():
        latency = Latency.load(path)
        latency.check(elastic)
        latency.check_deployment(path, backend, batch, threads)
    else:
        latency = Latency.measure(elastic, batch=batch or 1, seed=seed, backend=backend, threads=threads, **how)
        latency.save(path)
    return latency


def _group_columns(elastic: ElasticModule, profiles: Tensor) -> Tensor:
    """A column of ones, then one for every level of every group, float64 (M, 1 + G * L)."""
    one_hot = torch.nn.functional.one_hot(profiles, elastic.n_levels).flatten(1)
    return torch.cat([torch.ones(len(profiles), 1), one_hot], 1).double()


def _mac_columns(cost: Cost, profiles: Tensor) -> Tensor:
    """A column of ones, then the body's MACs over the dense network's, float64 (M, 2)."""
    macs = (cost.of(profiles).macs - cost.stem.macs).double() / cost.dense.macs
    return torch.stack([torch.ones_like(macs), macs], 1)


def _fit(columns: Tensor, times: Tensor) -> Tensor:
    """Coefficients by ridge regression without penalty on the constant; errors count relative to the time."""
    scaled = columns / times[:, None]
    ones = torch.ones_like(times)
    pull = _RIDGE * torch.eye(columns.shape[1], dtype=torch.float64) / times.mean() ** 2
    pull[0, 0] = 0
    weights: Tensor = torch.linalg.solve(scaled.T @ scaled / len(times) + pull, scaled.T @ ones / len(times))
    return weights


def _error_held_out(columns: Tensor, times: Tensor) -> float:
    """Median relative error of predictions for every fifth profile, fitted to the others."""
    tests = torch.arange(len(times)) % _HELD_OUT == _HELD_OUT - 1
    predicted = columns[tests] @ _fit(columns[~tests], times[~tests])
    return float(((predicted - times[tests]) / times[tests]).abs().median())
