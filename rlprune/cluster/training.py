"""A training in several processes that Ray starts, on one machine or many, instead of torchrun."""

from __future__ import annotations

import io
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rlprune.cluster.connection import LOCAL, connected, hushed
from rlprune.errors import ClusterError, RLPruneError
from rlprune.training.parallel.group import PATIENCE, launched
from rlprune.utils.imports import require


def train_on(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    folder: Path,
    *,
    n_workers: int,
    address: str = LOCAL,
    gpus: bool = False,
    n_retries: int = 3,
) -> Any:
    """Call a function that trains in several workers, which are one group (`rlprune.training.parallel`).

    After a worker, or its machine, was lost, all begin again: a function that names a checkpoint goes on from that.

    Args:
        function: what every worker calls, such as one that builds a network and calls `rlprune.training.pretrain`, of
            the script that runs or of a module that the workers find, too.
        arguments: of the function, by name.
        folder: where Ray keeps what it notes about the run; of several machines, one that all of them see.
        n_workers: how many there are, each of them on one processor, or one GPU.
        address: of Ray, as `connected` takes it.
        gpus: give each worker a GPU, which is its `cuda`.
        n_retries: how often all may begin again; not after an error of rlprune, which would come again.

    Returns:
        What the function returns in the first worker: tensors, which are then on the CPU, numbers, texts, and lists,
        tuples and dicts of these.

    Raises:
        ClusterError: Ray does not answer, has fewer processors or GPUs than workers, or the training failed.
        MissingExtraError: Ray is not installed.
        RLPruneError: what `function` raises in a worker; or it returns something else.
    """
    if launched() > 1:
        error = ClusterError("torchrun has started this process, and Ray would start others; use one of the two")
        error.agreed = True  # type: ignore[attr-defined]
        raise error
    n_cpus = n_workers + 1 if address == LOCAL else None
    with hushed("ray.train") as train, connected(address, n_cpus=n_cpus) as cluster:
        in_torch = require("ray.train.torch", "cluster")
        kind = "GPU" if gpus else "CPU"
        there = int(cluster.ray.cluster_resources().get(kind, 0))
        if there < n_workers:
            what = f"Ray at {cluster.address} has {there} {kind}s"
            raise ClusterError(f"n_workers={n_workers}: {what}; give that at most")
        trainer = in_torch.TorchTrainer(
            _call,
            train_loop_config={"function": function, "arguments": dict(arguments)},
            torch_config=in_torch.TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=train.ScalingConfig(num_workers=n_workers, use_gpu=gpus, placement_strategy="SPREAD"),
            run_config=train.RunConfig(
                name="training",
                storage_path=str(folder.resolve()),
            ),
        )
        return _returned(_fitted(trainer, n_retries))


def _fitted(trainer: Any, n_retries: int) -> bytes:
    """What the first worker gives; Ray itself would also try again what cannot succeed.

    Raises:
        ClusterError: workers were lost too often.
        KeyboardInterrupt: Ctrl-C, which Ray's own handler would take for a good end.
        RLPruneError: what the function raises.
    """
    ends = signal.getsignal(signal.SIGINT)
    try:
        return _tried(trainer, n_retries)
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, ends)


def _tried(trainer: Any, n_retries: int) -> bytes:
    """The same, under Ray's handler of Ctrl-C."""
    while True:
        try:
            found: bytes = trainer.fit().return_value
            return found
        except Exception as error:
            told = _told(error)
            if n_retries == 0 or not hasattr(error, "worker_failures") or not isinstance(told, ClusterError):
                raise told from error
            n_retries -= 1


def _returned(found: bytes) -> Any:
    """What a worker's function returned; nothing in it runs code.

    Raises:
        RLPruneError: it is of another kind than tensors and plain values.
    """
    try:
        return torch.load(io.BytesIO(found), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise RLPruneError(
            "the training is done, but its function returns other things than tensors, numbers, texts, and lists, "
            "tuples and dicts of these; return such, a state dict say, and call again: the checkpoint has the training"
        ) from error


def _told(error: Exception) -> RLPruneError:
    """What went wrong in a worker, in a line: its own, where it is an error of ours."""
    of_workers = [getattr(each, "_base_exc", each) for each in getattr(error, "worker_failures", {}).values()]
    for found in of_workers:
        if isinstance(found, RLPruneError) and not isinstance(found, ClusterError):
            return found
    reason = str((of_workers or [error])[0]).strip().partition("\n")[0][:300]
    return ClusterError(f"the training failed in a worker ({reason}); what its last checkpoint has stays")


def _call(config: dict[str, Any]) -> bytes:
    """Be a worker."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # Ray counts a processor for each
    found = io.BytesIO()  # as Ray gives back no tensors
    torch.save(config["function"](**config["arguments"]), found)
    return found.getvalue()
