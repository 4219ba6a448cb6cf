"""Train many policies side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.cluster.connection import LOCAL, check_answers, connected
from rlprune.cluster.sweeps.space import MOST_TRIALS, Space
from rlprune.cluster.sweeps.sweep import PolicySweep
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.errors import SettingsError
from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions
from rlprune.storage import networks
from rlprune.utils.settings import AtMost, NCandidates, PositiveInt, settings_dataclass


@settings_dataclass
class SweepPolicies:
    """Train policies over penalties, seeds, codebooks and other settings side by side, by Ray Tune.

    Each is trained as `rlprune train` trains it, into its own folder; what the network says of images is computed once.
    """

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder for results.json, results.csv, and trials/, which has a folder for every policy; on a disk that all
    machines of a cluster share."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    over: tuple[str, ...]
    """What differs: values of a setting, of which every combination is trained, such as penalty=0.1,0.2 seed=0,1,2
    n_profiles=4,6; and ranges that Optuna searches for each combination, such as learning_rate=1e-4..1e-2."""
    trials: Annotated[PositiveInt, AtMost(MOST_TRIALS)] | None = None
    """Policies that search the ranges for each combination of values."""
    stop_early: bool = False
    """End policies that are behind the others when validation images are looked at (ASHA); at one penalty only."""
    cluster: str = LOCAL
    """Where: local starts Ray on this machine; auto is the cluster that it belongs to; or the address of one."""
    at_once: PositiveInt | None = None
    """Policies at once, each on one processor; as many as there are processors if not given."""
    n_profiles: Annotated[int, Field(ge=1, le=MAX_PROFILES)] = 6
    """Profiles in the codebook; a network that is specialised to a codebook has those of that."""
    n_candidates: NCandidates = 64
    """Static profiles tried in the search for it."""
    resume: bool = False
    """Continue an interrupted sweep."""
    settings: tyro.conf.OmitArgPrefixes[PolicySettings] = field(default_factory=PolicySettings)

    def _conflicts(self) -> Iterator[str]:
        try:
            self._sweep()
        except SettingsError as error:
            yield str(error)

    def _sweep(self) -> PolicySweep:
        return PolicySweep(
            self.out,
            Space.of(self.over, self.settings, self.trials),
            self.settings,
            learn=train_policy,
            n_profiles=self.n_profiles,
            n_candidates=self.n_candidates,
            stop_early=self.stop_early,
            at_once=self.at_once,
            resume=self.resume,
        )

    def run(self) -> None:
        """Do it."""
        sweep = self._sweep()
        sweep.check()
        saved = networks.load_network(self.network)
        check_answers(self.cluster)  # before images are read; and Ray starts once they are
        splits = load_fitting(saved.network.image_shape, saved.data, saved.metadata, self.source)
        with connected(self.cluster, n_cpus=self.at_once) as cluster:
            result = sweep.run(cluster, saved.network, splits)
        Console().print(result.table())
        for row in result.best:
            print(f"best{'' if row.penalty is None else f' at penalty {row.penalty:g}'}: {self.out / row.folder}")
        print(
            f"all are in {self.out / 'results.json'} and results.csv; watch them with: tensorboard --logdir "
            f"{self.out / 'trials'}"
        )
