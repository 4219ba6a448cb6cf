"""Helpers that every package may use and no user needs: files, timing, hardware, optional imports.

May import `rlprune.errors`.
"""

__all__: list[str] = []
