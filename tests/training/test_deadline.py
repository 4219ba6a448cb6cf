"""A training that has to be done by a time, on a clock that the test sets."""

from __future__ import annotations

import pytest
from nets import make_data, network

from rlprune.training import pretraining
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.timing import Deadline

SETTINGS = TrainingSettings(epochs=6, batch_size=8, bf16=False, padding=0)
N_ALL = 30


@pytest.mark.parametrize(("limit", "n_made"), [(30.0, N_ALL), (15.0, 15), (-1.0, 1)])
def test_steps_that_do_not_fit_are_left_out_evenly(limit: float, n_made: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, rates = [0.0], []
    loss = pretraining.F.cross_entropy

    def takes_a_second(*given: object) -> object:
        seconds[0] += 1
        return loss(*given)

    monkeypatch.setattr(pretraining.F, "cross_entropy", takes_a_second)
    deadline = Deadline(lambda *_: limit - seconds[0], clock=lambda: seconds[0])
    log = lambda n, figures: rates.append((n, figures["learning_rate"]))  # noqa: E731
    pretrain(network("plain"), make_data(40), SETTINGS, log=log, deadline=deadline)
    assert seconds[0] == pytest.approx(n_made, abs=2) and seconds[0] + deadline.skipped == N_ALL
    assert rates[-1] == (6 * 40, pytest.approx(0.0, abs=1e-9))  # it has come to its end, whatever was left out
