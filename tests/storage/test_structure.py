"""An elastic network's structure as it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, make_images, make_levels
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.structure import describe, rebuild

both = pytest.mark.parametrize("residual", [False, True])
kinds = pytest.mark.parametrize("kind", KINDS)
STORED: dict[str, Any] = json.loads(json.dumps(describe(make_elastic("plain"))))


@kinds
@both
@torch.no_grad()
def test_json_and_weights_bring_back_the_same_network(kind: str, residual: bool) -> None:
    elastic, images = make_elastic(kind, residual=residual), make_images(4)
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    levels = make_levels(elastic, 4)
    assert torch.equal(again(images, levels), elastic(images, levels))
    assert torch.equal(again(images, levels[0]), elastic(images, levels[0]))
    assert (again.groups, again.unprunable, again.keep_ratios) == (
        elastic.groups,
        elastic.unprunable,
        elastic.keep_ratios,
    )
    assert describe(again) == describe(elastic)


LATER = {"separated", "drop_order"}
"""Not known to the first stored networks."""


@pytest.mark.parametrize("key", sorted(set(STORED) - LATER))
def test_a_part_that_is_missing_is_named(key: str) -> None:
    stored = {k: v for k, v in STORED.items() if k != key}
    with pytest.raises(BundleError, match=f"malformed: KeyError: '{key}'"):
        rebuild(stored)


def test_networks_that_were_stored_before_there_was_more_to_say_can_be_read() -> None:
    again = rebuild({k: v for k, v in STORED.items() if k not in LATER})
    assert json.loads(json.dumps(describe(again))) == STORED


@pytest.mark.parametrize("order", [[0], [0, 99], [0, 0, 1]])
def test_a_stored_order_must_be_one(order: list[int]) -> None:
    stored = describe(make_elastic("residual")) | {"drop_order": order}
    with pytest.raises(BundleError, match="malformed: drop_order"):
        rebuild(stored)


def test_what_functions_are_told_nothing_of_is_not_stored(tmp_path: Path) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.linear = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.linear(self.a(self.stem(x).relu()).relu().mean((2, 3))))

    data, images = make_data(2), make_images(2)  # torch.fx notes out=None of normalize, and loading refuses `out`
    elastic = ElasticCNN.from_model(Normalised(), IMAGE_SHAPE)
    save_network(tmp_path / "network", elastic, data)
    again = load_network(tmp_path / "network").network
    assert torch.equal(again(images, again.full), elastic(images, elastic.full))
