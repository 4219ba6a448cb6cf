"""Starting from the agent of another run."""

from __future__ import annotations

import json
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.storage.policies import load_policy

CHECKPOINT = "checkpoint.zip"
"""The agent of a run, in the run's folder, next to `policy/` and TensorBoard's events."""
NOTES = "settings.json"
"""What the run was begun with, in the same folder."""
_NOTES_INSIDE = "rlprune_notes"
"""The same in the checkpoint: an attribute of the agent, which Stable-Baselines3 writes as JSON."""
_SAME = ("action", "max_passes", "pool", "combine", "hidden", "penalty_range", "observation")


def write_in_checkpoints(agent: BaseAlgorithm, notes: dict[str, Any]) -> None:
    """Let every checkpoint of an agent say what its run was begun with."""
    setattr(agent, _NOTES_INSIDE, notes)


def read_from_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint says that its run was begun with; nothing if it is not there, damaged or says nothing.

    Nothing is unpickled.
    """
    notes = read_attributes(path).get(_NOTES_INSIDE, {})
    return notes if isinstance(notes, dict) else {}


def read_attributes(path: Path) -> dict[str, Any]:
    """An agent's attributes as its checkpoint has them in JSON; none if it is not there or damaged.

    Nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("data"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # what loads it says what is wrong
        return {}
    return found if isinstance(found, dict) else {}


def warm_start(
    agent: BaseAlgorithm,
    folder: Path,
    settings: Mapping[str, Any],
    codebook: Tensor | None,
    observation: type | None = None,
) -> None:
    """Give an agent the weights of another run's agent; nothing is unpickled.

    Args:
        agent: the agent that starts.
        folder: of the other run.
        settings: of the run that starts, as JSON holds them.
        codebook: of the run that starts, int64 (K, G); None if it has none.
        observation: class of its observation, where that is the user's own.

    Raises:
        RLPruneError: the folder holds no finished run, or the policy of that run sees or chooses other things.
    """
    try:
        before = json.loads((folder / NOTES).read_text())
        learnt = load_policy(folder / "policy", observation).policy
        _, parameters, _ = load_from_zip_file(folder / CHECKPOINT, load_data=False, device="cpu")
    except (RLPruneError, OSError, ValueError) as error:
        raise RLPruneError(f"no run can start from {folder} ({type(error).__name__}: {error})") from error
    before.setdefault("penalty_range", [])  # the first runs knew no range
    other = [f"{key}={before.get(key)}" for key in _SAME if before.get(key) != settings[key]]
    if other:
        raise RLPruneError(f"the run in {folder} has {', '.join(other)}; a run that starts from it must have the same")
    if codebook is not None and not learnt.codebook.equal(codebook.cpu()):
        raise RLPruneError(f"the run in {folder} has another codebook; a run that starts from it must have the same")
    try:
        agent.policy.load_state_dict(cast(dict[str, Any], parameters["policy"]))
    except (RuntimeError, KeyError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise RLPruneError(f"the run in {folder} was of another kind of network ({reason})") from error
