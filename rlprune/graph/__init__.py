"""A network as data: traced with `torch.fx`, split, measured, folded for inference, written to JSON and back.

May import `rlprune.utils` and `rlprune.errors`.
"""

from rlprune.graph.constant_folding import join_shifts
from rlprune.graph.folding import fold, fold_for_teacher, fold_norms, optimize_for_inference
from rlprune.graph.nodes import alive_nodes, attach, measure
from rlprune.graph.operators import ATTRIBUTES, FUNCTIONS, LAYERS, METHODS
from rlprune.graph.serialization import from_json, to_json
from rlprune.graph.tracing import split_stem, trace

__all__ = [
    "ATTRIBUTES",
    "FUNCTIONS",
    "LAYERS",
    "METHODS",
    "alive_nodes",
    "attach",
    "fold",
    "fold_for_teacher",
    "fold_norms",
    "from_json",
    "join_shifts",
    "measure",
    "optimize_for_inference",
    "split_stem",
    "to_json",
    "trace",
]
