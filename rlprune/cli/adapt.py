"""Make a network elastic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path

import tyro

from rlprune.cli.options import LatencyOptions, NetworkOptions, TeacherOptions
from rlprune.cli.resumable import resumable
from rlprune.cli.several import ProcessOptions
from rlprune.intake.notes import split_notes
from rlprune.intake.options import DataOptions, ElasticOptions, source_notes
from rlprune.intake.preparation import load_for
from rlprune.storage import folders, networks
from rlprune.storage.structure import describe
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.loop import check_checkpoint_room
from rlprune.training.parallel.group import current
from rlprune.training.parallel.measuring import shared_accuracy
from rlprune.utils.settings import settings_dataclass


@settings_dataclass
class Adapt:
    """Make a pretrained network elastic and fine-tune it, so that its slices stay accurate."""

    network: tyro.conf.OmitArgPrefixes[NetworkOptions]
    out: Path
    """Folder to write. TensorBoard's events go into logs/ next to it."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    resume: bool = False
    """Continue an interrupted run."""
    several: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    elastic: tyro.conf.OmitArgPrefixes[ElasticOptions] = field(default_factory=ElasticOptions)
    latency: tyro.conf.OmitArgPrefixes[LatencyOptions] = field(default_factory=LatencyOptions)
    settings: tyro.conf.OmitArgPrefixes[AdaptSettings] = field(default_factory=AdaptSettings)

    def _conflicts(self) -> Iterator[str]:
        if self.elastic.round_to != "auto":
            yield from self.latency.unused("--round-to auto")

    def run(self) -> None:
        """Do it."""
        with resumable(self, "adapt", partial(folders.check_target, kind="network")) as checkpointing:
            self.network.check_weights()
            self.teaching.check()
            self.elastic.check()
            self.latency.settings.check()
            splits = load_for(self.network.model, self.source, self.network.weights, trained=True)
            model = self.network.build(splits)
            teacher = self.teaching.build(splits, trust_pickle=self.network.trust_pickle)
            shape, step = tuple(splits.network.images.shape[1:]), checkpointing["checkpoint"].with_suffix(".step.json")
            if current().leads and not checkpointing["checkpoint"].exists():
                step.unlink(missing_ok=True)  # of a run that ended before its first epoch, maybe of another network
            find_step = partial(self.latency.settings.round_to, path=step)
            elastic = self.elastic.build(model, shape, splits.network, find_step)
            describe(elastic)  # what cannot be stored is not trained
            check_checkpoint_room(checkpointing["checkpoint"], elastic, self.settings)
            print(f"validation accuracy before: {shared_accuracy(model.eval(), splits.validation):.4f}")
            metadata = {"model": self.network.model, "source": source_notes(self.source), "split": split_notes(splits)}
            adapt(elastic, splits.network, self.settings, teacher=teacher, **checkpointing)
            if current().leads:
                networks.save_network(self.out, elastic.cpu(), splits.network, metadata)
                step.unlink(missing_ok=True)
        for level in range(elastic.narrowest, elastic.n_levels):
            share = shared_accuracy(elastic.cpu().slice(elastic.uniform(level)), splits.validation)
            print(f"validation accuracy at keep ratio {elastic.keep_ratios[level]:g}: {share:.4f}")
        print(f"the elastic network is in {self.out}")
