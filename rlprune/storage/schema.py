"""What the JSON files of a stored folder may say: types, ranges and counts, checked before anything is built.

A long list is left at its first wrong entry: an error for each of a million would take a gigabyte.
"""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from rlprune.elastic.levels import MAX_PROFILES
from rlprune.errors import BundleError

MOST_CLASSES = 1_000_000
MOST_NODES = 20_000
MOST_GROUPS = 10_000
MOST_LEVELS = 64
MOST_CHANNELS = 2**20
_MOST_SIDE = 16384

_STRICT = ConfigDict(strict=True, extra="ignore")
_CLOSED = ConfigDict(strict=True, extra="forbid")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]
Penalty = Annotated[float, Field(allow_inf_nan=False, ge=1e-30, le=1e30)]
Name = Annotated[str, Field(min_length=1, max_length=500)]
ClassName = Annotated[str, Field(max_length=500, pattern=r"^[\w.]+:[\w.<>]+$")]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
Index = Annotated[int, Field(ge=0, le=MOST_CHANNELS)]
Ratios = Annotated[
    list[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]], Field(min_length=2, max_length=MOST_LEVELS)
]
Side = Annotated[int, Field(ge=1, le=_MOST_SIDE)]
Shape = Annotated[list[Side], Field(min_length=3, max_length=3)]
Level = Annotated[int, Field(ge=0, lt=MOST_LEVELS)]
Profile = Annotated[list[Level], Field(fail_fast=True, min_length=1, max_length=MOST_GROUPS)]


class Preprocessing(BaseModel):
    """How pictures become a network's input; ranges are checked by `rlprune.data.preprocessing.Preprocessing`."""

    model_config = _CLOSED
    resize: int | list[int] | None = None
    crop: int | list[int] | None = None
    interpolation: Name = "bilinear"
    channels: Name | None = None
    transform_name: Name | None = None


class Data(BaseModel):
    """What a network expects of its images."""

    model_config = _STRICT
    mean: Annotated[list[Finite], Field(min_length=1, max_length=1024)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=1024)]
    classes: Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MOST_CLASSES)]
    preprocessing: Preprocessing | None = None


class Manifest(BaseModel):
    """The manifest of any folder."""

    model_config = _STRICT
    kind: Name
    sha256: Annotated[
        dict[Annotated[str, Field(pattern=r"^\w[\w.-]{0,200}$")], Annotated[str, Field(max_length=64)]],
        Field(max_length=64),
    ]
    about: dict[str, Any]
    data: dict[str, Any] = {}
    observation: ClassName | None = None


class Node(BaseModel):
    """One node of a graph; its arguments are checked where they are decoded."""

    model_config = _CLOSED
    name: Name
    op: Literal["placeholder", "call_module", "call_function", "call_method", "get_attr", "output"]
    target: Name
    args: dict[str, Any]
    kwargs: Annotated[dict[Name, Any], Field(max_length=64)]


class FreeTensor(BaseModel):
    """A parameter or buffer that belongs to no layer."""

    model_config = _CLOSED
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=8)]
    trainable: bool


class Graph(BaseModel):
    """A traced network."""

    model_config = _STRICT
    nodes: Annotated[list[Node], Field(fail_fast=True, min_length=2, max_length=MOST_NODES)]
    layers: Annotated[dict[Name, dict[str, Any]], Field(max_length=MOST_NODES)]
    tensors: Annotated[dict[Name, FreeTensor], Field(max_length=MOST_NODES)]


class Member(BaseModel):
    """One axis of one layer of a group: runs of (start, channel, channels, repeat)."""

    model_config = _CLOSED
    layer: Name
    axis: Literal["in", "out"]
    runs: Annotated[
        list[Annotated[list[Index], Field(min_length=4, max_length=4)]],
        Field(fail_fast=True, min_length=1, max_length=MOST_CHANNELS),
    ]


class Group(BaseModel):
    """Channels that live or die together."""

    model_config = _CLOSED
    name: Name
    n_channels: Channels
    members: Annotated[list[Member], Field(fail_fast=True, min_length=1, max_length=MOST_GROUPS)]
    exits: Annotated[list[Name], Field(max_length=1000)]


class LeftAlone(BaseModel):
    """A layer whose channels are not pruned."""

    model_config = _CLOSED
    name: Name
    n_channels: Annotated[int, Field(ge=0, le=2**31)]
    reason: Text


