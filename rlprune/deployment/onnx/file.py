"""The content of an ONNX file: read once, compared with its checksum, and its notes checked.

Imports pydantic, and so is imported only where a file is read or written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.onnx.proto import OnnxOutline, Signature, outline, short
from rlprune.errors import BundleError, DataError
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.cost import ComputeCost
from rlprune.utils.files import read_regular

NOTES = "rlprune"
"""Under which the file's metadata has the notes."""
CHECKSUM = "rlprune.sha256"
"""Under which it has the SHA-256 of itself, taken while zeros stand in the place of it."""
MOST_BYTES = 2**31 - 1
"""Size of the largest file that protobuf can hold."""
_ZEROS = b"0" * 64
_BEFORE_CHECKSUM = CHECKSUM.encode() + b"\x12\x40"
"""What stands before the checksum in the file: its name, and protobuf's word for a text of 64 letters."""
_MOST_OF_MANIFEST = 2**26
_FLOAT, _UINT8, _INT64 = 1, 2, 7
_OUTPUTS = {"logits": (_FLOAT, 2), "profiles": (_INT64, 2), "macs": (_INT64, 1)}
_ANSWERS = {"label": (_INT64, 1), "probability": (_FLOAT, 1)}
"""Outputs, by ONNX's numbers for their types, and their numbers of dimensions; earlier versions wrote no answers."""
_MOST_PIXELS = 2**26
_MOST_PROFILES = 4096

