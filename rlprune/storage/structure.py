"""An elastic network's structure as JSON holds it, without its weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

from rlprune import errors
from rlprune.elastic.axes import Run
from rlprune.elastic.channels import Group, Member, UnprunableLayer
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.depth import droppable_groups
from rlprune.errors import BundleError
from rlprune.graph import serialization


def describe(elastic: ElasticCNN) -> Any:
    """Describe the structure of a network for `rebuild`; the weights are not included.

    Raises:
        ModelError: it holds a layer or calls a function that cannot be stored without its code.
    """
    stem, body = elastic.slice(elastic.full)
    assert isinstance(stem, fx.GraphModule) and isinstance(body, fx.GraphModule)
    return {
        "stem": serialization.to_json(stem),
        "body": serialization.to_json(body),
        "groups": [dataclasses.asdict(group) for group in elastic.groups],
        "left_alone": [dataclasses.asdict(item) for item in elastic.unprunable],
        "keep_ratios": elastic.keep_ratios,
        "round_to": elastic.round_to,
        "image_shape": elastic.image_shape,
        "codebook": None if elastic.codebook is None else elastic.codebook.tolist(),
        "separated": bool(elastic.own_bodies),
        "drop_order": elastic.ranked_order,
    }


def rebuild(description: Any) -> ElasticCNN:
    """Build the network that `describe` described, with fresh weights, in eval mode.

    Raises:
        BundleError: the description is malformed, or names something that a stored network may not hold.
    """
    try:
        elastic = ElasticCNN(
            serialization.from_json(description["stem"]),
            serialization.from_json(description["body"]),
            [_group(group) for group in description["groups"]],
            description["image_shape"],
            keep_ratios=description["keep_ratios"],
            round_to=description["round_to"],
            unprunable=[UnprunableLayer(**item) for item in description["left_alone"]],
        ).eval()
        if description["codebook"] is not None:
            elastic.specialise(torch.tensor(description["codebook"]))
        if description.get("separated", False):  # the first networks were stored without this key and the next
            elastic.separate()
        if description.get("drop_order") is not None:
            elastic.ranked_order = tuple(description["drop_order"])
            if sorted(elastic.ranked_order) != droppable_groups(elastic):
                raise BundleError(f"the stored network is malformed: drop_order {elastic.ranked_order}")
    except errors.MALFORMED as error:
        raise BundleError(f"the stored network is malformed: {type(error).__name__}: {error}") from error
    return elastic


def _group(stored: Any) -> Group:
    members = [Member(m["layer"], m["axis"], tuple(Run(*run) for run in m["runs"])) for m in stored["members"]]
    return Group(stored["name"], stored["n_channels"], tuple(members), tuple(stored["exits"]))
