"""Train the policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.algorithms.named import make_callbacks
from rlprune.agents.beginning.keeping import Choice
from rlprune.agents.run_folder import Own, check_run, check_run_folder
from rlprune.agents.settings import PolicySettings
from rlprune.agents.tracking.trackers import TrackerName, check_tracker
from rlprune.agents.train import train_policy
from rlprune.agents.warm_start import CHECKPOINT
from rlprune.cli.options import Device, LatencyOptions
from rlprune.data.image_set import Splits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.evaluation import tables
from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions
from rlprune.policies.named import made
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import read_codebook
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import check_candidates, choose_codebook, search_profiles
from rlprune.storage import networks
from rlprune.storage.folders import schema
from rlprune.storage.policies import load_policy
from rlprune.storage.provenance import check_unchanged, note_to_compare
from rlprune.utils.files import write_json
from rlprune.utils.locks import hold
from rlprune.utils.settings import NCandidates, PositiveInt, settings_dataclass


@settings_dataclass
class Train:
    """Train the policy that chooses keep ratios for each image."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder for TensorBoard's events, the checkpoint, and the policy (in policy/)."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    n_profiles: int = 6
    """Profiles in the codebook, at most 16; a network that is specialised to a codebook has those of that."""
    n_candidates: NCandidates = 64
    """Static profiles tried in the search for it."""
    start: Path | None = None
    """Folder of an earlier run whose agent and codebook this run starts with, such as one at a higher penalty."""
    resume: bool = False
    """Continue an interrupted run."""
    extend: PositiveInt | None = None
    """Go on with the finished run in --out for so many environment steps, on the same curve in TensorBoard; give the
    other options as before. Learning rate and entropy bonus are those of the last steps of a run of so many in all."""
    track: TrackerName | None = None
    """Where settings, figures and the final policy go beside TensorBoard: wandb (offline, unless the environment has
    WANDB_MODE=online) or mlflow (where MLFLOW_TRACKING_URI says, else in the current folder)."""
    device: Device = "cpu"
    """Where the network runs, such as cpu or cuda, for its logits on every image; the policy learns on the CPU."""
    algorithm: str = "ppo"
    """What learns: ppo, a2c, trpo, maskable_ppo; dqn or qrdqn (--action profiles); sac, tqc, td3 or ddpg (--action
    ratios); or a class of Stable-Baselines3's kind, as package.module:Class."""
    arguments: str = "{}"
    """Further arguments of the algorithm, as JSON, such as '{"buffer_size": 20000}'."""
    ppo: str = "{}"
    """The same, of Stable-Baselines3's PPO, such as '{"clip_range": 0.1}'."""
    policy_kwargs: str = "{}"
    """Further arguments of the algorithm's policy, as JSON, such as '{"activation_fn": "ReLU"}'."""
    callbacks: tuple[str, ...] = ()
    """Further callbacks of Stable-Baselines3, as package.module:object."""
    reward: str | None = None
    """A reward of your own, as package.module:Class, or, with settings, as JSON: '{"class": "package.module:Class",
    "settings": {"weight": 2}}'. It takes the place of the default one and of its control variate."""
    observation: str | None = None
    """An observation of your own, named likewise. It takes the place of the default one, which --pool is for."""
    latency: tyro.conf.OmitArgPrefixes[LatencyOptions] = field(default_factory=LatencyOptions)
    settings: tyro.conf.OmitArgPrefixes[PolicySettings] = field(default_factory=PolicySettings)

    def _conflicts(self) -> Iterator[str]:
        if self.device != "cpu" and self.settings.cost == "latency":
            yield f"device={self.device}: --cost latency measures this machine's processor; leave one of them out"
        if self.settings.cost != "latency":
            yield from self.latency.unused("--cost latency")

    def run(self) -> None:
        """Do it."""
        learner = self._learner()
        try:
            make_callbacks(self.callbacks)
        except RLPruneError as error:
            raise RLPruneError(f"--callbacks: {error}") from error
        if not 1 <= self.n_profiles <= MAX_PROFILES:
            raise RLPruneError(f"--n-profiles is {self.n_profiles}; 1 to {MAX_PROFILES} are allowed")
        own = Own(made("reward", self.reward), made("observation", self.observation))
        check_run_folder(self.out)
        check_tracker(self.track)
        self.latency.settings.check()
        with hold(self.out, inside=True):
            policy, network = self._train(learner, own)
        Console().print(tables.codebook(network, policy.codebook))
        noted = load_policy(self.out / "policy", own.observation_class).metadata
        figures = schema().check(schema().Figures, noted.get("validation"), "note on the policy")
        if "choice" in noted:
            print(Choice.of_notes(noted["choice"]))
        print(f"validation accuracy {figures.accuracy:.4f} at {figures.active_macs:.3f} of the dense MACs")
        print(f"the policy is in {self.out / 'policy'}; watch it with: tensorboard --logdir {self.out}")

    def _learner(self) -> Learner:
        """The algorithm and its arguments.

        Raises:
            MissingExtraError: the algorithm is one of sb3-contrib, which is not installed.
            RLPruneError: there is no such algorithm, or it cannot learn so.
        """
        arguments = _json_object(self.arguments, "--arguments")
        ppo = _json_object(self.ppo, "--ppo")
        more = _json_object(self.policy_kwargs, "--policy-kwargs")
        try:
            learner = Learner.of(self.algorithm, arguments, ppo, more or None)
            learner.check(self.settings)
        except MissingExtraError:
            raise
        except RLPruneError as error:
            option = "--ppo" if ppo else "--arguments" if arguments else "--policy-kwargs" if more else "--algorithm"
            raise RLPruneError(f"{option}: {error}") from error
        return learner

    def _train(self, learner: Learner, own: Own) -> tuple[Policy, ElasticCNN]:
        """Train into the folder, which is held meanwhile; the policy, and the network that it is for."""
        check_run(self.out, self.settings, learner, resume=self.resume, extend=self.extend, own=own)
        start_codebook = None
        if self.start is not None:
            start_codebook = load_policy(self.start / "policy", own.observation_class).policy.codebook
        saved = networks.load_network(self.network)
        saved.network.to(self.device)
        if self.settings.action == "profiles" and self.start is None and saved.network.codebook is None:
            check_candidates(saved.network, self.n_candidates)
        splits = load_fitting(saved.network.image_shape, saved.data, saved.metadata, self.source)
        latency = self._latency(saved.network) if self.settings.cost == "latency" else None
        codebook = None
        if self.settings.action == "profiles":
            codebook = self._codebook(saved.network, splits, latency, start_codebook)
        policy = train_policy(
            saved.network,
            splits.policy,
            splits.validation,
            self.out,
            self.settings,
            codebook=codebook,
            latency=latency,
            start=self.start,
            resume=self.resume,
            extend=self.extend,
            track=self.track,
            algorithm=learner.algorithm.kind,
            arguments=learner.arguments,
            callbacks=self.callbacks,
            reward=own.reward,
            observation=own.observation,
        )
        return policy, saved.network

    def _latency(self, network: ElasticCNN) -> Latency:
        """Measure this machine, or take the table that is in the folder already."""
        path = self.out / "latency.json"
        latency = self.latency.settings.table(path, network, self.settings.seed)
        errors = ", ".join(f"{100 * error:.1f} % by {name}" for name, error in latency.errors.items())
        print(f"latency is in {path}; median error of predictions for profiles held out: {errors}")
        return latency

    def _codebook(
        self, network: ElasticCNN, splits: Splits, latency: Latency | None, start: torch.Tensor | None
    ) -> torch.Tensor:
        """The profiles of an interrupted run, of the network, or of the run to start from; if none has any, a search's.

        Args:
            network: the network.
            splits: its images.
            latency: what the search goes by, if time is paid for.
            start: codebook of the run to start from, int64 (K, G).
        """
        path, note = self.out / "codebook.json", self.out / "search.json"
        asked = {"n_profiles": self.n_profiles, "n_candidates": self.n_candidates}
        if (self.resume or self.extend is not None) and path.exists() and (self.out / CHECKPOINT).exists():
            if note.exists():
                cure = "go back to those, or name another folder"
                check_unchanged(f"the codebook in {path}", note_to_compare(note, dict, cure), asked, cure)
            return network.check_codebook(read_codebook(path))
        note.unlink(missing_ok=True)
        if start is not None:
            start = network.check_codebook(start)
        if network.codebook is not None:
            if start is not None and not start.equal(network.codebook):
                raise RLPruneError(
                    f"the run in {self.start} has another codebook than the network is specialised to; start from one "
                    "of this network, or leave --start out"
                )
            codebook = network.codebook
        elif start is not None:
            codebook = start
        else:
            found = search_profiles(network, splits.policy, self.n_candidates, self.settings.seed, latency=latency)
            codebook = choose_codebook(network, found, self.n_profiles)
            write_json(note, asked)
        write_json(path, codebook.tolist())
        return codebook


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RLPruneError(f"{option} is {text!r}, which is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RLPruneError(f"{option} is {text!r}; a JSON object is needed, such as '{{\"clip_range\": 0.1}}'")
    return value
