"""The Hugging Face hub: where timm's weights are."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlprune.utils.imports import require

PATIENCE = 10.0
"""Seconds to wait for the hub's first answer."""


@contextmanager
def cache_if_unreachable() -> Iterator[None]:
    """Read from the hub's cache alone while the hub does not answer.

    Its own client would try again for most of a minute, and print a dozen lines, before it says so.
    """
    constants: Any = require("huggingface_hub.constants", "timm")
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
