"""Prune a network once and for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from rlprune import bundle, tables
from rlprune.cost import Cost
from rlprune.evaluate import evaluate_static
from rlprune.options import DataOptions, TeacherOptions, load_fitting
from rlprune.pretrain import pretrain
from rlprune.static import How, settle, share_of_zeros, static_network
from rlprune.training import TrainingSettings
from rlprune.verbs.resumable import resumable


@dataclass(frozen=True)
class Prune:
    """Prune a network once and for all, for comparison: the same ordinary network for every image, fine-tuned."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    budget: float = 0.5
    """Share of the dense multiply-adds that it may cost; of the weights that stay, if they are set to zero."""
    how: How = "searched"
    """What stays: the same share of every group (uniform), the most important channels anywhere (global), the best of a
    search (searched); or, unstructured, everything with small weights at zero, which saves no time."""
    n_candidates: int = 64
    """Static profiles that the search may try."""
    resume: bool = False
    """Go on with an interrupted run."""
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[TrainingSettings] = field(default_factory=TrainingSettings)

    def run(self) -> None:
        """Do it."""
        bundle.check_target(self.out, "plain")
        saved = bundle.load_network(self.network)
        splits = load_fitting(saved.network.image_shape, saved.data, saved.about, self.source)
        elastic, teacher = saved.network, self.teaching.build(splits)
        search = splits.policy, self.n_candidates, self.settings.seed
        network = static_network(elastic, self.budget, self.how, *search)
        if teacher is None:
            teacher = elastic.slice(elastic.full)
        with resumable(self.out, "prune", resume=self.resume) as kept:
            pretrain(network, splits.network, self.settings, teacher=teacher, **kept)
            settle(network)
            dense = Cost(elastic).dense
            about = saved.about | {"how": self.how, "budget": self.budget, "settings": asdict(self.settings)}
            about |= {"image_shape": elastic.image_shape}
            about |= {"dense": {"params": int(dense.params), "macs": int(dense.macs)}}
            about |= {"zeros": share_of_zeros(network) if self.how == "unstructured" else 0.0}
            bundle.save_plain(self.out, network.cpu(), splits.network, about)
        Console().print(tables.static(evaluate_static(network, splits.validation, about)))
        print(f"the pruned network is in {self.out}; those figures are of the images for validation")
