"""A server of several processes and machines: replicas of what `rlprune serve` runs, behind Ray Serve.

`serve run rlprune.cluster.serving:app folder=/bundle replicas=2` and RayService of KubeRay start it, too.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from rlprune.cluster.connection import LOCAL, Cluster, connected, hushed
from rlprune.cluster.replicas import Opening, Replicas
from rlprune.errors import BundleError, ClusterError, RLPruneError
from rlprune.serving.app import make_app
from rlprune.serving.limits import Limits
from rlprune.serving.served import Source
from rlprune.serving.server import listen
from rlprune.utils.imports import require
from rlprune.utils.settings import read_settings

NAME = "rlprune"
"""Of the application, among others of the same cluster."""
_SECONDS_TO_END = 10.0
"""In which a replica finishes the requests that it works on."""
_HEALTH_SECONDS = 5.0
"""Between looks at a replica, which then tells its figures."""
_EXTRA = "cluster"


_of_this_process: list[ASGIApp] = []
"""The application of the replica that this process is."""


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await _of_this_process[-1](scope, receive, send)


class _Late:
    """What Ray Serve asks, in a replica: it is named before there is one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(scope, receive, send)


class Replica:
    """One process that answers; Ray Serve makes it.

    Args:
        opening: what it opens.
    """

    def __init__(self, opening: Opening) -> None:
        app = make_app(opening.open(), opening.limits)
        _of_this_process.append(app)
        self._read = app.state.figures
        self._gauges: dict[str, Any] = {}

    def check_health(self) -> None:
        """Tell the figures of `/metrics` to Ray, which gives them to Prometheus with its own, and by replica."""
        parser, metrics = require("prometheus_client.parser", "serve"), require("ray.serve.metrics", _EXTRA)
        for family in parser.text_string_to_metric_families(self._read().decode()):
            if not family.name.startswith(NAME):
                continue
            for name, labels, value, *_ in family.samples:
                if name not in self._gauges:
                    self._gauges[name] = metrics.Gauge(name, family.documentation, tuple(labels))
                self._gauges[name].set(value, labels)


def application(opening: Opening, scale: Replicas | None = None, *, log_requests: bool = False) -> Any:
    """The application for Ray Serve.

    Args:
        opening: what each replica opens.
        scale: how many replicas; one if None.
        log_requests: write a line for every request into Ray's logs.

    Raises:
        MissingExtraError: Ray, or what serves over HTTP, is not installed.
    """
    scale = scale or Replicas()
    how_many: dict[str, Any] = {"num_replicas": scale.replicas}
    if scale.max_replicas > scale.replicas:
        bounds = {"min_replicas": scale.replicas, "max_replicas": scale.max_replicas}
        how_many = {"autoscaling_config": {**bounds, "target_ongoing_requests": scale.target_requests}}
    with hushed("ray.serve") as serve:
        deployment = serve.deployment(
            name="replica",
            max_ongoing_requests=opening.limits.max_waiting,
            max_queued_requests=opening.limits.max_waiting,
            graceful_shutdown_timeout_s=_SECONDS_TO_END,
            graceful_shutdown_wait_loop_s=0.5,
            health_check_period_s=_HEALTH_SECONDS,
            ray_actor_options={"num_cpus": opening.n_cpus},
            logging_config={"enable_access_log": log_requests},
            **how_many,
        )
        return deployment(serve.ingress(_Late())(Replica)).bind(opening)


def app(arguments: Mapping[str, Any]) -> Any:
    """The application, built by `serve run rlprune.cluster.serving:app folder=... replicas=2`, or from Serve's config.

    Args:
        arguments: those of `Opening` and `Replicas` by their names, with values or as text; `limits` is a table.

    Raises:
        RLPruneError: there is no folder; or as `application`.
        SettingsError: an argument is wrong or unknown.
    """
    given = {name: _value(value) for name, value in arguments.items()}
    scale = read_settings(Replicas, {name: given.pop(name) for name in Replicas.__annotations__ if name in given})
    limits = read_settings(Limits, given.pop("limits", {}))
    known = [name for name in Opening.__annotations__ if name != "limits"]
    if "folder" not in given or (strange := sorted(given.keys() - set(known))):
        wrong = "folder is missing" if "folder" not in given else f"{strange[0]}: there is no such argument"
        raise RLPruneError(
            f"{wrong}; give folder and, as you like, {', '.join([*known[1:], *Replicas.__annotations__])}"
        )
    return application(Opening(**{**given, "folder": str(given["folder"])}, limits=limits), scale)


