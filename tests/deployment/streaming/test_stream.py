"""Streams give many callers what the network gives; some are in a hurry, change their mind or send nonsense."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy
from PIL import Image
from ranged import DYNAMIC as ONE_PASS
from served import make_dynamic
from torch import Tensor

from rlprune import DynamicCNN, Prediction, Stream
from rlprune.errors import DataError, DeadlineError, NotFiniteError, RLPruneError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

DATA = make_data(60)
IMAGES = DATA.images
RANGED = make_dynamic()
EXACT = ("labels", "profiles", "passes", "params", "macs", "keep_ratios")


def fixed(pool: int, combine: float = 0.0) -> DynamicCNN:
    """A network for one price, of up to three passes; with a pool of 0 all images begin alike."""
    elastic = make_elastic("residual")
    book = sorted_codebook(make_levels(elastic, 4), Cost(elastic))
    policy = make_policy(elastic, DATA, book, max_passes=3, pool=pool, combine=combine, seed=1)
    return DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)


def check_equal(found: Prediction, expected: Prediction) -> None:
    for name in EXACT:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-5)
    assert (found.class_names, found.dense_macs) == (expected.class_names, expected.dense_macs)


class Gate:
    """Lets a network run new images when it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.let = threading.Semaphore(0), threading.Event()
        run = DynamicCNN.run_stem

        def run_stem(model: DynamicCNN, images: Tensor) -> Tensor:
            self.entered.release()
            assert self.let.wait(20)
            return run(model, images)

        monkeypatch.setattr(DynamicCNN, "run_stem", run_stem)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def held(gate: Gate) -> Iterator[tuple[Stream, Future[Prediction]]]:
    """A stream that runs an image, and goes on when the gate opens."""
    with Stream(RANGED, max_waiting=4) as stream:
        first = stream.submit(IMAGES[:1])
        assert gate.entered.acquire(timeout=20)
        try:
            yield stream, first
        finally:
            gate.let.set()


@pytest.mark.parametrize("model", [RANGED, ONE_PASS, fixed(0), fixed(1, 0.5)], ids=["ranged", "one", "alike", "mixed"])
@pytest.mark.parametrize("max_batch", [None, 3])
def test_callers_in_threads_get_what_the_network_gives(model: DynamicCNN, max_batch: int | None) -> None:
    expected = model(IMAGES)
    with Stream(model, max_batch=max_batch) as stream, ThreadPoolExecutor(8) as callers:
        single = list(callers.map(lambda image: stream(image[None]), IMAGES))
        several = list(callers.map(stream, IMAGES.split(7)))
        check_equal(stream(IMAGES), expected)
        figures = stream.figures()
    check_equal(Prediction.joined(single), expected)
    check_equal(Prediction.joined(several), expected)
    assert (figures.images, figures.waiting) == (180, 0)
    assert 1 <= figures.mean_bucket <= stream.max_batch and figures.buckets >= 180 / stream.max_batch
    assert 0 <= figures.wait_p50 <= figures.wait_p99


def test_images_keep_their_budgets_and_share_buckets(gate: Gate) -> None:
    budgets = (None, 0.3, 0.6, 0.9)
    expected = [RANGED(IMAGES, budget=budget) for budget in budgets if gate.let.set() is None]
    assert len({tuple(each.profiles.flatten().tolist()) for each in expected}) >= 3
    gate.let.clear()
    gate.entered = threading.Semaphore(0)
    with Stream(RANGED, max_batch=1000) as stream:
        futures = [stream.submit(IMAGES[:1])]
        assert gate.entered.acquire(timeout=20)
        futures += [stream.submit(IMAGES, budget=budget) for budget in budgets]
        gate.let.set()
        for future, each in zip(futures[1:], expected, strict=True):
            check_equal(future.result(20), each)
        figures = stream.figures()
    assert figures.images == 241 and figures.buckets <= 1 + 1 + 2 * 3  # alone, all stems, two profiles in three passes


def test_coroutines_wait_for_it() -> None:
    async def ask(stream: Stream) -> list[Prediction]:
        return await asyncio.gather(*(asyncio.wrap_future(stream.submit(image[None])) for image in IMAGES[:20]))

    with Stream(RANGED) as stream:
        check_equal(Prediction.joined(asyncio.run(ask(stream))), RANGED(IMAGES[:20]))


