"""Ray, started on this machine or found where it runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from rlprune.errors import ClusterError
from rlprune.utils.imports import require

LOCAL, AUTO = "local", "auto"
_PATIENCE = 5.0
"""Seconds in which an address must answer: Ray itself would go on trying for ever."""


@dataclass(frozen=True)
class Cluster:
    """Ray as it is connected to.

    Attributes:
        ray: the package.
        address: of its head node, ``host:port``.
        n_cpus: processors of all its nodes.
        n_nodes: machines that it has.
    """

    ray: ModuleType
    address: str
    n_cpus: int
    n_nodes: int


@contextmanager
def connected(address: str = LOCAL, *, n_cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to Ray for the length of a block; what was connected before stays so.

    Args:
        address: ``local`` starts Ray on this machine, and ends it with the block; ``auto`` finds the cluster that this
            machine belongs to, or that ``$RAY_ADDRESS`` names; else the head's ``host:port``.
        n_cpus: processors that a Ray started here may use; all if None.

    Raises:
        ClusterError: nothing answers there within five seconds, or Ray does not start.
        MissingExtraError: Ray is not installed.
    """
    ray = require("ray", "cluster")
    if ray.is_initialized():
        yield _described(ray)
        return
    check_answers(address)
    ends = signal.getsignal(signal.SIGTERM)
    own = {"num_cpus": n_cpus, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:
        raise ClusterError(_no_ray(address, str(error).partition("\n")[0])) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)  # Ray's own would end the program without a word
    try:
        yield _described(ray)
    finally:
        ray.shutdown()


@contextmanager
def hushed(name: str) -> Iterator[ModuleType]:
    """A library of Ray, without the lines that it logs, and its warnings of its own settings, on the screen.

    Args:
        name: of the library, such as ``ray.data``.

    Raises:
        MissingExtraError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library, logger = require(name, "cluster"), logging.getLogger(name)
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield library
        finally:
            logger.setLevel(before)


def _described(ray: ModuleType) -> Cluster:
    """What Ray says of itself."""
    n_cpus = int(ray.cluster_resources().get("CPU", 1))
    return Cluster(ray, ray.get_runtime_context().gcs_address, n_cpus, sum(node["Alive"] for node in ray.nodes()))


def check_answers(address: str) -> None:
    """Make sure that something listens at an address.

    Raises:
        ClusterError: nothing does, or it is no address.
    """
    named = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if named in (LOCAL, AUTO) or named.startswith("ray://"):
        return
    host, colon, port = named.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ClusterError(f"{named!r} is no address of Ray; give local, auto or the head's host:port")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterError(_no_ray(named, str(error))) from error


def _no_ray(address: str, reason: str) -> str:
    """That there is no Ray to use, and what to do."""
    return (
        f"Ray at {address!r} does not answer ({reason}); start it with `ray start --head`, give the address that this "
        "prints, or local to start it here; one that asks for a token needs the head's ~/.ray/auth_token on this "
        "machine"
    )
