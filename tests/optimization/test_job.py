"""An optimisation in a folder: it goes on where it was, answers at once when it is done, and refuses what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from signals import QUICK, Signals, splits, without_clocks, without_files
from streams import streamed

import rlprune
from rlprune.baselines.stored import load_plain
from rlprune.data.image_set import Splits
from rlprune.data.preprocessing import Preprocessing
from rlprune.errors import InUseError, RLPruneError, WriteError
from rlprune.metrics import accuracy
from rlprune.optimization import Goal, Optimization, OptimizeResult
from rlprune.optimization.pace import Pace
from rlprune.optimization.verdict.comparison import Comparison
from rlprune.profiles.latency import Latency
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.utils.locks import hold
from rlprune.utils.progress import WholeBar

PLAN = replace(
    QUICK, pretrain_epochs=1, slice_epochs=1, n_candidates=5, learning_rate=None, policy_steps=256, n_profiles=2
)


PLAN_OF_TRAINED = replace(PLAN, pretrain_epochs=None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_clocks(monkeypatch)
    without_files(monkeypatch)


def optimize(out: Path, **given: Any) -> OptimizeResult:
    """A network of random weights, so that every step has something to do."""
    usual: dict[str, Any] = {"plan": PLAN, "backend": "pytorch", "max_macs": 0.9, "quiet": True, "out": out}
    data = given.pop("data", None) or splits(0.1, 60, 40)
    return rlprune.optimize(given.pop("model", "digits_cnn"), data, **(usual | given))


def without_seconds(result: OptimizeResult) -> OptimizeResult:
    return replace(result, seconds=0.0, conditions=replace(result.conditions, date=""))


def test_in_little_time_slices_are_the_whole_network_at_several_resolutions(tmp_path: Path) -> None:
    plan = replace(PLAN, slice_epochs=0, n_candidates=None, n_profiles=3, resolution="yes")
    result = optimize(tmp_path / "out", plan=plan)
    (codebook,) = json.loads((tmp_path / "out" / "work" / "codebook.json").read_text()).values()
    assert [profile[-1] for profile in codebook] == [1, 2, 4]
    assert all(level == 4 for profile in codebook for level in profile[:-1])
    assert len(load_network(tmp_path / "out" / "work" / "specialised").network.own_bodies) == 3
    (static,) = json.loads((tmp_path / "out" / "work" / "static.json").read_text()).values()
    share = next(row.macs_share for row in result.rows if row.name == "static")
    assert len(static) == len(codebook[0]) and share <= 0.9


def stop_at_new_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt each step at its end, when it is done for the first time; the names of those that were."""
    stopped: list[str] = []
    whole = WholeBar.step

    @contextmanager
    def step(self: WholeBar, name: str) -> Iterator[None]:
        with whole(self, name):
            yield
        if name not in (*stopped, "looking at the network"):
            stopped.append(name)
            raise KeyboardInterrupt

    monkeypatch.setattr(WholeBar, "step", step)
    return stopped


def test_stopped_at_every_step_it_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    expected = optimize(tmp_path / "at once")
    stopped = stop_at_new_steps(monkeypatch)
    result = None
    for number in range(12):
        torch.manual_seed(100 + number)  # another process draws other numbers, on a machine that is much slower
        if number:
            monkeypatch.setattr("rlprune.optimization.check.measure_pace", lambda *_: Pace(100.0, 500.0, 0.3))
        try:
            result = optimize(tmp_path / "stopped")
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "stopped" / "report.json").exists()
    assert result is not None and without_seconds(result) == without_seconds(expected)
    assert {"training the network", "training slices", "learning to decide", "measuring"} <= set(stopped)


def test_a_finished_folder_answers_at_once_and_refuses_other_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    result = optimize(out, model=Signals(), plan=QUICK)
    monkeypatch.setattr("rlprune.optimization.job.examine", None)  # nothing is looked at
    assert optimize(out, model=Signals(), plan=QUICK) == result
    for given, message in (
        ({"max_drop": 2.0}, r"goal.max_drop: None, now 2.0"),
        ({"seed": 5}, r"seed: 0, now 5"),
        ({"time_limit": 7.0}, r"time_limit: 60.0, now 7.0"),
        ({"plan": replace(QUICK, policy_steps=99)}, r"plan.policy_steps: 2048, now 99"),
        ({"model": Signals(32)}, r"made_of: "),
    ):
        with pytest.raises(RLPruneError, match=message) as caught:
            optimize(out, **({"model": Signals(), "plan": QUICK} | given))
        assert "name another folder" in str(caught.value) and str(out) in str(caught.value)
    for other, message in others_than(splits(0.1, 60, 40)):
        with pytest.raises(RLPruneError, match=message):
            optimize(out, model=Signals(), plan=QUICK, data=other)


def others_than(images: Splits) -> Iterator[tuple[Splits, str]]:
    """Images that differ in one thing, and what is said of it."""
    parts = ("network", "policy", "validation", "test")

    def each(**other: Any) -> Splits:
        return Splits(*(replace(getattr(images, name), **other) for name in parts))

    yield each(mean=(0.4,) * 3), r"mean: \[0.5, 0.5, 0.5\], now \[0.4"
    yield each(std=(0.4,) * 3), r"std: "
    yield each(classes=("down", "up")), r"classes: 'up, down', now 'down, up'"
    yield each(preprocessing=Preprocessing(channels="bgr")), r"preprocess: "
    for name in parts:
        part = getattr(images, name)
        changed = part.images.clone()
        changed[-1, 0, 0, 0] ^= 1
        yield replace(images, **{name: replace(part, images=changed)}), rf"images.{name}: "
    yield replace(images, test=replace(images.test, labels=images.test.labels.flip(0))), r"images.test: "


