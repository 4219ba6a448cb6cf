"""Which images run together next, at times that the test chooses."""

from __future__ import annotations

import pytest

from rlprune.deployment.streaming.scheduler import Scheduler


def make(**waiting: list[float]) -> Scheduler[str]:
    """Buckets of up to four images, that wait since some times, and came to the stream at zero."""
    made: Scheduler[str] = Scheduler(4, 1.0)
    for point, times in waiting.items():
        for number, since in enumerate(times):
            made.put(point, f"{point}{number}", 0.0, since)
    return made


def taken(scheduler: Scheduler[str], now: float) -> list[list[str]]:
    """All buckets, one after another."""
    found = []
    while (bucket := scheduler.take(now)) is not None:
        assert all(waited >= 0 for waited in bucket.waited)
        found.append(bucket.images)
    return found


def test_an_image_that_is_alone_runs_at_once() -> None:
    scheduler = make(a=[3.0])
    bucket = scheduler.take(3.0)
    assert bucket is not None
    assert (bucket.point, bucket.images, bucket.waited, len(scheduler)) == ("a", ["a0"], [0.0], 0)
    assert scheduler.take(3.0) is None


def test_the_largest_bucket_runs_before_others_that_may_still_wait() -> None:
    assert taken(make(a=[0.5], b=[0.6, 0.7]), 1.4) == [["b0", "b1"], ["a0"]]


@pytest.mark.parametrize(("now", "first"), [(1.49, "b0"), (1.5, "a0")])
def test_a_small_bucket_is_passed_over_for_so_long(now: float, first: str) -> None:
    assert taken(make(a=[0.5], b=[0.6, 0.7]), now)[0][0] == first


def test_a_full_bucket_runs_before_larger_claims_and_no_more_than_that() -> None:
    assert taken(make(a=[0.9] * 5, b=[0.9] * 2), 1.0) == [["a0", "a1", "a2", "a3"], ["b0", "b1"], ["a4"]]
    assert taken(make(b=[0.9] * 3, a=[0.9] * 4), 1.0)[0] == ["a0", "a1", "a2", "a3"]


def test_of_those_that_are_ready_the_one_that_came_first_to_the_stream_runs() -> None:
    scheduler: Scheduler[str] = Scheduler(2, 1.0)
    for name in ("new", "newer"):
        scheduler.put("first pass", name, begun=5.0, now=5.0)
    for name in ("old", "older"):
        scheduler.put("second pass", name, begun=4.0, now=5.5)
    scheduler.put("third pass", "oldest", begun=1.0, now=4.6)
    assert taken(scheduler, 5.6) == [["oldest"], ["old", "older"], ["new", "newer"]]


def test_new_images_are_waited_for_while_they_follow_one_another_closely() -> None:
    scheduler: Scheduler[str] = Scheduler(4, 1.0)
    scheduler.expect(3)
    scheduler.listen(0.0)
    scheduler.put("new", "a", 0.0002, 0.0002, is_new=True)
    assert scheduler.take(0.0004) is None and len(scheduler) == 1
    assert scheduler.held_until == pytest.approx(0.0007)
    assert scheduler.is_held(0.0004) and not scheduler.is_held(0.0008)
    scheduler.put("new", "b", 0.0006, 0.0006, is_new=True)
    assert scheduler.take(0.0008) is None
    scheduler.put("new", "c", 0.0009, 0.0009, is_new=True)
    assert not scheduler.is_held(0.0009)
    assert taken(scheduler, 0.0009) == [["a", "b", "c"]]  # as many as were answered
    scheduler.expect(3)
    scheduler.put("new", "d", 0.001, 0.001, is_new=True)
    assert scheduler.take(0.0014) is None and taken(scheduler, 0.0016) == [["d"]]  # the others do not come


def test_what_is_ready_or_on_its_way_does_not_wait_for_new_images() -> None:
    scheduler: Scheduler[str] = Scheduler(2, 1.0)
    scheduler.expect(9)
    scheduler.listen(0.0)
    scheduler.put("new", "a", 0.0, 0.0, is_new=True)
    scheduler.put("new", "b", 0.0, 0.0, is_new=True)
    assert taken(scheduler, 0.0) == [["a", "b"]]
    scheduler.put("second pass", "c", 0.0, 0.0)
    assert taken(scheduler, 0.0) == [["c"]]


@pytest.mark.parametrize(
    ("now", "n_going_on", "first"), [(0.9, 3, "new"), (0.9, 4, "second pass"), (1.6, 1, "second pass")]
)
def test_new_images_wait_where_enough_others_go_on_or_have_waited(now: float, n_going_on: int, first: str) -> None:
    scheduler: Scheduler[str] = Scheduler(8, 1.0)
    for number in range(8):
        scheduler.put("new", f"new{number}", 0.0, 0.0, is_new=True)
    for number in range(n_going_on):
        scheduler.put("second pass", f"old{number}", 0.5, 0.5)
    found = scheduler.take(now)
    assert found is not None and found.point == first


def test_those_who_are_answered_meanwhile_are_waited_for_together() -> None:
    scheduler: Scheduler[str] = Scheduler(4, 1.0)
    for n_answered in (2, 1):  # by two buckets, one after the other
        scheduler.expect(n_answered)
        scheduler.listen(0.0)
    scheduler.put("new", "a", 0.0, 0.0, is_new=True)
    scheduler.put("new", "b", 0.0001, 0.0001, is_new=True)
    assert scheduler.take(0.0002) is None
    scheduler.put("new", "c", 0.0002, 0.0002, is_new=True)
    assert taken(scheduler, 0.0002) == [["a", "b", "c"]]
    scheduler.expect(2)
    scheduler.put("new", "d", 0.001, 0.001, is_new=True)
    assert taken(scheduler, 0.002) == [["d"]]
    scheduler.put("new", "e", 0.002, 0.002, is_new=True)
    assert taken(scheduler, 0.002) == [["e"]]  # who did not come in time is expected no longer
    scheduler.expect(2)
    scheduler.put("new", "f", 9.0, 9.0, is_new=True)
    assert taken(scheduler, 9.0) == [["f"]]


def test_new_images_are_waited_for_no_longer_than_max_wait_after_answers() -> None:
    scheduler: Scheduler[str] = Scheduler(8, 0.001)
    scheduler.expect(8)
    scheduler.listen(0.0)
    for number in range(3):
        now = 0.0004 * (number + 1)
        scheduler.put("new", f"new{number}", now, now, is_new=True)
        assert (scheduler.take(now) is None) == (number < 2)


def test_without_any_waiting_all_runs_in_the_order_of_coming() -> None:
    scheduler: Scheduler[str] = Scheduler(4, 0.0)
    scheduler.expect(9)
    for number, point in enumerate("abba"):
        scheduler.put(point, f"{point}{number}", number, number, is_new=True)
    assert taken(scheduler, 4.0) == [["a0", "a3"], ["b1", "b2"]]


def test_images_are_taken_out_wherever_they_wait() -> None:
    scheduler = make(a=[0.0, 0.0], b=[0.0])
    scheduler.drop(lambda image: image in ("a0", "b0"))
    assert len(scheduler) == 1 and taken(scheduler, 9.0) == [["a1"]]