def test_bad_images_are_refused_at_once_and_their_buffers_may_be_used_again(
    held: tuple[Stream, Future[Prediction]], gate: Gate
) -> None:
    stream, first = held
    for images, message in (
        (IMAGES[0], r"images have shape \(3, 16, 16\); \(B, 3, 16, 16\)"),
        (IMAGES.long(), "images are torch.int64; give uint8"),
        ("cat.jpg", "images are str; give a tensor"),
        (IMAGES[:0], "with B >= 1 is needed"),
        (IMAGES[:1].float(), r"images have float values from 0 to 25\d; give values in \[0, 1\]"),
        (IMAGES[:1] / math.nan, "images have float values from nan to nan"),
    ):
        with pytest.raises(DataError, match=message):
            stream.submit(images)  # type: ignore[arg-type]
    with pytest.raises(RLPruneError, match="budget is 9"):
        stream.submit(IMAGES[:1], budget=9)
    buffer = IMAGES[1:2].clone()
    second = stream.submit(buffer)
    buffer.zero_()
    third = stream.submit(Image.fromarray(IMAGES[2].permute(1, 2, 0).numpy()))
    assert stream.figures().waiting == 3
    gate.let.set()
    check_equal(Prediction.joined([each.result(20) for each in (first, second, third)]), RANGED(IMAGES[:3]))


def test_an_image_that_cannot_run_hurts_its_own_caller_alone(
    held: tuple[Stream, Future[Prediction]], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stream, _), run = held, DynamicCNN.run_body
    bad = RANGED.slices.stem(RANGED.normalise(IMAGES[2:3]))

    def overflowing(model: DynamicCNN, profile: int, features: Tensor) -> Tensor:
        if float((features - bad).abs().amax((1, 2, 3)).min()) < 1e-4:
            raise NotFiniteError("too large")
        return run(model, profile, features)

    monkeypatch.setattr(DynamicCNN, "run_body", overflowing)
    futures = [stream.submit(IMAGES[i : i + 1]) for i in (1, 2, 3)]
    gate.let.set()
    with pytest.raises(NotFiniteError, match="too large"):
        futures[1].result(20)
    check_equal(futures[0].result(20), RANGED(IMAGES[1:2]))
    check_equal(futures[2].result(20), RANGED(IMAGES[3:4]))


def test_a_bucket_that_fails_fails_its_callers_alone(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.let.set()
    expected, run = RANGED(IMAGES), DynamicCNN.run_body

    def broken(model: DynamicCNN, profile: int, features: Tensor) -> Tensor:
        if profile == 1:
            raise MemoryError("no more")
        return run(model, profile, features)

    monkeypatch.setattr(DynamicCNN, "run_body", broken)
    with Stream(RANGED) as stream:
        futures = [stream.submit(image[None]) for image in IMAGES]
        wait(futures, 20)
        for index, future in enumerate(futures):
            if (expected.profiles[index] == 1).any():
                assert isinstance(future.exception(), MemoryError)
            else:
                check_equal(future.result(), RANGED(IMAGES[index : index + 1]))
        assert stream.figures().waiting == 0
    assert 0 < int((expected.profiles == 1).any(1).sum()) < 60


def test_who_finds_no_room_waits_or_is_told(held: tuple[Stream, Future[Prediction]], gate: Gate) -> None:
    stream, _ = held
    stream.submit(IMAGES[1:4])
    message = (
        "4 images wait in this stream, and 4 may: there was no room for 2 more within 20 ms; give them more time, come "
        "again later, or raise max_waiting"
    )
    with pytest.raises(DeadlineError) as raised:
        stream.submit(IMAGES[4:6], timeout_ms=20)
    assert str(raised.value) == message and isinstance(raised.value, TimeoutError)
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(stream, images) for images in (IMAGES[4:14], IMAGES[4:5])]  # more than ever may
        assert not wait(waiting, 0.05).done
        gate.let.set()
        check_equal(waiting[0].result(20), RANGED(IMAGES[4:14]))
        check_equal(waiting[1].result(20), RANGED(IMAGES[4:5]))


def test_what_is_late_fails_and_makes_room(held: tuple[Stream, Future[Prediction]], gate: Gate) -> None:
    stream, first = held
    late = stream.submit(IMAGES[1:4], timeout_ms=1)
    gate.let.set()
    first.result(20)
    with pytest.raises(DeadlineError, match=r"3 images were not done within 1 ms, while 0 others waited, and 4 may: "):
        late.result(20)
    check_equal(stream(IMAGES[:4], timeout_ms=20_000), RANGED(IMAGES[:4]))


