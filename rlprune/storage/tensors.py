"""Files of tensors: the header is read and compared first, the tensors only when it is known what for."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlprune.errors import BundleError
from rlprune.utils.files import open_regular

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats by the names that safetensors gives them."""
_MOST_HEADER = 16 * 2**20
_PART = 2**20
MOST_BYTES = 2**32
"""How many bytes are hashed whose content nothing needs; a file without content can claim any number."""


class MalformedError(Exception):
    """What is wrong with stored content; `rlprune.storage.folders.malformed` says with which."""


class Claim(NamedTuple):
    """What a header says of a tensor: its number format, its shape, and where its bytes are."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file of which only the header has been read.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        SafetensorError: the header is damaged, or does not fit the file's size.

    Attributes:
        claims: what the header says of each tensor, by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_regular(path) as file:
            self._header = _read_header(file)
            size = os.fstat(file.fileno()).st_size - len(self._header)
        self.claims = _claims(self._header[8:], size)
        self._size = size

    @property
    def n_elements(self) -> int:
        """How many numbers all tensors hold."""
        return sum(math.prod(claim.shape) for claim in self.claims.values())

    def check(self, expected: Mapping[str, Tensor], prefix: str = "") -> None:
        """Make sure that the tensors are those of a network: none missing, none unused, none of another shape or type.

        Args:
            expected: what the network needs; tensors on the meta device do.
            prefix: of the names that are looked at; others belong to something else.

        Raises:
            MalformedError: they are not; the message names the first.
        """
        name = self.path.name
        for key, tensor in expected.items():
            claim = self.claims.get(key)
            if claim is None:
                raise MalformedError(f"{name} lacks {reprlib.repr(key)}")
            if claim.shape != tuple(tensor.shape):
                found, needed = reprlib.repr(claim.shape), reprlib.repr(tuple(tensor.shape))
                raise MalformedError(f"{key!r} has shape {found} in {name}, and {needed} is needed (a size mismatch)")
            if claim.dtype != tensor.dtype:
                raise MalformedError(f"{key!r} is {claim.dtype} in {name}, and {tensor.dtype} is needed")
        unused = next((key for key in self.claims if key.startswith(prefix) and key not in expected), None)
        if unused is not None:
            raise MalformedError(f"{name} has {reprlib.repr(unused)}, which nothing uses")

    def read(self, checksum: str) -> dict[str, Tensor]:
        """Read the tensors, each into memory of its own.

        Args:
            checksum: SHA-256 that the file must have, in hexadecimal.

        Raises:
            BundleError: it has another one.
            MalformedError: a number is not finite.
            OSError: it cannot be read.
        """
        content = bytearray(self._size)
        with open_regular(self.path) as file:
            header = file.read(len(self._header))
            n_read = file.readinto(content)  # type: ignore[attr-defined]
        digest = hashlib.sha256(header)
        digest.update(content)
        if header != self._header or n_read != self._size or digest.hexdigest() != checksum:
            raise altered(self.path)
        view = memoryview(content)
        tensors = {name: _tensor(claim, view[claim.begin : claim.end]) for name, claim in self.claims.items()}
        check_values(self.path.name, tensors)
        return tensors


def altered(path: Path) -> BundleError:
    """The error for a file whose checksum is not that of the manifest."""
    return BundleError(f"{path} has been altered: its SHA-256 is not the manifest's; copy the folder again")


def check_values(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Make sure that all numbers are finite, and that no variance is below 0.

    Args:
        where: the file's name, for the message.
        tensors: by name.

    Raises:
        MalformedError: one is not.
    """
    for name, tensor in tensors.items():
        if not tensor.numel() or not tensor.is_floating_point():
            continue
        low, high = (float(value) for value in tensor.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise MalformedError(f"{where}: {reprlib.repr(name)} has values that are not finite (NaN or infinite)")
        if low < 0 and name.endswith("running_var"):
            raise MalformedError(f"{where}: {reprlib.repr(name)} has a variance of {low:.3g}; 0 or more is needed")


def _read_header(file: BinaryIO) -> bytes:
    start = file.read(8)
    size = int.from_bytes(start, "little")
    if len(start) < 8 or size > _MOST_HEADER:
        raise SafetensorError(f"the header has {size:,} bytes; at most {_MOST_HEADER:,} are allowed")
    header = file.read(size)
    if len(header) < size:
        raise SafetensorError("the header is not complete")
    return start + header


def _claims(header: bytes, size: int) -> dict[str, Claim]:
    """What a header says, if it is about all bytes of the file and none twice."""
    try:
        told = json.loads(header.decode())
        told.pop("__metadata__", None)
        claims = {name: _claim(name, told[name]) for name in told}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SafetensorError(f"the header is damaged ({type(error).__name__}: {str(error)[:100]})") from error
    place = 0
    for claim in sorted(claims.values(), key=lambda claim: (claim.begin, claim.end)):
        if claim.begin != place:
            raise SafetensorError("the header is damaged: its tensors overlap, or leave bytes out")
        place = claim.end
    if place != size:
        raise SafetensorError(f"the header is about {place:,} bytes, and the file has {size:,}")
    return claims


def _claim(name: str, told: Any) -> Claim:
    shape, (begin, end) = told["shape"], told["data_offsets"]
    dtype = DTYPES[told["dtype"]]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)) or len(shape) > 8:
        raise ValueError(f"{reprlib.repr(name)} has no sizes")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"{reprlib.repr(name)} has another number of bytes than its shape")
    return Claim(dtype, tuple(shape), begin, end)


def _tensor(claim: Claim, content: memoryview) -> Tensor:
    if not len(content):
        return torch.empty(claim.shape, dtype=claim.dtype)
    return torch.frombuffer(content, dtype=claim.dtype).reshape(claim.shape).clone()


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal, read part by part.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than 4 GiB; `strerror` says which.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES:,} bytes", str(path))
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()
