"""Answer over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from rlprune.cluster.replicas import Opening, Replicas
from rlprune.intake.deployed import of_deployed
from rlprune.serving.limits import Limits
from rlprune.serving.served import Backend, Which, find, open_served
from rlprune.utils.imports import require
from rlprune.utils.settings import AtMost, settings_dataclass


@settings_dataclass
class Serve:
    """Answer over HTTP with a network: an image in; label, probability and cost out."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """The folder that `rlprune optimize` wrote, or deploy/ in it, or a bundle, or an .onnx file."""
    which: Which | None = None
    """Of a deploy folder the network that decides for every image (dynamic), or the small one (static). If not given,
    what the report advises."""
    backend: Backend | None = None
    """What runs it: onnxruntime or pytorch. If not given, onnxruntime where it is installed and has a file."""
    host: str = "127.0.0.1"
    """Name or address to listen at; 0.0.0.0 lets other machines in."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen at; 0 takes one that is free."""
    threads: Annotated[int, Field(ge=0), AtMost(4096)] = 0
    """Processor threads of one prediction; 0 takes all."""
    preprocess: str | None = None
    """Only for a network whose pictures come from a transform of your own: its package.module:callable again."""
    observation: str | None = None
    """Only for a policy with an observation of your own: its package.module:Class, whose code is then run."""
    log_requests: bool = False
    """Print a line for every request; those of a cluster go into Ray's logs."""
    cluster: str | None = None
    """Answer with several processes, through Ray Serve: on this machine (local), on the cluster that it belongs to
    (auto), or that of a head's host:port."""
    scale: tyro.conf.OmitArgPrefixes[Replicas] = field(default_factory=Replicas)
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)

    def _conflicts(self) -> Iterator[str]:
        if self.cluster is None and self.scale != Replicas():
            yield "--replicas, --max-replicas and --target-requests are for a cluster; give --cluster, such as local"

    def run(self) -> None:
        """Do it, until SIGTERM or Ctrl-C."""
        if self.cluster is not None:
            self._run_on(self.cluster)
            return
        serving = require("rlprune.serving.server", "serve")
        source = find(self.folder, self.which, self.backend)
        with serving.listen(self.host, self.port) as listening:
            served = open_served(source, self.threads, partial(of_deployed, text=self.preprocess), self.observation)
            server = serving.HttpServer(served, listening, self.limits, log_requests=self.log_requests)
            why = f" ({source.note})" if source.note else ""
            print(f"serving {source.path} by {source.backend}{why}")
            print(f"at {serving.url_of(listening)}", flush=True)
            try:
                server.run()
            except KeyboardInterrupt:  # the signal that has ended it
                print("ended; nothing was left undone")

    def _run_on(self, cluster: str) -> None:
        """Answer with replicas on a cluster."""
        serving = require("rlprune.cluster.serving", "serve")
        folder, options = str(self.folder.absolute()), (self.preprocess, self.observation, self.limits)
        opening = Opening(folder, self.which, self.backend, self.threads, *options)
        source = opening.source()
        where: dict[str, Any] = {"cluster": cluster, "host": self.host, "port": self.port}
        try:
            with serving.serving(opening, self.scale, **where, log_requests=self.log_requests) as url:
                print(f"serving {source.path} by {source.backend}, in {self.scale.in_words}")
                print(f"at {url}", flush=True)
                serving.watch()
        except KeyboardInterrupt:
            print("ended; nothing was left undone")
