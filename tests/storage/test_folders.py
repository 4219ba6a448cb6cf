"""A folder is replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from centred import make
from started import run

from rlprune.storage.policies import load_policy, save_policy

POLICY = make().policy


def save(folder: Path, number: int) -> None:
    save_policy(folder, POLICY, {"number": number})


@pytest.mark.parametrize("n_renames", [0, 1])
def test_an_error_while_saving_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renames: int
) -> None:
    save(tmp_path / "policy", 1)
    done: list[Path] = []
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if len(done) == n_renames:
            raise OSError("no space left")
        done.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path / "policy", 2)
    monkeypatch.undo()
    assert load_policy(tmp_path / "policy").metadata == {"number": 1}
    save(tmp_path / "policy", 3)
    assert load_policy(tmp_path / "policy").metadata == {"number": 3}
    assert os.listdir(tmp_path) == ["policy"]


def test_about_must_be_json_or_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_policy(tmp_path / "policy", POLICY, {"penalty": torch.tensor(1)})
    assert os.listdir(tmp_path) == []


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import test_folders  # builds the policy once, for all children
folder = Path(sys.argv[1])
test_folders.save(folder, 0)
start = time.perf_counter()
test_folders.save(folder, 0)
took = max(time.perf_counter() - start, 0.02)  # in a new process, everything takes longer
random.seed(0)
numbers = []
for round in range(40):
    child = os.fork()
    if not child:
        for number in range(10**6):
            test_folders.save(folder, number)
    time.sleep(random.uniform(0.5, 5) * took)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    numbers.append(test_folders.load_policy(folder).metadata["number"])
print(max(numbers))
"""


def test_a_kill_at_any_moment_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    assert int(run(KILLED, tmp_path / "policy", beside=__file__)) > 0
    save(tmp_path / "policy", -1)
    assert load_policy(tmp_path / "policy").metadata == {"number": -1}
    assert not (tmp_path / ".policy.before").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "policy"]  # nor anything else that the killed ones had begun
