"""The errors a user can meet, and the one way optional packages are imported."""

from __future__ import annotations

import importlib
from types import ModuleType


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


class BundleError(RLPruneError, ValueError):
    """A saved network, policy or bundle is incomplete, altered or of another kind."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        module: dotted name, such as ``"pyarrow.parquet"``.
        extra: the extra of this project that installs it, such as ``"data"``.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name.partition(".")[0]):
            raise
        raise MissingExtraError(
            f"this needs the package {error.name!r}, which is not installed; "
            f"install it with: pip install 'rlprune[{extra}]'"
        ) from error
