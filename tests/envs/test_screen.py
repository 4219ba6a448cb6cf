from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import env_render_passive_checker
from gymnasium.wrappers import HumanRendering, RecordEpisodeStatistics, RecordVideo
from nets import make_data, make_elastic
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecVideoRecorder

from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import ENV_ID, KeepRatioEnv, KeepRatioVectorEnv, World
from rlprune.envs.screen import RENDERING, Window
from rlprune.errors import MissingExtraError, RLPruneError

NETWORK = make_elastic("residual")
DATA = make_data(30)
SHAPE = (480, 640, 3)
EMPTY_PLACE = np.s_[396:]
"""Where the last episode is drawn."""


def make(**settings: Any) -> KeepRatioEnv:
    return KeepRatioEnv(NETWORK, DATA, **{"render_mode": "rgb_array", "max_passes": 2} | settings)


def make_vec(n: int, **settings: Any) -> KeepRatioVecEnv:
    return KeepRatioVecEnv(World(NETWORK, DATA, max_passes=2), n, **{"render_mode": "rgb_array"} | settings)


def make_vector(n: int, **settings: Any) -> KeepRatioVectorEnv:
    return KeepRatioVectorEnv(n, NETWORK, DATA, **{"render_mode": "rgb_array", "max_passes": 2} | settings)


def picture(env: KeepRatioEnv) -> np.ndarray[Any, Any]:
    frame = env.render()
    assert frame is not None
    return frame


def run(*levels: int) -> np.ndarray[Any, Any]:
    return np.array([*levels, 0])


ACCEPT = np.array([0, 0, 0, 1])


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(RENDERING, "render_fps", 1000)
    yield pytest.importorskip("pygame")


def test_every_step_changes_the_picture_and_the_last_one_stays() -> None:
    env = make()
    env.reset(seed=0)
    frames = [picture(env)]
    for action in (run(1, 2, 3), ACCEPT):
        env.step(action)
        frames.append(picture(env))
    assert all(frame.shape == SHAPE and frame.dtype == np.uint8 for frame in frames)
    assert not any(np.array_equal(*pair) for pair in pairwise(frames))
    assert np.array_equal(frames[-1], picture(env))
    env.reset()
    assert not np.array_equal(picture(env)[EMPTY_PLACE], frames[0][EMPTY_PLACE])


def test_a_seed_gives_the_same_pictures_again() -> None:
    env = make()

    def pictures() -> list[np.ndarray[Any, Any]]:
        env.reset(seed=3)
        frames = [picture(env)]
        env.step(run(4, 4, 4))
        return [*frames, picture(env)]

    assert np.array_equal(pictures(), pictures())


def test_an_episode_that_was_given_up_is_not_the_last_one() -> None:
    env = make()
    env.reset(seed=0)
    env.step(run(0, 0, 0))
    env.reset()
    assert len(np.unique(picture(env)[EMPTY_PLACE])) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_batches_draw_what_single_environments_draw(n: int) -> None:
    sync = DummyVecEnv([make] * n)
    vector, vec = make_vector(n), make_vec(n)
    for env in (sync, vec):
        env.seed(5)
        env.reset()
    vector.reset(seed=5)
    vector.action_space.seed(0)
    for _ in range(4):
        frames = vector.render()
        assert frames is not None
        assert np.array_equal(frames, sync.get_images())
        assert np.array_equal(frames, vec.get_images())
        assert np.array_equal(vec.render(), sync.render())
        chosen = vector.action_space.sample()
        for env in (sync, vector, vec):
            env.step(chosen)


def test_one_picture_shows_nine_episodes_at_most() -> None:
    vec = make_vec(11)
    vec.reset()
    whole = vec.render()
    assert whole is not None
    assert whole.shape == (3 * 480, 3 * 640, 3)
    assert len(vec.get_images()) == 11
    assert np.array_equal(whole[-480:, -640:], vec.get_images()[8])


@pytest.mark.parametrize("maker", [make, lambda: make_vector(2), lambda: make_vec(2)])
def test_rendering_needs_an_episode(maker: Any) -> None:
    env = maker()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
        env.render()
    env.reset()
    assert env.render() is not None


@pytest.mark.parametrize("maker", [make, lambda **settings: make_vector(2, **settings)])
def test_without_a_mode_nothing_is_drawn(maker: Any) -> None:
    env = maker(render_mode=None)
    env.reset()
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None


def test_without_a_mode_stable_baselines3_says_so() -> None:
    vec = make_vec(2, render_mode=None)
    with pytest.warns(UserWarning, match="no `render_mode` was passed"):
        assert vec.render() is None


