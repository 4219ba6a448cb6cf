"""The house: imports point one way in short chains, packages are small, and each says what lives there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rlprune
import rlprune.agents
import rlprune.envs

ROOT = Path(__file__).parents[1]
ROOMS = {"rlprune": ROOT / "rlprune", "rlprune.envs": ROOT / "envs", "rlprune.agents": ROOT / "agents"}
LONGEST_CHAIN, MOST_MODULES, MOST_LINES = 16, 12, 350


def module_files() -> dict[str, Path]:
    """Every module's file by its name; a package's is its `__init__.py`."""
    found = {}
    for package, folder in ROOMS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


FILES = module_files()
PACKAGES = sorted(name for name, path in FILES.items() if path.name == "__init__.py")


def imported(name: str) -> set[str]:
    """The modules of this project that a module imports anywhere, also for type checking alone.

    What comes through the face of a package comes from the module that defines it.
    """
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {target(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {source(node.module, alias.name) for alias in node.names}
    return {other for other in found if other and other != name}


def target(name: str) -> str:
    """The module that a dotted name leads to, or nothing if it is none of this project's."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


def source(module: str, name: str) -> str:
    """Where `from module import name` comes from."""
    if f"{module}.{name}" in FILES:
        return f"{module}.{name}"
    if FILES.get(module, Path()).name == "__init__.py":
        for node in ast.walk(ast.parse(FILES[module].read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
                return source(node.module, name)
    return target(module)


MODULES = sorted(name for name, path in FILES.items() if path.name != "__init__.py")
EDGES = {name: imported(name) for name in MODULES}


@cache
def longest_chain(name: str) -> tuple[str, ...]:
    """The longest chain of imports that begins with a module; there must be no circle."""
    chains = [longest_chain(other) for other in sorted(EDGES.get(name, ()))]
    return (name, *max(chains, key=len, default=()))


def circles() -> Iterator[list[str]]:
    """Every way back to a module that is being visited."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
        elif name not in done:
            for other in sorted(EDGES.get(name, ())):
                yield from visit(other, [*path, name])
            done.add(name)

    for name in MODULES:
        yield from visit(name, [])


def test_no_imports_go_round_in_a_circle() -> None:
    assert list(circles()) == []


def test_the_longest_chain_of_imports_is_short() -> None:
    longest = max((longest_chain(name) for name in MODULES), key=len)
    assert len(longest) <= LONGEST_CHAIN, " -> ".join(longest)
    assert longest[0] == "rlprune.__main__"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_holds_few_modules_and_says_what_lives_there(package: str) -> None:
    inside = [name for name in MODULES if name.rpartition(".")[0] == package]
    assert len(inside) <= MOST_MODULES or package == "rlprune.cli"  # one module for each verb
    module = importlib.import_module(package)
    assert module.__doc__ and len(module.__doc__) > 60
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def test_no_module_is_long() -> None:
    assert {name: n for name, path in FILES.items() if (n := len(path.read_text().splitlines())) > MOST_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_shadows_a_module(package: str) -> None:
    module = importlib.import_module(package)
    inside = [info.name for info in pkgutil.iter_modules(module.__path__)]
    for name in inside:
        importlib.import_module(f"{package}.{name}") if name != "__main__" else None
        assert not inspect.isfunction(getattr(module, name, None)), f"{package}.{name} is a function"
    assert not set(module.__all__) & set(inside) - {"data", "models"}


def test_the_few_names_that_a_user_needs() -> None:
    assert len(rlprune.__all__) <= 20
    for name in rlprune.__all__:
        assert getattr(rlprune, name) is not None
    assert set(rlprune.__all__) <= set(dir(rlprune))
    with pytest.raises(AttributeError, match="module 'rlprune' has no attribute 'nonsense'"):
        rlprune.nonsense  # noqa: B018


def test_nothing_inside_imports_the_top_level() -> None:
    for name in MODULES:
        assert not any(
            isinstance(node, ast.ImportFrom) and node.module == "rlprune" and not {a.name for a in node.names} <= tops()
            for node in ast.walk(ast.parse(FILES[name].read_text()))
        ), name


def tops() -> set[str]:
    """Packages and modules right below the top level."""
    return {name.split(".")[1] for name in FILES if "." in name}