def _value(text: Any) -> Any:
    """A value that may have been typed: a number, or what it is."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


@contextmanager
def serving(
    opening: Opening,
    scale: Replicas | None = None,
    *,
    cluster: str = LOCAL,
    host: str = "127.0.0.1",
    port: int = 8000,
    log_requests: bool = False,
) -> Iterator[str]:
    """Answer over HTTP for the length of a block, on every machine of a cluster; what has begun is finished first.

    Args:
        opening: what each replica opens.
        scale: how many replicas; one if None.
        cluster: as for `connected`.
        host: name or address to listen at.
        port: to listen at; 0 takes one that is free. A Ray Serve that runs there already keeps its own.
        log_requests: write a line for every request into Ray's logs.

    Yields:
        The address for clients, once all replicas are ready.

    Raises:
        BundleError: there is nothing to be served; or it is not under the same path, or another one, on a machine.
        ClusterError: Ray cannot be reached, has too few processors, or the replicas do not start.
        RLPruneError: the address cannot be had; or as `rlprune.serving.open_served`.
    """
    scale = scale or Replicas()
    target = application(opening, scale, log_requests=log_requests)
    opening.open()  # what is wrong with it is said here, and not by a replica
    if cluster == LOCAL:
        with listen(host, port) as free:
            port = free.getsockname()[1]
    with connected(cluster) as ray, hushed("ray.serve") as serve:
        others = list(serve.status().applications)
        if NAME in others:  # before its place: what is served already may hold the processors
            raise ClusterError(f"Ray Serve at {ray.address} serves {NAME} already; end that first (serve.delete)")
        _check_place(ray, opening, scale)
        source = opening.source()
        _check_everywhere(ray, source, _content(str(source.path)))
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
        try:
            _run(serve, target)
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            serve.delete(NAME) if others else serve.shutdown()


def watch() -> None:
    """Wait, as long as the cluster that `serving` uses is there.

    Raises:
        ClusterError: it is there no longer.
    """
    serve, lost = require("ray.serve", _EXTRA), require("ray.exceptions", _EXTRA).RayError
    while True:
        time.sleep(_HEALTH_SECONDS)
        try:
            found = serve.status().applications
        except (lost, RuntimeError) as error:
            raise ClusterError(f"Ray is gone ({_last_line(str(error))}); start it, and this, again") from error
        if NAME not in found:
            raise ClusterError(f"Ray Serve serves {NAME} no longer: somebody has ended it")


def _run(serve: Any, target: Any) -> None:
    """Let replicas start, and wait until they have."""
    try:
        serve.run(target, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ClusterError(f"the replicas do not start ({_last_line(str(error))}); Ray's logs have more") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was told"])[-1].strip()


def _check_place(cluster: Cluster, opening: Opening, scale: Replicas) -> None:
    """Make sure that the replicas that are there from the beginning find processors.

    Raises:
        ClusterError: there are too few.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in cluster.ray.nodes() if node["Alive"]]
    places = sum(n_cpus // opening.n_cpus for n_cpus in nodes)
    if places < scale.replicas:
        raise ClusterError(
            f"replicas={scale.replicas} of {opening.n_cpus} processors each find no place: the machines of Ray at "
            f"{cluster.address} have {' + '.join(map(str, nodes))} processors, room for {places}; give fewer replicas "
            "or threads, or add machines"
        )
    free = int(cluster.ray.available_resources().get("CPU", 0))
    if free < scale.replicas * opening.n_cpus:
        raise ClusterError(
            f"replicas={scale.replicas} of {opening.n_cpus} processors each find no place now: {free} of "
            f"{cluster.n_cpus} processors of Ray at {cluster.address} are free; give fewer, or let others end"
        )


def _check_everywhere(cluster: Cluster, source: Source, expected: str | None) -> None:
    """Make sure that every machine has what is served.

    Raises:
        BundleError: one has not, or has another one.
    """
    ray = cluster.ray
    strategy = require("ray.util.scheduling_strategies", _EXTRA).NodeAffinitySchedulingStrategy
    looks = {
        node["NodeManagerAddress"]: ray.remote(_content)
        .options(num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False))
        .remote(str(source.path))
        for node in ray.nodes()
        if node["Alive"]
    }
    for address, look in looks.items():
        found = ray.get(look)
        if found != expected:
            what = "is not" if found is None else "is another one"
            raise BundleError(f"{source.path} {what} on the machine {address}; put it there, under the same path")


def _content(path: str) -> str | None:
    """What tells a file, or the bundle in a folder, from others; None if there is none."""
    file = Path(path) / "manifest.json" if Path(path).is_dir() else Path(path)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
