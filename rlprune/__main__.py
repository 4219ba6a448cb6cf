"""`rlprune`, the same as `python -m rlprune`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, or say which package it needs where rlprune was installed to serve alone."""
    if sys.path[0] in ("", os.getcwd()):  # python -m puts it there, where the user's files hide installed packages
        del sys.path[0]
    try:
        from rlprune.cli.main import main as run
    except ModuleNotFoundError as error:
        print(
            f"rlprune: error: the command line needs the package {error.name!r}, which is not installed; "
            "install it with: pip install rlprune",
            file=sys.stderr,
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
