"""`rlprune optimize` once, with digits."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rlprune.optimization.demo import Demo as Run
from rlprune.optimization.reports.screen import print_check, print_verdict
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
        console = Console()
        demo = Run(self.out, self.seed, quiet=self.quiet)
        print_check(console, demo.check())
        print_verdict(console, demo.run(), self.out)
