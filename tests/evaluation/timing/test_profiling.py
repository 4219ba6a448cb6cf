from __future__ import annotations

import json

import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.timing import ProfileResult, profile
from rlprune.evaluation.timing.profile_results import PIECES
from rlprune.evaluation.timing.tables import profiled
from rlprune.evaluation.timing.timed import Clock, TimedCNN
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK = make_elastic("residual")
DATA = make_data(20)


@pytest.fixture(scope="module")
def dynamic() -> DynamicCNN:
    book = sorted_codebook(make_levels(NETWORK, 5, seed=3), Cost(NETWORK))
    policy = make_policy(NETWORK, DATA, book, max_passes=2, seed=1)
    return DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes, max_batch=6)


@pytest.fixture(scope="module")
def results(dynamic: DynamicCNN) -> ProfileResult:
    return profile(dynamic, DATA.images, (1, 8), seconds=0)


def test_a_piece_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 1, 4, 10, 11, 13])  # seconds: the outer begins, two inner ones come and go
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock(torch.device("cpu"))

    def outer() -> str:
        clock.time("inner", int)
        clock.time_body(2, 5, int)
        return "done"

    assert clock.time("outer", outer) == "done"
    assert dict(clock.ms) == {"outer": 9000, "inner": 3000, "body": 1000}
    assert dict(clock.body_ms) == {(2, 5): [1000]}


@pytest.mark.parametrize("n_images", [1, 20])
def test_what_is_timed_predicts_the_same_and_every_body_is_counted(dynamic: DynamicCNN, n_images: int) -> None:
    images = DATA.images[:n_images]
    clock = Clock(dynamic.device)
    timed, plain = TimedCNN(dynamic, clock)(images), dynamic(images)
    assert torch.equal(timed.probabilities, plain.probabilities)
    assert torch.equal(timed.profiles, plain.profiles)
    counted = torch.zeros(len(dynamic.codebook), dtype=torch.int64)
    for (index, size), runs in clock.body_ms.items():
        counted[index] += size * len(runs)
    assert torch.equal(counted, plain.profiles[plain.profiles >= 0].bincount(minlength=len(counted)))
    assert set(clock.ms) <= set(PIECES) and ("gather" in clock.ms) == (n_images > 1)


def test_the_rows_of_a_profile(results: ProfileResult, dynamic: DynamicCNN) -> None:
    for row, n_images in zip(results.rows, (20, 16), strict=True):  # whole batches
        assert (row.n_images, row.backend) == (n_images, "pytorch")
        assert [piece.name for piece in row.pieces] == [*PIECES]
        assert row.overhead_ms == pytest.approx(row.dynamic_ms - row.floor_ms)
        assert row.overhead_share == pytest.approx(row.overhead_ms / row.dense_ms)
        predicted = dynamic(DATA.images[:n_images])
        n_batches = n_images // row.batch
        n_ran = sum(body.runs * body.mean_images for body in row.bodies)
        assert n_ran * n_batches == pytest.approx(int(predicted.passes.sum()))
        assert row.macs_ratio == pytest.approx(float(predicted.dense_macs / predicted.macs.double().mean()))
        assert all(body.bucket / 2 < body.mean_images <= body.bucket for body in row.bodies)


def test_a_profile_is_read_as_it_was_written_and_has_tables(results: ProfileResult) -> None:
    assert ProfileResult.from_json(json.loads(json.dumps(results.to_json()))) == results
    pieces, bodies, *_ = profiled(results)
    assert pieces.row_count == len(PIECES) + 4
    assert bodies.row_count == len(results.rows[0].bodies)


def test_a_batch_needs_images(dynamic: DynamicCNN) -> None:
    with pytest.raises(RLPruneError, match=r"batch sizes are \[21\]; from 1 to 20, the number of images, is allowed"):
        profile(dynamic, DATA.images, (21,))
