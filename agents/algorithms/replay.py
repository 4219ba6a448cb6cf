"""Replay buffers in checkpoints, so that what learns from one goes on as if it had never been interrupted.

Stable-Baselines3 leaves them out of an agent's file. Here they are further members of it: plain arrays, and a note of
where the next decision goes. Reading them runs no code.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.errors import RLPruneError

_FOLDER = "rlprune_replay_buffer"


def write_replay_buffer(agent: BaseAlgorithm, path: Path) -> None:
    """Add the replay buffer of an agent, if it has one, to the file that it has just been saved to.

    Args:
        agent: the agent.
        path: Stable-Baselines3's zip file.
    """
    if (buffer := getattr(agent, "replay_buffer", None)) is None:
        return
    filled = len(buffer.rewards) if buffer.full else min(buffer.pos + 1, len(buffer.rewards))  # and the one after
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{_FOLDER}/place.json", json.dumps({"pos": int(buffer.pos), "full": bool(buffer.full)}))
        for name, values in _arrays(buffer).items():
            with archive.open(f"{_FOLDER}/{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values[:filled], allow_pickle=False)


def read_replay_buffer(agent: BaseAlgorithm, path: Path) -> None:
    """Fill the replay buffer of an agent, if it has one, with what a file has.

    Raises:
        RLPruneError: the file has none, or one of other sizes.
    """
    if (buffer := getattr(agent, "replay_buffer", None)) is None:
        return
    with zipfile.ZipFile(path) as archive:
        if f"{_FOLDER}/place.json" not in archive.namelist():
            raise RLPruneError("it has no replay buffer, without which the run would go on with other decisions")
        place = json.loads(archive.read(f"{_FOLDER}/place.json"))
        for name, values in _arrays(buffer).items():
            with archive.open(f"{_FOLDER}/{name}.npy") as file:
                found = np.lib.format.read_array(file, allow_pickle=False)
            if found.shape[1:] != values.shape[1:] or len(found) > len(values):
                raise RLPruneError(f"its replay buffer has {name} of shape {found.shape}, not up to {values.shape}")
            values[: len(found)] = found
    buffer.pos, buffer.full = int(place["pos"]), bool(place["full"])


def _arrays(buffer: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a buffer with an entry for each decision."""
    return {
        name: value
        for name, value in sorted(vars(buffer).items())
        if isinstance(value, np.ndarray) and value.shape[:1] == buffer.rewards.shape[:1]
    }
