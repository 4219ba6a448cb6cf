"""One image at a time: the Gymnasium environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.envs.making import CodebookLike, DataLike, NetworkLike, make_world
from rlprune.envs.running.single import single
from rlprune.envs.screen import RENDERING, Screen, check_render_mode
from rlprune.policies.actions import ActionKind
from rlprune.policies.observations import Observer
from rlprune.profiles.latency import Latency


class KeepRatioEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """Choose the keep ratio of every channel group of a CNN for one image.

    ## Description
    A pretrained network can run with any share of its channels. Each episode shows one image; each step chooses how
    much of the network it runs through. Right answers are worth 1, compute has a price.

    ## Action space
    | `action` | space | meaning |
    |---|---|---|
    | `levels` | `MultiDiscrete` | for each group a keep level, counted from the lowest that the group may have |
    | `ratios` | `Box(-1, 1)` | for each group a keep ratio, from the lowest (-1) to all (1); the nearest level counts |
    | `profiles` | `Discrete` | one profile of the codebook, which holds a level for every group |

    With `max_passes` > 1 the agent may run the network again. An action then also says if the prediction at hand is
    accepted: one more entry for `levels` (0 no, 1 yes) and `ratios` (above 0 is yes), one more value for `profiles`
    (the last). Before the first pass there is nothing to accept, so that part is ignored; for `profiles` it means 0.
    To choose the profile that has just run is to accept, too: it would only give the same logits again. The prediction
    at hand is the last pass's; with `combine`, it is made from the logits of all passes so far.

    ## Observation space
    `Box`, float32 (D,):
    | entries | what | min | max |
    |---|---|---|---|
    | F * pool * pool | stem features (F channels) averaged over pool x pool cells, standardised, clipped | -10 | 10 |
    | min(classes, 10) | largest class probabilities at hand, falling; 0 before the first pass | 0 | 1 |
    | 1 | their entropy over its maximum; 0 before the first pass | 0 | 1 |
    | 1 | margin m between the two largest logits, as m / (m + 4); 0 before the first pass | 0 | 1 |
    | 1 | MACs of the passes so far over the dense network's, over 2 * `max_passes` | 0 | 1 |
    | 1 | passes so far over `max_passes` | 0 | 1 |
    | 1 | where the episode's penalty lies in its range, by logarithm; only if there is a range | 0 | 1 |

    ## Rewards
    Every step costs `penalty * active / total`: what it ran, every pass and the policy included, over the dense
    network's parameters or MACs. The penalty is fixed, or drawn for every episode from a range, evenly by
    logarithm: one policy then learns them all. The last step adds 1 if the prediction is right; with `control_variate`,
    minus 1 if the whole network is right on that image. That does not depend on the action: less noise, same optimum.

    ## Starting state
    An image drawn uniformly with the environment's generator; `reset(options={"image": 7})` takes number 7. Where
    there is a range of penalties, `options={"penalty": 0.1}` takes that one, with or without an image.

    ## Episode end
    `terminated` when a prediction is accepted or `max_passes` passes are made; `truncated` never. Discount with 1.

    ## Information
    `image`, `label`, `prediction`, `accuracy` (0 or 1, of the prediction that stands), `active_params` and
    `active_macs` (of this step, over the dense network's), `passes`, `keep_ratios` (per group; NaN if it accepted);
    in the last step also `is_success`, whether the prediction is right.

    ## Rendering
    The image; for each pass a bar per channel group, as high as its keep ratio, and the MACs it took; the likeliest
    classes against the label; compute so far, where a mark is the whole network's; the last step's reward and the
    episode's; below, the episode before. `metadata["render_fps"]` is 2.

    Args:
        network: a folder with a network or a bundle, or the elastic network itself; used in eval mode.
        data: images that did not train it: what `rlprune.data.load` takes, alone or in a table with other options of
            `rlprune.intake.options.DataOptions`; or an image set. Named images are divided and prepared as the network
            in the folder was trained.
        split: which part of named images is shown: `policy` (if None), `validation`, `test` or `network`.
        action: kind of the action space.
        codebook: int64 (K, G) profiles, cheapest first, at most 16, for `profiles`; or a run folder, a policy, a bundle
            or a file of JSON that has them. If None, the bundle's, or what the network is specialised to, or uniform
            ones.
        max_passes: 1 to 3.
        combine: weight of the logits before a pass, where the pass's own is 1 (`rlprune.policies.observations`).
        penalty: price of compute, λ >= 0; or the lowest and the highest of a range, above 0.
        cost: what is paid for: `params`, `macs`, or time, as a `rlprune.profiles.latency.Latency` has measured it, or
            the file or run folder of one.
        control_variate: subtract the whole network's own correctness from the reward.
        reward: in place of the default one, an own one: an object, `"module:Class"`, or
            `{"class": "module:Class", "settings": {...}}` (`rlprune.envs.rewards.Reward`).
        policy_cost: parameters and MACs of one decision, paid for at every step.
        observer: what builds observations; if None, fitted to `data`, where that is divided to its part `policy`.
        pool: cells per side of the grid that stem features are averaged over, if there is no observer.
        observation: in place of the default one, an own one, given likewise (`rlprune.policies.protocol.Observation`).
        render_mode: None, `rgb_array` (`render` returns a picture, uint8 (480, 640, 3)), or `human` (a window follows
            the episodes; needs pygame).

    Raises:
        RLPruneError: an argument is of another kind than is allowed, or does not fit the others.

    ## Version history
    - v0: initial release.
    """

    metadata = RENDERING

    def __init__(
        self,
        network: NetworkLike | None = None,
        data: DataLike | None = None,
        *,
        split: str | None = None,
        action: ActionKind = "levels",
        codebook: CodebookLike | None = None,
        max_passes: int = 1,
        combine: float = 0.0,
        penalty: float | Sequence[float] = 0.3,
        cost: str | os.PathLike[str] | Latency = "macs",
        control_variate: bool = False,
        reward: Any = None,
        policy_cost: tuple[int, int] = (0, 0),
        observer: Observer | None = None,
        pool: int = 2,
        observation: Any = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.world = make_world(
            network,
            data,
            split=split,
            action=action,
            codebook=codebook,
            max_passes=max_passes,
            combine=combine,
            penalty=penalty,
            cost=cost,
            control_variate=control_variate,
            reward=reward,
            policy_cost=policy_cost,
            observer=observer,
            pool=pool,
            observation=observation,
        )
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space
        self._screen = Screen(self.world, self.render_mode)
        self._single = single(self.world, self._screen)
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode with a new image.

        Args:
            seed: of the generator that draws images.
            options: `image`, the index of one, and, where there is a range, `penalty`; what is missing is drawn.

        Raises:
            RLPruneError: no such image, or no such penalty.
        """
        if options is not None:
            self.world.check_options(options)
        super().reset(seed=seed)
        image, penalty = self.world.draw(self.np_random)
        if options:
            image, penalty = self.world.check_start({"image": image, "penalty": penalty} | options)
        if seed is not None:
            self._screen.forget()
        self._running = True
        return self._single.begin(image, penalty)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run the network as the action says, or accept the prediction at hand.

        Raises:
            ResetNeeded: no episode is under way.
            LevelsError: an action of another type or shape, or outside the action space.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("call reset() before step(), also after an episode has ended")
        observation, reward, terminated, info = self._single.step(action)
        self._running = not terminated
        return observation, reward, terminated, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense, bool (choices,), those of all entries side by side.

        All do, but to accept a prediction before the first pass.

        Raises:
            LevelsError: ratios are no choices.
        """
        passes = torch.tensor([self._single.passes if self._running else 0])
        return self.world.actions.masks(passes)[0].numpy()

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The episode as a picture, uint8 (480, 640, 3), if the mode is `rgb_array`; `human` shows it in a window.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        frames = self._screen.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the window, if there is one."""
        self._screen.close()
