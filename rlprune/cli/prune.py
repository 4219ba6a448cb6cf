"""Prune a network once and for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console

from rlprune.baselines import stored
from rlprune.baselines.static_pruning import StaticSettings, check_static, remove_masks, static_network
from rlprune.cli.options import TeacherOptions
from rlprune.cli.resumable import resumable
from rlprune.cli.several import ProcessOptions
from rlprune.evaluation import tables
from rlprune.evaluation.static import evaluate_static
from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions
from rlprune.profiles.cost import Cost
from rlprune.storage import folders, networks
from rlprune.training.loop import check_checkpoint_room
from rlprune.training.parallel.group import current
from rlprune.training.pretraining import pretrain


@dataclass(frozen=True)
class Prune:
    """Prune a network once and for all, for comparison: the same ordinary network for every image, fine-tuned."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    resume: bool = False
    """Continue an interrupted run."""
    several: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[StaticSettings] = field(default_factory=StaticSettings)

    def run(self) -> None:
        """Do it."""
        with resumable(self, "prune", partial(folders.check_target, kind="plain")) as kept:
            saved = networks.load_network(self.network)
            elastic = saved.network
            self.teaching.check()
            check_static(elastic, self.settings)
            splits = load_fitting(elastic.image_shape, saved.data, saved.metadata, self.source)
            teacher = self.teaching.build(splits) or elastic.slice(elastic.full)
            check_checkpoint_room(kept["checkpoint"], elastic, self.settings)
            network = static_network(elastic, self.settings, splits.policy)
            pretrain(network, splits.network, self.settings, teacher=teacher, **kept)
            remove_masks(network)
            dense = Cost(elastic).dense
            metadata = saved.metadata | {"how": self.settings.how, "settings": asdict(self.settings)}
            metadata |= {"dense": {"params": int(dense.params), "macs": int(dense.macs)}}
            network.cpu()
            if current().leads:
                stored.save_plain(self.out, network, elastic.image_shape, splits.network, metadata)
        Console().print(tables.static(evaluate_static(network, splits.validation, metadata)))
        print(f"the pruned network is in {self.out}; those figures are of the images for validation")
