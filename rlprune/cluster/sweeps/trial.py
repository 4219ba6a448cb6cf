"""One trial of a sweep: one policy, trained in a process of Ray as `rlprune train` trains it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from rlprune.agents.settings import PolicySettings
from rlprune.cluster.sweeps.logits import logit_caches, opened
from rlprune.cluster.sweeps.space import Value, settings_of, trial_name
from rlprune.errors import InUseError, RLPruneError
from rlprune.policies.policy import Policy
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json
from rlprune.utils.imports import require

FIGURES = {"reward": "reward", "accuracy": "accuracy", "macs_share": "active_macs"}
"""What is reported of validation images, by the names that a training's notes have."""
TRIALS = "trials"
"""Folder of the trials, below the sweep's."""
_PATIENCE = 60.0
"""Seconds in which the process of an earlier start must have let go of a trial's folder."""


@dataclass(frozen=True)
class Codebook:
    """What a trial chooses from.

    Attributes:
        profiles: int64 (K, G); None where no profiles are chosen.
        search: what was asked of the search that found them, as `rlprune train` notes it; None without one.
        known: reference to the logits.
    """

    profiles: Tensor | None
    search: dict[str, int] | None
    known: Any


@dataclass(frozen=True)
class Trials:
    """What the trials of a sweep have in common.

    Attributes:
        learn: `rlprune.agents.train.train_policy`.
        out: folder of the sweep, on a disk that all machines share.
        settings: of all, but for what differs.
        stored: reference to network and images: those that train the policy, and those that validate.
        codebooks: by what they are made by; see `codebook_key`.
        n_profiles: of those that do not say another number.
        n_candidates: likewise.
    """

    learn: Callable[..., Policy]
    out: Path
    settings: PolicySettings
    stored: Any
    codebooks: Mapping[tuple[int, int, int], Codebook]
    n_profiles: int
    n_candidates: int

    def folder(self, values: Mapping[str, Value]) -> Path:
        """Where a trial is trained."""
        return self.out / TRIALS / trial_name(values)

    def codebook(self, values: Mapping[str, Value]) -> Codebook:
        """What a trial chooses from."""
        return self.codebooks[codebook_key(self.settings, self.n_profiles, self.n_candidates, values)]


def codebook_key(
    settings: PolicySettings, n_profiles: int, n_candidates: int, values: Mapping[str, Value]
) -> tuple[int, int, int]:
    """What tells codebooks of searches apart: profiles, candidates, seed."""
    given = {"n_profiles": n_profiles, "n_candidates": n_candidates, "seed": settings.seed} | dict(values)
    return int(given["n_profiles"]), int(given["n_candidates"]), int(given["seed"])


class ReportCallback(BaseCallback):
    """Tells Ray Tune what every sweep of the validation images has found."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        found = self.logger.name_to_value
        if "validation/reward" in found:
            figures = {name: float(found[f"validation/{noted}"]) for name, noted in FIGURES.items()}
            require("ray.tune", "cluster").report(figures | {"steps": self.num_timesteps})


def run_trial(config: Mapping[str, Any], trials: Trials) -> None:
    """Train a policy, or what is left of it after an interruption, and report what it is worth.

    What a user can change is reported, too, not raised: Ray would try it again.
    """
    begun = time.monotonic()
    values: dict[str, Value] = config["values"]
    tune = require("ray.tune", "cluster")
    try:
        figures = _train(values, trials)
    except RLPruneError as error:
        tune.report({"failed": str(error)})
    else:
        tune.report(figures | {"seconds": time.monotonic() - begun, "finished": True})


def _train(values: Mapping[str, Value], trials: Trials) -> dict[str, Any]:
    """Train a policy into its folder: its figures.

    Raises:
        RLPruneError: it cannot be.
    """
    ray = require("ray", "cluster")
    folder = trials.folder(values)
    if not trials.out.is_dir():
        raise RLPruneError(
            f"{trials.out} is not there on machine {ray.util.get_node_ip_address()}; name a folder on a "
            "disk that all machines of the cluster share"
        )
    settings = settings_of(trials.settings, values)
    codebook = trials.codebook(values)
    network, sets = opened(ray.get(trials.stored))
    caches = logit_caches(network, sets, codebook.profiles, ray.get(codebook.known))
    if codebook.profiles is not None:
        if codebook.search is not None:
            write_json(folder / "search.json", codebook.search)
        write_json(folder / "codebook.json", codebook.profiles.tolist())
    how: dict[str, Any] = {"codebook": codebook.profiles, "logit_caches": caches, "resume": True, "progress": False}
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            trials.learn(network, sets[0], sets[1], folder, settings, callbacks=ReportCallback(), **how)
            break
        except InUseError:  # by a process of an earlier start, which is ending
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    noted = load_policy(folder / "policy").metadata
    figures = {name: float(noted["validation"][there]) for name, there in FIGURES.items()}
    kept = noted.get("choice", {}).get("kept", "learnt")
    return figures | {"steps": int(noted["steps"]), "kept": kept, "failed": ""}
