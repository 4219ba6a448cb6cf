"""What a world is made of: checked before anything is computed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.elastic.module import ElasticModule
from rlprune.errors import DataError, ModelError, SettingsError
from rlprune.policies.observations import Observer
from rlprune.utils.finite import check_numbers

PARTS = ("network", "policy", "validation", "test")
"""The parts of a split, as `rlprune.data.image_set.Splits` has them."""


def check_given(**values: Any) -> None:
    """Make sure that an environment is given what it cannot do without.

    Raises:
        SettingsError: it is not, as by clients that keep the arguments of one environment from the next.
    """
    missing = [name for name, value in values.items() if value is None]
    if not missing:
        return
    raise SettingsError(
        f"{' and '.join(missing)} missing: give network=FOLDER and data=NAME wherever an environment is made. RL Zoo "
        "passes env_kwargs of a YAML file to training alone; --env-kwargs of its command line reach evaluation and "
        "videos, too"
    )


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


def checked_rules(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Rules of a world, once it is seen that they are of the right types; numbers of NumPy become those of Python.

    Raises:
        SettingsError: one is not.
    """
    found = {name: value.item() if isinstance(value, np.generic) else value for name, value in rules.items()}
    control_variate = found.get("control_variate", False)
    if not isinstance(control_variate, bool):
        raise SettingsError(f"control_variate={shown(control_variate)}: give true or false")
    penalty = found.get("penalty", 0.0)
    if isinstance(penalty, np.ndarray) and penalty.ndim == 1:
        found["penalty"] = penalty.tolist()
    elif not isinstance(penalty, int | float | str | Sequence):
        raise SettingsError(f"penalty={shown(penalty)}: give a number of 0 or more, or two of them")
    check_numbers(combine=found.get("combine", 0.0), least=0)
    policy_cost = found.get("policy_cost", (0, 0))
    if not isinstance(policy_cost, Sequence) or isinstance(policy_cost, str) or len(policy_cost) != 2:
        raise SettingsError(f"policy_cost={shown(policy_cost)}: give two whole numbers, parameters and MACs")
    return found


def check_observer(observer: Any) -> None:
    """Make sure that an observer, if there is one, is one.

    Raises:
        SettingsError: it is something else.
    """
    if observer is not None and not isinstance(observer, Observer):
        raise SettingsError(f"observer={shown(observer)}: give an Observer, as Observer.fit makes it, or leave it out")


def shown(value: Any) -> str:
    """A value for a message, in few words."""
    return (
        reprlib.repr(value)
        if isinstance(value, str | int | float | bool | list | tuple | dict)
        else ("None" if value is None else f"a {type(value).__name__}")
    )
