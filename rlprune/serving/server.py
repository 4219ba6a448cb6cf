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


class HttpServer:
    """Answers requests with a network.

    It has neither passwords nor encryption: for others than this machine, put it behind a proxy that has.

    Args:
        served: the network.
        host: name or address to listen at.
        port: to listen at; 0 takes one that is free.
        limits: what clients may send.
        log_requests: print a line for every request.

    Raises:
        RLPruneError: the address cannot be had.

    Attributes:
        url: where it answers.
    """

    def __init__(
        self,
        served: Served,
        host: str = "127.0.0.1",
        port: int = 8000,
        limits: Limits | None = None,
        *,
        log_requests: bool = False,
    ) -> None:
        self._socket = _listening(host, port)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}"
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


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RLPruneError(
            f"nothing can listen at --host {host} --port {port}: {reason}; give another port, or 0 for any that is free"
        ) from error
