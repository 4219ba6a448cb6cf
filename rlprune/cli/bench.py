"""Measure time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from rlprune.agents.benchmark import bench_env
from rlprune.cli import static_folders
from rlprune.cli.options import Device, PriceOptions
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError, RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.benchmark import bench, bench_adapt
from rlprune.evaluation.runners import ROWS, default_rows
from rlprune.evaluation.timing import ProfileResult, bench_callers, profile
from rlprune.evaluation.timing.backends import has_onnx
from rlprune.evaluation.timing.plots import frontier_in_time
from rlprune.evaluation.timing.rivals import RIVAL_ROWS, RowImages
from rlprune.evaluation.timing.tables import profiled
from rlprune.evaluation.timing_results import AdaptBenchmark, BenchmarkResult, CallersBenchmark, EnvBenchmark
from rlprune.intake.fitting import load_fitting
from rlprune.intake.notes import network_notes, say_refitted
from rlprune.intake.options import DataOptions
from rlprune.models import registry
from rlprune.storage import bundle
from rlprune.storage.data_format import DataFormat
from rlprune.utils.files import write_json
from rlprune.utils.imports import require
from rlprune.utils.locks import hold_file
from rlprune.utils.notes import say
from rlprune.utils.settings import (
    AtMost,
    BatchSize,
    Must,
    NonNegativeFloat,
    Pixels,
    PositiveInt,
    Seconds,
    as_tuple,
    settings_dataclass,
)

_MOST_SHOWN = 80
Rows = Annotated[
    tuple[str, ...],
    as_tuple,
    Must(lambda rows: rows == ("all",) or (rows and set(rows) <= set(ROWS)), f"some of {', '.join(ROWS)}; or all"),
]


@settings_dataclass
class Bench:
    """Time a bundle beside the dense network, the environment beside the network alone, or steps of adaptation."""

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
    """A bundle; or the word env or adapt, for the speed of the environment or of training steps."""
    data: str | None = None
    """Images to run on, as for other verbs; else noise."""
    image_size: Pixels | None = None
    """Resize and crop images to squares of this many pixels."""
    rows: Rows | None = None
    """What is timed: dense, "dense folded", "dense compiled", "dense onnxruntime", static (Torch-Pruning at equal
    MACs), dynamic, "dynamic compiled", "dynamic onnxruntime"; with --data also "dense int8 onnxruntime", "dynamic int8
    onnxruntime", and cascade or "cascade onnxruntime" (the tuned cascade of the same cost); or all. If not given,
    dense, "dense folded" and dynamic, and float32 rows of onnxruntime where it is installed. One that cannot be made is
    left out, and a line says why."""
    static: tuple[Path, ...] = ()
    """Folders of networks that were each pruned for all images and trained, as `rlprune prune` writes them: they are
    timed, too."""
    plot: Path | None = None
    """PNG to draw: accuracy on the test images against milliseconds per image, a panel for each batch size."""
    batch: tuple[BatchSize, ...] | None = None
    """Batch sizes (1 64); for env and adapt a single one (256 and 128)."""
    seconds: Seconds = 5.0
    """Time to spend on each batch size (of a profile, in PyTorch and in onnxruntime each), or on each network."""
    profile: bool = False
    """Instead of rows, say where the time of a bundle goes, piece by piece, and what its slices take alone; of the
    exported file, too, where onnxruntime is installed."""
    callers: Annotated[PositiveInt, AtMost(4096)] | None = None
    """So many threads send single images instead, through a stream, to the dense network and the dynamic one in turns;
    --batch is then the images of a full bucket."""
    max_wait_ms: Annotated[NonNegativeFloat, AtMost(60_000)] | None = None
    """For --callers: milliseconds for which a bucket that is not full may be passed over (5)."""
    json: Path | None = None
    """File to write the rows to."""
    model: str | None = None
    """For env and adapt: the network, by name, such as timm:resnet18, or package.module:callable; resnet20 if not
    given."""
    device: Device = "cpu"
    """Where the networks run, such as cpu or cuda; the environment runs on the CPU."""
    observation: str | None = None
    """Only for a policy with an observation of your own: its package.module:Class, whose code is then run."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def _conflicts(self) -> Iterator[str]:
        if self.image_size is not None and self.data is None:
            yield f"image_size={self.image_size} is for images that --data names; name some, or leave it out"
        if self.profile and self.rows is not None:
            yield "--rows are left out of a profile, which has pieces; give only one of --rows and --profile"
        yield from self._needing_rows_or_data()
        yield from self._conflicts_of_callers()
        if self.target in ("env", "adapt"):
            yield from self._only_for_bundles()
        elif self.model is not None:
            yield f"model={self.model}: a bundle has its own network; leave it out, or time env or adapt"

    def _needing_rows_or_data(self) -> Iterator[str]:
        """What needs labelled images, and rows."""
        given = {"--static": bool(self.static), "--plot": self.plot is not None}
        for option in (option for option, is_given in given.items() if is_given):
            if self.target in ("env", "adapt"):
                yield f"{option} is for bundles; {self.target} has rows of its own"
            elif self.profile:
                yield f"{option} is for rows, which a profile has not; give only one of {option} and --profile"
            elif self.callers is not None:
                yield f"{option} is for rows, which callers have not; give only one of {option} and --callers"
            elif self.data is None:
                yield f"{option} needs labelled images; name the bundle's with --data"
        if self.plot is not None and self.plot.suffix != ".png":
            yield f"plot={self.plot}: pictures are PNG; give a name that ends in .png"
        rows = [row for row in self.rows or () if row in RIVAL_ROWS]
        if rows and self.data is None:
            yield f"the row {rows[0]} needs images that do not test; name the bundle's with --data"

    def _only_for_bundles(self) -> Iterator[str]:
        """What is given with the words env and adapt, and means nothing there."""
        if self.observation is not None:
            yield f"observation={self.observation} is for bundles; {self.target} has the default one"
        if self.price.given:
            yield f"--budget and --penalty are for bundles; {self.target} times no policy"
        if self.profile:
            yield f"--profile is for bundles; {self.target} has rows alone"
        if self.device != "cpu" and self.target == "env":
            yield f"device={self.device}: the environment runs on the CPU; leave it out"
        if self.rows is not None:
            yield f"--rows are of bundles; {self.target} has its own"
        if self.batch is not None and len(self.batch) != 1:
            yield f"batch={self.batch}: give a single number of 1 or more, with {self.target}"

    def _conflicts_of_callers(self) -> Iterator[str]:
        if self.callers is None:
            if self.max_wait_ms is not None:
                yield f"max_wait_ms={self.max_wait_ms:g} is for --callers; give it too, or leave this out"
        elif self.target in ("env", "adapt"):
            yield f"callers={self.callers} are for bundles; {self.target} has none"
        elif self.profile:
            yield f"callers={self.callers}: a profile has none; give only one of --callers and --profile"
        elif self.rows is not None:
            yield "--rows are timed without callers; with them there are dense and dynamic"
        elif self.batch is not None and len(self.batch) != 1:
            yield f"batch={self.batch}: give a single number of 1 or more, with callers"

    def run(self) -> None:
        """Do it."""
        if self.plot is not None:
            require("matplotlib", "plots")
        with hold_file(self.json), hold_file(self.plot):
            results = self._timed()
            if self.json is not None:
                write_json(self.json, results.to_json())
            if self.plot is not None and isinstance(results, BenchmarkResult):
                frontier_in_time(self.plot, results, Path(self.target).resolve().parent.name)
        if isinstance(results, ProfileResult):
            Console().print(*profiled(results))
        elif isinstance(results, CallersBenchmark):
            Console().print(tables.callers(results))
        else:
            Console().print(tables.benchmark(results))

    def _timed(self) -> BenchmarkResult | AdaptBenchmark | EnvBenchmark | CallersBenchmark | ProfileResult:
        """Times of what the target is."""
        if self.target == "env":
            return bench_env(*self._network(), (self.batch or (256,))[0], 4 * self.seconds)
        if self.target == "adapt":
            return bench_adapt(*self._network(), (self.batch or (128,))[0], 4 * self.seconds, self.device)
        dynamic = self.price.of(bundle.load(self.target, self.device, observation=self.observation))
        if self.callers is not None:
            max_wait_ms = 5.0 if self.max_wait_ms is None else self.max_wait_ms
            max_batch = None if self.batch is None else self.batch[0]
            pixels = self._pixels(dynamic)
            return bench_callers(
                dynamic, pixels, self.callers, self.seconds, max_batch=max_batch, max_wait_ms=max_wait_ms
            )
        rows = ROWS if self.rows == ("all",) else self.rows or default_rows()
        row_images = self._row_images(dynamic)
        pixels = self._pixels(dynamic) if row_images is None else row_images.test.held()
        batches = self.batch or (1, min(64, len(pixels)))
        if self.profile:
            return profile(dynamic, pixels, batches, self.seconds, onnx=has_onnx())
        return bench(dynamic, pixels, batches, self.seconds, rows, row_images)

    def _row_images(self, dynamic: DynamicCNN) -> RowImages | None:
        """Images with labels, where some are named that fit the bundle, and the static networks."""
        if self.data is None or self.profile:
            return None
        source = DataOptions(self.data, self.image_size)
        static = static_folders.load_rows(self.static, dynamic)
        try:
            splits = load_fitting(dynamic.image_shape, DataFormat.of(dynamic), dynamic.metadata, source)
        except RLPruneError as error:
            if self.static or self.plot is not None or set(self.rows or ()) & set(RIVAL_ROWS):
                raise
            say(f"there will be times, and no accuracies: {error}")
            return None
        for folder, plain in zip(self.static, static.values(), strict=True):
            static_folders.test_images(folder, plain, splits.test, source)
        if {"all", "cascade", "cascade onnxruntime"} & set(self.rows or ()):
            say_refitted(dynamic.metadata)
        networks = {name: plain.network for name, plain in static.items()}
        return RowImages(splits.test, splits.policy, splits.network, networks)

    def _network(self) -> tuple[ElasticCNN, ImageSet]:
        """A network of random weights, and images for it."""
        known = None
        if self.data is not None:
            known = DataOptions(self.data, self.image_size).load().policy.subset(slice(0, 1024))
        shape, n_classes = ((3, 32, 32), 10) if known is None else (known.images.shape[1:], len(known.classes))
        network = ElasticCNN.from_model(registry.build(self.model or "resnet20", n_classes, shape[0]), shape)
        images = _noise(shape, network.n_classes) if known is None else known
        if len(images.classes) != network.n_classes:
            raise ModelError(
                f"{self.model or 'resnet20'} gives {network.n_classes} logits, {self.data} has {n_classes} classes"
            )
        return network, images

    def _pixels(self, dynamic: DynamicCNN) -> torch.Tensor:
        """Test images of the data that were asked for, or noise."""
        if self.data is not None:
            return DataOptions(self.data, self.image_size).load(preprocessing=dynamic.preprocessing).test.held()
        made_with = (network_notes(dynamic.metadata).get("source") or {}).get("data")
        said = "" if made_with is None else f", such as those that it was made with, which it calls {_shown(made_with)}"
        print(
            f"rlprune: timing on noise; what is spent on real images may differ: name some with --data{said}",
            file=sys.stderr,
        )
        return _noise(dynamic.elastic.image_shape).held()


def _shown(text: str) -> str:
    """A text of somebody else's, short and without control characters."""
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


def _noise(shape: Sequence[int], n_classes: int = 10) -> ImageSet:
    pixels = torch.randint(0, 256, (1024, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    half = tuple(0.5 for _ in range(shape[0]))
    return ImageSet(pixels, torch.arange(1024) % n_classes, tuple(str(n) for n in range(n_classes)), half, half)
