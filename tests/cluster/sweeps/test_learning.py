"""What a cluster computes for one policy and one search is what is computed here, on one thread."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp

from rlprune.agents.train import train_policy
from rlprune.cluster.connection import connected
from rlprune.cluster.sweeps.learning import learn_policy, search_on
from rlprune.errors import ClusterError, RLPruneError
from rlprune.optimization.goal import Goal
from rlprune.optimization.job import Optimization
from rlprune.profiles.search import search_profiles


def test_a_policy_and_a_search_are_the_same_to_the_last_digit(tmp_path: Path) -> None:
    network, images, validation = make_lamp(), make_lamp_data(64), make_lamp_data(16)
    codebook = torch.stack([network.uniform(0), network.full])
    settings = lamp_settings(total_steps=1024)
    with connected("local", n_cpus=2) as cluster:
        more = {"codebook": codebook, "progress": False}
        learn_policy(cluster, train_policy, network, images, validation, tmp_path / "there", settings, **more)
        found = search_on(cluster, network, images, 4, 0)
    train_lamp(tmp_path / "here", settings, codebook=codebook)
    here = search_profiles(network, images, 4, 0)
    assert found.to_json() == here.to_json() and len(here.profiles) > 1
    for path in (tmp_path / "here" / "policy").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / "policy" / path.name).read_bytes()


def test_an_optimisation_refuses_a_dead_cluster_before_it_reads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(ClusterError, match=r"Ray at '127\.0\.0\.1:1' does not answer"),
        Optimization(Goal(), tmp_path).on("127.0.0.1:1"),
    ):
        pass
    job = Optimization(Goal(), tmp_path)
    monkeypatch.setattr(job, "device", "cuda")
    with pytest.raises(RLPruneError, match="device=cuda: a cluster computes on processors"), job.on("local"):
        pass
