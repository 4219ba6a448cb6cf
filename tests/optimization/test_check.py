"""What is said of a network, images and a goal before anything long begins, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from signals import Signals, signals, splits, without_clocks
from torch import Tensor

from rlprune.data.image_set import Splits
from rlprune.errors import ModelError, RLPruneError
from rlprune.optimization.check import examine
from rlprune.optimization.entry import exporting
from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.trying import may_mirror
from rlprune.optimization.goal import Goal, PlanOptions, YesNo
from rlprune.optimization.inputs import read_subject


@pytest.fixture(autouse=True)
def _no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    without_clocks(monkeypatch)


def check(data: Splits, minutes: float = 60.0, **goal: Any) -> Examined:
    return examine(read_subject(Signals(), data), Goal(**goal), PlanOptions(), minutes)


def line(found: Examined, start: str) -> str:
    return next(each for each in found.result.lines if each.startswith(start))


def test_the_networks_accuracy_is_told_before_anything() -> None:
    found = check(splits(0.1))
    assert "right on 100.0 % of 300 validation images" in line(found, "network: Signals")
    assert "not your number? stop here" in line(found, "network: ")
    assert found.result.accuracy == 1
    assert found.result.n_images == {"network": 64, "policy": 300, "validation": 300, "test": 400}
    assert line(found, "images: ").endswith("64 train the network, 300 teach the decisions, 300 choose, 400 test")


def test_what_always_runs_is_what_the_narrowest_slice_costs() -> None:
    found = check(splits())
    pixels = 12 * 12
    expected = (pixels * (3 * 8 + 8 * 16) + 16 * 2) / (pixels * (3 * 8 + 8 * 64) + 64 * 2)
    assert found.result.always_runs == pytest.approx(expected)
    assert f"at least {100 * expected:.1f} %" in line(found, "pruning: ")


def test_a_share_below_what_always_runs_is_refused_with_one_that_does() -> None:
    with pytest.raises(RLPruneError, match=r"max_macs=0.001: .* give 0\.\d+ or more") as caught:
        check(splits(), max_macs=0.001)
    enough = float(re.findall(r"give ([\d.]+)", str(caught.value))[0])
    assert check(splits(), max_macs=enough)
    with pytest.raises(RLPruneError, match="max_macs"):
        check(splits(), max_macs=enough - 0.001)


def test_a_speed_beyond_the_narrowest_slice_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(RLPruneError, match=r"min_speedup=50: .* give [\d.]+ or less") as caught:
        check(splits(), min_speedup=50.0)
    most = float(re.findall(r"give ([\d.]+)", str(caught.value))[0])
    found = check(splits(), min_speedup=most)
    assert any("will hardly be reached" in each for each in found.result.warnings)
    assert not check(splits(), min_speedup=2.0).result.warnings


def test_milliseconds_below_the_narrowest_slice_are_refused_where_they_are_pytorchs() -> None:
    with pytest.raises(RLPruneError, match=r"max_ms=1: .* takes 3 ms here .* give 3 or more"):
        check(splits(), max_ms=1.0, backend="pytorch")
    found = check(splits(), max_ms=1.0)  # onnxruntime may be faster
    assert any("1 ms will hardly be reached" in each for each in found.result.warnings)
    with pytest.raises(RLPruneError, match=r"max_ms=0\.1"):
        check(splits(), max_ms=0.1)
    assert any("takes 10 ms already" in each for each in check(splits(), max_ms=12.0).result.warnings)


def test_a_network_that_guesses_is_refused() -> None:
    data = splits()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (300,), generator=generator)
    with pytest.raises(RLPruneError, match=r"right on \d+.\d % of 300 images, no better than guessing among 2 classes"):
        check(replace(data, validation=replace(data.validation, labels=labels)))
    labels = torch.where(torch.arange(300) % 10 < 6, data.validation.labels, 1 - data.validation.labels)
    found = check(replace(data, validation=replace(data.validation, labels=labels)))  # 60 % of two classes are no guess
    assert found.result.accuracy == pytest.approx(0.6)


def test_a_network_that_has_seen_what_teaches_decisions_is_found_out() -> None:
    known, unknown = signals(300), signals(300, 0.3, 3)
    found = check(Splits(signals(64), known, signals(300, 0.3, 2), unknown))
    assert any("probably been trained on the former" in each and "--heldout" in each for each in found.result.warnings)
    assert not check(Splits(signals(64), signals(300, 0.3), signals(300, 0.3, 2), unknown)).result.warnings[1:]


def test_test_images_out_of_the_folder_that_trained_are_pointed_out() -> None:
    found = check(replace(splits(), test_set_aside=True)).result
    assert found.test_is_part_of_training_folder
    assert any("no test part, so a random fifth of it tests: if your weights" in each for each in found.warnings)
    untrained = examine(read_subject("digits_cnn", replace(splits(), test_set_aside=True)), Goal(), PlanOptions(), 60.0)
    assert not untrained.result.test_is_part_of_training_folder
    assert not any("no test part" in each for each in untrained.result.warnings)


def test_the_number_of_test_images_that_would_do_does() -> None:
    warnings = check(splits(n_test=60), max_drop=0.5).result.warnings
    told = next(each for each in warnings if each.startswith("60 test images tell a drop to about"))
    enough = int(re.findall(r"about ([\d,]+) would do", told)[0].replace(",", ""))
    assert enough > 60
    assert not any("test images" in each for each in check(splits(n_test=enough), max_drop=0.5).result.warnings)


def test_few_images_to_learn_decisions_from_are_pointed_out() -> None:
    assert any("30 images teach the decisions" in each for each in check(splits(n=30), max_macs=0.5).result.warnings)


def test_a_limit_that_no_epoch_fits_into_is_refused_with_one_that_does() -> None:
    with pytest.raises(RLPruneError, match=r"time_limit=0.01 minutes") as caught:
        check(splits(), 0.01)
    enough = float(re.findall(r"give (\d+)", str(caught.value))[0])
    found = check(splits(), enough)
    assert found.plan.total <= 60 * enough
    assert found.result.seconds == found.plan.total


def test_a_network_that_onnx_cannot_hold_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.optimization.check.ms_of_file", exporting.ms_of_file)

    def refuse(*_: object, **__: object) -> bytes:
        raise RLPruneError("no such operator\nand more")

    monkeypatch.setattr(exporting, "to_static_onnx", refuse)
    with pytest.raises(
        RLPruneError, match=r"Signals cannot be written as an ONNX file \(no such operator\); give back"
    ):
        check(splits())
    assert check(splits(), backend="pytorch").dense_ms == 10


def test_the_whole_network_is_timed_as_the_file_that_it_becomes() -> None:
    pytest.importorskip("onnxscript")
    elastic = check(splits()).elastic
    assert min(exporting.ms_of_file("Signals", elastic, splits().validation, 2)) > 0


def test_a_network_without_weights_is_asked_about_mirrored_images_later() -> None:
    fresh = read_subject("digits_cnn", splits())
    found = examine(fresh, Goal(), PlanOptions(), 60.0)
    assert found.asks_mirrored and not found.plan.flip
    given = examine(fresh, Goal(), PlanOptions(flip="yes"), 60.0)
    assert not given.asks_mirrored and given.plan.flip
    assert check(splits()).plan.flip and not check(splits()).asks_mirrored
    sides = replace(signals(64), images=signals(64).images * (torch.arange(12) < 6))  # all in the left half
    assert may_mirror(Signals(), signals(64)) and not may_mirror(LeftHalf(), sides)


class LeftHalf(Signals):
    """Looks at the left half alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., :6])


