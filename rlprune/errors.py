"""The errors a user can meet, and the one way optional packages are imported."""

from __future__ import annotations


class RLPruneError(Exception):
    """What a user did cannot work; the message says what was found, what is allowed and what to do."""


class MissingExtraError(RLPruneError, ImportError):
    """An optional package is needed that is not installed."""


class DataError(RLPruneError, ValueError):
    """Images or labels that cannot be used."""


class ModelError(RLPruneError, ValueError):
    """A network or its weights cannot be used."""


class LevelsError(RLPruneError, ValueError):
    """Keep levels that the network does not have."""


class SettingsError(RLPruneError, ValueError):
    """Settings that cannot be; the message has a line for each of them."""


class InUseError(RLPruneError):
    """Another process writes to the same file or folder."""


class WriteError(RLPruneError, OSError):
    """A file or folder cannot be written: the disk is full, or it may not be."""


class OutOfMemoryError(RLPruneError, MemoryError):
    """A step needs more memory than the machine, or its graphics card, has."""


class NotFiniteError(RLPruneError, ArithmeticError):
    """A loss, weights or logits are NaN or infinite."""


class DeadlineError(RLPruneError, TimeoutError):
    """Images were not accepted, or not done, in the time that their caller gave."""


class ClusterError(RLPruneError, ConnectionError):
    """Ray, or a process of a training that has several, cannot be reached, or was lost."""


class BundleError(RLPruneError, ValueError):
    """A saved network, policy or bundle is incomplete, altered or of another kind."""


class HubError(BundleError):
    """The Hugging Face hub cannot be reached, or does not give or take a bundle."""


# What a file that is no network may raise while one is built from it.
MALFORMED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    SyntaxError,
)
