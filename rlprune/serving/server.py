"""A server of HTTP: a socket, and uvicorn on it until it is asked to end."""

from __future__ import annotations

import socket

import uvicorn

from rlprune.errors import RLPruneError
from rlprune.serving.app import make_app
from rlprune.serving.limits import Limits
from rlprune.serving.served import Served

_SECONDS_TO_END = 10
"""In which requests that are being worked on may be finished."""
_MOST_CONNECTIONS = 1000
_MOST_QUEUED = 128


class HttpServer:
    """Answers requests with a network.

    It has neither passwords nor encryption: for others than this machine, put it behind a proxy that has.

    Args:
        served: the network.
        listening: what `listen` gave; it is closed at the end.
        limits: what clients may send.
        log_requests: print a line for every request.
    """

    def __init__(
        self, served: Served, listening: socket.socket, limits: Limits | None = None, *, log_requests: bool = False
    ) -> None:
        self._socket = listening
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(served, limits),
                log_level="info" if log_requests else "warning",
                access_log=log_requests,
                server_header=False,
                ws="none",
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_SECONDS_TO_END,
            )
        )

    def run(self) -> None:
        """Answer until `stop` is called, or SIGTERM or Ctrl-C comes; what has begun is finished first.

        In the main thread such a signal is raised again afterwards.
        """
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """Take an address: clients may connect from now on, and wait until a server runs.

    Args:
        host: name or address to listen at.
        port: to listen at; 0 takes one that is free.

    Raises:
        RLPruneError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_MOST_QUEUED)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RLPruneError(
            f"nothing can listen at --host {host} --port {port}: {reason}; give another port, or 0 for any that is free"
        ) from error


def url_of(listening: socket.socket) -> str:
    """Where a socket listens, as an address for browsers."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
