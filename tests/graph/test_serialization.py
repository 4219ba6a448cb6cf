from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import IMAGE_SHAPE, KINDS, make_images, network
from opaque import Gate, with_gate
from torch import Tensor, fx, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, ModelError
from rlprune.graph import serialization, tracing
from rlprune.graph.operators import LATER_ARGUMENTS
from rlprune.storage.layers import check_layers
from rlprune.storage.structure import describe
from rlprune.storage.tensors import MalformedError


def description(kind: str = "plain") -> Any:
    return json.loads(json.dumps(serialization.to_json(tracing.trace(network(kind)))))


@pytest.mark.parametrize("kind", KINDS)
def test_json_brings_back_the_same_network(kind: str) -> None:
    traced, images = tracing.trace(network(kind)), make_images(2)
    again = serialization.from_json(json.loads(json.dumps(serialization.to_json(traced))))
    again.load_state_dict(traced.state_dict())
    assert torch.equal(again(images), traced(images))
    assert list(again.state_dict()) == list(traced.state_dict())
    assert serialization.to_json(again) == serialization.to_json(traced)


def stored_layers(*layers: nn.Module) -> list[dict[str, Any]]:
    traced = fx.GraphModule(nn.Sequential(*layers), fx.symbolic_trace(nn.Sequential(*layers)).graph)
    return list(serialization.to_json(traced)["layers"].values())


def test_arguments_are_stored_where_they_differ_from_the_defaults() -> None:
    assert stored_layers(nn.ReLU(), nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False), nn.GELU("tanh")) == [
        {"type": "ReLU"},
        {"type": "BatchNorm2d", "num_features": 8},
        {"type": "BatchNorm2d", "num_features": 8, "affine": False},
        {"type": "GELU", "approximate": "tanh"},
    ]
    (conv,) = stored_layers(nn.Conv2d(3, 8, 3, padding=1, bias=False))
    assert conv["bias"] is False and not {"groups", "padding_mode"} & set(conv)


def test_defaults_of_later_versions_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LATER_ARGUMENTS, "ReLU", {"novel": 1})
    stored = description()
    (relu, *_) = (layer for layer in stored["layers"].values() if layer["type"] == "ReLU")
    relu["novel"] = 1
    check_layers(stored["layers"], "body")
    serialization.from_json(stored)
    relu["novel"] = 2
    with pytest.raises(MalformedError, match="novel is unknown to ReLU of torch"):
        check_layers(stored["layers"], "body")
    with pytest.raises(BundleError, match="novel"):
        serialization.from_json(stored)


@pytest.mark.parametrize(
    ("affine", "bias", "ignored"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_a_norm_stored_by_a_later_torch(
    affine: bool, bias: bool, ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serialization, "_defaults", lambda _: {"num_features": None, "affine": True})
    arguments = {"num_features": 8, "affine": affine, "bias": bias}
    assert ("bias" not in serialization.understood("BatchNorm2d", arguments)) is ignored


def test_a_network_with_a_layer_of_its_own_is_not_stored() -> None:
    elastic = ElasticCNN.from_model(with_gate(Gate()), IMAGE_SHAPE)
    with pytest.raises(ModelError, match=r"layer '3' is a .*Gate, which cannot be stored without its code"):
        describe(elastic)


def test_a_network_that_calls_something_else_is_not_stored() -> None:
    class Sorts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x)[0].cumsum(1)

    with pytest.raises(ModelError, match=r"calls torch.sort, which cannot be stored"):
        serialization.to_json(tracing.trace(Sorts()))


def call(op: str, target: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"name": "bad", "op": op, "target": target, "args": {"tuple": list(args)}, "kwargs": kwargs}


x = {"node": "x"}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (call("call_function", "os.system", "touch pwned"), "function 'os.system' is not allowed"),
        (call("call_function", "torch.load", "pwned"), "function 'torch.load' is not allowed"),
        (call("call_method", "numpy", x), "method 'numpy' is not allowed"),
        (call("call_function", "getattr", x, "__class__"), "attribute '__class__' is not allowed"),
        (call("call_module", "load_state_dict", x), "call_module 'load_state_dict' is not allowed"),
        (call("get_attr", "forward.__globals__"), "get_attr 'forward.__globals__' is not allowed"),
        (call("import", "os"), "import"),
    ],
)
def test_a_stored_network_calls_nothing_but_what_is_listed(node: dict[str, Any], message: str) -> None:
    stored = description()
    assert stored["nodes"][0]["name"] == x["node"]
    stored["nodes"].insert(1, node)
    with pytest.raises(BundleError, match=message):
        serialization.from_json(stored)


def test_an_unknown_layer_is_refused() -> None:
    stored = description()
    stored["layers"]["features.0"] = {"type": "Foo"}
    with pytest.raises(BundleError, match="layer 'Foo' is not allowed"):
        serialization.from_json(stored)


CODE = "__import__('pathlib').Path({!r}).touch()"


def in_placeholder(stored: Any, code: str) -> None:
    stored["nodes"][0]["target"] = f"x={code}"


def in_keyword(stored: Any, code: str) -> None:
    stored["nodes"].insert(1, call("call_function", "torch.flatten", x, **{f"end_dim={code}, start_dim": 1}))


def in_layer_name(stored: Any, code: str) -> None:
    name = f'a") or {code} or ("'
    stored["layers"][name] = {"type": "ReLU"}
    stored["nodes"].insert(1, call("call_module", name, x))


def in_node_name(stored: Any, code: str) -> None:
    stored["nodes"][1]["name"] = f"y = {code}; z"


@pytest.mark.parametrize("hide", [in_placeholder, in_keyword, in_layer_name, in_node_name])
def test_code_hidden_in_a_name_does_not_run(hide: Any, tmp_path: Path) -> None:
    # torch.fx writes names into the Python source of a forward, which it executes.
    stored = description()
    hide(stored, CODE.format(str(tmp_path / "pwned")))
    with pytest.raises(BundleError, match=r"name .* is not allowed"):
        serialization.from_json(stored)
    assert not (tmp_path / "pwned").exists()


def test_a_layer_s_name_reaches_no_attribute_of_python() -> None:
    stored = description()
    stored["layers"]["__class__.forward"] = {"type": "ReLU"}
    with pytest.raises(BundleError, match="__class__"):
        serialization.from_json(stored)
    assert nn.Module().__class__ is nn.Module


def places(stored: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in stored.items() if isinstance(stored, dict) else enumerate(stored):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


BROKEN = description("residual")
PLACES = list(places(BROKEN))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    value=st.sampled_from(
        [None, 0, -1, 1.5, True, "", "x", "class", "__class__", "a.b", "call_module", "get_attr", [], {}, {"tuple": []}]
    ),
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_damaged_file_gives_a_network_or_says_that_it_is_damaged(seed: int, value: Any) -> None:
    stored = copy.deepcopy(BROKEN)
    *path, last = random.Random(seed).choice(PLACES)
    parent = stored
    for key in path:
        parent = parent[key]
    parent[last] = value
    try:
        assert isinstance(serialization.from_json(stored), nn.Module)
    except BundleError as error:
        assert "malformed" in str(error)
