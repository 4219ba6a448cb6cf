"""What happens during training: figures for TensorBoard, validation sweeps, checkpoints.

`rlprune.agents.tracking.tags` says what each figure means.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Image
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlprune import startup
from rlprune.agents.algorithms.masks import greedy
from rlprune.agents.resume import keep_state, restore_state, save_agent
from rlprune.envs.sweep import Sweep, run_sweep
from rlprune.envs.world import World
from rlprune.errors import NotFiniteError
from rlprune.evaluation.image_strips import spending_strip
from rlprune.utils.finite import not_finite_in
from rlprune.utils.progress import counting_bar
from rlprune.utils.timing import Deadline


class ProgressCallback(BaseCallback):
    """A progress bar over environment steps, those of an earlier, interrupted run included."""

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.bar: Any = None

    def _on_training_start(self) -> None:
        self.bar = counting_bar(self.total_steps, initial=self.num_timesteps, desc="train", unit="step")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert self.bar is not None
        self.bar.update(min(self.num_timesteps, self.total_steps) - self.bar.n)

    def close(self) -> None:
        """End the bar's line, also where training ended early, so that the next output starts a new one."""
        if self.bar is not None:
            self.bar.close()


class DeadlineCallback(BaseCallback):
    """Leaves rollouts out where not all fit before a deadline: what falls over the training falls faster, to its end.

    Args:
        deadline: when training has to be done.
        total_steps: environment steps of the whole training, those of an earlier run included.
    """

    def __init__(self, deadline: Deadline, total_steps: int) -> None:
        super().__init__()
        self.deadline = deadline
        self.total_steps = total_steps

    def _on_training_start(self) -> None:
        self.before = self.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        n_here = max(self.num_timesteps - self.before, 1)  # environments that step together
        n_left, n_all = (-(-n // n_here) for n in (self.total_steps - self.num_timesteps, self.total_steps))
        if n_left > 0:
            self.model.num_timesteps += n_here * (self.deadline.stride(n_left, n_all) - 1)
        self.before = self.num_timesteps = self.model.num_timesteps


class FiniteCallback(BaseCallback):
    """Ends training once the policy's weights are not finite, before anything is saved of it."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._check()

    def _on_training_end(self) -> None:
        self._check()

    def _check(self) -> None:
        if not_finite_in(self.model.policy) is not None:
            raise policy_not_finite(self.model)


def policy_not_finite(agent: BaseAlgorithm) -> NotFiniteError:
    """What to say of an agent whose weights hold NaN."""
    return NotFiniteError(
        f"training stopped: the policy's loss is not finite, after {agent.num_timesteps} steps; a lower learning_rate, "
        f"or further arguments of {type(agent).__name__} other than those given, may help; the last checkpoint, if "
        "there is one, stays"
    )


class EntropyCallback(BaseCallback):
    """Lets the entropy bonus fall linearly to zero over all steps of training.

    It has to be large at first: as long as second passes are chosen at random, an expensive profile for all images pays
    more than a cheap one with second passes.
    """

    def __init__(self, entropy: float, total_steps: int) -> None:
        super().__init__()
        self.entropy = entropy
        self.total_steps = total_steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        cast(PPO, self.model).ent_coef = self.entropy * max(0.0, 1 - self.num_timesteps / self.total_steps)


class DumpCallback(BaseCallback):
    """Writes the figures of each rollout, as the algorithms that learn from rollouts do by themselves.

    Those that learn from a replay buffer write every few episodes, which are many times a step where many run at once.
    """

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        cast(OffPolicyAlgorithm, self.model).dump_logs()


class FiguresCallback(BaseCallback):
    """Logs what the policy does, averaged over each rollout."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def _on_rollout_start(self) -> None:
        self.logger.dump(self.num_timesteps)  # what the update after the last rollout recorded
        self.infos: list[dict[str, Any]] = []
        self.n_done = 0
        self.n_correct = 0.0
        self.n_passes = 0

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        dones = self.locals["dones"]
        self.infos += infos
        for info in (info for info, done in zip(infos, dones, strict=True) if done):
            self.n_done += 1
            self.n_correct += info["accuracy"]
            self.n_passes += info["passes"]
        return True

    def _on_rollout_end(self) -> None:
        ratios = np.stack([info["keep_ratios"] for info in self.infos])
        ratios = ratios[~np.isnan(ratios[:, 0])]  # not those that accepted
        if len(ratios):
            for group, ratio in zip(self.world.network.groups, ratios.mean(0), strict=True):
                self.logger.record(f"keep/{group.name}", float(ratio))
            self.logger.record("policy/distinct_profiles", len(np.unique(ratios, axis=0)))
        if self.n_done:
            for key in ("active_params", "active_macs"):
                self.logger.record(f"policy/{key}", sum(info[key] for info in self.infos) / self.n_done)
            self.logger.record("policy/accuracy", self.n_correct / self.n_done)
            self.logger.record("policy/passes", self.n_passes / self.n_done)

    def _on_training_end(self) -> None:
        self.logger.dump(self.num_timesteps)


class ValidationCallback(BaseCallback):
    """Sweeps the validation split at intervals.

    The sweeps choose nothing: policies differ by less than a validation split of some hundred images can tell, so the
    best of many would be a lucky one. The learning rate falls to zero, and the last policy is the result.

    Args:
        world: the validation images under the same rules.
        every: environment steps between sweeps.
        total_steps: environment steps of the whole training, after which there is a last sweep.
        settings: shown as hyperparameters.
        save: called with the figures of each sweep.
    """

    def __init__(
        self,
        world: World,
        every: int,
        total_steps: int,
        settings: dict[str, Any],
        save: Callable[[dict[str, float]], None],
    ) -> None:
        super().__init__()
        self.world = world
        self.every = every
        self.total_steps = total_steps
        self.settings = settings
        self.save = save

    def _on_training_start(self) -> None:
        self.next = _following(self.num_timesteps, self.every)
        if self.num_timesteps:  # resumed: they are written already
            return
        shown = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in self.settings.items()}
        metrics = {"validation/reward": 0.0, "validation/accuracy": 0.0, "validation/active_macs": 0.0}
        self._record("hparams", HParam(shown, metrics))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.next <= self.num_timesteps < self.total_steps:
            self.next = _following(self.num_timesteps, self.every)
            self.measure()

    def _on_training_end(self) -> None:
        self.measure()
        self.logger.dump(self.num_timesteps)

    def measure(self) -> None:
        """Sweep and log."""
        result = run_sweep(self.world, greedy(self.model, self.world.actions, self.world.observer))
        figures = result.summary()
        for key, value in figures.items():
            self.logger.record(f"validation/{key}", value)
        self._record("validation/easy_and_hard", Image(easy_and_hard(self.world, result), "HWC"))
        self._record("validation/active_macs_per_image", result.macs)
        for name, weights in self.model.policy.named_parameters():
            self._record(f"weights/{name}", weights.detach())
        self.save(figures)

    def _record(self, tag: str, value: Any) -> None:
        """Record what TensorBoard alone can show."""
        self.logger.record(tag, value, exclude=("stdout", "log", "json", "csv"))


class ResumeCheckpointCallback(BaseCallback):
    """Saves the whole agent between two rollouts, once it has learnt from the last one and all figures are written.

    A run that is resumed goes on exactly as it would have; a kill while saving leaves the earlier file. On the command
    line, it also saves after the rollout in which Ctrl-C or SIGTERM comes, before the process ends.

    Args:
        path: Stable-Baselines3's zip file. Loading it unpickles, so load only those of your own runs.
        every: environment steps between two checkpoints.
        resumed: the agent was loaded from such a file, with its state, which takes effect with the first rollout.
        saved: called after every checkpoint.
    """

    def __init__(
        self, path: Path, every: int, *, resumed: bool = False, saved: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.path = path
        self.every = every
        self.resumed = resumed
        self.saved = saved

    def _on_training_start(self) -> None:
        self.next = _following(self.num_timesteps, self.every)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.resumed:
            self.resumed = False
            restore_state(self.model)
        elif startup.asked_to_end():
            if self.num_timesteps:
                self.save()
            startup.end()
        elif self.num_timesteps >= self.next:
            self.next = _following(self.num_timesteps, self.every)
            self.save()
        else:
            return
        if self.model.use_sde:  # whose noise is drawn before callbacks hear of a rollout
            cast(Any, getattr(self.model, "actor", self.model.policy)).reset_noise(self.model.n_envs)

    def _on_training_end(self) -> None:
        self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        keep_state(self.model)
        save_agent(self.model, self.path)
        self.saved()


def _following(n_steps: int, every: int) -> int:
    """The first multiple of `every` above a number of steps, so that what is resumed needs no memory of the last."""
    return (n_steps // every + 1) * every


def easy_and_hard(world: World, result: Sweep, n: int = 8) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture of the images that the policy spent least and most on, uint8 (H, W, 3)."""
    order = torch.argsort(result.macs, stable=True)
    rows = [
        spending_strip(world.data.images[part], result.macs[part], result.correct[part])
        for part in (order[:n], order[-n:])
    ]
    return np.concatenate(rows, axis=0)
