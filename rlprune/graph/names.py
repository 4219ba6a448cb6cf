"""Names that a stored network may use: letters, digits, underscores and dots, and nothing that Python reads as code."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from functools import cache

from torch import fx, nn

from rlprune.graph.nodes import attach
from rlprune.graph.traced import TracedNetwork


def is_safe(name: str) -> bool:
    """Whether a name is dotted, and each part plain: torch.fx writes names into Python code, which it then executes."""
    if re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII) is None:
        return False
    return not any(re.fullmatch("__.*__", part) or keyword.iskeyword(part) for part in name.split("."))


def is_safe_path(name: str) -> bool:
    """Whether a layer or a tensor may have a name: where a method has it, the graph's code would call the method.

    What a network keeps itself in, such as its hooks, would be lost where a layer had that name.
    """
    first, *others = name.split(".")
    return _is_safe_part(first, first=True) and all(map(_is_safe_part, others))


def make_safe(root: nn.Module, graph: fx.Graph) -> None:
    """Rename, in place, the layers and weights of a graph whose names could not be stored, such as `block1-0`.

    Every character that is not allowed becomes an underscore; further underscores keep different names apart.

    Args:
        root: holds the layers and weights; gets them under their new names too.
        graph: calls and reads them.
    """
    nodes = [node for node in graph.nodes if node.op in ("call_module", "get_attr")]
    names = safe_names(str(node.target) for node in nodes)
    for node in nodes:
        target = str(node.target)
        if names[target] != target:
            owner, _, leaf = target.rpartition(".")
            attach(root, names[target], getattr(root.get_submodule(owner), leaf))
            node.target = names[target]
    for node in graph.nodes:
        if node.op == "placeholder" and not is_safe(str(node.target)):
            node.target = "images"


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each dotted name: itself where it is safe, else one that no other name has."""
    paths = {".".join(parts[: n + 1]) for parts in (name.split(".") for name in names) for n in range(len(parts))}
    safe: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(paths, key=lambda path: (path.count("."), not is_safe_path(path), path)):
        owner, _, part = path.rpartition(".")
        prefix = safe[owner] + "." if owner else ""
        new = prefix + (part if _is_safe_part(part, first=not owner) else _escaped(part, first=not owner))
        while new in taken:
            new += "_" if is_safe(new + "_") else "0"
        taken.add(new)
        safe[path] = new
    return safe


def _is_safe_part(part: str, *, first: bool = False) -> bool:
    """Whether part of a name can be an attribute of a graph, if it is the first, or of what is in one."""
    return is_safe(part) and not hasattr(fx.GraphModule, part) and part not in _kept(first)


@cache
def _kept(first: bool) -> frozenset[str]:
    """The attributes that every graph, or every module, has for itself."""
    return frozenset(vars(TracedNetwork(nn.Module(), fx.Graph()) if first else nn.Module()))


def _escaped(part: str, *, first: bool) -> str:
    plain = re.sub(r"\W", "_", part, flags=re.ASCII)
    plain = re.sub("^_+", "_", plain)
    return plain if _is_safe_part(plain, first=first) else plain + "_"
