"""Which widths a processor runs well: `round_to="auto"`, found by measuring slices of the network at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlprune.elastic.levels import widths_of
from rlprune.elastic.module import ElasticModule
from rlprune.profiles.timing import PYTORCH, Backend, times_of_bodies
from rlprune.utils.finite import check_numbers

STEPS = (1, 4, 8, 16, 32)
"""Channels that widths may round up to multiples of; each divides the next."""
_SLACK = 1.05
"""How many times as long as a wider slice one may take before it counts as slower: times are never quite the same."""


def smallest_step(times: Iterable[Mapping[int, float]]) -> int:
    """The smallest of `STEPS` whose widths do not run worse than wider ones.

    Widths run worse where, at some keep ratio, the slice with these widths takes longer than the slice with those of a
    larger step, by more than a twentieth, though it has fewer channels or as many.

    Args:
        times: for each keep ratio, milliseconds of the slice whose widths are multiples of each step, by the step.
    """
    tables = list(times)

    def runs_well(step: int) -> bool:
        return all(table[step] <= _SLACK * min(table[wider] for wider in STEPS if wider >= step) for table in tables)

    return next(filter(runs_well, STEPS))


def measured_step(
    elastic: ElasticModule,
    *,
    batch: int = 1,
    seconds: float = 10.0,
    backend: Backend = PYTORCH,
    threads: int | None = None,
) -> int:
    """Time the network's slices of the same keep ratio everywhere, their widths rounded up to each of `STEPS`.

    Args:
        elastic: the network, whose widths are not rounded (`round_to=1`) when this begins.
        batch: images at once.
        seconds: duration of all timing together; making slices ready comes on top.
        backend: what runs them.
        threads: that it computes with; as many as PyTorch does here if None.

    Returns:
        The step, as `smallest_step` finds it.
    """
    check_numbers(seconds=seconds, least=0, most=86_400)
    widths = {step: widths_of(elastic.groups, elastic.keep_levels, step) for step in STEPS}
    levels = range(elastic.narrowest, elastic.n_levels - 1)
    names = {(level, step): str(widths[step][:, level].tolist()) for level in levels for step in STEPS}
    bodies = {}
    before = elastic.widths.clone()
    for (level, step), name in names.items():  # widths that several steps give are timed once
        if name not in bodies:
            elastic.widths.copy_(widths[step])
            bodies[name] = elastic.slice(elastic.uniform(level))
    elastic.widths.copy_(before)
    times = times_of_bodies(elastic, bodies, batch, seconds, backend, threads)
    return smallest_step({step: times[names[level, step]] for step in STEPS} for level in levels)