def test_what_runs_and_ends_late_fails_too(gate: Gate) -> None:
    with Stream(RANGED) as stream:
        late = stream.submit(IMAGES[:1], timeout_ms=30_000)
        assert gate.entered.acquire(timeout=20)
        (request,) = stream._worker._timed
        request.deadline = 0.0
        gate.let.set()
        assert isinstance(late.exception(20), DeadlineError) and stream.figures().waiting == 0


def test_cancelled_images_are_taken_out(held: tuple[Stream, Future[Prediction]], gate: Gate) -> None:
    stream, first = held
    second, third = stream.submit(IMAGES[1:2]), stream.submit(IMAGES[2:4])
    assert third.cancel() and first.cancel()  # which runs already: it is taken out at its next point
    assert stream.figures().waiting == 1 and wait([first, third], 20).not_done == set()
    gate.let.set()
    check_equal(second.result(20), RANGED(IMAGES[1:2]))
    with pytest.raises(CancelledError):
        first.result()
    assert stream.figures().images == 1 and not second.cancel()


def test_a_closed_stream_finishes_and_takes_nothing_more(gate: Gate) -> None:
    stream = Stream(RANGED)
    futures = [stream.submit(image[None]) for image in IMAGES[:9]]
    closing = threading.Thread(target=stream.close)
    closing.start()
    gate.let.set()
    closing.join(20)
    assert all(future.done() for future in futures)
    check_equal(Prediction.joined([future.result() for future in futures]), RANGED(IMAGES[:9]))
    with pytest.raises(RLPruneError, match=r"this stream is closed: make another one, such as rlprune\.Stream\("):
        stream(IMAGES)
    stream.close()
    assert repr(stream).startswith("Stream(max_wait_ms=5, max_batch=64, max_waiting=1024, closed; DynamicCNN(")


def test_callbacks_may_submit_and_may_not_wait(held: tuple[Stream, Future[Prediction]], gate: Gate) -> None:
    stream, first = held
    stream.submit(IMAGES[:3])  # there is no room
    said: list[Any] = []
    called = threading.Event()

    def more(_: Future[Prediction]) -> None:
        said.append(stream.submit(IMAGES[1:4]))
        try:
            stream(IMAGES)
        except RLPruneError as error:
            said.append(str(error))
        called.set()

    first.add_done_callback(more)
    gate.let.set()
    assert called.wait(20)
    stream.close()
    check_equal(said[0].result(), RANGED(IMAGES[1:4]))
    assert said[1] == "a callback of a stream's future cannot wait for the same stream: use submit there"


def test_a_stream_that_nobody_has_any_more_ends() -> None:
    stream = Stream(RANGED)
    future, thread = stream.submit(IMAGES), stream._worker._thread
    del stream
    check_equal(future.result(20), RANGED(IMAGES))
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_streams_stay_where_they_are(take: Callable[[Any], Any]) -> None:
    with (
        Stream(RANGED) as stream,
        pytest.raises(RLPruneError, match="a Stream cannot be pickled or copied: send"),
    ):
        take(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_process_it_goes_on_empty() -> None:
    expected = RANGED(IMAGES[:5])
    with Stream(RANGED) as stream, Stream(RANGED) as other:
        check_equal(stream(IMAGES[:5]), expected)
        other.close()
        child = os.fork()
        if not child:
            try:
                equal = torch.equal(stream(IMAGES[:5]).profiles, expected.profiles)
                closed = isinstance(other.figures().images, int)
                stream.close()
                os._exit(7 if equal and closed and stream.figures().images == 5 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        check_equal(stream(IMAGES[:5]), expected)
        assert stream.figures().images == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_wait_ms": -1}, "max_wait_ms=-1: give a finite number from 0 to"),
        ({"max_wait_ms": math.nan}, "max_wait_ms=nan: give a finite number"),
        ({"max_batch": 0}, "max_batch=0: give a whole number from 1 to"),
        ({"max_batch": 2.0}, r"max_batch=2\.0: give a whole number"),
        ({"max_waiting": 0}, "max_waiting=0: give a whole number from 1 to"),
        ({"model": "bundle"}, r"a stream needs a DynamicCNN, such as rlprune\.load gives, or an OnnxCNN; this is 'b"),
        ({"model": RANGED.limited(lambda *about: about[1])}, "this network has a limit, which is for single calls"),
    ],
)
def test_streams_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        Stream(**{"model": RANGED, **options})


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, "5"])
def test_times_that_cannot_be(timeout: Any) -> None:
    with (
        Stream(RANGED) as stream,
        pytest.raises(RLPruneError, match=r"timeout_ms=.*: give a finite number"),
    ):
        stream.submit(IMAGES, timeout_ms=timeout)
