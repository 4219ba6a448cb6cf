"""Classify image files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.console import Console

from rlprune.cli.options import Device, PriceOptions
from rlprune.cli.rows import Row, csv_rows, json_rows
from rlprune.cluster.predicting import predict_files
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.inputs import BATCH_SIZE as DEFAULT_BATCH_SIZE
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction, in_words
from rlprune.errors import DataError, RLPruneError
from rlprune.evaluation import tables
from rlprune.intake.deployed import of_deployed
from rlprune.storage import bundle
from rlprune.utils.locks import hold_file
from rlprune.utils.progress import progress_bar
from rlprune.utils.settings import AtMost, BatchSize, settings_dataclass

_COLUMNS = {"image": "path", **{name: name for name in ("class", "probability", "passes", "macs_share")}}
"""What a CSV file has of a row, and what it is called there."""
_MOST_SHOWN = 20
"""How many images the terminal shows."""


@settings_dataclass
class Predict:
    """Classify image files, and those in folders, with a bundle, and say what each cost."""

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES")]
    """The folder that `rlprune export` or `rlprune optimize` wrote, or org/name on the Hugging Face hub; then image
    files and folders of them, in any order. With --onnx, image files and folders alone. Folders are searched with all
    that lies below them. Images of another size than the network takes are resized and cut as it was trained."""
    onnx: Path | None = None
    """Predict with this file, which `rlprune export --onnx` wrote, and onnxruntime."""
    preprocess: str | None = None
    """Only for a network whose pictures come from a transform of your own: its package.module:callable again."""
    csv: Path | None = None
    """File to write a row for each image to: path, class, probability, passes, and macs_share, its cost as a share of
    the dense network's MACs."""
    json: Path | None = None
    """File to write the predictions to."""
    cluster: str | None = None
    """Predict in several processes, for millions of files: with Ray on this machine (local), on the cluster that it
    belongs to (auto), or that of a head's host:port. Needs --out; run again, it goes on."""
    out: Path | None = None
    """With --cluster, the folder to write the rows to, as files of parquet with the columns of --csv."""
    workers: Annotated[int, Field(ge=0), AtMost(100_000)] = 0
    """With --cluster, how many processes predict, each on one processor; 0 takes all."""
    device: Device = "cpu"
    """Where a bundle runs, such as cpu or cuda."""
    batch_size: BatchSize = DEFAULT_BATCH_SIZE
    """How many images are in memory at a time."""
    skip_unreadable: bool = False
    """Leave out files that cannot be read, and say which; otherwise nothing runs where there are any."""
    observation: str | None = None
    """Only for a policy with an observation of your own: its package.module:Class, whose code is then run."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def _conflicts(self) -> Iterator[str]:
        if self.csv is not None and self.json is not None and self.csv.resolve() == self.json.resolve():
            yield f"csv={self.csv} and json={self.json} are the same file; give two"
        if self.onnx is not None and self.device != "cpu":
            yield f"device={self.device} is for bundles; onnxruntime runs on the cpu"
        if self.onnx is not None and self.observation is not None:
            yield f"observation={self.observation} is for bundles; a file of ONNX has it inside"
        if (self.cluster is None) != (self.out is None):
            missing, given = ("out", "cluster") if self.out is None else ("cluster", "out")
            yield f"--{missing} is missing: --{given} goes with it; rows of one process go to --csv or --json"
        if self.cluster is None and self.workers:
            yield f"workers={self.workers} is for the processes of a cluster; give --cluster, too"
        if self.cluster is not None and self.device != "cpu":
            yield f"device={self.device} is for one process; those of a cluster run on processors"
        for name, path in (("csv", self.csv), ("json", self.json)):
            if self.cluster is not None and path is not None:
                yield f"{name}={path} is for one process; those of a cluster write to --out"

    def run(self) -> None:
        """Do it."""
        with hold_file(self.json), hold_file(self.csv):
            network, files = self._network()
            network.preprocessing = of_deployed(network, self.preprocess)
            if self.cluster is not None and self.out is not None:
                self._on_cluster(network, files, self.cluster, self.out)
                return
            how: dict[str, Any] = {"batch_size": self.batch_size, "skip_unreadable": self.skip_unreadable}
            if isinstance(network, OnnxCNN):
                how["budget"] = self.price.budget
            with _by_its_option():
                shown, summary = self._write(network.predictions(files, **how))
        console = Console()
        console.print(tables.predictions(shown[:_MOST_SHOWN]))
        console.print(
            f"{'... ' if len(shown) > _MOST_SHOWN else ''}{summary}", markup=False, highlight=False, soft_wrap=True
        )

    def _on_cluster(self, network: DynamicCNN | OnnxCNN, files: tuple[Path, ...], cluster: str, out: Path) -> None:
        """Predict with the processes of a cluster, and say what is in the folder then."""
        with _by_its_option():
            found = predict_files(
                network,
                files,
                out,
                cluster=cluster,
                workers=self.workers or None,
                batch_size=self.batch_size,
                skip_unreadable=self.skip_unreadable,
                budget=self.price.budget if isinstance(network, OnnxCNN) else None,
            )
        print(in_words(found.counts.total(), found.counts, found.passes, found.macs_share))
        before = f", {found.n_before} of which were there already" if found.n_before else ""
        print(f"{out}: {found.n_parts} files of parquet{before}")

    def _write(self, predicted: Iterable[Prediction]) -> tuple[list[Row], str]:
        """Write what is said of each image; the first rows, one more than is shown, and a summary of all."""
        shown: list[Row] = []
        counts: Counter[str] = Counter()
        passes, shares = 0, 0.0
        if sys.stderr.isatty():
            predicted = progress_bar(predicted, desc="predict", unit="batch")
        with csv_rows(self.csv, _COLUMNS) as to_csv, json_rows(self.json) as to_json:
            for batch in predicted:
                for row in _rows(batch):
                    to_csv(row)
                    to_json(row)
                    counts[row["class"]] += 1
                    if len(shown) <= _MOST_SHOWN:
                        shown.append(row)
                passes += int(batch.passes.sum())
                shares += float(batch.macs_share.sum())
        n_images = counts.total()
        return shown, in_words(n_images, counts, passes / n_images, shares / n_images)

    def _network(self) -> tuple[DynamicCNN | OnnxCNN, tuple[Path, ...]]:
        """What predicts, and which images."""
        if self.onnx is not None:
            if self.price.penalty is not None:
                raise RLPruneError(
                    f"{self.onnx} decides at the price that it was exported for, or at a --budget; give --penalty to "
                    "rlprune export --onnx, or predict with a bundle"
                )
            return OnnxCNN(self.onnx, 0 if self.cluster is None else 1), self.files
        if not self.files:
            raise RLPruneError("there is nothing to predict with; name a bundle, or a file with --onnx")
        return self.price.of(bundle.load(self.files[0], self.device, observation=self.observation)), self.files[1:]


@contextmanager
def _by_its_option() -> Iterator[None]:
    """Let messages name an option of the command line where they name an argument."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("skip_unreadable=True", "--skip-unreadable")) from error


def _rows(predicted: Prediction) -> Iterator[Row]:
    """What is said of each image."""
    figures = zip(
        predicted.names,
        predicted.classes,
        predicted.confidence.tolist(),
        predicted.passes.tolist(),
        predicted.keep_ratios.mean(1).tolist(),
        predicted.macs_share.tolist(),
        strict=True,
    )
    for row in figures:
        yield dict(zip(("image", "class", "probability", "passes", "keep_ratio", "macs_share"), row, strict=True))
