"""Runs at Weights & Biases: offline, in a folder that `wandb sync` uploads, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlprune.agents.tracking.events import Figures
from rlprune.agents.tracking.tracker import Sent
from rlprune.errors import MissingExtraError
from rlprune.utils.imports import require

_N_BINS = 64
"""Of a histogram; W&B takes 512 at most, TensorBoard's have more."""


def package() -> Any:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not _online():
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or it would report its own errors
    wandb = require("wandb", "wandb")
    if not hasattr(wandb, "init"):  # a folder of its runs that lies where modules are looked for
        raise MissingExtraError(
            "this needs the package 'wandb', which is not installed; install it with: pip install 'rlprune[wandb]'"
        )
    return wandb


class WandbRun:
    """A run at Weights & Biases.

    Args:
        wandb: the package.
        run: as `wandb.init` gives it.
        sent: what it had.
    """

    def __init__(self, wandb: Any, run: Any, sent: Sent) -> None:
        self.sent = sent
        self._wandb = wandb
        self._run = run

    def log(self, figures: Figures) -> None:
        """Take all figures of a step."""
        values: dict[str, Any] = dict(figures.scalars)
        for tag, (edges, counts) in figures.histograms.items():
            values[tag] = self._wandb.Histogram(np_histogram=_coarser(edges, counts))
        for tag, content in figures.pictures.items():
            values[tag] = self._wandb.Image(Image.open(io.BytesIO(content)))
        if values:
            self._run.log(values, step=figures.step)

    def finish(self, policy: Path | None) -> str:
        """End it, with the policy as an artifact."""
        if policy is not None:
            artifact = self._wandb.Artifact(f"policy-{self.sent.run}", type="model")
            for path in sorted(policy.iterdir()):  # a whole folder would be told of on the terminal
                artifact.add_file(str(path))
            self._run.log_artifact(artifact)
        place = str(Path(self._run.dir).parent)
        self._run.finish(exit_code=int(policy is None))
        return f"run {self.sent.run}" if _online() else f"{place}; upload it with: wandb sync {place}"


def open_run(folder: Path, settings: Mapping[str, Any], before: Sent | None) -> WandbRun:
    """Begin a run, or go on with one: online with the same run, offline with a new folder that has the whole curve."""
    wandb = package()
    mode = os.environ.get("WANDB_MODE") or "offline"
    online = _online()
    name = uuid.uuid4().hex[:8] if before is None else before.run
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "rlprune",
        name=os.environ.get("WANDB_NAME") or folder.resolve().name,
        dir=None if os.environ.get("WANDB_DIR") else str(folder),
        id=name,
        config=dict(settings),
        allow_val_change=True,
        mode=mode,
        resume="allow" if online else None,
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True),
    )
    goes_on = online and before is not None and before.place == mode
    return WandbRun(wandb, run, Sent(name, mode, before.step if before is not None and goes_on else -1))


def _online() -> bool:
    """Whether the user has asked for a network."""
    return os.environ.get("WANDB_MODE") in ("online", "run", "shared")


def _coarser(edges: list[float], counts: list[float]) -> tuple[Any, Any]:
    """A histogram with few bins of one width: counts and edges."""
    middles = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
    return np.histogram(middles, bins=_N_BINS, range=(edges[0], edges[-1]), weights=counts)