Amount = Annotated[int, Field(ge=0, le=2**53)]
Amounts = Annotated[list[Amount], Field(fail_fast=True, min_length=1, max_length=_MOST_PROFILES)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Ratios = Annotated[list[Ratio], Field(fail_fast=True, min_length=1, max_length=100_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Prices(_Strict):
    """Parameters and MACs of every part, each a pair."""

    stem: Annotated[list[Amount], Field(min_length=2, max_length=2)]
    bodies: Annotated[list[Amounts], Field(min_length=2, max_length=2)]
    decision: Annotated[list[Amount], Field(min_length=2, max_length=2)]
    dense: Annotated[list[Annotated[int, Field(ge=1, le=2**53)]], Field(min_length=2, max_length=2)]


class StoredPreprocessing(_Strict):
    """What `Preprocessing.to_json` gives."""

    resize: int | list[int] | None = None
    crop: list[int] | None = None
    interpolation: str = "bilinear"
    channels: str | None = None
    transform_name: Annotated[str, Field(max_length=1000)] | None = None


Budget = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Budgets(_Strict):
    """Mean shares of the dense network's MACs that images may cost."""

    least: Budget
    most: Budget
    default: Budget


class OnnxNotes(_Strict):
    """What a file says of its network.

    Attributes:
        classes: names, in the order of the logits.
        keep_ratios: of every profile, for every group.
        prices: of stem, bodies, decision and dense network.
        preprocessing: how pictures come to their size, if the network has its own.
        budgets: where they are an input of the file.
        image_shape: (C, H, W) of the network's images, where pictures of any size go in.
    """

    classes: Annotated[
        list[Annotated[str, Field(max_length=10_000)]], Field(fail_fast=True, min_length=1, max_length=1_000_000)
    ]
    keep_ratios: Annotated[list[Ratios], Field(fail_fast=True, min_length=1, max_length=_MOST_PROFILES)]
    prices: Prices
    preprocessing: StoredPreprocessing = StoredPreprocessing()
    budgets: Budgets | None = None
    image_shape: Annotated[list[int], Field(min_length=3, max_length=3)] | None = None

    def costs(self) -> CostBreakdown:
        """The prices as tensors."""
        prices = self.prices.model_dump()
        return CostBreakdown(**{name: ComputeCost(*map(torch.tensor, price)) for name, price in prices.items()})


class CheckedFile(BaseModel):
    """A file whose outline and notes fit each other.

    Attributes:
        content: of the file.
        notes: what it says of its network.
        preprocessing: how pictures come to their size.
        image_shape: (C, H, W) of the network's images.
        max_passes: the most passes of an image.
        shared: names of the shared weights that each profile's function reads.
        answers: whether `label` and `probability` are among its outputs; those of earlier versions have none.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)
    content: bytes
    notes: OnnxNotes
    preprocessing: Preprocessing
    image_shape: tuple[int, ...]
    max_passes: int
    shared: tuple[tuple[str, ...], ...]
    answers: bool

    @property
    def resizes(self) -> bool:
        """Whether pictures of any size go in."""
        return self.notes.image_shape is not None


def signed(content: bytes) -> bytes:
    """A file in which 64 zeros stand for its checksum, with the checksum in their place."""
    head, found, tail = content.partition(_BEFORE_CHECKSUM + _ZEROS)
    assert found, "the metadata has no place for a checksum"
    return head + _BEFORE_CHECKSUM + hashlib.sha256(content).hexdigest().encode() + tail


def read(path: Path) -> CheckedFile:
    """Read a file and check all that can be checked without running it.

    Files written before there were checksums have none, and are read without.

    Raises:
        BundleError: it cannot be read, was altered, or is none that `save_onnx` wrote.
    """
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})") from error
    _check_manifest(path, content)
    _check_checksum(path, content)
    return checked(str(path), content)


def checked(name: str, content: bytes) -> CheckedFile:
    """A file's content, if its parts are allowed and fit each other.

    Args:
        name: of the file, for messages.
        content: of it.

    Raises:
        BundleError: they do not.
    """
    try:
        found = outline(content)
        notes = _notes_of(found)
        preprocessing = Preprocessing.from_json(notes.preprocessing.model_dump(exclude_unset=True))
        shape, max_passes = _shapes(found, notes)
        shared = _shared(found, len(notes.keep_ratios))
    except (BundleError, DataError, TypeError) as error:
        raise BundleError(f"{name} is no file that `rlprune export --onnx` wrote: {short(error)}") from error
    return CheckedFile(
        content=content,
        notes=notes,
        preprocessing=preprocessing,
        image_shape=shape,
        max_passes=max_passes,
        shared=shared,
        answers=len(found.outputs) > len(_OUTPUTS),
    )


def _check_checksum(path: Path, content: bytes) -> None:
    """Compare a file with the checksum in it, if it has one."""
    place = content.find(_BEFORE_CHECKSUM) + len(_BEFORE_CHECKSUM)
    if place < len(_BEFORE_CHECKSUM):
        return
    end = place + len(_ZEROS)
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])  # part by part: a file may take half of the memory
    digest.update(_ZEROS)
    digest.update(view[end:])
    if content.find(_BEFORE_CHECKSUM, place) >= 0 or view[place:end] != digest.hexdigest().encode():
        raise BundleError(
            f"{path} has been altered: its SHA-256 is not the one written with it; copy or export it again"
        )


def _check_manifest(path: Path, content: bytes) -> None:
    """Compare a file in a bundle with the bundle's manifest."""
    manifest, line = path.with_name("manifest.json"), path.with_name("manifest.sha256")
    if not (manifest.exists() and line.exists()):
        return
    try:
        packed = read_regular(manifest, _MOST_OF_MANIFEST)
        unaltered = read_regular(line, 1000).split()[:1] == [hashlib.sha256(packed).hexdigest().encode()]
        sums = json.loads(packed.decode())["sha256"] if unaltered else {}
        known = sums.get(path.name)
    except OSError as error:
        raise BundleError(f"{manifest} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise BundleError(f"{manifest} is no manifest of a bundle: {short(error)}") from error
    if not unaltered:
        raise BundleError(f"{manifest} has been altered: its SHA-256 is not the one written with it")
    if known is not None and known != hashlib.sha256(content).hexdigest():
        raise BundleError(f"{path} has been altered: its SHA-256 is not the manifest's; copy the folder again")


def _notes_of(found: OnnxOutline) -> OnnxNotes:
    """The notes of a file, as their schema has them."""
    if NOTES not in found.notes:
        raise BundleError(f"it has no notes named {NOTES}")
    try:
        return OnnxNotes.model_validate_json(found.notes[NOTES])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise BundleError(f"its notes, at {short(where, 60)}: {short(first['msg'], 100)}") from error


def _shapes(found: OnnxOutline, notes: OnnxNotes) -> tuple[tuple[int, ...], int]:
    """The shape of images and the most passes, if graph and notes agree on every size."""
    images = _images_of(found, notes)
    expected = _OUTPUTS if {each.name for each in found.outputs} == {*_OUTPUTS} else _ANSWERS | _OUTPUTS
    outputs = _only("outputs", found.outputs, expected)
    n_classes, max_passes = (outputs[name].shape[1] for name in ("logits", "profiles"))
    sizes = [*images, n_classes, max_passes]
    if not all(isinstance(size, int) and 1 <= size <= _MOST_PIXELS for size in sizes):
        raise BundleError(f"its images, logits or profiles have sizes that cannot be: {short(sizes)}")
    shape = tuple(int(size) for size in images)
    if torch.Size(shape).numel() > _MOST_PIXELS:
        raise BundleError(f"its images have shape {shape}; {_MOST_PIXELS:,} numbers are the most")
    if n_classes != len(notes.classes):
        raise BundleError(f"it has {n_classes} logits and {len(notes.classes)} classes")
    _check_profiles(found, notes)
    return shape, int(max_passes)


def _images_of(found: OnnxOutline, notes: OnnxNotes) -> tuple[int | str, ...]:
    """The shape of the network's images; of the inputs, only a budget may have a default."""
    ranged = notes.budgets is not None
    inputs = _only("inputs", found.inputs, {"images": (_UINT8, 4)} | ({"budget": (_FLOAT, 1)} if ranged else {}))
    held = [name for name in found.tensors if name in inputs]
    if held != ["budget"] * ranged or (ranged and inputs["budget"].shape != (1,)):
        raise BundleError(f"its inputs are {short(sorted(inputs))}, with a default for {short(held)}")
    if notes.budgets is not None and not notes.budgets.least <= notes.budgets.default <= notes.budgets.most:
        raise BundleError("the default of its budgets is none of them")
    shape = inputs["images"].shape[1:]
    if notes.image_shape is None:
        return shape
    if shape[0] != notes.image_shape[0] or any(isinstance(size, int) for size in shape[1:]):
        raise BundleError(f"its images have shape {short(shape)}, by its notes any of {notes.image_shape[0]} channels")
    return tuple(notes.image_shape)


def _only(what: str, signatures: list[Signature], expected: dict[str, tuple[int, int]]) -> dict[str, Signature]:
    """Inputs or outputs by name, if they are those expected, of these types and numbers of dimensions."""
    named = {each.name: each for each in signatures}
    if len(named) != len(signatures) or {each.name: (each.kind, len(each.shape)) for each in signatures} != expected:
        raise BundleError(
            f"its {what} are {short(sorted(named), 100)}; {', '.join(expected)} are expected, of their types"
        )
    return named


def _shared(found: OnnxOutline, n_profiles: int) -> tuple[tuple[str, ...], ...]:
    """What each profile's function reads beside features, all of which must be held by the graph."""
    shared = tuple(tuple(found.parameters[f"profile_{k}"][1:]) for k in range(n_profiles))
    missing = {name for names in shared for name in names} - {*found.tensors}
    if missing or len({*found.tensors}) < len(found.tensors):
        raise BundleError(f"its profiles read what its graph does not hold, or holds twice: {short(sorted(missing))}")
    return shared


def _check_profiles(found: OnnxOutline, notes: OnnxNotes) -> None:
    """Compare how many profiles there are in the notes and among the functions."""
    n_profiles = len(notes.keep_ratios)
    counts = {
        "keep_ratios": n_profiles,
        "parameters": len(notes.prices.bodies[0]),
        "MACs": len(notes.prices.bodies[1]),
        "functions": sum(name.startswith("profile_") for name in found.functions),
    }
    if {*counts.values()} != {n_profiles} or len({*map(len, notes.keep_ratios)}) > 1:
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise BundleError(f"its notes and functions do not agree on the number of profiles: {said}")
    missing = {"start", *(f"profile_{k}" for k in range(n_profiles))} - {*found.functions}
    if missing:
        raise BundleError(f"its function {min(missing)} is missing")
