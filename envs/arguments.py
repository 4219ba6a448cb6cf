"""What a world is made of: checked before anything is computed."""

from __future__ import annotations

import reprlib
from typing import Any

from torch import nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.elastic.module import ElasticModule
from rlprune.errors import DataError, ModelError

PARTS = ("network", "policy", "validation", "test")
"""The parts of a split, as `rlprune.data.image_set.Splits` has them."""


def check_network(network: Any) -> ElasticModule:
    """Return a network if it is elastic.

    Raises:
        ModelError: it is something else.
    """
    if isinstance(network, ElasticModule):
        return network
    kind = type(network).__name__
    if isinstance(getattr(network, "elastic", None), ElasticModule):
        raise ModelError(f"network is a {kind}, which decides by itself; give the elastic network in it: its .elastic")
    if isinstance(network, nn.Module):
        raise ModelError(
            f"network is a {kind}, which has no keep levels yet; make it elastic first: "
            "rlprune.ElasticCNN.from_model(network, image_shape)"
        )
    raise ModelError(f"network is {shown(network)}; give a folder with a network or a bundle, or an ElasticCNN")


def check_images(data: Any, network: ElasticModule) -> ImageSet:
    """Return images if a network can tell their classes.

    Raises:
        DataError: they are no image set, or there are none, or they are of another shape or number of classes.
    """
    if isinstance(data, Splits):
        raise DataError(f"data is four sets of images; give one of them, such as splits.policy ({', '.join(PARTS)})")
    if not isinstance(data, ImageSet):
        raise DataError(f"data is {shown(data)}; give an image set, such as rlprune.data.load('mnist5k').policy")
    if not len(data):
        raise DataError("the image set is empty; an environment needs at least one image")
    shape = tuple(data.images.shape[1:])
    if shape != network.image_shape or len(data.classes) != network.n_classes:
        raise DataError(
            f"the images are of shape {shape} in {len(data.classes)} classes; the network takes {network.image_shape} "
            f"in {network.n_classes}"
        )
    return data


def shown(value: Any) -> str:
    """A value for a message, in few words."""
    return (
        reprlib.repr(value)
        if isinstance(value, str | int | float | bool | list | tuple | dict)
        else ("None" if value is None else f"a {type(value).__name__}")
    )
