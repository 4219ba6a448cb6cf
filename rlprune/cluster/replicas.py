"""How many processes answer over HTTP, and what each of them opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from rlprune.data.preprocessing import Preprocessing
from rlprune.intake.deployed import of_deployed
from rlprune.serving.limits import Limits
from rlprune.serving.served import Backend, Model, Served, Source, Which, find, open_served
from rlprune.utils.settings import AtMost, NonNegativeInt, PositiveFloat, PositiveInt, settings_dataclass


@settings_dataclass
class Replicas:
    """How many processes answer, each with the network."""

    replicas: Annotated[PositiveInt, AtMost(10_000)] = 1
    """Processes that answer, on --threads processors each (1 if that is 0)."""
    max_replicas: Annotated[NonNegativeInt, AtMost(10_000)] = 0
    """As many as there may be when requests are many; 0 for no more than --replicas."""
    target_requests: Annotated[PositiveFloat, AtMost(10_000)] = 8.0
    """With --max-replicas: requests at a time that each is to have, on average. More need another one."""

    @property
    def in_words(self) -> str:
        """How many, for a message."""
        most = f" to {self.max_replicas}" if self.max_replicas > self.replicas else ""
        return f"{self.replicas}{most} replica{'s' if most or self.replicas > 1 else ''}"

    def _conflicts(self) -> Iterator[str]:
        if 0 < self.max_replicas < self.replicas:
            yield f"max_replicas={self.max_replicas} is less than replicas={self.replicas}; give that many, more, or 0"


@dataclass(frozen=True)
class Opening:
    """What each replica opens.

    Attributes:
        folder: what is served, as for `rlprune.serving.find`; under this path on every machine.
        which: as for `rlprune.serving.find`.
        backend: as for `rlprune.serving.find`.
        threads: of the processor, for each replica; 0 is 1 here.
        preprocess: only for pictures from a transform of the user's own.
        observation: only for a policy with an observation of the user's own.
        limits: what clients may send.
    """

    folder: str
    which: Which | None = None
    backend: Backend | None = None
    threads: int = 0
    preprocess: str | None = None
    observation: str | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def n_cpus(self) -> int:
        """Processors of a replica."""
        return self.threads or 1

    def source(self) -> Source:
        """What is found there."""
        return find(self.folder, self.which, self.backend)

    def open(self) -> Served:
        """Read it, and predict once with it.

        Raises:
            RLPruneError: as `rlprune.serving.open_served`.
        """

        def prepared(model: Model) -> Preprocessing:
            return of_deployed(model, self.preprocess)

        return open_served(self.source(), self.n_cpus, prepared, self.observation)
