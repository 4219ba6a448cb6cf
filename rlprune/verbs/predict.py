"""Classify image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rlprune import bundle, tables
from rlprune.decode import read_images
from rlprune.files import write_json


@dataclass(frozen=True)
class Predict:
    """Classify image files with a bundle, and say what each cost."""

    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")]
    """Folder that `rlprune export` wrote."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGES")]
    """Image files of the size that the network takes; others are resized."""
    json: Path | None = None
    """File to write the predictions to."""

    def run(self) -> None:
        """Do it."""
        dynamic = bundle.load(self.bundle)
        predicted = dynamic(read_images(self.images, dynamic.elastic.image_shape))
        rows = [
            {
                "image": str(path),
                "class": dynamic.classes[int(predicted.labels[i])],
                "probability": float(predicted.probabilities[i].max()),
                "passes": int(predicted.passes[i]),
                "keep_ratio": float(predicted.keep_ratios[i].mean()),
                "macs_share": float(predicted.macs[i] / dynamic.dense_cost.macs),
            }
            for i, path in enumerate(self.images)
        ]
        Console().print(tables.predictions(rows))
        if self.json is not None:
            write_json(self.json, rows)
