"""What is put in place of something good: the lists of tables.json, and JSON that nobody would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlprune.graph.operators import ATTRIBUTES, FUNCTIONS, LAYERS, METHODS

RAW = {
    "nan": "NaN",
    "infinity": "-Infinity",
    "1e999": "1e999",
    "10^100": "1" + "0" * 100,
    "5000 digits": "9" * 5000,
    "deep": "[" * 20000 + "]" * 20000,
    "deep objects": '{"tuple":' * 900 + "1" + "}" * 900,
    "long text": f'"{"a" * 3_000_000}"',
    "long path": f'"{"a." * 2000}a"',
    "1000 x": f'"{"x" * 1000}"',
    "long list": f"[{'0,' * 300_000}0]",
    "many keys": "{" + ",".join(f'"k{n}":{n}' for n in range(50_000)) + "}",
    "3000 profiles": f"[{'[1,1],' * 3000}[1,1]]",
    "70 nulls": f"[{'null,' * 69}null]",
    "80 ones": f"[{'1,' * 79}1]",
    "200 ones": "1," * 199 + "1",
    "half a character": '"\\ud800"',
    "no JSON": "{'a': 1}",
}
"""By name; a text `@name` in a step stands for it."""
_TABLES: dict[str, list[Any]] = json.loads(Path(__file__).with_name("tables.json").read_text())
NUMBERS, NAMES, FILES, NEW_LAYERS, NEW_TENSORS = map(_TABLES.get, ("numbers", "names", "files", "layers", "tensors"))
ANY = [*_TABLES["texts"], *2 * (NUMBERS + _TABLES["others"]), *(f"@{name}" for name in RAW), *_TABLES["encoded"]]
ENCODED = _TABLES["encoded"]
KNOWN: dict[str, list[str]] = {
    "call_function": [*FUNCTIONS, *_TABLES["forbidden"]],
    "call_method": [*METHODS, "__reduce__", "__class__", "apply_", "backward", "numpy", "cuda", "resize_", "set_"],
    "layer": [*LAYERS, "LazyLinear", "Module", "Sequential", "RNN"],
    "get_attr": [*ATTRIBUTES, "__class__", "data", "T", "grad_fn"],
}
"""Names of what may be called or read, and some that may not."""


def _node(what: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A node of tables.json: a function, a method as `Tensor.name`, or an operation and its target."""
    op, _, target = what.rpartition(" ")
    if not op:
        op = "call_method" if what.startswith("Tensor.") else "call_function"
    return {"op": op, "target": target.removeprefix("Tensor."), "args": {"tuple": args}, "kwargs": kwargs or {}}


NODES = [_node(*told) for told in _TABLES["nodes"]] + [_node(name, ["@x"]) for name in _TABLES["forbidden"]]
"""Nodes that somebody could add to a graph; `@x` is one that is there already."""
CANARY = "fuzz_canary"
"""A module that names in these lists lead to; nothing may ever import it, or call its `run`."""
