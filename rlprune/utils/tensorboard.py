"""TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from rlprune.utils.progress import Log


def scalar_log(folder: Path, tag: str) -> Log:
    """A log of training that writes every figure as a scalar `tag/figure` over the images seen, into `folder/tag`.

    The file is made with the first figures.
    """
    writers: list[SummaryWriter] = []

    def log(n_images: int, figures: dict[str, float]) -> None:
        if not writers:
            writers.append(SummaryWriter(str(folder / tag)))
        for key, value in figures.items():
            writers[0].add_scalar(f"{tag}/{key}", value, n_images)
        writers[0].flush()

    return log
