"""Search settings of PPO with Optuna, on the environment made of plain values. `pip install optuna`.

    python examples/clients/optuna_search.py --network runs/digits/network --data mnist5k --trials 20

Agents learn on the images for the policy; the validation images, each once, say which settings are best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import make_world, run_sweep


@dataclass(frozen=True)
class Settings:
    """What is searched, and for how long."""

    network: str = "runs/digits/network"
    """Folder that rlprune adapt, or export, wrote."""
    data: str = "mnist5k"
    """Images, as rlprune.data.load takes them."""
    penalty: float = 0.3
    """Price of running the whole network once, in right answers."""
    steps: int = 20_000
    """Decisions that each trial learns from."""
    n_envs: int = 64
    """Environments at once."""
    trials: int = 20
    """How many settings are tried."""
    seed: int = 0
    """Of agents and search."""


def search(settings: Settings) -> optuna.Study:
    """Try so many settings; the study's best trial has the largest reward on the validation images."""
    rules: dict[str, Any] = {"action": "profiles", "max_passes": 2, "penalty": settings.penalty, "pool": 0}
    named = (settings.network, settings.data)
    world = make_world(*named, split="policy", control_variate=True, **rules)
    validation = make_world(*named, split="validation", **rules)

    def objective(trial: optuna.Trial) -> float:
        agent = PPO(
            "MlpPolicy",
            VecMonitor(KeepRatioVecEnv(world, settings.n_envs)),
            gamma=1.0,
            n_steps=8,
            n_epochs=4,
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            ent_coef=trial.suggest_float("ent_coef", 1e-4, 0.1, log=True),
            seed=settings.seed,
        ).learn(settings.steps)
        swept = run_sweep(validation, lambda observed: np.asarray(agent.predict(observed, deterministic=True)[0]))
        return swept.summary()["reward"]

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
    study.optimize(objective, n_trials=settings.trials)
    return study


def main(settings: Settings) -> list[float]:
    """Search, and say what was best; the reward of every trial."""
    study = search(settings)
    print(f"best reward on the validation images: {study.best_value:.3f}, with {study.best_params}")
    return [float(trial.value) for trial in study.trials if trial.value is not None]


if __name__ == "__main__":
    main(tyro.cli(Settings))
