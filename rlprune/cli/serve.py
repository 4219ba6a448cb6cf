"""Answer over HTTP."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.intake.notes import network_notes
from rlprune.intake.preprocessing import confirmed, whole
from rlprune.serving.limits import Limits
from rlprune.serving.served import Backend, Model, Which, find, open_served
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
    """Print a line for every request."""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)

    def run(self) -> None:
        """Do it, until SIGTERM or Ctrl-C."""
        serving = require("rlprune.serving.server", "serve")
        source = find(self.folder, self.which, self.backend)
        with serving.listen(self.host, self.port) as listening:
            served = open_served(source, self.threads, self._prepared, self.observation)
            server = serving.HttpServer(served, listening, self.limits, log_requests=self.log_requests)
            why = f" ({source.note})" if source.note else ""
            print(f"serving {source.path} by {source.backend}{why}")
            print(f"at {serving.url_of(listening)}", flush=True)
            try:
                server.run()
            except KeyboardInterrupt:  # the signal that has ended it
                print("ended; nothing was left undone")

    def _prepared(self, model: Model) -> Preprocessing:
        """How pictures are prepared; an own transform is imported only where the user names it."""
        if isinstance(model, DynamicCNN):
            return confirmed(whole(model), self.preprocess, network_notes(model.metadata).get("model") or "")
        return confirmed(model.preprocessing, self.preprocess)
