"""`rlprune optimize` once, with digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from rlprune.optimization import demo
from rlprune.optimization.goal import Goal
from rlprune.optimization.job import Optimization
from rlprune.optimization.reports.screen import print_check, print_verdict
from rlprune.utils.imports import require
from rlprune.utils.locks import hold
from rlprune.utils.progress import WholeBar
from rlprune.utils.settings import Seed, settings_dataclass


@settings_dataclass
class Demo:
    """`rlprune optimize` on five thousand digits, offline, in a few minutes."""

    out: Path = Path("runs/demo")
    """Folder for everything it makes; a finished demo there is replaced, an interrupted one goes on."""
    seed: Seed = 0
    """Fixes everything but times, on the same machine and as many threads."""
    quiet: bool = False
    """Show no progress."""

    def run(self) -> None:
        """Do it."""
        require("mlxtend", "demo")
        console = Console()
        how: dict[str, Any] = {"time_limit": demo.MINUTES, "plan": demo.PLAN, "seed": self.seed, "quiet": self.quiet}
        job = Optimization(Goal(), self.out, may=demo.FILES, **how)
        subject = job.read(demo.MODEL, demo.SOURCE)
        print_check(console, job.check())
        with hold(self.out, inside=True):
            demo.remove_finished(self.out)
            result = job.run()
            with WholeBar({"controls": 1.0}, quiet=self.quiet).step("controls"):
                demo.measure_demo(self.out, subject.splits, result, self.seed)
        print_verdict(console, result, self.out)
