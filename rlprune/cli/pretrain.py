"""Train an ordinary network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from rlprune.cli.options import NetworkOptions, TeacherOptions
from rlprune.cli.resumable import resumable
from rlprune.cli.several import ProcessOptions
from rlprune.errors import RLPruneError
from rlprune.intake.options import DataOptions
from rlprune.intake.preparation import load_for, note_of
from rlprune.models import weights
from rlprune.training.parallel.group import current
from rlprune.training.parallel.measuring import shared_accuracy
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import check_target_file


@dataclass(frozen=True)
class Pretrain:
    """Train an ordinary network from scratch, or further."""

    network: tyro.conf.OmitArgPrefixes[NetworkOptions]
    out: Path
    """File to write, FILE.safetensors. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    resume: bool = False
    """Continue an interrupted run."""
    several: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)
    teaching: tyro.conf.OmitArgPrefixes[TeacherOptions] = field(default_factory=TeacherOptions)
    settings: tyro.conf.OmitArgPrefixes[TrainingSettings] = field(default_factory=TrainingSettings)

    def run(self) -> None:
        """Do it."""
        if self.out.suffix != ".safetensors":
            raise RLPruneError(f"--out is {self.out}; weights are written as safetensors, so name it FILE.safetensors")
        with resumable(self, "pretrain", check_target_file) as kept:
            self.network.check_weights(fresh=True)
            self.teaching.check()
            trained = self.network.weights is not None
            splits = load_for(self.network.model, self.source, self.network.weights, trained=trained)
            torch.manual_seed(self.settings.seed)
            model = self.network.build(splits, new_head=True)
            teacher = self.teaching.build(splits, trust_pickle=self.network.trust_pickle)
            pretrain(model, splits.network, self.settings, teacher=teacher, **kept)
            if current().leads:
                weights.save_weights(model, self.out, note_of(splits.network))
        print(f"validation accuracy {shared_accuracy(model.cpu(), splits.validation):.4f}; weights are in {self.out}")