class Network(BaseModel):
    """An elastic network without its weights. The first ones had none of the last three keys."""

    model_config = _STRICT
    stem: Graph
    body: Graph
    groups: Annotated[list[Group], Field(fail_fast=True, min_length=1, max_length=MOST_GROUPS)]
    left_alone: Annotated[list[LeftAlone], Field(fail_fast=True, max_length=MOST_NODES)]
    keep_ratios: Ratios
    round_to: Channels
    image_shape: Shape
    codebook: Annotated[list[Profile], Field(fail_fast=True, min_length=1, max_length=4 * MAX_PROFILES)] | None
    separated: bool = False
    drop_order: Annotated[list[Index], Field(fail_fast=True, max_length=MOST_GROUPS)] | None = None
    resolution: bool = False


class OwnObservation(BaseModel):
    """An observation that is not rlprune's own: its class, which is not imported, and what it is made with."""

    model_config = _CLOSED
    name: Annotated[ClassName, Field(alias="class")]
    settings: Annotated[dict[Name, Any], Field(max_length=1000)]
    n_features: Annotated[int, Field(ge=0, le=2**24)]


class Policy(BaseModel):
    """A policy without its tensors.

    The first ones had neither `combine`, which was a bool then, nor `penalties`; `observation` came last.
    """

    model_config = _STRICT
    sizes: Annotated[list[Annotated[int, Field(ge=1, le=2**24)]], Field(min_length=2, max_length=64)]
    activation: Literal["Tanh", "ReLU", "ELU", "SiLU"]
    n_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    max_passes: Annotated[int, Field(ge=1, le=3)]
    pool: Annotated[int, Field(ge=0, le=256)]
    combine: bool | Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    penalties: Annotated[list[Penalty], Field(min_length=2, max_length=2)] | None = None
    action: Literal["profiles", "levels", "ratios"]
    keep_ratios: Ratios
    min_level: Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(min_length=1, max_length=MOST_GROUPS)]
    observation: OwnObservation | None = None


class Gates(BaseModel):
    """How a network is gated."""

    model_config = _CLOSED
    kind: Name
    reduction: Channels
    threshold: Finite


class Gated(BaseModel):
    """A gated network without its weights."""

    model_config = _STRICT
    elastic: Network
    gates: Gates


class Plain(BaseModel):
    """An ordinary network without its weights."""

    model_config = _STRICT
    image_shape: Shape
    parts: Annotated[dict[Annotated[str, Field(pattern=r"^\w{1,100}$")], Graph], Field(min_length=1, max_length=16)]


class Source(BaseModel):
    """Where the notes say that images came from."""

    model_config = _STRICT
    data: Text | None = None
    image_size: Side | None = None
    image_column: Text | None = None
    label_column: Text | None = None
    split_seed: int | None = None
    shares: Annotated[list[Finite], Field(min_length=3, max_length=3)] | None = None
    test_split: Text | None = None
    preprocess: Text | None = None


class Split(BaseModel):
    """How the notes say that images were split."""

    model_config = _STRICT
    rule: Annotated[int, Field(ge=1, le=1000)] = 1
    sample: Annotated[list[Name], Field(fail_fast=True, max_length=10_000)] = []


class NetworkNotes(BaseModel):
    """What the program reads of the notes on a network."""

    model_config = _STRICT
    model: Text | None = None
    source: Source | None = None
    split: Split | None = None


class Size(BaseModel):
    """What the dense network costs, according to the notes on a pruned one."""

    model_config = _STRICT
    params: Annotated[int, Field(ge=1)]
    macs: Annotated[int, Field(ge=1)]


class PlainNotes(BaseModel):
    """What the program reads of the notes on an ordinary network."""

    model_config = _STRICT
    how: Text = "as it is"
    dense: Size | None = None


class Figures(BaseModel):
    """What a policy is worth on the validation images, according to its notes."""

    model_config = _STRICT
    accuracy: Finite
    active_macs: Finite


_Model = TypeVar("_Model", bound=BaseModel)


def check(model: type[_Model], value: Any, what: str) -> _Model:
    """Check what a file says.

    Args:
        model: what it may say.
        value: what it says, as `json.loads` returns it.
        what: name of the content in the message.

    Raises:
        BundleError: it says something else; the message names the first entry that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise BundleError(f"the stored {what} is malformed: {_told(first)}") from None


def _told(error: ErrorDetails) -> str:
    """What is wrong, as short as it can be: the entry, the value, what is allowed."""
    kind = error["type"]
    where = ".".join(reprlib.repr(part)[1:-1] if isinstance(part, str) else str(part) for part in error["loc"][-8:])
    if kind == "missing":
        return f"KeyError: {where!r} is missing"
    if kind == "extra_forbidden":
        return f"KeyError: {where!r} is unknown"
    name = "TypeError" if kind.endswith("_type") else "ValueError"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").replace("Input should ", "")
    return f"{name}: {where or 'all of it'} is {reprlib.repr(error['input'])}; allowed: {allowed}"
