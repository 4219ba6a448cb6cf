"""Compare all ways of deciding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from rlprune.agents.settings import PolicySettings
from rlprune.cli.options import TeacherOptions
from rlprune.evaluation import tables
from rlprune.evaluation.plots import compare_plot
from rlprune.evaluation.timing_results import ComparisonResult
from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions
from rlprune.pipelines.comparison import CompareSettings, Comparison, check_comparison
from rlprune.profiles.search import check_candidates
from rlprune.storage import networks
from rlprune.storage.provenance import check_targets
from rlprune.training.adaptation import SpecialiseSettings
from rlprune.utils.files import write_json
from rlprune.utils.imports import require
from rlprune.utils.locks import hold


@dataclass(frozen=True)
class Compare:
    """Compare all ways of deciding what an image runs through, under equal training, on the test split.

    By reinforcement learning (once or progressively), a threshold, gates (towards a density or under an L1 norm), gates
    of branches, or not at all: static networks, searched or uniform. What the folder has already is not made again, and
    an interrupted training is resumed.
    """

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder for everything it makes: results.json, compare.png, and what was trained."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[CompareSettings] = field(default_factory=CompareSettings)
    training: SpecialiseSettings = field(default_factory=lambda: SpecialiseSettings(n_random=1, sandwich=False))
    policy: PolicySettings = field(default_factory=lambda: PolicySettings(pool=0, max_passes=3))

    def run(self) -> None:
        """Do it."""
        require("matplotlib", "plots")
        check_comparison(self.out)
        with hold(self.out, inside=True):
            results = self._compared()
        for table in tables.compared(results):
            Console().print(table)
        print(f"everything is in {self.out}, watch it with: tensorboard --logdir {self.out}")

    def _compared(self) -> ComparisonResult:
        """Compare in the folder, which is held meanwhile."""
        check_targets(self.out, {"specialised": "network"}, ("results.json", "compare.png"))
        self.teaching.check()
        saved = networks.load_network(self.network)
        if saved.network.codebook is None:
            check_candidates(saved.network, self.settings.n_candidates)
        splits = load_fitting(saved.network.image_shape, saved.data, saved.metadata, self.source)
        comparison = Comparison(
            saved.network,
            splits,
            self.out,
            self.settings,
            self.training,
            self.policy,
            teacher=self.teaching.build(splits),
            metadata=saved.metadata,
        )
        results = comparison.run()
        write_json(self.out / "results.json", results.to_json())
        compare_plot(self.out / "compare.png", results)
        return results
