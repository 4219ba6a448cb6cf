"""Networks that say what cannot be, though each may carry the right checksums."""

from __future__ import annotations

import json
from typing import Any

from forgery import Change, at, extra

CALL, METHOD = "call_function", "call_method"


def layer_of(stored: Any, kind: str, part: str = "body") -> Any:
    return next(layer for layer in stored[part]["layers"].values() if layer["type"] == kind)


def layer(key: str, value: Any, kind: str = "Conv2d", part: str = "body") -> Change:
    return lambda stored: layer_of(stored, kind, part).update({key: value})


def unused_layer(stored: Any) -> None:
    stored["body"]["layers"]["more"] = {"type": "Linear", "in_features": 2**14, "out_features": 2**14}


def used_layer(stored: Any) -> None:
    unused_layer(stored)
    extra(("call_module", "more", ["x"]))(stored)


def unused_tensor(stored: Any) -> None:
    stored["body"]["tensors"]["more"] = {"shape": [2**31], "trainable": True}


def read_tensor(stored: Any) -> None:
    unused_tensor(stored)
    extra(("get_attr", "more", []))(stored)


def many_profiles(stored: Any) -> None:
    stored["codebook"] = [[1] * len(stored["groups"])] * 3000


def run(*values: int) -> Change:
    return at("groups.0.members.0.runs.0", list(values))


