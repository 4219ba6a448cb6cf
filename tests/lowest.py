"""Prints the lowest versions that pyproject.toml declares, extras included, as requirements for pip, and pinned tools to test with.

    python tests/lowest.py [--core] [PACKAGE ...]

`--core` leaves extras out. The packages named, and what tests alone need, have the versions of constraints.txt instead.
`make lowest` installs them.
"""  # noqa: E501 (a first line that says all)

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
NOT_FOR_USERS = ("all", "audit", "dev", "docs", "fuzz")
OF_THAT_TIME = ("pyparsing<3.3",)  # of later ones the lowest matplotlib uses what is deprecated
TOOLS = ("hypothesis", "pytest", "pytest-xdist", "setuptools", "tritonclient")


def lowest(*, core: bool) -> dict[str, str]:
    """The lowest version of each package that is needed on this version of Python, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {} if core else project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras if name not in NOT_FOR_USERS for line in extras[name])]
    needed = [Requirement(line) for line in lines]
    here = [each for each in needed if each.marker is None or each.marker.evaluate()]
    return {each.name: next(part.version for part in each.specifier if part.operator == ">=") for each in here}


def pinned() -> dict[str, str]:
    """The versions that the tests usually run with, by name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    needed = [Requirement(line) for line in lines]
    here = [each for each in needed if each.marker is None or each.marker.evaluate()]
    return {each.name: next(iter(each.specifier)).version for each in here}


if __name__ == "__main__":
    options = sys.argv[1:]
    usual = pinned()
    of_today = {name: usual[name] for name in (*TOOLS, *options) if name in usual}
    for name, version in (lowest(core="--core" in options) | of_today).items():
        print(f"{name}=={version}")
    print(*OF_THAT_TIME, sep="\n")
