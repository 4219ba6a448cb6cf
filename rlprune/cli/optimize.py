"""One command from a trained network and images to a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import AfterValidator
from rich.console import Console

from rlprune import startup
from rlprune.cli.options import NetworkOptions
from rlprune.intake.options import DataOptions
from rlprune.models import registry
from rlprune.optimization.goal import MOST_MINUTES, Goal, PlanOptions
from rlprune.optimization.job import Optimization
from rlprune.optimization.plan import DEFAULT_MINUTES
from rlprune.optimization.reports.screen import print_check, print_verdict
from rlprune.utils.hardware import check_device
from rlprune.utils.settings import AtMost, PositiveFloat, Seed, settings_dataclass


@settings_dataclass
class Optimize:
    """Make a trained network spend less where less is enough, compare it with rivals, and say what to deploy.

    With none of the targets, the most is saved within one point of accuracy. Run again, it resumes.
    """

    model: str
    """A name such as resnet20, timm:efficientnet_b0 or torchvision:resnet18; or package.module:callable returning an
    nn.Module."""
    goal: tyro.conf.OmitArgPrefixes[Goal] = field(default_factory=Goal)
    source: tyro.conf.OmitArgPrefixes[DataOptions] = field(kw_only=True)
    weights: Path | None = None
    """Its weights: safetensors, a state dict or training checkpoint of PyTorch, or a folder of the Hugging Face hub. A
    network of this project's own is trained first if none are given."""
    trust_pickle: bool = False
    """Read weights from files that hold whole objects or TorchScript, too. That runs code in them: only for files of
    people you trust."""
    heldout: str | None = None
    """Images of the same classes that the network has not seen, to learn from which images are easy, and to choose by;
    as for --data. All of them count, whatever parts they have; those that are in --data, too, are left out."""
    time_limit: Annotated[PositiveFloat, AtMost(MOST_MINUTES)] = DEFAULT_MINUTES
    """Minutes that all may take; how long everything is trained follows from it."""
    out: Path = Path("runs/optimized")
    """Folder for report.html, report.json, deploy/, and work/, which holds checkpoints and events."""
    dry_run: bool = False
    """Only look at network and images, and say how long it will take."""
    quiet: bool = False
    """Show no progress."""
    device: Annotated[str, AfterValidator(check_device)] = "cpu"
    """Where networks are trained, such as cpu or cuda; times are measured on the processor."""
    cluster: str | None = None
    """Let Ray compute side by side what can be, slices that are searched and logits that decisions are learnt from:
    local starts it on this machine; auto is the cluster that it belongs to; or the address of one."""
    seed: Seed = 0
    """Fixes everything but times, on the same machine and as many threads."""
    plan: tyro.conf.OmitArgPrefixes[PlanOptions] = field(default_factory=PlanOptions)

    def _conflicts(self) -> Iterator[str]:
        if self.weights is not None and registry.asks_for_fresh(self.weights) and self.model not in registry.NAMES:
            yield f"weights={self.weights}: {self.model} has to be a trained network; give its weights"

    def run(self) -> None:
        """Do it."""
        console = Console()
        job = Optimization(
            self.goal,
            self.out,
            time_limit=self.time_limit,
            plan=self.plan,
            device=self.device,
            seed=self.seed,
            quiet=self.quiet,
            since=startup.BEGAN,
        )
        NetworkOptions(self.model, self.weights, self.trust_pickle).check_weights(fresh=True)
        read: dict[str, Any] = {"weights": self.weights, "trust_pickle": self.trust_pickle, "heldout": self.heldout}
        with job.on(self.cluster):
            job.read(self.model, **read, **vars(self.source))
            if self.dry_run or job.finished() is None:
                print_check(console, job.check())
            if self.dry_run:
                return
            result = job.run()
        print_verdict(console, result, self.out)