WRONG_NETWORKS: list[tuple[Change, str]] = [
    # types and counts
    (lambda _: [], "network is malformed: TypeError"),
    (at("round_to", "8"), "TypeError: round_to is '8'; allowed: a valid integer"),
    (at("round_to", 10**9), "ValueError: round_to is 1000000000; allowed: less than or equal to"),
    (at("round_to", True), "TypeError: round_to is True"),
    (at("keep_ratios", [0.0, 1.0] * 40), "keep_ratios is .*; allowed: List should have at most 64 items"),
    (at("keep_ratios.1", float("nan")), "keep_ratios.1 is nan"),
    (at("image_shape", [3, 10**9, 16]), "image_shape.1 is 1000000000"),
    (at("image_shape", [3, 4000, 4000]), "values at a time|multiply-adds"),
    (many_profiles, "codebook is .*at most 64 items"),
    (at("groups", []), "groups is "),
    (at("groups.0.surprise", 1), "KeyError: 'groups.0.surprise' is unknown"),
    (at("separated", 1), "TypeError: separated is 1; allowed: a valid boolean"),
    (at("drop_order", [9]), "drop_order"),
    (at("left_alone", [{"name": "x", "n_channels": 1, "reason": "x" * 10**6}]), "left_alone.0.reason is 'xxx"),
    # groups
    (run(0, 0, 10**9, 1), "groups.0.members.0.runs.0.2 is 1000000000"),
    (run(0, 0, 2**20, 1), r"the run \[0, 0, 1048576, 1\] of b1\.conv1 leaves its channels"),
    (run(0, 1, 16, 1), "leaves its channels"),
    (run(0, 0, 0, 1), "leaves its channels"),
    (at("groups.0.members.0.layer", "nowhere"), "'nowhere', which is no layer with channels"),
    (at("groups.0.name", "nowhere"), "groups.0.name is 'nowhere', which is no layer of the body"),
    (at("groups.0.exits", ["nowhere"]), "groups.0.exits has 'nowhere', which is no node"),
    (at("groups.0.n_channels", 2**20), "holds fewer channels than the group has"),
    (lambda stored: stored["groups"].append(stored["groups"][0]), "groups overlap at"),
    # layers and tensors against the file
    (unused_layer, "body.layers.more is used by no node"),
    (used_layer, r"the layers need 268,.* numbers, and network\.safetensors has .* \(a size mismatch\)"),
    (unused_tensor, "body.tensors.more is used by no node"),
    (read_tensor, "the layers need 2,147,.* numbers"),
    (layer("out_channels", 2**20), "size mismatch|malformed"),
    (layer("out_channels", 10**12), r"out_channels is 1000000000000; allowed: 1 to 1048576 channels"),
    (layer("in_channels", -1), "in_channels is -1"),
    (layer("stride", {"tuple": [0, 1]}), "stride is .*; allowed: 1 to 16384"),
    (layer("padding", {"tuple": [10**9, 1]}), "padding is "),
    (layer("groups", 0), "groups is 0"),
    (layer("bias", "yes"), "bias is 'yes'; allowed: true or false"),
    (layer("device", "meta"), "device is unknown to Conv2d"),
    (layer("padding_mode", "__class__"), "malformed"),
    (layer("type", "Embedding"), "layer 'Embedding' is not allowed"),
    (layer("type", ["Conv2d"]), r"layer \['Conv2d'\] is not allowed"),
    (layer("eps", -1.0, "BatchNorm2d"), "eps is -1.0; allowed: a number of 0 or more"),
    (layer("eps", {"float": "nan"}, "BatchNorm2d"), "eps is "),
    (layer("num_features", 2**20, "BatchNorm2d"), "malformed"),
    # the graph
    (at("body.nodes.0.op", "call_method"), "needs one placeholder first, one output last"),
    (at("body.nodes.0.op", "exec"), "body.nodes.0.op is 'exec'"),
    (lambda stored: stored["body"]["nodes"].append(stored["body"]["nodes"][-1]), "needs one placeholder first"),
    (lambda stored: stored["body"]["nodes"].insert(1, stored["body"]["nodes"][1]), "has a name twice"),
    (at("body.nodes.1.args", {"tuple": [{"node": "output"}]}), "KeyError: 'output'"),
    (at("body.nodes.1.args", {"tuple": [{"node": []}]}), "TypeError"),
    (at("body.nodes.1.kwargs", {"x": 1}), "a layer takes one tensor"),
    (lambda stored: stored["body"]["nodes"].pop(1), "malformed"),
    (lambda stored: stored["body"]["nodes"][-1].update(args={"tuple": [5]}), "the output is no tensor"),
    (lambda stored: stored["body"]["nodes"][-1].update(args={"tuple": [{"node": "features"}]}), "malformed"),
    # operations
    (extra((CALL, "_operator.mul", ["aaaa", 10**9])), "body.nodes.n0: it takes no tensor"),
    (extra((CALL, "_operator.pow", [7, 10**8])), "body.nodes.n0: it takes no tensor"),
    (extra((METHOD, "size", ["x", 1]), (CALL, "_operator.pow", ["n0", 10**8])), "n1: it takes no tensor"),
    (extra((METHOD, "size", ["x"]), (CALL, "_operator.mul", ["n0", 10**9])), "n1: it takes tensors and numbers only"),
    (extra((METHOD, "size", ["x", 1]), (CALL, "_operator.mul", ["n0", 2**62])), "n1: it gives "),
    (extra((CALL, "getattr", [[5], "shape"])), "n0: it takes no tensor"),
    (extra((METHOD, "repeat", ["x", 1, 10**6, 10, 10])), "n0: one image takes more than"),
    (extra((METHOD, "expand", ["x", 2**30, -1, -1, -1])), "n0: one image takes more than"),
    (extra((CALL, "torch.nn.functional.pad", ["x", [10**6, 10**6]])), "n0: one image takes more than"),
    (extra((METHOD, "unfold", ["x", 1, 0, 0])), "n0: RuntimeError"),
    (extra((METHOD, "flatten", ["x"]), (METHOD, "repeat", ["n0", 9]), (METHOD, "unbind", ["n1"])), "n2: it makes"),
    (extra((CALL, "torch.nn.functional.interpolate", ["x", None, 1e9])), "n0: "),
    (extra((METHOD, "to", ["x", "meta"])), "n0: where its result is kept may not be said"),
    (extra((CALL, "torch.nn.functional.max_pool2d", ["x", -1])), "n0: "),
    (extra((CALL, "torch.nn.functional.adaptive_avg_pool2d", ["x", -1])), "n0: "),
    (extra((CALL, "torch.functional.einsum", ["a" * 999, "x"])), "n0: a text of more than"),
    (extra((CALL, "torch.functional.einsum", ["a" * 5000, "x"])), "a text has 5,000 letters"),
    (extra((CALL, "torch.flatten", ["x", json.loads("[" * 20 + "1" + "]" * 20)])), "nested more than"),
    (extra((CALL, "torch.flatten", ["x", 10**40])), "more than 64 bits"),
    (extra((CALL, "torch.nn.functional.relu", ["x", False, 1])), "n0: TypeError"),
]
"""Changes of a network's description, and what is said of them."""
