"""Training the policy: PPO, or another algorithm, on the batched environment, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from rlprune import startup
from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.algorithms.named import make_callbacks
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
from rlprune.agents.resume import has_state
from rlprune.agents.run_folder import Own, check_run, check_run_folder, described_in_notes, read_notes
from rlprune.agents.settings import PolicySettings
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.agents.warm_start import CHECKPOINT, NOTES, warm_start, write_in_checkpoints
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.world import World
from rlprune.errors import OutOfMemoryError, RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.named import made
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.policies import load_policy, save_policy
from rlprune.storage.provenance import fingerprint
from rlprune.utils.files import write_json
from rlprune.utils.finite import not_finite_in
from rlprune.utils.hardware import memory_for
from rlprune.utils.locks import hold
from rlprune.utils.notes import say
from rlprune.utils.tensorboard import drop_events


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
        MissingExtraError: the algorithm is one of sb3-contrib, which is not installed.
        RLPruneError: the folder has a checkpoint, and `resume` is False or the checkpoint was made under other settings
            or from another network, images, codebook or start; or the algorithm does not take the settings, or cannot
            choose such actions; or there is no run to start from, or the policy of that run sees or chooses otherwise;
            or an own reward or observation cannot be made, or gives what it must not.
    """
    folder = Path(folder)
    start = None if start is None else Path(start)
    settings = PolicySettings() if settings is None else settings
    learner = Learner.of(algorithm, arguments, ppo, policy_kwargs)
    more_callbacks = make_callbacks(callbacks)
    own = Own(made("reward", reward), made("observation", observation))
    check_run_folder(folder)
    with hold(folder, inside=True):
        check_run(folder, settings, learner, resume=resume, own=own)
        if codebook is None and settings.action == "profiles":
            codebook = uniform_codebook(elastic, Cost(elastic))
        paid = _paid(settings, latency)
        worlds = _make_worlds(elastic, (data, validation), settings, learner, codebook, paid, logit_caches, own)
        env = VecMonitor(KeepRatioVecEnv(worlds[0], settings.n_envs))
        described = described_in_notes(settings, learner, own)
        made_of = _made_of(elastic, data, codebook, start)
        worlds[0].check_logits()
        resumed = resume and (folder / CHECKPOINT).exists()
        if resumed:
            agent = _resume_agent(folder, env, settings, made_of, learner)
        else:
            if unused := learner.unused(settings):
                say(f"{learner.algorithm.kind.__name__} has no use for {', '.join(unused)}: the run goes without")
            agent = learner.make(env, settings)
            if start is not None:
                warm_start(agent, start, described, codebook, own.observation_class)
            write_json(folder / NOTES, described | {"made_of": made_of})
        write_in_checkpoints(agent, described | {"made_of": made_of})

        def save(figures: dict[str, float]) -> None:
            metadata = {"settings": described, "validation": figures, "steps": agent.num_timesteps}
            save_policy(folder / "policy", extract_policy(agent, worlds[0]), metadata)

        remaining = settings.total_steps - agent.num_timesteps
        if remaining > 0:
            hooks = _make_callbacks(worlds, folder, settings, described, save, exact=has_state(agent))
            if learner.entropy_falls:
                hooks.append(EntropyCallback(settings.entropy, settings.total_steps))
            if progress:
                hooks.append(ProgressCallback(settings.total_steps))
            hooks += more_callbacks
            if learner.algorithm.off_policy:
                hooks.append(DumpCallback())
            drop_events(folder, agent.num_timesteps + 1 if resumed else 0)
            agent.set_logger(configure(str(folder), ["tensorboard"]))
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


def _paid(settings: PolicySettings, latency: Latency | None) -> str | Latency:
    """What is paid for: a kind of cost, or measured time."""
    if settings.cost != "latency":
        return settings.cost
    if latency is None:
        raise RLPruneError("the cost is latency, but none is given; Latency.measure(elastic) makes a table")
    return latency


def _make_worlds(
    elastic: ElasticCNN,
    sets: Sequence[ImageSet],
    settings: PolicySettings,
    learner: Learner,
    codebook: Tensor | None,
    paid: str | Latency,
    logit_caches: Sequence[LogitCache] | None,
    own: Own,
) -> list[World]:
    """A world for each set of images, all under the same rules; observations are standardised on the first set."""
    penalties = PenaltyRange.of(settings.penalty_range) if settings.penalty_range else None
    observer = Observer.fit(
        elastic,
        sets[0],
        max_passes=settings.max_passes,
        pool=settings.pool,
        combine=settings.combine,
        penalties=penalties,
        observation=own.observation,
    )
    actions = Actions.from_network(elastic, settings.action, codebook, settings.max_passes)
    params, macs = _decision_cost(learner.sizes(observer.fixed().size, actions.n_outputs, settings))
    policy_cost = params + observer.cost[0], macs + observer.cost[1]
    return [
        World(
            elastic,
            images,
            codebook=codebook,
            observer=observer,
            logit_cache=logit_cache,
            action=settings.action,
            max_passes=settings.max_passes,
            combine=settings.combine,
            penalty=settings.penalty_range or settings.penalty,
            cost=paid,
            control_variate=settings.control_variate and own.reward is None,
            reward=own.reward,
            policy_cost=policy_cost,
        )
        for images, logit_cache in zip(sets, logit_caches or (None, None), strict=True)
    ]


def _decision_cost(sizes: Sequence[int]) -> tuple[int, int]:
    """Parameters and MACs of linear layers between these widths."""
    weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    return weights + sum(sizes[1:]), weights


def _resume_agent(
    folder: Path, env: VecMonitor, settings: PolicySettings, made_of: str, learner: Learner
) -> BaseAlgorithm:
    """The agent of a checkpoint, if it was trained on the same things."""
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
    if not has_state(agent) and agent.num_timesteps < settings.total_steps:
        print(f"{checkpoint} is of an earlier rlprune: the run goes on, but not exactly as if it had not stopped")
        agent._last_obs = None  # its episodes begin anew
        agent.set_random_seed((settings.seed + agent.num_timesteps) % 2**32)  # or it would draw the first images again
    return agent


def _make_callbacks(
    worlds: Sequence[World],
    folder: Path,
    settings: PolicySettings,
    described: dict[str, Any],
    save: Callable[[dict[str, float]], None],
    *,
    exact: bool,
) -> list[BaseCallback]:
    """What logs, validates and saves during training; the first world is trained in, the second validates.

    `exact` says whether the agent has a state to go on from.
    """
    train_world, validation_world = worlds
    return [
        FiniteCallback(),  # before those that save
        FiguresCallback(train_world),
        ValidationCallback(validation_world, settings.validate_every, settings.total_steps, described, save),
        ResumeCheckpointCallback(folder / CHECKPOINT, settings.validate_every, resumed=exact),
    ]


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
