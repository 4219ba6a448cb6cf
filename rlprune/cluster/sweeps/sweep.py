"""A sweep: every policy that it asks for, trained under Ray Tune in a folder, resumable."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlprune.agents.settings import PolicySettings
from rlprune.cluster.connection import Cluster
from rlprune.cluster.sweeps.logits import Shared
from rlprune.cluster.sweeps.results import SweepResult, SweepRow, with_best
from rlprune.cluster.sweeps.space import Space, Value, settings_of, trial_name
from rlprune.cluster.sweeps.studies import studies
from rlprune.cluster.sweeps.trial import TRIALS, Codebook, Trials, codebook_key, run_trial
from rlprune.data.image_set import Splits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError, SettingsError
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import read_codebook
from rlprune.profiles.search import check_candidates, choose_codebook
from rlprune.storage.provenance import check_ours, fingerprint, noted, plain
from rlprune.utils.files import check_room, check_target_folder, write_json
from rlprune.utils.imports import require
from rlprune.utils.locks import hold
from rlprune.utils.notes import say

NOTE, RESULTS = "sweep.json", "results.json"
_RAY = "ray"
"""Folder of what Ray Tune knows of the trials."""
_RETRIES = 3
"""How often a trial begins again whose process was lost; it goes on from its own checkpoint."""
_PER_TRIAL = 2**21
"""Bytes that a trial writes, at least."""
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a training writes its own events
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line has one
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
_CURE = "go back to those, or name another folder"


class PolicySweep:
    """A sweep in a folder: `check`, then `run`.

    Args:
        out: the folder; on a cluster, on a disk that all machines share.
        space: what differs between trials.
        settings: of all trials, but for that.
        learn: `rlprune.agents.train.train_policy`.
        n_profiles: of a codebook that is searched, where it does not differ.
        n_candidates: of the search, likewise.
        stop_early: end trials that are behind at a validation sweep, by ASHA.
        at_once: trials at once, at most; as many as there are processors if None.
        resume: go on with an interrupted sweep.

    Raises:
        SettingsError: trials are to be stopped early that are not comparable.
    """

    def __init__(
        self,
        out: str | Path,
        space: Space,
        settings: PolicySettings,
        *,
        learn: Callable[..., Policy],
        n_profiles: int = 6,
        n_candidates: int = 64,
        stop_early: bool = False,
        at_once: int | None = None,
        resume: bool = False,
    ) -> None:
        for name in ("penalty", "cost", "total_steps", "validate_every"):
            if stop_early and name in space.names:
                raise SettingsError(
                    f"stop_early=True: trials of another {name} are not comparable half-way; sweep it apart"
                )
        if settings.cost == "latency":
            raise SettingsError(
                "cost='latency': time cannot be measured while policies train side by side; give another"
            )
        self.out = Path(out).absolute()
        self.space = space
        self.settings = settings
        self.learn = learn
        self.n_profiles = n_profiles
        self.n_candidates = n_candidates
        self.stop_early = stop_early
        self.at_once = at_once
        self.resume = resume

    def check(self) -> None:
        """Make sure that the folder may be filled, before anything long begins.

        Raises:
            MissingExtraError: Ray or Optuna is not installed.
            RLPruneError: the folder holds other things, or a sweep that is not to be resumed; or there is none.
            WriteError: it may not be written, or its disk has no room.
        """
        require("ray.tune", "cluster")
        if self.space.ranges:
            require("optuna", "cluster")
        note = self.out / NOTE
        check_ours(self.out, note.exists())
        if note.exists() and not self.resume:
            raise RLPruneError(f"{self.out} holds an earlier sweep; resume it, or name another folder")
        check_target_folder(self.out)
        check_room(self.out, _PER_TRIAL * len(self.space))

    def run(self, cluster: Cluster, network: ElasticCNN, splits: Splits) -> SweepResult:
        """Train all policies, or what is left of them, and write what they are worth.

        Args:
            cluster: where.
            network: the adapted network.
            splits: its images; those that test are not looked at.

        Returns:
            The result, as `results.json` has it.

        Raises:
            ClusterError: the object store is too small for what trials share.
            InUseError: another process works in the folder.
            RLPruneError: the folder was begun with other things, or no policy can be trained.
        """
        self.check()
        what, made = f"the sweep in {self.out}", self.out / ("codebooks" if self._finds(network) else TRIALS)
        note = noted(self.out / NOTE, self._made_of(network, splits), what=what, cure=_CURE, made=made)
        with hold(self.out, inside=True), note:
            trials = self._shared(cluster, network, splits)
            result = self._tuned(trials)
            result.write(self.out)
        self._say_failed(result)
        return result

    def _made_of(self, network: ElasticCNN, splits: Splits) -> dict[str, Any]:
        """What the sweep is begun with."""
        images = [each for part in (splits.policy, splits.validation) for each in (part.labels, part.images[:256])]
        made_of: dict[str, Any] = plain(
            {
                "over": {name: list(values) for name, values in self.space.lists.items()},
                "searched": {name: [ends.low, ends.high] for name, ends in self.space.ranges.items()},
                "trials": self.space.trials,
                "stop_early": self.stop_early,
                "n_profiles": self.n_profiles,
                "n_candidates": self.n_candidates,
                "settings": self.settings.noted(),
                "made_of": fingerprint(*network.state_dict().values(), *images),
            }
        )
        return made_of

    def _shared(self, cluster: Cluster, network: ElasticCNN, splits: Splits) -> Trials:
        """What the trials share, computed once: codebooks, and their logits."""
        keys = list(dict.fromkeys(map(self._key, self.space.combinations())))
        finds = self._finds(network)
        if finds:
            for _, n_candidates, _ in keys:
                check_candidates(network, n_candidates)
        sizes = [n for n, _, _ in keys] if finds else [len(network.codebook) if network.codebook is not None else 0]
        shared = Shared(cluster, network, (splits.policy, splits.validation), sizes)
        codebooks: dict[tuple[int, int, int], Codebook]
        if finds:
            codebooks = self._found(shared, network, keys)
        else:
            profiles = network.codebook if self._chooses_profiles else None
            one = Codebook(profiles, None, shared.logits(profiles))
            codebooks = dict.fromkeys(keys, one)
        return Trials(self.learn, self.out, self.settings, shared.stored, codebooks, self.n_profiles, self.n_candidates)

    def _finds(self, network: ElasticCNN) -> bool:
        """Whether codebooks are searched."""
        return network.codebook is None and self._chooses_profiles

    @property
    def _chooses_profiles(self) -> bool:
        return self.settings.action == "profiles"

    def _key(self, values: Mapping[str, Value]) -> tuple[int, int, int]:
        return codebook_key(self.settings, self.n_profiles, self.n_candidates, values)

    def _found(
        self, shared: Shared, network: ElasticCNN, keys: list[tuple[int, int, int]]
    ) -> dict[tuple[int, int, int], Codebook]:
        """Codebooks of searches, or those that were found before the sweep was interrupted; equal ones share logits."""
        paths = {key: self.out / "codebooks" / f"{'-'.join(map(str, key))}.json" for key in keys}
        asked = list(dict.fromkeys(key[1:] for key in keys if not paths[key].exists()))
        found = dict(zip(asked, shared.search(asked), strict=True))
        for key in keys:
            if not paths[key].exists():
                write_json(paths[key], choose_codebook(network, found[key[1:]], key[0]).tolist())
        known: dict[str, Any] = {}
        codebooks = {}
        for key in keys:
            profiles = network.check_codebook(read_codebook(paths[key]))
            same = str(profiles.tolist())
            if same not in known:
                known[same] = shared.logits(profiles)
            codebooks[key] = Codebook(profiles, {"n_profiles": key[0], "n_candidates": key[1]}, known[same])
        return codebooks

    def _tuned(self, trials: Trials) -> SweepResult:
        """Run the trials, or go on with them."""
        os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
        tune = require("ray.tune", "cluster")
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # lost processes are retried, and said at the end
        trainable = tune.with_resources(tune.with_parameters(run_trial, trials=trials), {"cpu": 1})
        folder = self.out / _RAY
        if not self._goes_on(folder):
            shutil.rmtree(folder, ignore_errors=True)
        tuner = None
        if tune.Tuner.can_restore(str(folder)) and any(folder.glob("experiment_state-*.json")):
            how: dict[str, Any] = {} if self.space.ranges else {"param_space": self._param_space(tune)}
            try:
                tuner = tune.Tuner.restore(str(folder), trainable, resume_errored=True, **how)
            except Exception:  # whatever unpickling raises of a file that a kill has cut off
                shutil.rmtree(folder, ignore_errors=True)  # trials go on from their own folders
        return self._result((tuner or self._tuner(tune, trainable)).fit())

    def _goes_on(self, folder: Path) -> bool:
        """Whether what Ray knows is gone on with: of trials that failed it would not try again those that are listed.

        Trials that are finished are not trained again in any case: their folders say so.
        """
        results = self.out / RESULTS
        return bool(self.space.ranges) or not (results.exists() and SweepResult.load(results).failed)

    def _param_space(self, tune: Any) -> dict[str, Any]:
        return {"values": tune.grid_search(list(self.space.combinations()))}

    def _tuner(self, tune: Any, trainable: Any) -> Any:
        scheduler = None
        if self.stop_early:
            schedulers = require("ray.tune.schedulers", "cluster")
            grace = min(self.settings.validate_every, self.settings.total_steps)
            how = {"max_t": self.settings.total_steps, "grace_period": grace}
            scheduler = schedulers.ASHAScheduler(time_attr="steps", metric="reward", mode="max", **how)
        searched: dict[str, Any] = {}
        if self.space.ranges:
            searched = {"search_alg": studies(self.space, self.settings.seed), "num_samples": len(self.space)}
        return tune.Tuner(
            trainable,
            param_space=None if searched else self._param_space(tune),
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                max_concurrent_trials=self.at_once,
                reuse_actors=True,  # a process takes seconds to import what a training needs
                **searched,
            ),
            run_config=tune.RunConfig(
                name=_RAY,
                storage_path=str(self.out),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                callbacks=[_teller(tune, len(self.space))],
                verbose=0,
            ),
        )

    def _result(self, grid: Any) -> SweepResult:
        """The rows of Ray's results, in the order of the combinations."""
        order = [plain(each) for each in self.space.combinations()]
        rows = [self._row(each) for each in grid]
        places = {id(row): order.index(plain({n: row.values[n] for n in self.space.lists})) for row in rows}
        return with_best(sorted(rows, key=lambda row: places[id(row)]))

    def _row(self, found: Any) -> SweepRow:
        figures = found.metrics or {}
        values = dict(found.config["values"])
        settings = settings_of(self.settings, values)
        folder = Path(TRIALS, trial_name(values))
        reason = figures.get("failed", "")
        if found.error is not None:
            reason = str(found.error).strip().rpartition("\n")[2]
        penalty = None if settings.penalty_range else settings.penalty
        state = "failed" if reason else "finished" if figures.get("finished") else "stopped"
        known: dict[str, Any] = (
            {} if reason else {key: figures.get(key) for key in ("reward", "accuracy", "macs_share", "steps", "kept")}
        )
        seconds = figures.get("seconds", figures.get("time_total_s"))
        where: dict[str, Any] = {"penalty": penalty, "seed": settings.seed, "folder": folder.as_posix()}
        return SweepRow(values, **where, **known, seconds=seconds, state=state, reason=reason)

    def _say_failed(self, result: SweepResult) -> None:
        """Say once why trials failed, however many did.

        Raises:
            RLPruneError: all of them did.
        """
        reasons = Counter(row.reason for row in result.failed)
        lines = [f"{n} of {len(result.rows)} policies could not be trained: {why}" for why, n in reasons.items()]
        if lines and len(result.failed) == len(result.rows):
            raise RLPruneError(f"{'; '.join(lines)}; what was finished stays, resume the sweep once that is put right")
        for line in lines:
            say(line)


def _teller(tune: Any, n_trials: int) -> Any:
    """What says a line for every trial that ends."""
    base: Any = tune.Callback

    class Teller(base):  # type: ignore[misc]
        """Says what was found."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            """Say it, and how many are done."""
            found = trial.last_result
            if "reward" in found:
                n_done = 1 + sum(each.is_finished() for each in trials if each is not trial)
                figures = f"reward {found['reward']:.4f}, accuracy {found['accuracy']:.4f}"
                share = f"{100 * found['macs_share']:.1f} % of the MACs"
                say(f"{trial_name(trial.config['values'])}: {figures} at {share} ({n_done} of {n_trials})")

    return Teller()
