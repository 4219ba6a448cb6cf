"""Classify image files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from rlprune.cli.options import PriceOptions
from rlprune.data.decoding import read_images
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation import tables
from rlprune.pipelines.inputs import network_notes
from rlprune.pipelines.preparation import confirmed, whole
from rlprune.storage import bundle
from rlprune.utils.files import write_json
from rlprune.utils.locks import hold_file


@dataclass(frozen=True)
class Predict:
    """Classify image files with a bundle, and say what each cost."""

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES")]
    """The folder that `rlprune export` wrote, and image files; with --onnx, image files alone. Images of another size
    than the network takes are resized and cut as it was trained."""
    onnx: Path | None = None
    """Predict with this file, which `rlprune export --onnx` wrote, and onnxruntime."""
    preprocess: str | None = None
    """Only for a network whose pictures come from a transform of your own: its package.module:callable again."""
    json: Path | None = None
    """File to write the predictions to."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def run(self) -> None:
        """Do it."""
        with hold_file(self.json):
            rows = self._rows()
            if self.json is not None:
                write_json(self.json, rows)
        Console().print(tables.predictions(rows))

    def _rows(self) -> list[dict[str, Any]]:
        """What is said of each image."""
        dynamic, paths = self._network()
        predicted = dynamic(read_images(paths, dynamic.image_shape, self._preprocessing(dynamic)))
        return [
            {
                "image": str(path),
                "class": dynamic.classes[int(predicted.labels[i])],
                "probability": float(predicted.probabilities[i].max()),
                "passes": int(predicted.passes[i]),
                "keep_ratio": float(predicted.keep_ratios[i].mean()),
                "macs_share": float(predicted.macs[i] / dynamic.prices.dense.macs),
            }
            for i, path in enumerate(paths)
        ]

    def _preprocessing(self, dynamic: DynamicCNN | OnnxCNN) -> Preprocessing:
        """How the pictures are prepared; an own transform is imported only where the user names it."""
        if isinstance(dynamic, OnnxCNN):
            return confirmed(dynamic.preprocessing, self.preprocess)
        return confirmed(whole(dynamic), self.preprocess, network_notes(dynamic.metadata).get("model") or "")

    def _network(self) -> tuple[DynamicCNN | OnnxCNN, tuple[Path, ...]]:
        """What predicts, and which images."""
        if self.onnx is not None:
            if self.price.given:
                raise RLPruneError(
                    f"{self.onnx} decides at the price that it was exported for; give --budget or --penalty to "
                    "rlprune export --onnx, or predict with a bundle"
                )
            return OnnxCNN(self.onnx), self.files
        if not self.files:
            raise RLPruneError("there is nothing to predict with; name a bundle, or a file with --onnx")
        return self.price.of(bundle.load(self.files[0])), self.files[1:]
