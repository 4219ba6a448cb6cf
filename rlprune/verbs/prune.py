"""Prune a network once and for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from rlprune import bundle, folders, tables
from rlprune.cost import Cost
from rlprune.evaluate import evaluate_static
from rlprune.options import DataOptions, TeacherOptions, load_fitting
from rlprune.pretrain import pretrain
from rlprune.static import StaticSettings, settle, static_network
from rlprune.verbs.resumable import check_unfinished, resumable


@dataclass(frozen=True)
class Prune:
    """Prune a network once and for all, for comparison: the same ordinary network for every image, fine-tuned."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    resume: bool = False
    """Go on with an interrupted run."""
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[StaticSettings] = field(default_factory=StaticSettings)

    def run(self) -> None:
        """Do it."""
        folders.check_target(self.out, "plain")
        check_unfinished(self.out, resume=self.resume)
        saved = bundle.load_network(self.network)
        elastic = saved.network
        splits = load_fitting(elastic.image_shape, saved.data, saved.about, self.source)
        teacher = self.teaching.build(splits) or elastic.slice(elastic.full)
        network = static_network(elastic, self.settings, splits.policy)
        with resumable(self, "prune") as kept:
            pretrain(network, splits.network, self.settings, teacher=teacher, **kept)
            settle(network)
            dense = Cost(elastic).dense
            about = saved.about | {"how": self.settings.how, "settings": asdict(self.settings)}
            about |= {"dense": {"params": int(dense.params), "macs": int(dense.macs)}}
            bundle.save_plain(self.out, network.cpu(), elastic.image_shape, splits.network, about)
        Console().print(tables.static(evaluate_static(network, splits.validation, about)))
        print(f"the pruned network is in {self.out}; those figures are of the images for validation")
