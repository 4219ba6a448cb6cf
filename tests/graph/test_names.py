"""Any legal name of a module survives being stored."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import IMAGE_SHAPE, make_images
from torch import nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.graph.names import is_safe, is_safe_path, safe_names
from rlprune.storage.structure import describe, rebuild

part = st.text(st.characters(blacklist_characters=".", blacklist_categories=("Cs",)), min_size=1, max_size=4)


@given(st.lists(st.lists(part, min_size=1, max_size=3).map(".".join), max_size=8))
def test_safe_names_are_safe_and_different(names: list[str]) -> None:
    safe = safe_names(names)
    assert all(is_safe(safe[name]) for name in names)
    assert len({safe[name] for name in names}) == len(set(names))


def test_names_that_are_safe_stay() -> None:
    assert safe_names(["a_1.b", "a-1.b", "0.x"]) == {
        "a_1": "a_1", "a_1.b": "a_1.b", "a-1": "a_1_", "a-1.b": "a_1_.b", "0": "0", "0.x": "0.x",
    }  # fmt: skip


@pytest.mark.parametrize(
    "names", [("block1-0", "block1_0"), ("class", "a layer"), ("graph", "code"), ("größe", "☃"), ("meta", "_code")]
)
@torch.no_grad()
def test_a_network_with_any_names_is_stored(names: tuple[str, str]) -> None:
    first, second = names
    tail = [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("fc-1", nn.Linear(32, 5))]
    layers = [("stem", nn.Conv2d(3, 8, 3)), (first, nn.Conv2d(8, 16, 3)), (second, nn.Conv2d(16, 32, 3)), *tail]
    elastic = ElasticCNN.from_model(nn.Sequential(OrderedDict(layers)), IMAGE_SHAPE)
    assert elastic.n_groups == 2
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    assert torch.equal(again(make_images(2)), elastic(make_images(2)))


@pytest.mark.parametrize("name", ["_forward_hooks", "a._modules", "training", "meta", "_graph", "forward"])
def test_what_a_network_keeps_itself_in_is_no_name(name: str) -> None:
    assert not is_safe_path(name)
    assert is_safe_path(safe_names([name])[name])
    assert is_safe_path("a.meta") and is_safe_path("features.0")
