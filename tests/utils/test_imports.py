from __future__ import annotations

import pytest

from rlprune.errors import ModelError
from rlprune.models.registry import build
from rlprune.utils.imports import names_callable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nets:build", True),
        ("my_package.networks:Small", True),
        ("D:\\nets", False),
        ("C:/work/nets.py:build", False),
        ("/mnt/shots/10:30", False),
        ("nets.py:build", False),
        ("../nets:build", False),
        ("D:", False),
        ("nets", False),
    ],
)
def test_what_is_no_module_is_not_imported(name: str, expected: bool) -> None:
    assert names_callable(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "../nets.py:small",
            r"names a file; name the module, without \.py: nets:small, with \.\. as the",
        ),
        ("C:\\work\\nets.py:build", r"without \.py: nets:build, with C:/work as the current folder or on PYTHONPATH"),
        ("nets.py:small", r"without \.py: nets:small, with its folder as the current folder"),
        ("D:\\nets", r"has not the form package\.module:callable; a path or a drive cannot be imported"),
    ],
)
def test_a_path_to_a_network_says_what_to_name(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name)
