"""`rlprune`, the same as `python -m rlprune`."""

from __future__ import annotations

import sys

from rlprune import startup


def main() -> None:
    """Run the command line, or say which package it needs where rlprune was installed to serve alone."""
    startup.begin()
    try:
        try:
            from rlprune.cli.main import main as run
        except ModuleNotFoundError as error:
            print(
                f"rlprune: error: the command line needs the package {error.name!r}, which is not installed; "
                "install it with: pip install rlprune",
                file=sys.stderr,
            )
            sys.exit(2)
        try:
            startup.end_in_order()
            run()
        finally:
            startup.end_at_once()
    except KeyboardInterrupt as error:  # in the moment before or after the verb
        sys.exit(startup.status_of(error))


if __name__ == "__main__":
    main()
