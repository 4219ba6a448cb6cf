"""Everything once, with digits."""

from __future__ import annotations

from pathlib import Path

from rlprune.pipelines.demo import check_demo, run_demo
from rlprune.utils.locks import hold
from rlprune.utils.settings import Seed, settings_dataclass


@settings_dataclass
class Demo:
    """The whole way in a few minutes, offline: digits in, a network pruned per image out."""

    out: Path = Path("runs/demo")
    """Folder for everything it makes; an earlier demo there is replaced."""
    seed: Seed = 0
    """Fixes everything but times, on the same machine and as many threads."""

    def run(self) -> None:
        """Do it."""
        check_demo(self.out)
        with hold(self.out, inside=True):
            run_demo(self.out, self.seed)
