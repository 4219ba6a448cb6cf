"""Put gates into a network."""

from __future__ import annotations

from dataclasses import asdict, field
from functools import partial
from pathlib import Path

import torch
import tyro
from rich.console import Console

from rlprune.baselines import stored
from rlprune.baselines.gate_layers import GateKind
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.cli.options import NetworkOptions, TeacherOptions
from rlprune.cli.resumable import resumable
from rlprune.cli.several import ProcessOptions
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation import tables
from rlprune.evaluation.gated import evaluate_gated
from rlprune.intake.notes import split_notes
from rlprune.intake.options import DataOptions, source_notes
from rlprune.intake.preparation import load_for
from rlprune.storage import folders
from rlprune.storage.structure import describe
from rlprune.training.parallel.group import current
from rlprune.utils.settings import InnerShare, PositiveInt, settings_dataclass


@settings_dataclass
class Gate:
    """Put gates into a pretrained network and train both: they decide, layer by layer, what an image needs."""

    network: tyro.conf.OmitArgPrefixes[NetworkOptions]
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    kind: GateKind = "channels"
    """What gates decide about: channels (hidden from the next layer, which saves no time), or branches (skipped)."""
    reduction: PositiveInt = 4
    """Channels that a gate reads, over the features of its hidden layer."""
    threshold: InnerShare = 0.5
    """What a gate has to pass, in (0, 1)."""
    resume: bool = False
    """Continue an interrupted run."""
    several: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[GateSettings] = field(default_factory=GateSettings)

    def run(self) -> None:
        """Do it."""
        with resumable(self, "gates", partial(folders.check_target, kind="gated")) as kept:
            self.network.check_weights()
            self.teaching.check()
            splits = load_for(self.network.model, self.source, self.network.weights, trained=True)
            model = self.network.build(splits)
            teacher = self.teaching.build(splits, trust_pickle=self.network.trust_pickle)
            elastic = ElasticCNN.from_model(model, tuple(splits.network.images.shape[1:]))
            describe(elastic)  # what cannot be stored is not trained
            torch.manual_seed(self.settings.seed)  # the gates' weights, alike in all processes
            gated = GatedCNN(elastic, self.kind, reduction=self.reduction, threshold=self.threshold)
            metadata = {"model": self.network.model, "source": source_notes(self.source), "split": split_notes(splits)}
            metadata |= {"settings": asdict(self.settings)}
            train_gates(gated, splits.network, self.settings, teacher=teacher, **kept)
            gated.cpu()
            if current().leads:
                stored.save_gated(self.out, gated, splits.network, metadata)
        Console().print(tables.gates(evaluate_gated(gated, splits.validation)))
        print(f"the gated network is in {self.out}; those figures are of the images for validation")
