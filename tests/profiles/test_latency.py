from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import KINDS, make_centred, make_data, make_elastic, make_levels
from torch import Tensor

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.evaluation.timing.backends import backend_named
from rlprune.profiles import timing as module
from rlprune.profiles.codebook import random_profiles, sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency, measured
from rlprune.profiles.search import search_profiles

NETWORK = make_centred()
DATA = make_data(30)
COST = Cost(NETWORK)
N_PROFILES = 40
TABLE = torch.tensor([[0.0, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 2.0, 2.0, 2.0, 9.0]])


def by_groups(levels: Tensor) -> Tensor:
    return 2 + TABLE[torch.arange(3), levels].sum(1).double()


def by_macs(levels: Tensor) -> Tensor:
    return 2 + 20 * (COST.of(levels).macs - COST.stem.macs).double() / COST.dense.macs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], Latency]:
    """Measures a machine whose bodies take what it is told; the stem takes 1 ms, a decision 0.25."""

    def measure(time_of: Callable[[Tensor], Tensor]) -> Latency:
        generator = torch.Generator().manual_seed(0)
        profiles = torch.stack([NETWORK.full, *random_profiles(NETWORK, N_PROFILES - 1, generator)])
        times = {str(k): float(value) for k, value in enumerate(time_of(profiles))} | {"stem": 1.0, "decision": 0.25}

        def interleaved(rows: Mapping[str, Any], seconds: float) -> dict[str, list[float]]:
            return {name: [times[name]] for name in rows}

        monkeypatch.setattr(module, "interleaved", interleaved)
        return Latency.measure(NETWORK, n_profiles=N_PROFILES)

    return measure


@pytest.mark.parametrize(("time_of", "name"), [(by_groups, "groups"), (by_macs, "macs")])
def test_it_tells_the_time_of_profiles_it_has_not_seen(
    clock: Any, time_of: Callable[[Tensor], Tensor], name: str
) -> None:
    latency, unseen = clock(time_of), make_levels(NETWORK, 50, seed=9)
    assert latency.errors[name] < 0.01
    assert time_of is by_macs or latency.errors["macs"] > 0.05  # a sum over groups can be MACs, too
    found, expected = latency.predict_ms(COST, unseen), 1 + time_of(unseen)
    assert float(((found - expected) / expected).abs().median()) < 0.02
    assert latency.dense == pytest.approx(1 + float(time_of(NETWORK.full[None])))
    assert (latency.stem, latency.decision) == (1.0, 0.25)


def test_a_real_machine_is_measured() -> None:
    latency = Latency.measure(make_elastic("residual"), batch=2, n_profiles=12, seconds=0)
    assert 0 < latency.stem < latency.dense
    assert latency.decision > 0
    assert latency.batch == 2
    assert latency.errors.keys() == {"groups", "macs"}
    assert {"hardware", "threads", "dtype", "date"} <= latency.measured_with.keys()