def test_what_follows_from_times_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"model": Signals(), "plan": PLAN_OF_TRAINED, "max_macs": None, "max_ms": 7.0, "batch": 3}
    work = tmp_path / "out" / "work"
    with monkeypatch.context() as patched:
        stop_at_new_steps(patched)
        while not (work / "static.json").exists():
            with pytest.raises(KeyboardInterrupt):
                optimize(tmp_path / "out", **given)
    found = {name: json.loads((work / f"{name}.json").read_text())[name] for name in ("static", "codebook")}
    monkeypatch.setattr("rlprune.optimization.check._slice_times", lambda *_: (1000.0, 3.0))  # other times, by far
    monkeypatch.setattr(Comparison, "_static_share", lambda *_: 1e-6)
    optimize(tmp_path / "out", **given)
    assert load_plain(work / "static").metadata["profile"] == found["static"]
    policy = load_policy(work / "policy" / "policy")
    assert policy.policy.codebook.tolist() == found["codebook"]
    assert policy.metadata["settings"]["cost"] == "latency"  # the goal is a time: what the verdict times is paid for
    assert policy.metadata["latency"] == Latency.load(work / "latency.json").measured_for
    assert (policy.metadata["latency"]["backend"], policy.metadata["latency"]["batch"]) == ("pytorch", 3)


def test_what_was_begun_before_times_were_paid_for_goes_on_without(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": Signals(), "plan": PLAN_OF_TRAINED, "max_macs": None}
    optimize(tmp_path / "out", **given)
    settings = tmp_path / "out" / "work" / "settings.json"
    noted = json.loads(settings.read_text())
    noted["goal"]["max_ms"] = 7.0
    settings.write_text(json.dumps(noted))
    (tmp_path / "out" / "report.json").unlink()
    optimize(tmp_path / "out", **given, max_ms=7.0)
    assert not (tmp_path / "out" / "work" / "latency.json").exists()


def test_streamed_images_are_all_that_it_needs_and_are_not_mixed_with_others(tmp_path: Path) -> None:
    here = splits(0.1, 60, 40)
    there = Splits(*(streamed(part) for part in (here.network, here.policy, here.validation, here.test)))
    plan = replace(PLAN_OF_TRAINED, views=2)
    result = optimize(tmp_path / "out", model=Signals(), data=there, plan=plan)
    dense = result.row("dense")
    assert dense is not None and dense.accuracy == accuracy(Signals().eval(), here.test)
    assert (tmp_path / "out" / "work" / "teacher" / "logits-000000.npy").exists()
    with pytest.raises(RLPruneError, match=r"64, streamed by RLPRUNE_MEMORY \(\w+\)', now '64 \("):
        optimize(tmp_path / "out", model=Signals(), data=here, plan=plan)


def test_a_static_rival_below_every_profile_of_its_kind_is_the_cheapest(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Comparison, "_static_share", lambda *_: 1e-6)
    result = optimize(tmp_path / "out", model=Signals(), plan=QUICK)
    static = result.row("static")
    assert static is not None and static.macs_share < 1


def test_a_second_process_is_refused_before_it_reads(tmp_path: Path) -> None:
    optimize(tmp_path / "out", model=Signals(), plan=QUICK)
    job = Optimization(Goal(), tmp_path / "out")
    with hold(tmp_path / "out", inside=True):
        with ThreadPoolExecutor(1) as other, pytest.raises(InUseError, match="is in use by process"):
            other.submit(job.read, "nothing", "nowhere").result()


def test_a_finished_folder_that_is_looked_at_again_is_planned_anew(tmp_path: Path) -> None:
    optimize(tmp_path / "out", model=Signals(), plan=QUICK)
    job = Optimization(Goal(backend="pytorch"), tmp_path / "out", plan=replace(QUICK, policy_steps=80_000), quiet=True)
    job.read(Signals(), splits(0.1, 60, 40))
    before = OptimizeResult.load(tmp_path / "out" / "report.json").check.seconds
    assert job.check().seconds > before + 5


def test_what_cannot_be_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match="max_macs"):
        optimize(tmp_path / "out", model=Signals(), plan=QUICK, max_macs=0.001)
    assert not (tmp_path / "out").exists()
    assert optimize(tmp_path / "out", model=Signals(), plan=QUICK).deploy


def test_a_folder_of_other_things_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RLPruneError, match=r"holds other things, such as notes.txt; name a new or an empty folder"):
        Optimization(Goal(), tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises((RLPruneError, WriteError), match="file"):
        Optimization(Goal(), tmp_path / "file")


def test_a_start_that_found_no_room_is_no_other_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RLPruneError("no room")

    with monkeypatch.context() as patched, pytest.raises(RLPruneError, match="no room"):
        patched.setattr("rlprune.optimization.job.check_room", full)
        optimize(tmp_path / "out", model=Signals(), plan=QUICK)
    Optimization(Goal(), tmp_path / "out")


def test_arguments_out_of_range_are_named(tmp_path: Path) -> None:
    for given, message in (
        ({"time_limit": 0.0}, "time_limit=0: give minutes above 0"),
        ({"time_limit": float("nan")}, "time_limit"),
        ({"seed": -1}, "seed"),
        ({"device": "cuda:99"}, "device='cuda:99'"),
        ({"device": "tpu"}, "device='tpu'"),
    ):
        with pytest.raises(RLPruneError, match=message):
            Optimization(Goal(), tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text("{}")
    for content, why in (("{", "damaged"), ("{}", "of another version")):
        (tmp_path / "work" / "plan.json").write_text(content)
        with pytest.raises(RLPruneError, match=rf"plan.json is {why} .*; remove the folder above it"):
            optimize(tmp_path)
