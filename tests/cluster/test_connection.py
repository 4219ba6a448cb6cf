"""Where Ray is looked for, and what is said where it is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlprune.cluster.connection import connected
from rlprune.errors import ClusterError


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:port", "host:70000", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with (
        pytest.raises(ClusterError, match="is no address of Ray; give local, auto or the head's host:port"),
        connected(address),
    ):
        pass


def test_a_dead_address_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(ClusterError, match=f"Ray at '{address}' does not answer .*ray start --head"),
        connected(address),
    ):
        pass


def test_a_cluster_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_found(**_: object) -> None:  # what Ray says; here tests beside this one may have started one
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", none_found)
    with pytest.raises(ClusterError, match=r"'auto' does not answer \(Could not find any"), connected("auto"):
        pass


@pytest.mark.parametrize("there", [True, False])
def test_a_token_is_sent_where_there_is_one(there: bool, tmp_path: Path) -> None:
    """In a process of its own, as Ray reads that once."""
    if there:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    code = "import os; from rlprune.utils.imports import require; require('ray', 'cluster'); print(*os.environ)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("RAY_AUTH_MODE" in done.stdout.split()) is there


def test_ray_starts_here_and_ends_with_the_block() -> None:
    with connected("local", n_cpus=2) as cluster:
        assert (cluster.n_cpus, cluster.n_nodes) == (2, 1)
        assert cluster.ray.get(cluster.ray.remote(lambda: 3).remote()) == 3
        with connected("nowhere") as again:
            assert again.address == cluster.address
    assert not cluster.ray.is_initialized()
