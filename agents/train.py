"""Training the policy: PPO, or another algorithm, on the batched environment, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from rlprune import startup
from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.algorithms.named import make_callbacks
from rlprune.agents.beginning.cascades import BEGUN_AS, Beginning, begin_as, best_beginning
from rlprune.agents.beginning.keeping import Keeper
from rlprune.agents.callbacks import (
    DumpCallback,
    EntropyCallback,
    FiguresCallback,
    FiniteCallback,
    ProgressCallback,
    ResumeCheckpointCallback,
    ValidationCallback,
    policy_not_finite,
)
from rlprune.agents.extract import extract_policy
from rlprune.agents.resume import has_state, save_agent
from rlprune.agents.run_folder import (
    Extension,
    Own,
    check_run,
    check_run_folder,
    described_in_notes,
    extensions_in_notes,
    extensions_of,
    read_notes,
    settled_in,
    total_steps,
)
from rlprune.agents.settings import PolicySettings
from rlprune.agents.tracking.events import event_logger
from rlprune.agents.tracking.mirror import tracked
from rlprune.agents.tracking.trackers import TrackerName, check_tracker
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.agents.warm_start import CHECKPOINT, NOTES, warm_start, write_in_checkpoints
from rlprune.agents.worlds import make_worlds, paid_noted, what_is_paid
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.world import World
from rlprune.errors import OutOfMemoryError, RLPruneError
from rlprune.policies.named import made
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.policies import load_policy, save_policy
from rlprune.storage.provenance import fingerprint, read_note
from rlprune.utils.files import write_json
from rlprune.utils.finite import not_finite_in
from rlprune.utils.hardware import memory_for
from rlprune.utils.locks import hold
from rlprune.utils.notes import say


def train_policy(
    elastic: ElasticCNN,
    data: ImageSet,
    validation: ImageSet,
    folder: str | Path,
    settings: PolicySettings | None = None,
    *,
    codebook: Tensor | None = None,
    latency: Latency | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    extend: int | None = None,
    track: TrackerName | None = None,
    logit_caches: Sequence[LogitCache] | None = None,
    algorithm: str | type[BaseAlgorithm] = "ppo",
    arguments: dict[str, Any] | None = None,
    ppo: dict[str, Any] | None = None,
    policy_kwargs: dict[str, Any] | None = None,
    callbacks: Any = None,
    reward: Any = None,
    observation: Any = None,
    progress: bool = True,
) -> Policy:
    """Learn which profile each image needs.

    The same seed gives the same policy, byte for byte, on the same machine with as many threads, interrupted or not.

    Args:
        elastic: the adapted network; its weights do not change.
        data: images that did not train it.
        validation: further images, on which progress is measured.
        folder: gets TensorBoard's event files, the checkpoint, and the policy in `policy/`.
        settings: what it is trained for, and how; the defaults if None.
        codebook: int64 (K, G) profiles, cheapest first; uniform ones if None. For `profiles` only.
        latency: the network's, as measured, where time is what is paid for.
        start: folder of a training to take the agent's weights from, such as that of a higher penalty: a cascade that
            is found where compute is dear survives where it is cheap, but is seldom found there.
        resume: continue from the folder's checkpoint, if it has one: exactly as if it had not been interrupted.
        extend: go on with the folder's finished run for so many environment steps, under the settings that it had. Of S
            steps in the end, learning rate and entropy bonus are then what they are in the last steps of a run of S:
            they begin at the share `extend / S` of what they first were, and fall linearly to zero again.
        track: where settings, figures and the final policy go beside TensorBoard: `wandb`, offline unless the
            environment has WANDB_MODE=online, or `mlflow`, where MLFLOW_TRACKING_URI says, else in the current folder.
        logit_caches: of this network and codebook, one for each set of images, so that several trainings share them.
        algorithm: what learns: one of `rlprune.agents.algorithms.NAMES`, `package.module:Class`, or a class of
            Stable-Baselines3. DQN and QRDQN take profiles alone; SAC, TQC, TD3 and DDPG ratios alone.
        arguments: further arguments of the algorithm, which override the settings; the widths are always `hidden`.
            Those that are classes may be names: `rlprune.agents.algorithms.named` says which.
        ppo: the same, of PPO.
        policy_kwargs: further arguments of the algorithm's policy, such as `{"activation_fn": torch.nn.ReLU}`.
        callbacks: one or a list of Stable-Baselines3's, or of names `package.module:object`, called after the library's
            own. A checkpoint does not hold what they remember.
        reward: in place of the default one, and of its control variate: an object as `rlprune.envs.rewards.Reward` has
            it, ``"module:Class"``, or ``{"class": "module:Class", "settings": {...}}``.
        observation: in place of the default one, and of its `pool`: an object as
            `rlprune.policies.protocol.Observation` has it, or its name likewise.
        progress: show a progress bar.

    Returns:
        The policy at the end of training.

    Raises:
        InUseError: another process trains into the folder.
        NotFiniteError: the network's logits are not finite, or the policy's weights become so, and training stops.
        MissingExtraError: the algorithm is one of sb3-contrib, which is not installed, or the tracker's package is not.
        RLPruneError: the folder has a checkpoint, and `resume` is False or the checkpoint was made under other settings
            or from another network, images, codebook or start; or the algorithm does not take the settings, or cannot
            choose such actions; or there is no run to start from, or the policy of that run sees or chooses otherwise;
            or there is no finished run to extend; or the tracker has no such run;
            or an own reward or observation cannot be made, or gives what it must not.
    """
    folder = Path(folder)
    start = None if start is None else Path(start)
    settings = PolicySettings() if settings is None else settings
    learner = Learner.of(algorithm, arguments, ppo, policy_kwargs)
    more_callbacks = make_callbacks(callbacks)
    own = Own(made("reward", reward), made("observation", observation))
    check_run_folder(folder)
    check_tracker(track)
    with hold(folder, inside=True):
        check_run(folder, settings, learner, resume=resume, extend=extend, own=own)
        settings = settled_in(folder, settings, learner, own)
        if codebook is None and settings.action == "profiles":
            codebook = uniform_codebook(elastic, Cost(elastic))
        paid = what_is_paid(settings, latency)
        worlds = make_worlds(elastic, (data, validation), settings, learner, codebook, paid, logit_caches, own)
        env = VecMonitor(KeepRatioVecEnv(worlds[0], settings.n_envs))
        described = described_in_notes(settings, learner, own)
        made_of = _made_of(elastic, data, codebook, start)
        worlds[0].check_logits()
        resumed = (resume or extend is not None) and (folder / CHECKPOINT).exists()
        extensions = extensions_of(folder, settings, extend, resume=resume) if resumed else []
        total = total_steps(settings, extensions)
        beginning = _beginning(folder, worlds[0], settings, resumed=resumed)
        notes = described | {"made_of": made_of} | extensions_in_notes(extensions) | _begun_as(beginning)
        if resumed:
            agent = _resume_agent(folder, env, settings.seed, total, made_of, learner)
        else:
            agent = _make_agent(env, settings, learner, worlds[0], beginning)
            if start is not None:
                warm_start(agent, start, described, codebook, own.observation_class)
        write_in_checkpoints(agent, notes)
        if agent.num_timesteps < total:
            _note(folder, agent, notes, extensions)

        remaining = total - agent.num_timesteps
        keeper = None if beginning is None or remaining <= 0 else Keeper(beginning.policy(worlds[0]), worlds)

        def save(figures: dict[str, float]) -> None:
            metadata = {"settings": described, "validation": figures, "steps": agent.num_timesteps}
            metadata |= extensions_in_notes(extensions) | _begun_as(beginning) | paid_noted(paid)
            policy, more = _kept(agent, worlds[0], keeper)
            save_policy(folder / "policy", policy, metadata | more)

        if remaining > 0:
            agent.set_logger(event_logger(folder, agent.num_timesteps + 1 if resumed else 0))
        with tracked(folder, track, notes, anew=not resumed) as saved:
            if remaining > 0:
                checkpoints = ResumeCheckpointCallback(
                    folder / CHECKPOINT, settings.validate_every, resumed=has_state(agent), saved=saved
                )
                hooks = _make_callbacks(worlds, settings, total, described, save, checkpoints)
                hooks += _more_callbacks(learner, settings, total, more_callbacks, progress=progress)
                _learn(agent, remaining, hooks, learner, resumed=resumed)
        return load_policy(folder / "policy", own.observation_class).policy


def _made_of(elastic: ElasticCNN, data: ImageSet, codebook: Tensor | None, start: Path | None) -> str:
    """Tells weights, images, codebooks and the runs that agents start from apart."""
    parts: list[Tensor | bytes] = []
    if start is not None and (start / CHECKPOINT).exists():
        parts.append((start / CHECKPOINT).read_bytes())
    parts += [*elastic.state_dict().values(), data.labels, data.images[:256]]
    if codebook is not None:
        parts.append(codebook)
    return fingerprint(*parts)


def _beginning(folder: Path, world: World, settings: PolicySettings, *, resumed: bool) -> Beginning | None:
    """The cascade that a run begins as, or began as; None for random weights."""
    if settings.begin != "cascade":
        return None
    before = read_notes(folder).get(BEGUN_AS) if resumed else None
    return Beginning.of_notes(before) if before else best_beginning(world)


def _begun_as(beginning: Beginning | None) -> dict[str, Any]:
    """What notes say of the cascade that a run began as; nothing if it began at random."""
    return {} if beginning is None else {BEGUN_AS: beginning.noted()}


def _kept(agent: BaseAlgorithm, world: World, keeper: Keeper | None) -> tuple[Policy, dict[str, Any]]:
    """The policy to keep of an agent as it is now, and what is to be noted of the choice."""
    learnt = extract_policy(agent, world)
    if keeper is None:
        return learnt, {}
    choice = keeper.choose(agent)
    more = {"choice": choice.noted()}
    return (learnt, more) if choice.kept == "learnt" else (keeper.policy, more | {"validation": keeper.figures})


def _make_agent(
    env: VecMonitor, settings: PolicySettings, learner: Learner, world: World, beginning: Beginning | None
) -> BaseAlgorithm:
    """A new agent; a line says which settings its algorithm has no use for."""
    if unused := learner.unused(settings):
        say(f"{learner.algorithm.kind.__name__} has no use for {', '.join(unused)}: the run goes without")
    agent = learner.make(env, settings)
    if beginning is not None:
        begin_as(agent, beginning, world)
    return agent


def _note(folder: Path, agent: BaseAlgorithm, notes: dict[str, Any], extensions: Sequence[Extension]) -> None:
    """Write down what a training is begun with, or an extension of it, which the checkpoint has first."""
    if extensions and extensions[-1].begun_at == agent.num_timesteps:
        save_agent(agent, folder / CHECKPOINT)
    if read_note(folder / NOTES) != notes:
        write_json(folder / NOTES, notes)


def _resume_agent(
    folder: Path, env: VecMonitor, seed: int, total: int, made_of: str, learner: Learner
) -> BaseAlgorithm:
    """The agent of a checkpoint, if it was trained on the same things, to be trained up to so many steps."""
    checkpoint = folder / CHECKPOINT
    if read_notes(folder).get("made_of") != made_of:
        raise RLPruneError(
            f"{checkpoint} was trained on another network, other images or another codebook, or from another start; "
            "go back to those, or name another folder"
        )
    try:
        with memory_for(f"reading {checkpoint}", "it stays: give the same command again where there is more"):
            agent = learner.load(checkpoint, env)
    except OutOfMemoryError:
        raise
    except Exception as error:  # unpickling a damaged file may raise anything
        raise RLPruneError(
            f"{checkpoint} cannot be resumed ({type(error).__name__}: {error}); remove it to start anew"
        ) from error
    if not has_state(agent) and agent.num_timesteps < total:
        print(f"{checkpoint} is of an earlier rlprune: the run goes on, but not exactly as if it had not stopped")
        agent._last_obs = None  # its episodes begin anew
        agent.set_random_seed((seed + agent.num_timesteps) % 2**32)  # or it would draw the first images again
    return agent


def _make_callbacks(
    worlds: Sequence[World],
    settings: PolicySettings,
    total: int,
    described: dict[str, Any],
    save: Callable[[dict[str, float]], None],
    checkpoints: ResumeCheckpointCallback,
) -> list[BaseCallback]:
    """What logs, validates and saves during training; the first world is trained in, the second validates."""
    train_world, validation_world = worlds
    return [
        FiniteCallback(),  # before those that save
        FiguresCallback(train_world),
        ValidationCallback(validation_world, settings.validate_every, total, described, save),
        checkpoints,
    ]


def _more_callbacks(
    learner: Learner, settings: PolicySettings, total: int, given: list[BaseCallback], *, progress: bool
) -> list[BaseCallback]:
    """What comes after them: the algorithm's own, and those that were given."""
    hooks: list[BaseCallback] = []
    if learner.entropy_falls:
        hooks.append(EntropyCallback(settings.entropy, total))
    if progress:
        hooks.append(ProgressCallback(total))
    hooks += given
    if learner.algorithm.off_policy:
        hooks.append(DumpCallback())
    return hooks


def _learn(
    agent: BaseAlgorithm, n_steps: int, callbacks: list[BaseCallback], learner: Learner, *, resumed: bool
) -> None:
    """Train for some further steps."""
    how: dict[str, Any] = {"log_interval": None} if learner.algorithm.off_policy else {}
    try:
        with startup.finishing():
            agent.learn(n_steps, CallbackList(callbacks), reset_num_timesteps=not resumed, **how)
    except ValueError as error:  # of torch's distributions, in the midst of an update
        if not_finite_in(agent.policy) is None:
            raise
        raise policy_not_finite(agent) from error
    except TypeError as error:
        if learner.arguments:
            raise RLPruneError(f"{learner.algorithm.title} cannot train with {learner.arguments}: {error}") from error
        raise
    finally:
        for callback in callbacks:
            if isinstance(callback, ProgressCallback):
                callback.close()
        agent.logger.close()
