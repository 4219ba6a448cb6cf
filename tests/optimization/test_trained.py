from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nets import make_data, make_elastic, make_policy

from rlprune.optimization.trained import learnt_in
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.policies import save_policy


@pytest.mark.parametrize(
    ("notes", "learnt"),
    [
        ({"choice": {"kept": "cascade"}}, False),
        ({"choice": {"kept": "learnt"}}, True),
        ({}, True),
        ({"choice": 3}, True),
    ],
)
def test_the_notes_of_a_run_say_whether_its_policy_was_learnt(
    tmp_path: Path, notes: dict[str, Any], learnt: bool
) -> None:
    network, data = make_elastic("residual"), make_data(8)
    save_policy(tmp_path / "policy", make_policy(network, data, uniform_codebook(network, Cost(network))), notes)
    assert learnt_in(tmp_path) is learnt