def test_onnxruntime_is_measured_where_it_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def interleaved(rows: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
        ran.extend(row() for row in rows.values())
        return {name: [1.0] for name in rows}

    monkeypatch.setattr(module, "interleaved", interleaved)
    backend = backend_named("onnxruntime")
    latency = Latency.measure(NETWORK, batch=3, n_profiles=10, backend=backend)
    assert latency.backend == "onnxruntime"
    assert all(isinstance(found[0], np.ndarray) for found in ran)
    stem, decision, whole, *_ = (found[0] for found in ran)
    assert (len(stem), decision.shape, whole.shape) == (3, (3,), (3, NETWORK.n_classes))
    latency.save(tmp_path / "latency.json")
    assert measured(tmp_path / "latency.json", NETWORK, backend=backend) == latency
    message = r"holds times of onnxruntime, not of pytorch: name another folder, or remove it"
    with pytest.raises(RLPruneError, match=message):
        measured(tmp_path / "latency.json", NETWORK)


def test_a_table_of_another_batch_or_other_threads_is_refused(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "latency.json"
    latency = clock(by_groups)
    latency.save(path)
    own = latency.measured_with["threads"]
    assert measured(path, NETWORK, batch=1, threads=own) == latency
    with pytest.raises(RLPruneError, match=r"holds times at batch 1, not at batch 8: name another folder, or remove"):
        measured(path, NETWORK, batch=8)
    with pytest.raises(RLPruneError, match=rf"holds times at threads {own}, not at threads {own + 1}: name another"):
        measured(path, NETWORK, threads=own + 1)


def test_it_is_measured_on_as_many_threads_as_are_asked_for() -> None:
    before = torch.get_num_threads()
    latency = Latency.measure(NETWORK, n_profiles=10, seconds=0, threads=before + 1)
    assert latency.measured_for["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_a_table_of_before_is_of_pytorch(tmp_path: Path, clock: Any) -> None:
    clock(by_groups).save(tmp_path / "latency.json")
    stored = json.loads((tmp_path / "latency.json").read_text())
    del stored["backend"]
    (tmp_path / "latency.json").write_text(json.dumps(stored))
    assert Latency.load(tmp_path / "latency.json").backend == "pytorch"


def test_it_is_saved_and_read_back_and_measured_once(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "deep" / "latency.json"
    latency = clock(by_groups)
    latency.save(path)
    assert Latency.load(path) == latency == measured(path, NETWORK)
    written = measured(tmp_path / "new.json", make_elastic("plain"), batch=3)
    assert measured(tmp_path / "new.json", make_elastic("plain")) == written
    assert written.batch == 3


@pytest.mark.parametrize("text", ["", "{}", '{"keep_ratios": [1]}', "[]"])
def test_a_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(RLPruneError, match=r"latency\.json holds no latency table: .*; measure it anew"):
        Latency.load(tmp_path / "latency.json")
    with pytest.raises(RLPruneError, match=r"missing\.json cannot be read \(No such file"):
        Latency.load(tmp_path / "missing.json")


def test_the_table_of_another_network_is_refused(clock: Any) -> None:
    latency, other = clock(by_groups), next(each for each in map(make_elastic, KINDS) if each.n_groups != 3)
    with pytest.raises(RLPruneError, match=r"the latency table is of a network with 3 groups .*: measure it"):
        World(other, DATA, cost=latency)
    halves = ElasticCNN.from_model(NETWORK.slice(NETWORK.full), NETWORK.image_shape, keep_ratios=(0.5, 1))
    with pytest.raises(RLPruneError, match=r"keep ratios \(0\.0, 0\.25, .*this one has 3 and \(0\.5, 1\.0\)"):
        latency.check(halves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is 0; 1 or more images are needed"),
        ({"threads": 0}, "threads=0: give a whole number from 1"),
        ({"n_profiles": 9}, "n_profiles is 9; 10 or more profiles are needed"),
    ],
)
def test_too_little_to_measure_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        Latency.measure(NETWORK, **options)


def test_the_environment_charges_time(clock: Any) -> None:
    latency, book = clock(by_groups), sorted_codebook(make_levels(NETWORK, 4, seed=3), COST)
    world = World(NETWORK, DATA, action="profiles", codebook=book, max_passes=2, penalty=3.0, cost=latency, pool=0)
    episodes, choices = world.begin(torch.arange(2)), np.array([1, 2])
    first = world.step(episodes, choices)
    expected = -3 * (latency.predict_ms(COST, book[choices]) + latency.decision) / latency.dense
    torch.testing.assert_close(first.rewards.double(), expected, rtol=1e-5, atol=0)
    second = world.step(episodes, np.array([3, len(book)]))  # another, without the stem; and accept
    again = torch.stack([latency.predict_ms(COST, book[3:4])[0] - latency.stem, torch.tensor(0.0, dtype=torch.float64)])
    expected = second.correct.double() - 3 * (again + latency.decision) / latency.dense
    torch.testing.assert_close(second.rewards.double(), expected, rtol=1e-5, atol=0)


def test_a_search_can_save_time(clock: Any) -> None:
    latency = clock(by_groups)
    found = search_profiles(NETWORK, DATA, 12, latency=latency)
    assert torch.equal(found.price, latency.predict_ms(COST, found.profiles) / latency.dense)


def test_a_policy_can_pay_in_time(tmp_path: Path, clock: Any) -> None:
    settings = PolicySettings(
        **{"cost": "latency", "total_steps": 64, "n_envs": 8, "n_steps": 4, "batch_size": 8, "validate_every": 64}
    )
    with pytest.raises(RLPruneError, match=r"the cost is latency, but none is given; Latency\.measure"):
        train_policy(NETWORK, DATA, DATA, tmp_path / "run", settings, progress=False)
    policy = train_policy(NETWORK, DATA, DATA, tmp_path / "run", settings, latency=clock(by_groups), progress=False)
    assert len(policy.codebook) == 5
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["cost"] == "latency"
