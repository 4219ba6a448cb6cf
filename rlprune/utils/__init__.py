"""What every room may use and no user needs: files, timing, hardware, event files, optional imports.

Imports `rlprune.errors` alone.
"""

__all__: list[str] = []
