"""Time of a dynamic network beside others: all rows in one run, interleaved, with medians and spread."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.contenders import PLAIN, contenders
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings
from rlprune.utils.hardware import conditions
from rlprune.utils.timing import Turns, interleaved

_PER_TURN = 32
"""Images that a row runs in each of its turns, at least: what a dynamic network takes differs from image to image, and
the median over single images would leave out what the hard ones cost."""


@torch.inference_mode()
def bench(
    dynamic: DynamicCNN,
    images: Tensor,
    batches: Sequence[int],
    seconds: float = 5.0,
    rows: Sequence[str] = PLAIN,
) -> dict[str, Any]:
    """Time a dynamic network against the dense one and others.

    Every batch is a new cut of the images, so that the dynamic network meets the mixture that its policy makes of them.
    Small batches are run several in a turn, whose mean counts once.

    Args:
        dynamic: the network with its policy.
        images: real ones, uint8 (N, C, H, W); what is spent depends on them.
        batches: batch sizes.
        seconds: per batch size.
        rows: who takes part; `rlprune.evaluation.contenders.contenders` lists them.

    Returns:
        `rows` of {name, backend, batch, ms, ms_low, ms_high (quartiles), images_per_s, macs}; `speedup` of every
        dynamic row per batch size, over the best dense row of its backend (None where there is no such row);
        `macs_ratio` per batch size, dense over mean dynamic; `peak_memory_mb` of the process; and the conditions.

    Raises:
        RLPruneError: a batch size below 1 or above the number of images, or an unknown row.
    """
    if not batches or not 1 <= min(batches) <= max(batches) <= len(images):
        raise RLPruneError(
            f"batch sizes are {list(batches)}; from 1 to {len(images)}, the number of images, is allowed"
        )
    dense_macs = float(dynamic.prices.dense.macs)
    spent = torch.cat([dynamic(part).macs for part in images.split(256)]).double()
    with torch.inference_mode(False):
        taking_part = contenders(dynamic, spent.mean().item() / dense_macs, tuple(rows))
    normalised = dynamic.normalise(images)
    found: list[dict[str, Any]] = []
    for batch in batches:
        macs = spent[: len(images) // batch * batch].mean().item()
        n_batches = -(-_PER_TURN // batch)
        times = interleaved(
            {
                name: Turns(one.run, images if one.dynamic else normalised, batch, n_batches)
                for name, one in taking_part.items()
            },
            seconds,
        )
        found += [
            _row(name, one.backend, batch, [ms / n_batches for ms in times[name]], macs if one.dynamic else one.macs)
            for name, one in taking_part.items()
        ]
    return {
        "rows": found,
        "speedup": {
            name: {str(batch): _speedup(found, name, one.backend, batch) for batch in batches}
            for name, one in taking_part.items()
            if one.dynamic
        },
        "macs_ratio": {
            str(batch): dense_macs / spent[: len(images) // batch * batch].mean().item() for batch in batches
        },
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **conditions(),
    }


def bench_adapt(elastic: ElasticCNN, data: ImageSet, batch: int = 128, seconds: float = 20.0) -> dict[str, Any]:
    """Time training steps under uniform profiles: what is cheap to run should be as cheap to train.

    Args:
        elastic: the network; it is trained on, so pass a copy of what is still needed.
        data: images.
        batch: images per step.
        seconds: of timing for all rows together.

    Returns:
        `rows` of {name, batch, ms, images_per_s, macs}: a step under every uniform profile, the widest first;
        `step_share` and `macs_share` of each over the widest's; and the conditions.

    Raises:
        RLPruneError: a batch size below 2 or above the number of images.
    """
    if not 2 <= batch <= len(data):
        raise RLPruneError(f"the batch size is {batch}; from 2 to {len(data)}, the number of images, is allowed")
    settings, cost = AdaptSettings(batch_size=batch), Cost(elastic)
    elastic.to(memory_format=settings.memory_format).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(elastic.parameters(), lr=1e-3, momentum=settings.momentum, nesterov=True)
    images = data.normalised(slice(0, batch)).contiguous(memory_format=settings.memory_format)
    labels = data.labels[:batch]

    def step(profile: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with settings.autocast():
            logits = elastic(images, profile)
        cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    levels = range(elastic.n_levels - 1, elastic.narrowest - 1, -1)
    profiles = {f"keep ratio {elastic.keep_ratios[level]:g}": elastic.uniform(level) for level in levels}
    times = {
        name: median(each)
        for name, each in interleaved({name: partial(step, p) for name, p in profiles.items()}, seconds, 3).items()
    }
    macs = {name: float(cost.of(profile).macs) for name, profile in profiles.items()}
    widest = next(iter(profiles))
    return {
        "rows": [
            {"name": name, "batch": batch, "ms": ms, "images_per_s": batch / ms * 1e3, "macs": macs[name]}
            for name, ms in times.items()
        ],
        "step_share": {name: ms / times[widest] for name, ms in times.items()},
        "macs_share": {name: value / macs[widest] for name, value in macs.items()},
        **conditions(),
    }


def _speedup(rows: Sequence[Mapping[str, Any]], name: str, backend: str, batch: int) -> float | None:
    """Of a row over the best dense row of its backend and batch."""
    alike = {row["name"]: row["ms"] for row in rows if (row["backend"], row["batch"]) == (backend, batch)}
    dense = [ms for other, ms in alike.items() if other.startswith("dense")]
    return min(dense) / alike[name] if dense else None


def _row(name: str, backend: str, batch: int, times: list[float], macs: float) -> dict[str, Any]:
    low, middle, high = quantiles(times, n=4)
    return {
        "name": name,
        "backend": backend,
        "batch": batch,
        "ms": middle,
        "ms_low": low,
        "ms_high": high,
        "images_per_s": batch / middle * 1e3,
        "macs": macs,
    }
