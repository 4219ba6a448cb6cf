"""Classify image files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from rlprune.cli.options import Device, PriceOptions
from rlprune.cli.rows import Row, csv_rows, json_rows
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.inputs import BATCH_SIZE as DEFAULT_BATCH_SIZE
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction, in_words
from rlprune.errors import DataError, RLPruneError
from rlprune.evaluation import tables
from rlprune.intake.notes import network_notes
from rlprune.intake.preprocessing import confirmed, whole
from rlprune.storage import bundle
from rlprune.utils.locks import hold_file
from rlprune.utils.progress import progress_bar
from rlprune.utils.settings import BatchSize, settings_dataclass

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

    def run(self) -> None:
        """Do it."""
        with hold_file(self.json), hold_file(self.csv):
            network, files = self._network()
            network.preprocessing = self._preprocessing(network)
            how: dict[str, Any] = {"batch_size": self.batch_size, "skip_unreadable": self.skip_unreadable}
            if isinstance(network, OnnxCNN):
                how["budget"] = self.price.budget
            try:
                shown, summary = self._write(network.predictions(files, **how))
            except DataError as error:
                raise DataError(str(error).replace("skip_unreadable=True", "--skip-unreadable")) from error
        console = Console()
        console.print(tables.predictions(shown[:_MOST_SHOWN]))
        console.print(
            f"{'... ' if len(shown) > _MOST_SHOWN else ''}{summary}", markup=False, highlight=False, soft_wrap=True
        )

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

    def _preprocessing(self, network: DynamicCNN | OnnxCNN) -> Any:
        """How the pictures are prepared; an own transform is imported only where the user names it."""
        if isinstance(network, OnnxCNN):
            return confirmed(network.preprocessing, self.preprocess)
        return confirmed(whole(network), self.preprocess, network_notes(network.metadata).get("model") or "")

    def _network(self) -> tuple[DynamicCNN | OnnxCNN, tuple[Path, ...]]:
        """What predicts, and which images."""
        if self.onnx is not None:
            if self.price.penalty is not None:
                raise RLPruneError(
                    f"{self.onnx} decides at the price that it was exported for, or at a --budget; give --penalty to "
                    "rlprune export --onnx, or predict with a bundle"
                )
            return OnnxCNN(self.onnx), self.files
        if not self.files:
            raise RLPruneError("there is nothing to predict with; name a bundle, or a file with --onnx")
        return self.price.of(bundle.load(self.files[0], self.device, observation=self.observation)), self.files[1:]


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
