"""What models of the Hugging Face hub can: be saved in a folder, read from one or from the hub, and pushed to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rlprune.utils.imports import require

T = TypeVar("T", bound="Pretrained")


class Pretrained:
    """The methods that `huggingface_hub.ModelHubMixin` gives to models, for bundles, which hold no pickle.

    What a bundle is, is known one room above, in `rlprune.storage`; it is asked when a method is called.
    """

    metadata: dict[str, Any]

    @classmethod
    def from_pretrained(cls: type[T], name: str | Path, *, revision: str | None = None, **how: Any) -> T:
        """Read a bundle, from a folder or from the hub, as `rlprune.load` does.

        Args:
            name: the folder, or ``org/name`` on the hub.
            revision: a branch, a tag or a commit there.
            **how: further arguments of `rlprune.load`.

        Raises:
            BundleError: as for `rlprune.load`.
        """
        loaded: T = _storage().load(name if revision is None else f"{name}@{revision}", **how)
        return loaded

    def save_pretrained(self, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a bundle.

        Args:
            folder: the folder to write.
            metadata: notes to store; those that it was loaded with if None.

        Raises:
            BundleError: the folder holds something else.
        """
        _storage().save_dynamic(folder, self, self.metadata if metadata is None else metadata)

    def push_to_hub(self, repo_id: str, **how: Any) -> str:
        """Write a bundle and upload it, with a model card.

        Args:
            repo_id: ``org/name``.
            **how: further arguments of `rlprune.push_to_hub`.

        Returns:
            The address of the commit.

        Raises:
            HubError: as for `rlprune.push_to_hub`.
            MissingExtraError: the hub's client is not installed.
        """
        address: str = _storage().push_to_hub(self, repo_id, **how)
        return address


def _storage() -> Any:
    """What writes and reads bundles."""
    return require("rlprune.storage.bundle")
