"""Training the policy: PPO on the batched environment, resumable."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from rlprune.agents.callbacks import (
    EntropyCallback,
    FiguresCallback,
    ProgressCallback,
    ResumeCheckpointCallback,
    ValidationCallback,
)
from rlprune.agents.extract import extract_policy
from rlprune.agents.settings import PolicySettings
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.agents.warm_start import CHECKPOINT, NOTES, warm_start
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.policies import load_policy, save_policy
from rlprune.utils.files import write_json

_PPO_ARGUMENTS = [name for name in inspect.signature(PPO).parameters if name not in ("policy", "env")]


def train_policy(
    elastic: ElasticCNN,
    data: ImageSet,
    validation: ImageSet,
    folder: Path,
    settings: PolicySettings | None = None,
    *,
    codebook: Tensor | None = None,
    latency: Latency | None = None,
    start: Path | None = None,
    resume: bool = False,
    answers: Sequence[LogitCache] | None = None,
    ppo: dict[str, Any] | None = None,
    progress: bool = True,
) -> Policy:
    """Learn which profile each image needs.

    Args:
        elastic: the adapted network; its weights do not change.
        data: images that did not train it.
        validation: further images, on which progress is measured.
        folder: gets TensorBoard's event files, the checkpoint, and the policy in `policy/`.
        settings: what for and how; the defaults if None.
        codebook: int64 (K, G) profiles, cheapest first; uniform ones if None. For `profiles` only.
        latency: the network's, where that is what is paid for.
        start: folder of a training to take the agent's weights from, such as that of a higher penalty: a cascade that
            is found where compute is dear survives where it is cheap, but is seldom found there.
        resume: go on from the folder's checkpoint instead of starting anew.
        answers: the network's under these profiles, on both sets of images, so that several trainings share them.
        ppo: further arguments of Stable-Baselines3's PPO; they go before the settings, but the widths are `hidden`'s.
        progress: show a progress bar.

    Returns:
        The policy at the end of training.

    Raises:
        RLPruneError: a checkpoint is there but not asked to be resumed, or it has other settings; or settings that
            cannot be; or there is no run to start from, or it sees or chooses other things.
    """
    settings = PolicySettings() if settings is None else settings
    check_run(folder, settings, resume=resume, ppo=ppo)
    if settings.cost == "latency" and latency is None:
        raise RLPruneError("the cost is latency, but none is given; Latency.measure(elastic) makes a table")
    paid = latency if settings.cost == "latency" and latency is not None else settings.cost
    checkpoint, notes, described = folder / CHECKPOINT, folder / NOTES, _described(settings, ppo)
    if codebook is None and settings.action == "profiles":
        codebook = uniform_codebook(elastic, Cost(elastic))
    penalties = PenaltyRange.of(settings.penalty_range) if settings.penalty_range else None
    observer = Observer.fit(
        elastic,
        data,
        max_passes=settings.max_passes,
        pool=settings.pool,
        combine=settings.combine,
        penalties=penalties,
    )
    actions = Actions.from_network(elastic, settings.action, codebook, settings.max_passes)
    worlds = [
        World(
            elastic,
            images,
            action=settings.action,
            codebook=codebook,
            max_passes=settings.max_passes,
            combine=settings.combine,
            penalty=settings.penalty_range or settings.penalty,
            cost=paid,
            control_variate=settings.control_variate,
            policy_cost=_decision_cost((observer.fixed().size, *settings.hidden, actions.n_outputs)),
            observer=observer,
            answers=kept,
        )
        for images, kept in zip((data, validation), answers or (None, None), strict=True)
    ]
    env = VecMonitor(KeepRatioVecEnv(worlds[0], settings.n_envs))
    made_of = _fingerprint(elastic, data, codebook, start)
    resumed = resume and checkpoint.exists()
    if resumed and json.loads(notes.read_text()).get("made_of") != made_of:
        raise RLPruneError(
            f"{checkpoint} was trained on another network, other images or another codebook, or from another start"
        )
    if resumed:
        agent = _load(checkpoint, env)
        agent.set_random_seed(settings.seed + agent.num_timesteps)  # or it would draw the first images once more
    else:
        agent = _agent(env, settings, ppo or {})
        if start is not None:
            warm_start(agent, start, described, codebook)
        write_json(notes, described | {"made_of": made_of})

    def keep(figures: dict[str, float]) -> None:
        metadata = {"settings": described, "validation": figures, "steps": agent.num_timesteps}
        save_policy(folder / "policy", extract_policy(agent, worlds[0]), metadata)

    bar = ProgressCallback(settings.total_steps)
    callbacks = [
        FiguresCallback(worlds[0]),
        ValidationCallback(worlds[1], settings.validate_every, described, keep),
        ResumeCheckpointCallback(checkpoint, settings.validate_every),
        *([] if "ent_coef" in (ppo or {}) else [EntropyCallback(settings.entropy, settings.total_steps)]),
        *([bar] if progress else []),
    ]
    remaining = settings.total_steps - agent.num_timesteps
    if remaining > 0:
        agent.set_logger(configure(str(folder), ["tensorboard"]))
        try:
            agent.learn(remaining, CallbackList(callbacks), reset_num_timesteps=not resumed)
        except TypeError as error:
            if ppo:
                raise RLPruneError(f"Stable-Baselines3's PPO cannot train with {ppo}: {error}") from error
            raise
        finally:
            bar.close()
    return load_policy(folder / "policy").policy


def check_run(
    folder: Path, settings: PolicySettings, *, resume: bool = False, ppo: dict[str, Any] | None = None
) -> None:
    """Make sure that training may write to a folder; the arguments are those of `train_policy`.

    Raises:
        RLPruneError: a checkpoint is there but not asked to be resumed, or it has other settings; or PPO has no such
            arguments.
    """
    layers = (ppo or {}).get("policy_kwargs", {})
    if "net_arch" in layers:
        raise RLPruneError(
            "ppo has a net_arch; give the widths as hidden, because what a decision costs depends on them"
        )
    unknown = [key for key in ppo or {} if key not in _PPO_ARGUMENTS]
    if unknown:
        raise RLPruneError(f"PPO has no argument {unknown[0]!r}; allowed: {', '.join(_PPO_ARGUMENTS)}")
    checkpoint, notes, described = folder / CHECKPOINT, folder / NOTES, _described(settings, ppo)
    if not checkpoint.exists():
        return
    if not resume:
        raise RLPruneError(f"{checkpoint} is from an earlier run; resume it, or name another folder")
    before = {"penalty_range": []} | json.loads(notes.read_text()) if notes.exists() else {}  # once there was no range
    changed = [key for key in described if before.get(key) != described[key]]
    if changed:
        raise RLPruneError(f"{checkpoint} was trained under other settings ({', '.join(changed)}); go back to those")


def _described(settings: PolicySettings, ppo: dict[str, Any] | None) -> Any:
    return json.loads(json.dumps(asdict(settings) | {"ppo": repr(ppo or {})}))


def _fingerprint(elastic: ElasticCNN, data: ImageSet, codebook: Tensor | None, start: Path | None) -> str:
    """Tells weights, images, codebooks and beginnings apart."""
    digest = hashlib.sha256()
    if start is not None and (start / CHECKPOINT).exists():
        digest.update((start / CHECKPOINT).read_bytes())
    for tensor in (
        *elastic.state_dict().values(),
        data.labels,
        data.images[:256],
        *(() if codebook is None else (codebook,)),
    ):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _decision_cost(sizes: Sequence[int]) -> tuple[int, int]:
    """Parameters and multiply-adds of linear layers between these widths."""
    weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    return weights + sum(sizes[1:]), weights


def _agent(env: VecMonitor, settings: PolicySettings, ppo: dict[str, Any]) -> PPO:
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
    layers = dict(ppo.get("policy_kwargs", {}))
    if "net_arch" in layers:
        raise RLPruneError(
            "ppo has a net_arch; give the widths as hidden, because what a decision costs depends on them"
        )
    arguments |= ppo | {"policy_kwargs": {"net_arch": list(settings.hidden)} | layers}
    try:
        return PPO("MlpPolicy", env, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise RLPruneError(f"Stable-Baselines3's PPO does not take {ppo or settings}: {error}") from error


def _load(checkpoint: Path, env: VecMonitor) -> PPO:
    try:
        return PPO.load(checkpoint, env=env, device="cpu")
    except Exception as error:  # whatever unpickling a damaged file comes to
        raise RLPruneError(
            f"{checkpoint} cannot be resumed ({type(error).__name__}: {error}); remove it to start anew"
        ) from error
