"""A sample of `tests/zoo.py`, which tries the networks of torchvision and timm."""

from __future__ import annotations

import importlib.util
import os
import runpy
from pathlib import Path

import pytest

ZOO = Path(__file__).parents[1] / "zoo.py"


@pytest.mark.filterwarnings("default")  # those of the libraries and of their networks
@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:tinynet_e"])
def test_a_network_of_the_zoo_is_taken_and_right(name: str) -> None:
    library = name.partition(":")[0]
    if importlib.util.find_spec(library) is None:
        message = f"{library} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    zoo = runpy.run_path(str(ZOO))
    row = zoo["examine"](name)
    assert zoo["passed"](row), row
