"""The Hugging Face hub: what is read from it, and written to it, through its own client."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rlprune.errors import HubError, MissingExtraError, RLPruneError
from rlprune.utils.imports import require

PATIENCE = 10.0
"""Seconds to wait for the hub's first answer."""
_NAME = re.compile(r"(?P<repo_id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-][\w./-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_SAID = 200


class HubName(NamedTuple):
    """What a repository of the hub is called.

    Attributes:
        repo_id: its owner and its name, ``org/name``.
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repo_id: str
    revision: str | None = None

    @classmethod
    def of(cls, name: str | os.PathLike[str]) -> HubName | None:
        """What a text like ``org/name`` or ``org/name@revision`` names; None if it does not look like that.

        What begins with ``runs/``, where this library puts what it makes, is a path.
        """
        match = _NAME.fullmatch(Path(name).as_posix() if isinstance(name, os.PathLike) else str(name))
        if match is None or match["repo_id"].startswith("runs/"):
            return None
        return cls(match["repo_id"], match["revision"])

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


def download(name: HubName, files: Sequence[str]) -> tuple[Path, HubName]:
    """Download some files of a repository, those alone, into the hub's own cache.

    Args:
        name: the repository.
        files: their paths in it; those that it does not have are left out.

    Returns:
        The folder that they are in, and the repository at the commit that they are of.

    Raises:
        HubError: the client is not installed, the hub cannot be reached, or does not give them.
    """
    try:
        client = require("huggingface_hub", "hub")
    except MissingExtraError as error:
        raise HubError(f"{name} is no folder here; to look on the Hugging Face hub, {_install(error)}") from error
    with _asking(name), cache_if_unreachable("hub"):
        folder = Path(client.snapshot_download(name.repo_id, revision=name.revision, allow_patterns=list(files)))
    return folder, name._replace(revision=folder.name) if _COMMIT.fullmatch(folder.name) else name


def upload(
    folder: Path, repo_id: str, *, message: str, private: bool | None, token: str | None, revision: str | None, pr: bool
) -> str:
    """Make a repository, if it is not there, and upload a folder into it in one commit.

    Args:
        folder: the folder.
        repo_id: the repository, ``org/name``, or ``name`` of the user's own.
        message: of the commit.
        private: whether a new repository is private; None for what its owner's settings say.
        token: to be used in place of that of `hf auth login`.
        revision: the branch; None for the main one.
        pr: open a pull request in place of a commit on the branch.

    Returns:
        The address of the commit.

    Raises:
        HubError: the hub cannot be reached, or does not take it.
        MissingExtraError: the client is not installed.
    """
    client = require("huggingface_hub", "hub")
    with _asking(HubName(repo_id, revision)):
        api = client.HfApi(token=token)
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            repo_type="model",
            commit_message=message,
            revision=revision,
            create_pr=pr,
        )
    return str(commit)


def tagged(card: str) -> str:
    """A model card whose metadata say which library its model is for; what they say already stays.

    Args:
        card: Markdown, with or without metadata in YAML before it.

    Raises:
        HubError: the metadata are malformed.
        MissingExtraError: the client is not installed.
    """
    client: Any = require("huggingface_hub", "hub")
    text = card if card.lstrip().startswith("---") else f"---\nlibrary_name: rlprune\n---\n{card}"
    try:
        made = client.ModelCard(text, ignore_metadata_errors=True)
        made.data.library_name = made.data.library_name or "rlprune"
        made.data.pipeline_tag = made.data.pipeline_tag or "image-classification"
        return str(made.content)
    except Exception as error:  # whatever YAML's reader says
        raise HubError(f"the metadata at the beginning of README.md are malformed: {_line(error)}") from error


@contextmanager
def cache_if_unreachable(extra: str = "timm") -> Iterator[None]:
    """Read from the hub's cache alone while the hub does not answer.

    Its own client would try again for most of a minute, and print a dozen lines, before it says so.

    Args:
        extra: what brings the client.
    """
    constants: Any = require("huggingface_hub.constants", extra)
    before = constants.HF_HUB_OFFLINE
    if not before:
        constants.HF_HUB_OFFLINE = not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(url: str) -> bool:
    """Whether a web server can be reached, whatever it says; proxies are used as the environment says."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=PATIENCE):  # of the hub's endpoint, and HEAD alone  # nosec B310
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def _asking(name: HubName) -> Iterator[None]:
    """Say in one line why the hub does not give, or take, something.

    Raises:
        HubError: the block raised what its client raises.
    """
    try:
        yield
    except RLPruneError:
        raise
    except Exception as error:  # its client's own, and those of what it sends with
        raise HubError(_why(name, error)) from error


def _why(name: HubName, error: Exception) -> str:
    """Why the client failed, in one line; of its kinds of errors some are kinds of others."""
    known: Any = require("huggingface_hub.errors", "hub")
    repo = name.repo_id
    if isinstance(error, known.GatedRepoError):
        return f"{repo} is gated: ask for access on https://huggingface.co/{repo}, then run hf auth login"
    if isinstance(error, known.RevisionNotFoundError):
        return f"{repo} has no revision {name.revision!r} on the Hugging Face hub; name a branch, a tag or a commit"
    if isinstance(error, known.RepositoryNotFoundError):
        return (
            f"{repo} is no folder here, and the Hugging Face hub has no such repository that may be read; check the "
            "name, or run hf auth login if it is private"
        )
    if isinstance(error, known.LocalEntryNotFoundError | ConnectionError | TimeoutError) or _unsent(error):
        return (
            f"{repo} is no folder here, and the Hugging Face hub cannot be reached, nor is it in its cache; check the "
            "connection (or HF_HUB_OFFLINE), or name a folder"
        )
    if isinstance(error, known.HFValidationError):
        return f"{repo} is no name of a repository of the Hugging Face hub: {_line(error)}"
    return f"{repo}: the Hugging Face hub does not do it ({type(error).__name__}: {_line(error)})"


def _unsent(error: Exception) -> bool:
    """Whether it is what the client's web libraries raise where no answer comes, by the names that they share."""
    return any(kind.__name__ in ("ConnectError", "ConnectTimeout", "TransportError") for kind in type(error).__mro__)


def _install(error: MissingExtraError) -> str:
    return str(error).partition("; ")[2] or str(error)


def _line(error: Exception) -> str:
    """The first line of what an error says, of bounded length."""
    said = " ".join(str(error).strip().partition("\n")[0].split())
    return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}..."
