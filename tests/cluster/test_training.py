"""Ray starts the processes of a training, here on two of its nodes: they train the network that one process does."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rayed import trained

from rlprune.cluster.connection import connected
from rlprune.cluster.training import _returned, train_on
from rlprune.errors import ClusterError, RLPruneError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Ray's own


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of two Ray nodes of one processor each, whose workers find what this process finds."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_workers_on_two_nodes_train_as_one_process(nodes: str, tmp_path: Path) -> None:
    arguments = {"checkpoint": tmp_path / "run.pt"}
    with connected(nodes) as cluster:
        assert cluster.n_nodes == 2
        with pytest.raises(ClusterError, match=r"n_workers=9: Ray at .* has 2 CPUs; give that at most"):
            train_on(trained, arguments, tmp_path / "ray", n_workers=9, address=nodes)
        size, found = train_on(trained, arguments, tmp_path / "ray", n_workers=2, address=nodes)
    assert size == 2
    _, expected = trained(tmp_path / "one.pt")
    assert all(torch.allclose(found[name], value, rtol=1e-5, atol=1e-6) for name, value in expected.items())


def test_what_is_given_back_runs_no_code() -> None:
    for value, kept in ((("a", 1, [torch.ones(2)]), True), (Path("a"), False), (RLPruneError("a"), False)):
        written = io.BytesIO()
        torch.save(value, written)
        if kept:
            assert str(_returned(written.getvalue())) == str(value)
        else:
            with pytest.raises(RLPruneError, match=r"returns other things than tensors, .* return such, a state dict"):
                _returned(written.getvalue())
