"""TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from rlprune.utils.progress import Log


def scalar_log(folder: Path, tag: str) -> Log:
    """A log of training that writes every figure as a scalar `tag/figure` over the images seen, into `folder/tag`."""
    writer = SummaryWriter(str(folder / tag))

    def log(n_images: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            writer.add_scalar(f"{tag}/{key}", value, n_images)
        writer.flush()

    return log
