"""Networks in the form in which they would be deployed answer as they do in PyTorch."""

from __future__ import annotations

import pytest
import torch
from nets import make_data, make_elastic, network
from ranged import DATA, DYNAMIC

from rlprune.errors import MissingExtraError
from rlprune.optimization.verdict import rows as module
from rlprune.optimization.verdict.rows import Runnables, time_rows
from rlprune.profiles.cost import Cost

IMAGES = make_data(70)


def test_rows_of_pytorch_answer_as_their_networks_and_cost_what_these_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> bytes:
        raise MissingExtraError("onnx is not installed")

    monkeypatch.setattr(module, "to_static_onnx", lacking)
    elastic, model = make_elastic("residual"), network("residual")
    makes = Runnables(elastic, IMAGES, "pytorch")
    made = makes.dense(model)
    assert list(made) == ["dense", "dense folded"]
    assert makes.left_out == {"dense onnxruntime": "onnx is not installed"}
    with torch.inference_mode():
        expected = model(IMAGES.normalised()).argmax(1)
    dense = int(Cost(elastic).dense.macs)
    for row in made.values():
        answers = row.answers(IMAGES, dense)
        assert torch.equal(answers.labels, expected) and torch.equal(answers.shares, torch.ones(70).double())
        assert (row.backend, row.content) == ("pytorch", None)
    profile = elastic.uniform(2)
    small = makes.static(elastic.slice(profile), Cost(elastic).of(profile))["static"].answers(IMAGES, dense)
    assert small.shares[0] == pytest.approx(float(Cost(elastic).of(profile).macs / dense))


def test_a_deciding_row_answers_as_the_network_that_decides() -> None:
    (row,) = Runnables(DYNAMIC.elastic, DATA, "pytorch").deciding("rlprune", DYNAMIC, int8=True).values()
    predicted = DYNAMIC(DATA.images)
    answers = row.answers(DATA, 1)
    assert torch.equal(answers.labels, predicted.labels) and torch.equal(answers.shares, predicted.macs.double())


def test_what_there_is_no_time_for_is_left_out_until_there_is() -> None:
    time = iter([False, True])
    makes = Runnables(DYNAMIC.elastic, DATA, "pytorch", lambda _: next(time))
    assert makes.deciding("cascade", DYNAMIC) == {} and makes.left_out == {"cascade": module.NO_TIME}
    assert list(makes.deciding("cascade", DYNAMIC)) == ["cascade"] and makes.left_out == {}


def test_rows_take_turns_on_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {"one": [], "two": []}

    def row(name: str) -> module.Runnable:
        def run(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen[name].append(len(pixels))
            return torch.zeros(len(pixels)), torch.zeros(len(pixels))

        return module.Runnable(name, "pytorch", run)

    found = time_rows({name: row(name) for name in seen}, IMAGES, 100, 0.05)
    assert set(found) == {"one", "two"} and all(set(sizes) == {100} for sizes in seen.values())
    assert all(0 <= times.low <= times.ms <= times.high for times in found.values())
