"""Lends an environment what rlprune needs of the packages of this one; to fetch and unpack torch again takes a minute.

    python tests/support/lent.py ENVIRONMENT

gives one in which rlprune is installed without dependencies what its own metadata asks for, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


def lend(requirements: Iterable[str], environment: Path) -> None:
    """Put links to what requirements need, directly or not, into the packages of an environment."""
    (site,) = environment.glob("lib/python*/site-packages")
    waiting = [Requirement(line) for line in requirements]
    known: set[str] = set()
    while waiting:
        needed = waiting.pop()
        if needed.name in known or not (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            continue
        known.add(needed.name)
        package = distribution(needed.name)
        assert needed.specifier.contains(package.version, prereleases=True), needed
        waiting += map(Requirement, package.requires or ())
        for name in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(package.locate_file(name))).resolve())


if __name__ == "__main__":
    there = Path(sys.argv[1])
    (ours,) = distributions(name="rlprune", path=[str(each) for each in there.glob("lib/python*/site-packages")])
    lend(ours.requires or (), there)
