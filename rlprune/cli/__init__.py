"""The command line: one module for each verb, in which a dataclass holds its options."""

__all__: list[str] = []
