from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from nets import make_data
from streams import streamed

from rlprune.data.streamed import StreamedPixels, Workers, default_workers, fetch, fetching
from rlprune.errors import DataError, RLPruneError


class Deadly:
    """Ends the worker that reads it."""

    def __len__(self) -> int:
        return 4

    def read(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def marks(self) -> tuple[str, str]:
        return "", ""


class Damaged(Deadly):
    def read(self, *_: object) -> None:
        raise DataError("row 3 is damaged")


def test_batches_come_in_order_however_many_workers_there_are() -> None:
    data = make_data(12)
    views = torch.tensor([[0, 2, 1], [1, 1, 0], [2, 0, 1]])
    jobs = [(torch.tensor([start, start + 1, 11]), views) for start in range(6)]
    expected = list(fetch(data.images, jobs, padding=1))
    before = torch.get_rng_state()
    for n in (0, 2):
        found = list(fetch(streamed(data).images, jobs, padding=1, workers=Workers(n)))
        assert all(map(torch.equal, found, expected)) and len(found) == 6
    assert torch.equal(torch.get_rng_state(), before)


def test_views_are_the_same_wherever_they_are_taken() -> None:
    data = make_data(6)
    shifted = (torch.arange(6), torch.tensor([[0, 2, 1], [1, 1, 0]] * 3))
    cut = (torch.arange(6), torch.tensor([[0.5, 0.1, 0.3, 0.7, 1.0]] * 6))
    expected = list(fetch(data.images, [shifted, cut, (torch.arange(6), None)], padding=1))
    found = list(fetch(data.images, [shifted, cut, (torch.arange(6), None)], padding=1, device="cpu:0"))
    assert all(map(torch.equal, found, expected)) and len(found) == 3


def test_sets_in_memory_are_fetched_when_they_are_asked_for() -> None:
    asked = []

    def jobs() -> Iterator[tuple[slice, None]]:
        for start in range(3):
            asked.append(start)
            yield slice(start, start + 1), None

    batches = fetch(make_data(3).images, jobs())
    next(batches)
    assert asked == [0]


def test_an_image_set_is_read_through_workers_in_order() -> None:
    data = make_data(10)
    for (found, labels), (expected, others) in zip(streamed(data).batches(4), data.batches(4), strict=True):
        assert torch.equal(found, expected) and torch.equal(labels, others)


def test_what_ends_a_worker_is_said() -> None:
    some = streamed(make_data(4)).images
    assert isinstance(some, StreamedPixels)
    for pictures, kind, text in (
        (Damaged(), DataError, "^row 3 is damaged$"),
        (Deadly(), RLPruneError, r"ended from outside .*workers=0 none"),
    ):
        broken = StreamedPixels((pictures,), some.rows, some.image_shape)  # type: ignore[arg-type]
        with pytest.raises(kind, match=text):
            list(fetch(broken, [([0], None), ([1], None)], workers=Workers(1)))


def test_as_many_workers_as_processors_shared_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert default_workers() == 1
