"""Files of weights that are none: pipes, devices, indices of files elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch import nn

from rlprune.errors import ModelError
from rlprune.models.weights import load_weights, notes_in_weights, save_weights


def test_pipes_and_devices_are_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    os.symlink("/dev/zero", tmp_path / "zero.safetensors")
    for name in ("pipe.pt", "zero.safetensors"):
        with pytest.raises(ModelError, match=f"{name} is no regular file; give a .safetensors"):
            load_weights(nn.Linear(2, 2), tmp_path / name)
        assert notes_in_weights(tmp_path / name) == {}


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", 5, ""])
def test_an_index_names_files_beside_it(tmp_path: Path, name: object) -> None:
    save_weights(nn.Linear(2, 2), tmp_path / "other.safetensors")
    (tmp_path / "hub").mkdir()
    index = tmp_path / "hub" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": name}}))
    with pytest.raises(ModelError, match="is no index of weights"):
        load_weights(nn.Linear(2, 2), tmp_path / "hub")


def test_an_index_that_is_a_pipe_or_nonsense_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for content in ("[]", "[" * 100_000, '{"weight_map": [1]}'):
        index.write_text(content)
        with pytest.raises(ModelError, match="is no index of weights"):
            load_weights(nn.Linear(2, 2), index)
