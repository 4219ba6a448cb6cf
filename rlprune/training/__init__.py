"""Training networks: settings, batches, the one loop, distillation, pretraining, adaptation.

May import `rlprune.storage` and below, not the environment and not the learner.
"""

from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings, adapt, calibrate
from rlprune.training.batches import Batch
from rlprune.training.distillation import Ensemble, Teacher, cache_teacher_logits, distillation_loss
from rlprune.training.fake_quantisation import Rounded
from rlprune.training.logit_shards import LogitShards
from rlprune.training.loop import fit
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings

__all__ = [
    "AdaptSettings",
    "Batch",
    "Ensemble",
    "LogitShards",
    "Rounded",
    "SpecialiseSettings",
    "Teacher",
    "TrainingSettings",
    "adapt",
    "cache_teacher_logits",
    "calibrate",
    "distillation_loss",
    "fit",
    "pretrain",
]
