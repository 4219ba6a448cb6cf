"""`rlprune`, the same as `python -m rlprune`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which package it needs where rlprune was installed to serve alone."""
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
