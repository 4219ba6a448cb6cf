"""What is shown of running episodes: a picture, or a window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.envs.episodes import Episodes, Outcome
from rlprune.envs.rendering import EpisodeView, PassView, draw, tile
from rlprune.errors import RLPruneError
from rlprune.utils.imports import require

Frame = NDArray[np.uint8]

RENDERING: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 2}
"""What the metadata of all environments say about rendering; at two frames a second, people can follow."""

MOST_TILES = 9
"""How many episodes one picture shows at most: of more, memory would not hold a video."""


class HasKeepRatios(Protocol):
    """A network, as far as it matters here."""

    @property
    def keep_ratios(self) -> Sequence[float]:
        """What the keep levels stand for, ascending."""


class HasPasses(Protocol):
    """Actions, as far as they matter here."""

    @property
    def max_passes(self) -> int:
        """How many passes an episode has at most."""


class Shown(Protocol):
    """What of a world is shown; `rlprune.envs.world.World` has it."""

    @property
    def data(self) -> ImageSet:
        """The images."""

    @property
    def network(self) -> HasKeepRatios:
        """What runs on them."""

    @property
    def actions(self) -> HasPasses:
        """What may be done."""


def check_render_mode(mode: str | None) -> str | None:
    """A render mode, if there is such a one and what it needs is installed.

    Raises:
        RLPruneError: there is no such mode.
        MissingExtraError: it is `human`, and pygame is not installed.
    """
    modes = RENDERING["render_modes"]
    if mode is not None and mode not in modes:
        raise RLPruneError(f"render_mode is {mode!r}; allowed are None, {', '.join(map(repr, modes))}")
    if mode == "human":
        require("pygame", "render")
    return mode


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of one episode; its arrays are rows of the batch's."""

    levels: NDArray[np.int64]
    share: float
    reward: float
    logits: NDArray[np.float32]

    @property
    def is_pass(self) -> bool:
        return not (self.levels < 0).any()


@dataclass(eq=False)
class _Record:
    """An episode as far as it has come."""

    image: int
    penalty: float
    before: _Record | None
    steps: list[_Step] = field(default_factory=list)
    over: bool = False


class Screen:
    """Follows n episodes, and shows what has happened in them. Without a render mode it does nothing.

    Attributes:
        mode: None, `rgb_array` or `human`.

    Args:
        world: what the episodes are of.
        mode: as `check_render_mode` allows.
        n: how many episodes run at once.
    """

    def __init__(self, world: Shown, mode: str | None = None, n: int = 1) -> None:
        self.mode = mode
        self._world = world
        self._records: list[_Record | None] = [None] * n
        self._window = Window()

    def forget(self, row: int = 0) -> None:
        """An episode's predecessors are nothing to it: its generator of images was seeded anew."""
        self._records[row] = None

    def begin(self, episodes: Episodes, rows: Iterable[int] | None = None) -> None:
        """Some episodes have begun.

        Args:
            episodes: all n.
            rows: those that have begun; all if None.
        """
        if self.mode is None:
            return
        for row in range(len(self._records)) if rows is None else rows:
            last = self._records[row]
            if last is not None:
                last = replace(last, before=None) if last.over else last.before
            self._records[row] = _Record(int(episodes.images[row]), float(episodes.penalties[row]), last)

    def follow(self, episodes: Episodes, outcome: Outcome) -> None:
        """All n episodes have made a step, and none has begun anew yet."""
        if self.mode is None:
            return
        columns = (
            outcome.levels.numpy(),
            outcome.macs.tolist(),
            outcome.rewards.tolist(),
            episodes.logits.numpy().copy(),
            outcome.done.tolist(),
        )
        for record, *step, over in zip(self._records, *columns, strict=True):
            if record is not None and not record.over:
                record.steps.append(_Step(*step))
                record.over = over

    def refresh(self) -> None:
        """Show the present state in the window, if there is one."""
        if self.mode == "human":
            self.show()

    def show(self) -> None:
        """Show the present state in a window, which opens the first time."""
        self._window.show(self.tiled())

    def frames(self, most: int | None = None) -> tuple[Frame, ...]:
        """A picture of each episode, uint8 (480, 640, 3); of the first ones alone if there are more than `most`.

        Raises:
            gymnasium.error.ResetNeeded: an episode has not begun.
        """
        return tuple(draw(self._view(record)) for record in self._records[:most])

    def tiled(self) -> Frame:
        """The pictures of the first nine episodes side by side, uint8 (height, width, 3)."""
        return tile(self.frames(MOST_TILES))

    def render(self) -> tuple[Frame, ...] | None:
        """What Gymnasium's `render` is to give of each episode: `frames`, or None if they are shown in a window."""
        if self.mode is None:
            gymnasium.logger.warn(
                "render() without a render mode draws nothing; make the environment with render_mode='rgb_array'"
            )
        elif self.mode == "rgb_array":
            return self.frames()
        else:
            self.show()
        return None

    def close(self) -> None:
        """Close the window."""
        self._window.close()

    def _view(self, record: _Record | None) -> EpisodeView:
        if record is None:
            raise gymnasium.error.ResetNeeded("call reset() before render(); there is no episode to draw yet")
        data, steps = self._world.data, record.steps
        ratios = np.asarray(self._world.network.keep_ratios)
        rewards = [step.reward for step in steps]
        return EpisodeView(
            image=_pixels(data.images[record.image]),
            classes=data.classes,
            label=int(data.labels[record.image]),
            probabilities=_softmax(steps[-1].logits) if steps else None,
            passes=[PassView(ratios[step.levels], step.share) for step in steps if step.is_pass],
            max_passes=self._world.actions.max_passes,
            spent=sum(step.share for step in steps),
            reward=rewards[-1] if rewards else None,
            total=sum(rewards) if rewards else None,
            over=record.over,
            title=f"image {record.image}    penalty {record.penalty:.3g}",
            before=None if record.before is None else self._view(record.before),
        )


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = image.cpu().numpy()
    return pixels


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, float32 (classes,)."""
    powers = np.exp(logits - logits.max())
    probabilities: NDArray[np.float32] = powers / powers.sum()
    return probabilities


class Window:
    """A window of pygame, as Gymnasium's `HumanRendering` opens one."""

    def __init__(self) -> None:
        self._surface: Any = None
        self._clock: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return dict.fromkeys(vars(self))  # a copy, in another process perhaps, opens its own

    def show(self, frame: Frame) -> None:
        """Show a picture, and wait for as long as `render_fps` gives it.

        Raises:
            MissingExtraError: pygame is not installed.
            RLPruneError: there is no screen.
        """
        pygame: Any = require("pygame", "render")
        height, width, _ = frame.shape
        if self._surface is None:
            try:
                pygame.display.init()
                self._surface = pygame.display.set_mode((width, height))
            except pygame.error as error:
                raise RLPruneError(
                    f"render_mode='human' opens a window, and that failed ({error}); use render_mode='rgb_array'"
                ) from error
            pygame.display.set_caption("rlprune")
            self._clock = pygame.time.Clock()
        self._surface.blit(pygame.surfarray.make_surface(frame.transpose(1, 0, 2)), (0, 0))
        pygame.event.pump()
        self._clock.tick(RENDERING["render_fps"])
        pygame.display.flip()

    def close(self) -> None:
        """Close it, if it is open."""
        if self._surface is not None:
            pygame: Any = require("pygame", "render")
            pygame.display.quit()
            pygame.quit()
        self._surface = self._clock = None
