"""Learn a per-image pruning policy for a network and data of your own. Copy this file and change what is yours.

    python examples/train_policy.py --data cifar10 --model resnet20 --weights resnet20.safetensors
    python examples/train_policy.py --data path/to/class_folders --model my_package.nets:make_net --epochs 30

It does what the verbs adapt, train, evaluate and export of the command line do, with the objects in reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import tyro
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

import rlprune
from rlprune import AdaptSettings, ElasticCNN, adapt, data, evaluate, models, save_bundle
from rlprune.agents import KeepRatioVecEnv, extract_policy
from rlprune.envs import World
from rlprune.evaluation import tables
from rlprune.profiles.search import choose_codebook, search_profiles


@dataclass(frozen=True)
class Settings:
    """What to train on, and how long."""

    data: str
    """A data set by name, a folder of class folders, a parquet file, or package.module:callable."""
    model: str
    """A network by name, or package.module:callable that returns one with its weights."""
    weights: Path | None = None
    """Its weights, safetensors or a state dict."""
    epochs: int = 10
    """Epochs of adaptation."""
    flip: bool = True
    """Mirror training images at random; wrong for digits."""
    candidates: int = 64
    """Static profiles to try, for the codebook and as a control."""
    penalty: float = 0.1
    """Price of running the whole network once, in units of a right answer."""
    steps: int = 200_000
    """Decisions to learn the policy from."""
    out: Path = Path("runs/example")
    """Folder for the bundle and TensorBoard's events."""


def main(settings: Settings) -> None:
    """Adapt, learn, measure, export."""
    # 1. Images in four parts: for the network, for the policy, for choosing, for measuring.
    splits = data.load(settings.data)
    image_shape = splits.network.images.shape[1:]

    # 2. A pretrained network becomes elastic, and its slices learn to be accurate.
    model = models.build(settings.model, len(splits.network.classes), image_shape[0])
    if settings.weights is not None:
        models.load_weights(model, settings.weights)
    network = ElasticCNN.from_model(model, image_shape)
    adapt(network, splits.network, AdaptSettings(epochs=settings.epochs, flip=settings.flip))

    # 3. A few good profiles make up the codebook from which the policy chooses.
    codebook = choose_codebook(network, search_profiles(network, splits.policy, settings.candidates), n_profiles=6)

    # 4. The world: a cheap pass first, then the policy accepts or runs another. PPO learns when.
    rules = {"action": "profiles", "codebook": codebook, "max_passes": 2, "penalty": settings.penalty}
    check = gymnasium.make("rlprune.envs:rlprune/KeepRatio-v0", network=network, data=splits.policy, **rules)
    print(f"observations {check.observation_space}\nactions {check.action_space}")
    world = World(network, splits.policy, control_variate=True, **rules)
    agent = PPO(
        "MlpPolicy",
        VecMonitor(KeepRatioVecEnv(world, n_envs=256)),
        n_steps=8,
        batch_size=512,
        n_epochs=4,
        gamma=1.0,
        ent_coef=0.005,
        learning_rate=lambda left: 1e-3 * max(left, 0.0),
        tensorboard_log=str(settings.out),
        seed=0,
    )
    agent.learn(settings.steps, progress_bar=True)

    # 5. Out of the learner, into a bundle; measured on images that nothing has seen.
    policy = extract_policy(agent, world)
    save_bundle(settings.out / "bundle", network, policy, splits.network, {"penalty": settings.penalty})
    dynamic = rlprune.load(settings.out / "bundle")
    results = evaluate(dynamic, splits.test, splits.policy, dense=model.eval(), n_candidates=settings.candidates)
    Console().print(tables.evaluation(results))


if __name__ == "__main__":
    main(tyro.cli(Settings))
