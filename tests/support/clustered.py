"""What tests and `make machines` need of Ray's processes: the sight of them, and networks that die in one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction


class Deadly(DynamicCNN):
    """A network that kills its process after the first prediction, the first time that it is asked anywhere."""

    mark: Path

    @classmethod
    def of(cls, network: DynamicCNN, mark: Path) -> Deadly:
        """One that predicts as another does.

        Args:
            network: the other.
            mark: a file that is there once it has killed.
        """
        made = object.__new__(cls)
        made.__dict__.update(network.__dict__, mark=mark)
        return made

    def predictions(self, images: Any, **how: Any) -> Iterator[Prediction]:
        """What the other predicts, or death."""
        for predicted in super().predictions(images, **how):
            yield predicted
            if not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


def below(title: str) -> list[int]:
    """The processes below this one whose titles begin with some words, such as ``ray::ServeReplica``."""
    parents, titles = {}, {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                stat, command = (place / "stat").read_text(), (place / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
            titles[int(place.name)] = command.decode(errors="replace")

    def is_below(process: int) -> bool:
        while process and process != os.getpid():
            process = parents.get(process, 0)
        return bool(process)

    return [process for process, found in titles.items() if found.startswith(title) and is_below(process)]
