"""Draw environment.png: an episode as the environment shows it, played by the ResNet-20 bundle's policy on CIFAR-10.

RLPRUNE_ASSETS=... python docs/pictures/environment.py    (a folder that holds data/cifar10)
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

import rlprune
from rlprune.envs import KeepRatioEnv

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "runs" / "reference" / "resnet20" / "bundle"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
N_COLOURS = 128
PENALTY = 0.07
"""The bundle's own, which its policy was learnt with."""


def play(env: KeepRatioEnv, policy: torch.nn.Module, image: int) -> bool:
    """Play one episode; whether the first answer was wrong, and the last one is right."""
    observation, _ = env.reset(options={"image": image})
    answers, terminated = [], False
    while not terminated:
        with torch.no_grad():
            profile, accept = policy(torch.from_numpy(observation)[None])
        action = len(policy.codebook) if accept else int(profile)
        observation, _, terminated, _, info = env.step(action)
        answers.append(info["accuracy"])
    return answers[0] < answers[-1]


def main() -> None:
    """The first image on which looking again pays, with an image before it."""
    model = rlprune.load(BUNDLE)
    data = rlprune.data.load(Path(os.environ["RLPRUNE_ASSETS"]) / "data" / "cifar10").test
    policy = model.policy
    env = KeepRatioEnv(
        model.elastic,
        replace(data.prepared_for(model), classes=CLASSES),
        action="profiles",
        codebook=model.codebook,
        max_passes=policy.observer.max_passes,
        combine=policy.observer.combine,
        penalty=PENALTY,
        observer=policy.observer,
        render_mode="rgb_array",
    )
    found = next(image for image in range(len(data)) if play(env, policy, image))
    play(env, policy, 0)
    play(env, policy, found)
    picture = Image.fromarray(env.render()).quantize(N_COLOURS, dither=Image.Dither.NONE)
    picture.save(HERE / "environment.png", optimize=True)


if __name__ == "__main__":
    main()