def test_passes_that_would_do_nothing_are_refused() -> None:
    for data, options, message in (
        (read_subject(Signals(), splits()), {"pretrain_epochs": 3}, "pretrain_epochs=3: this network has been trained"),
        (read_subject("digits_cnn", splits()), {"pretrain_epochs": 0}, "pretrain_epochs=0: this network has random"),
    ):
        with pytest.raises(RLPruneError, match=message):
            examine(data, Goal(), PlanOptions(**options), 60.0)


def resolves(resolution: YesNo) -> bool:
    subject = read_subject(Signals(), splits())
    return examine(subject, Goal(), PlanOptions(resolution=resolution), 60.0).elastic.resolution


def test_large_pictures_are_looked_at_at_lower_resolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not resolves("auto") and resolves("yes")
    monkeypatch.setattr("rlprune.optimization.check._LARGE", 12)
    assert resolves("auto") and not resolves("no")


def test_a_network_of_one_resolution_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.optimization.check._LARGE", 12)
    monkeypatch.setattr("signals.F.adaptive_avg_pool2d", lambda x, _: F.avg_pool2d(x, 12))
    assert not resolves("auto")
    with pytest.raises(ModelError, match="runs at full resolution only"):
        resolves("yes")


def test_random_weights_are_said_and_not_tried() -> None:
    found = examine(read_subject("digits_cnn", splits()), Goal(), PlanOptions(), 60.0)
    assert "random weights, so it is trained first" in line(found, "network: ")
    assert found.result.accuracy is None and found.plan.pretrain_epochs >= 1


@pytest.mark.parametrize(("name", "value"), [("padding", 13), ("n_candidates", 4)])
def test_options_that_would_fail_later_are_refused_now(name: str, value: int) -> None:
    with pytest.raises(RLPruneError, match=rf"{name}={value}: .* (or more|up to that)"):
        examine(read_subject(Signals(), splits()), Goal(), PlanOptions(**{name: value}), 60.0)
