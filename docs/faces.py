"""The public faces of the library: packages with `__all__`, and where each public name is documented."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

MODULES = (
    "rlprune.errors",
    "rlprune.metrics",
    "rlprune.data",
    "rlprune.data.streamed",
    "rlprune.models",
    "rlprune.graph",
    "rlprune.elastic",
    "rlprune.elastic.layers",
    "rlprune.profiles",
    "rlprune.policies",
    "rlprune.deployment",
    "rlprune.deployment.onnx",
    "rlprune.deployment.streaming",
    "rlprune.storage",
    "rlprune.serving",
    "rlprune.intake",
    "rlprune.training",
    "rlprune.training.parallel",
    "rlprune.envs",
    "rlprune.envs.running",
    "rlprune.baselines",
    "rlprune.evaluation",
    "rlprune.evaluation.per_image",
    "rlprune.evaluation.timing",
    "rlprune.agents",
    "rlprune.agents.algorithms",
    "rlprune.agents.beginning",
    "rlprune.agents.joint",
    "rlprune.agents.tracking",
    "rlprune.pipelines",
    "rlprune.cluster",
    "rlprune.cluster.sweeps",
    "rlprune.optimization",
    "rlprune.optimization.entry",
    "rlprune.optimization.verdict",
    "rlprune.optimization.reports",
)
"""In the order of the layers, the lowest first."""


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: those of `__all__`, or what it defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own if not name.startswith("_")]


def _homes() -> dict[str, str]:
    homes: dict[str, str] = {}
    for face in MODULES:
        module = importlib.import_module(face)
        for name in names_of(module):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                homes.setdefault(f"{value.__module__}.{value.__qualname__}", f"{face}.{name}")
            homes.setdefault(f"{face}.{name}", f"{face}.{name}")
    return homes


HOMES = _homes()
"""Where each public object is documented, by the name of the module that defines it and by that of its face."""
