"""Training the policy: PPO on the batched environment, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from rlprune import startup
from rlprune.agents.callbacks import (
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
    check_run,
    check_run_folder,
    described_in_notes,
    extensions_in_notes,
    extensions_of,
    read_notes,
    total_steps,
)
from rlprune.agents.settings import PolicySettings
from rlprune.agents.tracking.events import event_logger
from rlprune.agents.tracking.mirror import tracked
from rlprune.agents.tracking.trackers import TrackerName, check_tracker
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.agents.warm_start import CHECKPOINT, NOTES, warm_start, write_in_checkpoints
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.world import World
from rlprune.errors import OutOfMemoryError, RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
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
    ppo: dict[str, Any] | None = None,
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
        ppo: further arguments of Stable-Baselines3's PPO, which override the settings; the widths are always `hidden`.
        progress: show a progress bar.

    Returns:
        The policy at the end of training.

    Raises:
        InUseError: another process trains into the folder.
        MissingExtraError: the tracker's package is not installed.
        NotFiniteError: the network's logits are not finite, or the policy's weights become so, and training stops.
        RLPruneError: the folder has a checkpoint, and `resume` is False or the checkpoint was made under other settings
            or from another network, images, codebook or start; or PPO does not take the settings; or there is no run to
            start from, or the policy of that run sees or chooses other things; or there is no finished run to extend;
            or the tracker has no such run.
    """
    folder = Path(folder)
    start = None if start is None else Path(start)
    settings = PolicySettings() if settings is None else settings
    check_run_folder(folder)
    check_tracker(track)
    with hold(folder, inside=True):
        check_run(folder, settings, resume=resume, ppo=ppo, extend=extend)
        if codebook is None and settings.action == "profiles":
            codebook = uniform_codebook(elastic, Cost(elastic))
        paid = _paid(settings, latency)
        worlds = _make_worlds(elastic, (data, validation), settings, codebook, paid, logit_caches)
        env = VecMonitor(KeepRatioVecEnv(worlds[0], settings.n_envs))
        described = described_in_notes(settings, ppo)
        made_of = _made_of(elastic, data, codebook, start)
        worlds[0].check_logits()
        resumed = (resume or extend is not None) and (folder / CHECKPOINT).exists()
        extensions = extensions_of(folder, settings, extend, resume=resume) if resumed else []
        total = total_steps(settings, extensions)
        notes = described | {"made_of": made_of} | extensions_in_notes(extensions)
        if resumed:
            agent = _resume_agent(folder, env, settings.seed, total, made_of, ppo or {})
        else:
            agent = _make_agent(env, settings, ppo or {})
            if start is not None:
                warm_start(agent, start, described, codebook)
        write_in_checkpoints(agent, notes)
        if agent.num_timesteps < total:
            _note(folder, agent, notes, extensions)

        def save(figures: dict[str, float]) -> None:
            metadata = {"settings": described, "validation": figures, "steps": agent.num_timesteps}
            metadata |= extensions_in_notes(extensions)
            save_policy(folder / "policy", extract_policy(agent, worlds[0]), metadata)

        remaining = total - agent.num_timesteps
        if remaining > 0:
            agent.set_logger(event_logger(folder, agent.num_timesteps + 1 if resumed else 0))
        with tracked(folder, track, notes, anew=not resumed) as saved:
            if remaining > 0:
                checkpoints = ResumeCheckpointCallback(
                    folder / CHECKPOINT, settings.validate_every, resumed=has_state(agent), saved=saved
                )
                callbacks = _make_callbacks(worlds, settings, total, described, save, checkpoints)
                if "ent_coef" not in (ppo or {}):
                    callbacks.append(EntropyCallback(settings.entropy, total))
                if progress:
                    callbacks.append(ProgressCallback(total))
                _learn(agent, remaining, callbacks, resumed=resumed, ppo=ppo)
        return load_policy(folder / "policy").policy


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
    codebook: Tensor | None,
    paid: str | Latency,
    logit_caches: Sequence[LogitCache] | None,
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
    )
    actions = Actions.from_network(elastic, settings.action, codebook, settings.max_passes)
    policy_cost = _decision_cost((observer.fixed().size, *settings.hidden, actions.n_outputs))
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
            control_variate=settings.control_variate,
            policy_cost=policy_cost,
        )
        for images, logit_cache in zip(sets, logit_caches or (None, None), strict=True)
    ]


def _decision_cost(sizes: Sequence[int]) -> tuple[int, int]:
    """Parameters and MACs of linear layers between these widths."""
    weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    return weights + sum(sizes[1:]), weights


def _make_agent(env: VecMonitor, settings: PolicySettings, ppo: dict[str, Any]) -> PPO:
    arguments: dict[str, Any] = {
        "learning_rate": lambda left: settings.learning_rate * max(left, 0.0),
        "n_steps": settings.n_steps,
        "batch_size": settings.batch_size,
        "n_epochs": settings.n_epochs,
        "gamma": 1.0,  # episodes have one to three steps; the reward is their plain sum
        "ent_coef": settings.entropy,
        "stats_window_size": max(100, settings.n_envs * settings.n_steps),
        "seed": settings.seed,
        "device": "cpu",
    }
    arguments |= ppo
    arguments["policy_kwargs"] = {"net_arch": list(settings.hidden)} | ppo.get("policy_kwargs", {})
    try:
        return PPO("MlpPolicy", env, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise RLPruneError(f"Stable-Baselines3's PPO does not take {ppo or settings}: {error}") from error


def _resume_agent(folder: Path, env: VecMonitor, seed: int, total: int, made_of: str, ppo: dict[str, Any]) -> PPO:
    """The agent of a checkpoint, if it was trained on the same things, to be trained up to so many steps."""
    checkpoint = folder / CHECKPOINT
    if read_notes(folder).get("made_of") != made_of:
        raise RLPruneError(
            f"{checkpoint} was trained on another network, other images or another codebook, or from another start; "
            "go back to those, or name another folder"
        )
    try:
        with memory_for(f"reading {checkpoint}", "it stays: give the same command again where there is more"):
            agent = PPO.load(checkpoint, env=env, device=ppo.get("device", "cpu"), force_reset=False)
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


def _note(folder: Path, agent: PPO, notes: dict[str, Any], extensions: Sequence[Extension]) -> None:
    """Write down what a training is begun with, or an extension of it, which the checkpoint has first."""
    if extensions and extensions[-1].begun_at == agent.num_timesteps:
        save_agent(agent, folder / CHECKPOINT)
    if read_note(folder / NOTES) != notes:
        write_json(folder / NOTES, notes)


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


def _learn(
    agent: PPO, n_steps: int, callbacks: list[BaseCallback], *, resumed: bool, ppo: dict[str, Any] | None
) -> None:
    """Train for some further steps."""
    try:
        with startup.finishing():
            agent.learn(n_steps, CallbackList(callbacks), reset_num_timesteps=not resumed)
    except ValueError as error:  # of torch's distributions, in the midst of an update
        if not_finite_in(agent.policy) is None:
            raise
        raise policy_not_finite(agent) from error
    except TypeError as error:
        if ppo:
            raise RLPruneError(f"Stable-Baselines3's PPO cannot train with {ppo}: {error}") from error
        raise
    finally:
        for callback in callbacks:
            if isinstance(callback, ProgressCallback):
                callback.close()
        agent.logger.close()