@pytest.mark.parametrize("mode", ["ansi", "rgb_array_list", "", True, 3])
@pytest.mark.parametrize("maker", [make, lambda **settings: make_vector(2, **settings), lambda **s: make_vec(2, **s)])
def test_other_modes_are_refused(maker: Any, mode: Any) -> None:
    with pytest.raises(RLPruneError, match=r"render_mode is .*; allowed are None, 'human', 'rgb_array'"):
        maker(render_mode=mode)


def test_a_window_without_pygame_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingExtraError, match=r"the package 'pygame', .* pip install 'rlprune\[render\]'"):
        make(render_mode="human")


def test_the_checker_is_content_with_every_mode(pygame: Any) -> None:
    kwargs = {"network": NETWORK, "data": DATA, "max_passes": 2}
    check_env(gymnasium.make(ENV_ID, render_mode="rgb_array", **kwargs).unwrapped)
    window = gymnasium.make(ENV_ID, render_mode="human", **kwargs)
    window.reset()
    env_render_passive_checker(window)
    window.step(window.action_space.sample())
    assert pygame.display.get_surface().get_size() == (640, 480)
    window.close()
    window.close()


def test_the_window_follows_the_episodes(pygame: Any) -> None:
    env, drawn = make(render_mode="human"), make()
    for each in (env, drawn):
        each.reset(seed=1)
        each.step(run(1, 2, 3))
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    assert np.array_equal(shown, picture(drawn))
    assert env.render() is None
    env.close()
    assert not pygame.display.get_init()


@pytest.mark.parametrize("maker", [make_vector, make_vec])
def test_a_batch_has_one_window(pygame: Any, maker: Any) -> None:
    env = maker(3, render_mode="human")
    env.reset()
    assert env.render() is None
    env.step(np.stack([run(1, 1, 1)] * 3))
    assert pygame.display.get_surface().get_size() == (2 * 640, 2 * 480)
    env.close()


def test_stable_baselines3_shows_pictures_in_a_window_when_asked(pygame: Any) -> None:
    vec = make_vec(1)
    vec.reset()
    assert vec.render("human") is None
    assert pygame.display.get_surface().get_size() == (640, 480)
    vec.close()


def test_no_screen_is_one_clear_error(pygame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "none such")
    env = make(render_mode="human")
    with pytest.raises(RLPruneError, match=r"opens a window, and that failed .*; use render_mode='rgb_array'"):
        env.reset()


def test_a_copy_has_no_window_of_another(pygame: Any) -> None:
    window = Window()
    window.show(np.zeros((2, 2, 3), np.uint8))
    assert vars(copy.deepcopy(window)) == vars(pickle.loads(pickle.dumps(window))) == vars(Window())
    window.close()


def test_wrappers_of_gymnasium(pygame: Any) -> None:
    env = RecordEpisodeStatistics(
        HumanRendering(gymnasium.make(ENV_ID, network=NETWORK, data=DATA, render_mode="rgb_array"))
    )
    env.reset(seed=0)
    *_, info = env.step(np.array([4, 4, 4]))
    assert info["episode"]["l"] == 1
    assert env.metadata["render_fps"] == RENDERING["render_fps"]
    env.close()
    listed = gymnasium.make(ENV_ID, network=NETWORK, data=DATA, render_mode="rgb_array_list")
    listed.reset()
    listed.step(np.array([4, 4, 4]))
    assert [frame.shape for frame in listed.render()] == [SHAPE] * 2


def check_video(path: Path, n_frames: int, size: tuple[int, int]) -> None:
    from moviepy.video.io.ffmpeg_reader import ffmpeg_parse_infos

    infos = ffmpeg_parse_infos(str(path))
    assert (infos["video_fps"], infos["video_size"]) == (2, [*size])
    assert infos["duration"] == pytest.approx(n_frames / 2, abs=0.3)


def test_videos(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    env = RecordVideo(make(), str(tmp_path / "gymnasium"))
    env.reset(seed=0)
    env.step(run(0, 0, 0))
    env.step(run(4, 4, 4))
    env.close()
    check_video(tmp_path / "gymnasium" / "rl-video-episode-0.mp4", 3, (640, 480))
    vec = VecVideoRecorder(VecMonitor(make_vec(2)), str(tmp_path / "sb3"), lambda step: step == 0, video_length=3)
    vec.reset()
    for _ in range(4):
        vec.step(np.stack([run(1, 1, 1)] * 2))
    vec.close()
    check_video(next((tmp_path / "sb3").glob("*.mp4")), 4, (640, 960))
