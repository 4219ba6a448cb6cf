"""Ray starts the processes of a training, here on two of its nodes: they train the network that one process does."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pets import PRETRAIN, draw_pets
from ranks import misfit
from rayed import trained
from safetensors.torch import load_file

from rlprune.cli.main import main
from rlprune.cluster.connection import connected
from rlprune.cluster.training import _fitted, _returned, train_on
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


def test_workers_on_two_nodes_train_as_one_process(
    nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"checkpoint": tmp_path / "run.pt"}
    with connected(nodes) as cluster:
        assert cluster.n_nodes == 2
        with pytest.raises(ClusterError, match=r"n_workers=9: Ray at .* has 2 CPUs; give that at most"):
            train_on(trained, arguments, tmp_path / "ray", n_workers=9, address=nodes)
        size, found = train_on(trained, arguments, tmp_path / "ray", n_workers=2, address=nodes)
    assert size == 2
    _, expected = trained(tmp_path / "one.pt")
    assert misfit(found, expected) < 1e-5  # after 20 steps of 2 x 64 images, or 1 x 128
    _the_command_line_does_too(nodes, tmp_path / "pets", monkeypatch, capsys)


def _the_command_line_does_too(
    nodes: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root.mkdir()
    draw_pets(root)
    monkeypatch.chdir(root)
    main([*PRETRAIN[:-1], "one.safetensors"])
    alone = capsys.readouterr().out
    main([*PRETRAIN[:-1], "two.safetensors", "--processes", "2", "--cluster", nodes])
    assert capsys.readouterr().out == alone.replace("one.", "two.")
    found, expected = (load_file(root / f"{name}.safetensors") for name in ("two", "one"))
    assert misfit(found, expected) < 1e-5
    assert {path.name for path in root.iterdir()} >= {"one.safetensors", "two.safetensors", "logs"}
    assert not list(root.glob(".*")) and not list(root.glob("*.checkpoint.*"))


def test_what_is_given_back_runs_no_code() -> None:
    for value, kept in ((("a", 1, [torch.ones(2)]), True), (Path("a"), False), (RLPruneError("a"), False)):
        written = io.BytesIO()
        torch.save(value, written)
        if kept:
            assert str(_returned(written.getvalue())) == str(value)
        else:
            with pytest.raises(RLPruneError, match=r"returns other things than tensors, .* return such, a state dict"):
                _returned(written.getvalue())


def test_a_mistake_is_not_made_again_and_a_lost_worker_is() -> None:
    calls: list[Exception] = []

    def fit() -> SimpleNamespace:
        if not failures:
            return SimpleNamespace(return_value=b"done")
        calls.append(failures.pop(0))
        raise calls[-1]

    def lost(*errors: Exception) -> Exception:
        failed = Exception("training failed")
        failed.worker_failures = dict(enumerate(errors))  # type: ignore[attr-defined]
        return failed

    trainer = SimpleNamespace(fit=fit)
    failures = [lost(RuntimeError("the actor died")), lost(RuntimeError("it died"), ClusterError("another was lost"))]
    assert _fitted(trainer, 2) == b"done" and len(calls) == 2
    failures = [lost(ClusterError("another was lost"), RLPruneError("no such images")), lost()]
    with pytest.raises(RLPruneError, match=r"^no such images$"):
        _fitted(trainer, 3)
    assert len(failures) == 1
    with pytest.raises(ClusterError, match=r"the training failed in a worker \(training failed\)"):
        _fitted(trainer, 0)
    failures = [Exception("no controller"), lost()]  # what is wrong is no worker
    with pytest.raises(ClusterError, match="no controller"):
        _fitted(trainer, 3)


def test_ctrl_c_is_no_good_end_and_its_handler_stays() -> None:
    def fit() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise SystemExit(0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _fitted(SimpleNamespace(fit=fit), 3)
    assert signal.getsignal(signal.SIGINT) is before
