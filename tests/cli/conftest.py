"""What tests of several verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pets import ADAPT, EXPORT, PRETRAIN, TRAIN, draw_pets

from rlprune.cli.main import main


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every verb up to `export` was run."""
    root = tmp_path_factory.mktemp("project")
    draw_pets(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RLPRUNE_DATA", raising=False)
        patch.chdir(root)
        patch.syspath_prepend(root)  # also puts sys.path back, which every main() adds to
        for arguments in (PRETRAIN, ADAPT, TRAIN, EXPORT):
            main([*arguments])
        yield root
