"""Where the time of a dynamic network goes: its pieces, and beside them its slices alone, in one run, interleaved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import Any

import torch
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.slices import Slices
from rlprune.errors import RLPruneError
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.timing.onnx_profiling import OnnxProfile
from rlprune.evaluation.timing.profile_results import PIECES, BodyTime, OnnxRow, PieceTime, ProfileResult, ProfileRow
from rlprune.evaluation.timing.runner import bodies_alone, call_time, on_each, reason
from rlprune.evaluation.timing.timed import Clock, TimedCNN
from rlprune.graph.folding import optimize_for_inference
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.notes import say
from rlprune.utils.timing import interleaved

_PER_REPEAT = 128
"""Images that each repeat runs, at least, where there are so many: what they take differs from image to image."""


@torch.inference_mode()
def profile(
    dynamic: DynamicCNN, images: Tensor, batches: Sequence[int], seconds: float = 5.0, *, onnx: bool = False
) -> ProfileResult:
    """Time the pieces of a dynamic network, the dense network, and the same slices alone.

    Every repeat runs the same images through each of them in turn. What is given are medians over repeats, of one call
    with one batch. The floor is what stem and bodies take on the images that run them, gathered and converted before
    the clock starts, as many at a time as a batch has.

    Args:
        dynamic: the network with its policy.
        images: real ones, uint8 (N, C, H, W); what is spent depends on them.
        batches: batch sizes.
        seconds: per batch size and backend.
        onnx: say the same of the exported file in onnxruntime; if that cannot be made, a line says why.

    Raises:
        RLPruneError: a batch size below 1 or above the number of images.
    """
    check_numbers(seconds=seconds, least=0, most=86_400)
    check_whole(**{f"batches[{i}]": batch for i, batch in enumerate(batches)})
    if not batches or not 1 <= min(batches) <= max(batches) <= len(images):
        raise RLPruneError(
            f"batch sizes are {list(batches)}; from 1 to {len(images)}, the number of images, is allowed"
        )
    parts = [_parts(images, batch) for batch in batches]
    rows = tuple(_Profile(dynamic, each).row(seconds) for each in parts)
    onnx_rows = _onnx_rows(dynamic, parts, seconds) if onnx else None
    return ProfileResult(
        rows=rows,
        onnxruntime=onnx_rows,
        versions=None if onnx_rows is None else {name: version(name) for name in ("onnx", "onnxruntime")},
        conditions=Conditions.now(dynamic.device),
    )


def _parts(images: Tensor, batch: int) -> list[Tensor]:
    """What a repeat runs, in batches."""
    n_batches = max(1, min(-(-_PER_REPEAT // batch), len(images) // batch))
    return [*images[: n_batches * batch].split(batch)]


def _onnx_rows(dynamic: DynamicCNN, parts: Sequence[Sequence[Tensor]], seconds: float) -> tuple[OnnxRow, ...] | None:
    try:
        with torch.inference_mode(False):
            found = OnnxProfile(dynamic)
    except Exception as error:  # exporters raise all sorts
        say(f"onnxruntime is left out: {reason(error)}")
        return None
    return tuple(found.row(batches, seconds) for batches in parts)


class _Profile:
    """A network at one batch size."""

    def __init__(self, dynamic: DynamicCNN, batches: Sequence[Tensor]) -> None:
        self.dynamic = dynamic
        self.batches = batches
        batch = len(batches[0])
        self.at_once = min(batch, dynamic.max_batch or batch)
        self.clocks: list[Clock] = []

    def row(self, seconds: float) -> ProfileRow:
        """Time everything."""
        found = [self.dynamic(batch) for batch in self.batches]
        floors = self._floors(torch.cat([each.profiles for each in found]))
        rows = {"dense": self._dense(), "dynamic": self._dynamic, "timed": self._timed, **floors}
        times = interleaved(rows, seconds)
        timed = call_time("pytorch", self.batches, found, times)
        pieces = {name: median(clock.ms[name] for clock in self.clocks[1:]) / len(self.batches) for name in PIECES}
        return ProfileRow(
            **timed,
            timed_ms=median(times["timed"]) / len(self.batches),
            slices_ms=pieces["stem"] + pieces["body"],
            pieces=tuple(
                PieceTime(name=name, ms=each, dense_share=each / timed["dense_ms"]) for name, each in pieces.items()
            ),
            bodies=tuple(self._bodies({name: median(times[name]) for name in floors})),
        )

    def _dense(self) -> Callable[[], None]:
        """The dense network, folded, on images that are prepared before."""
        dynamic = self.dynamic
        with torch.inference_mode(False):
            network = optimize_for_inference(dynamic.elastic.slice(dynamic.elastic.full)).to(dynamic.dtype)
        return on_each(network, self._prepared())

    def _dynamic(self) -> None:
        for batch in self.batches:
            self.dynamic(batch)

    def _timed(self) -> None:
        clock = Clock(self.dynamic.device)
        timed = TimedCNN(self.dynamic, clock)
        for batch in self.batches:
            timed(batch)
        self.clocks.append(clock)

    def _floors(self, profiles: Tensor) -> dict[str, Callable[[], None]]:
        """Stem and bodies alone, each on all images that run it, in full buckets.

        Args:
            profiles: of every pass, int64 (N, max_passes); -1 where there was none.
        """
        slices, prepared = self.dynamic.slices, self._prepared()
        features = torch.cat([slices.stem(images) for images in prepared])
        bodies = [partial(_run_slice, slices, index) for index in range(len(slices))]
        alone = bodies_alone(bodies, features, profiles, self.at_once, torch.channels_last)
        return {"stem": on_each(slices.stem, prepared), **alone}

    def _prepared(self) -> list[Tensor]:
        """Normalised images on the device, as the stem takes them, as many at a time as run together."""
        dynamic = self.dynamic
        return [
            dynamic.normalise(part).to(dynamic.device, dynamic.dtype, memory_format=torch.channels_last)
            for batch in self.batches
            for part in batch.split(self.at_once)
        ]

    def _bodies(self, floors: dict[str, float]) -> Iterator[BodyTime]:
        """The slice of each profile by the size of its buckets; `floors` are milliseconds of a repeat, by row."""
        clocks = self.clocks[1:]
        buckets = [_by_bucket(clock) for clock in clocks]
        n_ran: defaultdict[int, int] = defaultdict(int)
        for (index, _), (_, n_images, _) in buckets[0].items():
            n_ran[index] += n_images
        for index, size in sorted(buckets[0]):
            runs, n_images, _ = buckets[0][index, size]
            yield BodyTime(
                profile=index,
                bucket=size,
                mean_images=n_images / runs,
                runs=runs / len(self.batches),
                image_ms=median(each[index, size][2] for each in buckets) / n_images,
                full_image_ms=floors[f"body {index}"] / n_ran[index],
            )


def _run_slice(slices: Slices, index: int, features: Tensor) -> Any:
    return slices[index](features)


def _by_bucket(clock: Clock) -> dict[tuple[int, int], tuple[int, int, float]]:
    """Runs, images and milliseconds by profile and the power of two that a bucket is not above."""
    found: defaultdict[tuple[int, int], tuple[int, int, float]] = defaultdict(lambda: (0, 0, 0.0))
    for (index, n_images), runs in clock.body_ms.items():
        key = index, 1 << (n_images - 1).bit_length()
        n_runs, n_before, ms = found[key]
        found[key] = n_runs + len(runs), n_before + n_images * len(runs), ms + sum(runs)
    return found
