"""The module paths and names of 0.1.0, which still import and warn; they go with 0.3.0.

>>> from rlprune.cost import Cost
DeprecationWarning: rlprune.cost.Cost is rlprune.profiles.cost.Cost since 0.2.0
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from rlprune.utils.imports import require

MOVED: dict[str, str] = {
    "actions": "policies.actions profiles.codebook elastic.levels",
    "adjust": "elastic.cnn",
    "axes": "elastic.axes",
    "benchmark": "evaluation.benchmark evaluation.runners evaluation.timing_results",
    "body": "elastic.body",
    "budget": "policies.penalties",
    "bundle": "storage.bundle storage.networks storage.policies storage.data_format storage.folders baselines.stored",
    "cascade": "baselines.cascade",
    "compare": "pipelines.comparison pipelines.candidates",
    "control": "deployment.controller",
    "convert": "elastic.conversion",
    "cost": "profiles.cost",
    "decode": "data.decoding data.pictures",
    "distill": "training.distillation",
    "files": "utils.files",
    "folders": "data.folders storage.folders",
    "folding": "graph.folding",
    "gated": "baselines.gated_cnn baselines.gate_training",
    "gates": "baselines.gate_layers baselines.gate_training baselines.gate_insertion",
    "groups": "elastic.groups elastic.channels",
    "importance": "elastic.importance",
    "latency": "profiles.latency",
    "layers": "elastic.layers",
    "observation": "policies.observations",
    "one_image": "policies.one_image",
    "onnx": "deployment.onnx.export",
    "onnx_cnn": "deployment.onnx.cnn",
    "options": "intake.options intake.fitting intake.identity intake.notes pipelines.inputs",
    "passes": "policies.passes policies.loop",
    "plots": "evaluation.plots",
    "policy": "policies.policy",
    "quantise": "deployment.quantisation",
    "recipe": "pipelines.recipe",
    "rounding": "training.fake_quantisation",
    "runtime": "deployment.dynamic_cnn deployment.prediction",
    "search": "profiles.search profiles.codebook",
    "sensitivity": "elastic.depth",
    "slices": "deployment.slices",
    "sources": "data.sources",
    "static": "baselines.static_pruning",
    "steps": "pipelines.steps",
    "structure": "storage.structure",
    "tables": "evaluation.tables",
    "timing": "utils.timing",
    "wrap": "elastic.conversion",
}
"""Old modules, and the new ones, one of which has each of their names."""
RENAMED = {
    "Answers": "LogitCache",
    "Compute": "ComputeCost",
    "LeftAlone": "UnprunableLayer",
    "Passes": "PassResult",
    "Prices": "CostBreakdown",
    "Rivals": "Controls",
    "boil_down": "extract_codebook",
    "cut": "extract_subnet",
    "look": "run_policy",
    "sweep": "run_sweep",
    "wrap": "convert",
}
"""Old names of what they held."""


def found(old: str, name: str) -> Any:
    """What a module of 0.1.0 had under a name.

    Args:
        old: the module, without ``rlprune.``.
        name: the name in it.

    Raises:
        AttributeError: there is nothing like it any more.
    """
    new = RENAMED.get(name, name)
    for place in MOVED[old].split():
        module = require(f"rlprune.{place}")
        if hasattr(module, new):
            warnings.warn(
                f"rlprune.{old}.{name} is rlprune.{place}.{new} since 0.2.0", DeprecationWarning, stacklevel=3
            )
            return getattr(module, new)
    raise AttributeError(f"module 'rlprune.{old}' of 0.1.0 is gone, and {name!r} with it; CHANGELOG.md says what moved")


class _Old(Loader, MetaPathFinder):
    """Finds the modules of 0.1.0 where Python has found no others, and gives them what has moved."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if it is one of these."""
        package, _, old = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == "rlprune" and old in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As Python does."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Look names up when they are asked for."""
        old = module.__name__.rpartition(".")[2]

        def look_up(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return found(old, name)

        module.__dict__["__getattr__"] = look_up


def module_of(name: str) -> ModuleType:
    """A module of 0.1.0 by its name without ``rlprune.``, one of `MOVED`."""
    return importlib.import_module(f"rlprune.{name}")


sys.meta_path.append(_Old())
