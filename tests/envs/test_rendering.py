from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlprune.envs.rendering import GREY, INK, PASSES, RIGHT, WRONG, Colour, EpisodeView, PassView, draw, tile
from rlprune.errors import RLPruneError

IMAGE = np.full((3, 32, 32), 7, np.uint8)
CLASSES = ("cat", "dog", "ship")


def view(**changes: Any) -> EpisodeView:
    return replace(EpisodeView(IMAGE, CLASSES, label=1), **changes)


def seen(*ratios: float, share: float = 0.5, **changes: Any) -> EpisodeView:
    made = PassView(np.array(ratios), share)
    return view(**{"passes": [made], "spent": share, "probabilities": np.array([0.2, 0.7, 0.1])} | changes)


def count(frame: np.ndarray[Any, Any], colour: Colour) -> int:
    return int((frame == colour).all(2).sum())


def bars(*ratios: float) -> int:
    """Pixels of the bars of kept channels alone: nothing was spent, so the bar of compute is empty."""
    return count(draw(seen(*ratios, share=0.0)), PASSES[0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 224, 224), (3, 500, 90), (2, 1, 1), (4, 7, 300)])
def test_every_size_and_depth_of_image_gives_a_picture_of_one_size(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    frame = draw(seen(0.5, 1.0, image=image, before=seen(0.25, image=image)))
    assert frame.shape == (480, 640, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, draw(seen(0.5, 1.0, image=image, before=seen(0.25, image=image))))


def test_pixels_of_small_images_are_squares_and_large_ones_stay_as_they_are() -> None:
    random = np.random.default_rng(0)
    small, large = (random.integers(0, 256, (3, side, side), dtype=np.uint8) for side in (32, 224))
    place = np.s_[40:264, 16:240]
    assert np.array_equal(draw(view(image=small))[place], small.repeat(7, 1).repeat(7, 2).transpose(1, 2, 0))
    assert np.array_equal(draw(view(image=large))[place], large.transpose(1, 2, 0))
    grey = small[:1]
    assert np.array_equal(draw(view(image=grey)), draw(view(image=grey.repeat(3, 0))))


@pytest.mark.parametrize("n_groups", [1, 3, 60])
def test_a_bar_is_as_high_as_its_keep_ratio(n_groups: int) -> None:
    full = bars(*[1.0] * n_groups)
    assert full > 40_000  # of 364 x 135 pixels, less the gaps between bars
    assert bars(*[0.4] * n_groups) == pytest.approx(0.4 * full, rel=0.01)
    assert bars(*[0.0] * n_groups) == bars(*[float("nan")] * n_groups) == 0
    assert bars(0.0, *[1.0] * n_groups) == pytest.approx(full * n_groups / (n_groups + 1), rel=0.06)


def test_more_groups_than_pixels_still_fill_the_row() -> None:
    assert bars(*[1.0] * 500) == bars(*[1.0] * 364) == 364 * 135


def test_each_pass_has_a_row_and_its_part_of_compute() -> None:
    made = [PassView(np.ones(4), 0.5), PassView(np.ones(4), 0.25), PassView(np.ones(4), 1.0)]
    frame = draw(seen(passes=made, max_passes=3, spent=2.0))
    rows = [count(frame[58:220], colour) for colour in PASSES]
    assert rows[0] == rows[1] == rows[2] > 0
    parts = np.array([count(frame[370:371], colour) for colour in PASSES])  # of 608 pixels for three whole networks
    assert np.abs(parts - 608 / 3 * np.array([0.5, 0.25, 1.0])).max() <= 2
    assert count(frame[370:371], GREY) > 0  # 0.25 for decisions


@pytest.mark.parametrize(
    ("label", "colours", "words"),
    [(1, (RIGHT,), "pass 1: right"), (0, (WRONG, RIGHT), "pass 1: wrong"), (None, (INK,), "pass 1")],
)
def test_belief_is_set_against_the_label(label: int | None, colours: tuple[Colour, ...], words: str) -> None:
    drawn = seen(1.0, label=label)
    beliefs = draw(drawn)[240:330, 260:]
    assert {colour for colour in (RIGHT, WRONG) if count(beliefs, colour)} == {*colours} - {INK}
    assert drawn.state == words


def test_a_label_that_is_not_among_the_likeliest_classes_stands_below_them() -> None:
    probabilities = np.array([0.5, 0.2, 0.1, 0.08, 0.06, 0.04, 0.02])
    unlikely = seen(1.0, classes=tuple("abcdefg"), probabilities=probabilities, label=6)
    assert count(draw(unlikely)[325:342, 260:], RIGHT) > 0
    assert count(draw(replace(unlikely, label=4))[325:342, 260:], RIGHT) == 0


def test_states() -> None:
    assert view().state == "no pass yet"
    assert seen(1.0, max_passes=2, over=True).state == "accepted after pass 1: right"
    assert seen(1.0, max_passes=1, over=True, label=2).state == "pass 1: wrong"


def test_names_that_the_font_cannot_write_become_numbers() -> None:
    names = view(classes=("Café\n au lait", "猫", "", "a plain one"))
    assert [names.name(index) for index in range(4)] == ["Cafe au lait", "class 1", "class 2", "a plain one"]


def test_long_names_stay_in_their_place() -> None:
    frame = draw(seen(1.0, classes=("x" * 999,) * 3, title="y" * 999, reward=1e9, total=-1e30))
    assert (frame[:, 625:] == draw(view())[:, 625:]).all()


def test_numbers_that_are_none_are_drawn_as_nothing() -> None:
    nothing = draw(seen(1.0, probabilities=np.full(3, np.nan), reward=float("nan"), label=2))
    assert nothing.shape == (480, 640, 3)


def test_the_last_episode_is_drawn_below() -> None:
    alone, after = draw(view()), draw(view(before=seen(1.0)))
    assert np.array_equal(alone[:396], after[:396])
    assert count(after[396:], PASSES[0]) > 1000 > count(alone[396:], PASSES[0])


def test_tiles_lie_in_rows() -> None:
    frames = [np.full((2, 4, 3), value, np.uint8) for value in (1, 2, 3, 4, 5)]
    wall = tile(frames)
    assert wall.shape == (6, 8, 3)
    assert wall[::2, ::4, 0].tolist() == [[1, 2], [3, 4], [5, 0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": IMAGE.astype(float)}, r"the image is float64 of shape \(3, 32, 32\); draw uint8 of shape"),
        ({"image": IMAGE[0]}, r"the image is uint8 of shape \(32, 32\)"),
        ({"image": IMAGE[:0]}, r"the image is uint8 of shape \(0, 32, 32\)"),
        ({"probabilities": np.ones(2)}, r"probabilities are of shape \(2,\); one for each of 3 classes"),
        ({"label": 3}, "label is 3; a class from 0 to 2 is needed, or None"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        view(**wrong)
