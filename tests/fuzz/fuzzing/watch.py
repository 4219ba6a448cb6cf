"""Sees code that runs, and files and networks that are touched, while a stored folder is read."""

from __future__ import annotations

import ast
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import fx

from fuzzing.values import CANARY
from rlprune.graph.operators import ATTRIBUTES, DTYPES, FUNCTIONS, METHODS

_GENERATED = "<eval_with_key>"
"""How torch.fx names the code that it writes for a graph."""
_HARMLESS = tuple(
    "sys._getframe object. os.listdir os.scandir gc. sys.unraisablehook sys.excepthook builtins.id _thread.".split()
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READ = (sys.prefix, sys.base_prefix, str(Path(os.__file__).parent), str(Path(__file__).parents[3]), "/proc", "/sys")
"""Where Python, its packages and this project are, and what libraries ask of the machine."""
_CALLED = {*FUNCTIONS, *(name.replace(".", "_") for name in FUNCTIONS), "torch.relu_", "torch.clamp_min_", "slice"}
"""As torch.fx writes them; and what takes the place of some of them when a slice is prepared."""
_PLAIN = tuple(
    getattr(ast, name)
    for name in """Module FunctionDef arguments arg Return Assign AugAssign AnnAssign Expr Delete Name Attribute Call
    keyword Constant Subscript Slice Tuple List BinOp UnaryOp Compare operator unaryop cmpop expr_context
    Starred""".split()
)


class _Watch:
    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event.startswith(_HARMLESS):
            return
        folder, self.folder = self.folder, None  # what is done here is not to be seen
        try:
            if found := _strange(event, arguments, folder):
                self.seen.append(found[:300])
        finally:
            self.folder = folder


_watch = _Watch()


def begin() -> None:
    """Look at everything from now on, and let a module be there that must never be imported."""
    module = types.ModuleType(CANARY)
    module.__dict__["run"] = lambda: _watch.seen.append("the callable that notes name was called")
    sys.modules[CANARY] = module
    sys.addaudithook(_watch)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What ran, was written, or was read outside of a folder while the block was carried out."""
    _watch.seen = []
    _watch.folder = str(folder)
    try:
        yield _watch.seen
    finally:
        _watch.folder = None


def _strange(event: str, arguments: tuple[Any, ...], folder: str) -> str | None:
    """What is wrong with an event, or None."""
    if event == "open":
        return _strange_file(*arguments, folder)
    if event == "compile":
        source, name = arguments
        if name == "<unknown>":  # parsed, by whoever shows a traceback: what runs is seen as "exec"
            return None
        if not str(name).startswith(_GENERATED):
            return f"compile {name}"
        return strange_code(source.decode() if isinstance(source, bytes) else str(source))
    if event == "exec":
        name = arguments[0].co_filename
        return None if name.startswith(_GENERATED) else f"exec {name}"
    if event == "import":
        return f"import {arguments[0]}"
    return f"{event} {arguments}"


def _strange_file(path: Any, mode: Any, flags: Any, folder: str) -> str | None:
    where = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
    writes = flags & _WRITES if isinstance(flags, int) and mode is None else set(mode or "") & set("wax+")
    if writes:
        return f"open {path!r} to write"
    if where and not where.startswith((folder, *_READ)):
        return f"open {path!r}"
    return None


def strange_code(source: str) -> str | None:
    """What a forward, as torch.fx writes it, holds that no allowed graph has; None if there is nothing.

    Only plain expressions; calls of layers (`self.name`), of allowed functions, and of allowed methods of local names.
    """
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "arg", None)))
        if not isinstance(node, _PLAIN):
            return f"{type(node).__name__} in a forward"
        if isinstance(name, str) and name.startswith("__"):
            return f"{name} in a forward"
        if isinstance(node, ast.Call) and not _may_be_called(node.func):
            return f"a call of {ast.unparse(node.func)} in a forward"
        if isinstance(node, ast.Attribute) and not _may_be_read(node):
            return f"{ast.unparse(node)} in a forward"
    return None


def _may_be_called(function: ast.expr) -> bool:
    name = ast.unparse(function)
    if name in _CALLED or name == "getattr" or name.startswith("self."):
        return True
    if isinstance(function, ast.Call) and ast.unparse(function.func) == "getattr":  # a layer whose name is a number
        owner, part = function.args
        return ast.unparse(owner).startswith("self.") and isinstance(part, ast.Constant) and str(part.value).isdecimal()
    return isinstance(function, ast.Attribute) and function.attr in METHODS


def _may_be_read(node: ast.Attribute) -> bool:
    """Layers and weights that hide nothing which every module has; parts of allowed names; a few attributes."""
    name = ast.unparse(node)
    first, _, rest = name.partition(".")
    if first == "self":
        return not hasattr(fx.GraphModule, rest.partition(".")[0])
    known = any(each == name or each.startswith(f"{name}.") for each in (*_CALLED, *DTYPES))
    return known or node.attr in ATTRIBUTES or node.attr in METHODS
