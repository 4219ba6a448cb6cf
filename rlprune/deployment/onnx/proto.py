"""Reads what an ONNX file is made of, and refuses what onnxruntime should not be given.

onnxruntime trusts its files: a weight may stand in any file of the disk, functions may call functions until nothing
holds them, sizes are taken as they are said. The files of this library need none of it. The format is that of
protobuf, which is simple enough to be read here, so that serving needs no further package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rlprune.deployment.onnx.graph import DOMAIN, IR_VERSION, OPSET
from rlprune.errors import BundleError

_MOST_FIELDS = 2_000_000
"""Parts that a file may have: some hundred times as many as a large one has."""
_MOST_NODES = 1_000_000
"""Operators that a file may have once its functions stand where they are called."""
_DEEPEST = 6
"""Graphs inside of each other."""
_MOST_DIMENSIONS = 16
_ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Bytes of a number, by ONNX's numbers for types; texts and complex numbers are not among them."""
_REFUSED = ("Random", "Sequence", "Optional", "String", "Multinomial", "Bernoulli", "Scan", "ImageDecoder", "Regex")
"""Operators, by how their names begin: those that draw numbers, hold lists or texts, or run graphs of their own."""
_RARE = frozenset(
    """ConcatFromSequence SplitToSequence TfIdfVectorizer RNN GRU LSTM DeformConv RoiAlign MaxRoiPool MaxUnpool
    NonMaxSuppression GridSample STFT DFT MelWeightMatrix Unique Det LabelEncoder""".split()
)
_POSITIVE = frozenset({"group", "strides", "kernel_shape", "dilations"})
_BOUNDED = frozenset({"pads", "output_padding", "output_shape", "blocksize", "block_size", *_POSITIVE})
_MOST_OF_BOUNDED = 65_536
_MOST_BYTES_OF_BOUNDED = 1000
_NOT_LAST = bytes(range(128, 256))

Values = dict[int, list[Any]]
"""The fields of a message by number: whole numbers, or views of bytes."""


@dataclass(frozen=True)
class Signature:
    """A tensor that goes in or out: its name, ONNX's number for its type, and its sizes; names stand for any."""

    name: str
    kind: int
    shape: tuple[int | str, ...]


@dataclass
class OnnxOutline:
    """What a file says of itself.

    Attributes:
        inputs: of its graph.
        outputs: likewise.
        functions: names of its functions, in their order.
        parameters: the names of each function's inputs.
        tensors: names of what its graph holds.
        notes: its metadata.
    """

    inputs: list[Signature] = field(default_factory=list)
    outputs: list[Signature] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    tensors: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def outline(content: bytes) -> OnnxOutline:
    """Read a file's outline, once everything in it is allowed.

    Args:
        content: of the file.

    Raises:
        BundleError: it is no ONNX file, or holds what a file of this library does not: weights in other files or of
            another size than their shape, operators of others, functions that call each other without end.
    """
    return _Reader().model(memoryview(content))


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message in their order: number, and value.

    Raises:
        BundleError: the message ends too early, or has fields of an unknown kind.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or not number:
            raise BundleError("it is no ONNX file: a field is of an unknown kind")
        if at + size > len(message):
            raise BundleError("it is no ONNX file, or not the whole of one: a field goes beyond its end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
    raise BundleError("it is no ONNX file, or not the whole of one: a number has no end")


class _Reader:
    """Reads one file; counts what it has read."""

    def __init__(self) -> None:
        self._n_fields = 0
        self._calls: dict[str, tuple[int, list[str]]] = {}

    def model(self, message: memoryview) -> OnnxOutline:
        found = self._read(message, "file", once=(1, 2, 3, 4, 5, 6, 7), never=(20,))
        version = _one(found, 1, 0)
        if not 3 <= version <= IR_VERSION:
            raise BundleError(f"its format is version {version} of ONNX; 3 to {IR_VERSION} are read")
        self._opsets(found.get(8, []))
        read = OnnxOutline()
        for function in found.get(25, []):
            name, parameters = self._function(function)
            read.functions.append(name)
            read.parameters[name] = parameters
        if len({*read.functions}) < len(read.functions):
            raise BundleError("two of its functions have one name")
        graph = _one(found, 7, None)
        if graph is None:
            raise BundleError("it has no graph")
        n_nodes, called = self._graph(graph, 0)
        self._check_calls(n_nodes, called)
        read.tensors = self._held
        read.inputs, read.outputs = (list(map(self._signature, self._last[number])) for number in (11, 12))
        for entry in found.get(14, []):
            note = self._read(entry, "note", once=(1, 2))
            key = _text(_one(note, 1, b""))
            if key in read.notes:
                raise BundleError("two of its notes have one name")
            read.notes[key] = _text(_one(note, 2, b""))
        return read

    def _read(self, message: Any, what: str, once: tuple[int, ...], never: tuple[int, ...] = ()) -> Values:
        """The fields of a message; those that stand for one value may not be there twice, where readers differ."""
        if not isinstance(message, memoryview):
            raise BundleError(f"it is no ONNX file: a {what} is a number")
        found: Values = {}
        for number, value in fields(message):
            self._n_fields += 1
            if self._n_fields > _MOST_FIELDS:
                raise BundleError(f"it has more than {_MOST_FIELDS:,} parts")
            if number in never:
                raise BundleError(f"a {what} has a field that files of rlprune do not have, number {number}")
            values = found.setdefault(number, [])
            if values and number in once:
                raise BundleError(f"a {what} has its field number {number} twice")
            values.append(value)
        return found

    def _opsets(self, entries: list[Any]) -> None:
        for entry in entries:
            found = self._read(entry, "version of operators", once=(1, 2))
            domain, version = _text(_one(found, 1, b"")), _one(found, 2, 0)
            if domain not in ("", DOMAIN) or not 1 <= version <= OPSET:
                raise BundleError(
                    f"its operators are version {version} of {_shown(domain) or 'ONNX'}; ONNX's up to {OPSET} are read"
                )

    def _function(self, message: Any) -> tuple[str, list[str]]:
        """The name of a function, and those of its inputs."""
        found = self._read(message, "function", once=(1, 8, 10, 13), never=(6, 11, 13))
        name = _text(_one(found, 1, b""))
        if _text(_one(found, 10, b"")) != DOMAIN:
            raise BundleError(f"its function {_shown(name)} is of another domain than {DOMAIN}")
        self._opsets(found.get(9, []))
        self._calls[name] = self._nodes(found.get(7, []), 1)
        return name, list(map(_text, found.get(4, [])))

    def _graph(self, message: Any, depth: int) -> tuple[int, list[str]]:
        if depth > _DEEPEST:
            raise BundleError(f"its graphs stand in each other more than {_DEEPEST} deep")
        found = self._read(message, "graph", once=(2, 10), never=(14, 15))
        held = [self._tensor(tensor) for tensor in found.get(5, [])]
        if not depth:
            self._held = held
            self._last = {number: found.get(number, []) for number in (11, 12)}
        return self._nodes(found.get(1, []), depth)

    def _nodes(self, messages: list[Any], depth: int) -> tuple[int, list[str]]:
        """How many operators some nodes are, and which functions they call."""
        n_nodes, called = 0, []
        for message in messages:
            found = self._read(message, "node", once=(3, 4, 6, 7, 8), never=(8, 10))
            for name in (*found.get(1, []), *found.get(2, []), *found.get(3, [])):
                _text(name)
            kind, domain = _text(_one(found, 4, b"")), _text(_one(found, 7, b""))
            if domain not in ("", DOMAIN):
                raise BundleError(f"its operator {_shown(kind)} is of {_shown(domain)}; only ONNX's own are read")
            if domain == DOMAIN:
                called.append(kind)
            elif kind.startswith(_REFUSED) or kind in _RARE or (kind == "Loop" and depth):
                raise BundleError(f"its operator {_shown(kind)} is not one that files of rlprune have")
            n_nodes += domain == ""
            for attribute in found.get(5, []):
                more, others = self._attribute(attribute, depth)
                n_nodes += more
                called += others
        return n_nodes, called

    def _attribute(self, message: Any, depth: int) -> tuple[int, list[str]]:
        found = self._read(message, "attribute", once=(1, 2, 3, 4, 5, 6, 13, 20), never=(9, 10, 11, 14, 15, 21, 22, 23))
        name = _text(_one(found, 1, b""))
        if name in _BOUNDED:
            least = int(name in _POSITIVE)
            numbers = [*found.get(3, []), *found.get(8, [])]
            if any(not isinstance(each, int) and len(each) > _MOST_BYTES_OF_BOUNDED for each in numbers):
                raise BundleError(f"an operator's {name} has very many numbers")
            for number in _integers(numbers):
                if not least <= number <= _MOST_OF_BOUNDED:
                    raise BundleError(f"an operator's {name} is {number}; {least} to {_MOST_OF_BOUNDED} are allowed")
        if 5 in found:
            self._tensor(found[5][0])
        return self._graph(found[6][0], depth + 1) if 6 in found else (0, [])

    def _tensor(self, message: Any) -> str:
        """The name of a tensor; one whose numbers are elsewhere, or more or fewer than its shape says, is refused."""
        found = self._read(message, "tensor", once=(2, 3, 8, 9, 12, 14), never=(3, 6, 13))
        if _one(found, 14, 0):
            raise BundleError("a tensor's numbers stand in another file, which is not read")
        kind = _one(found, 2, 0)
        shape = found.get(1, [])
        sizes = list(_integers(shape)) if sum(map(_count, shape)) <= _MOST_DIMENSIONS else [-1]
        if kind not in _ITEM_SIZES or any(not 0 <= size < 2**40 for size in sizes):
            raise BundleError("a tensor has a type or a shape that files of rlprune do not have")
        n_numbers = math.prod(sizes)
        if 9 in found:
            n_given, item = len(found[9][0]), _ITEM_SIZES[kind]
            fits = n_given == n_numbers * item and not any(number in found for number in (4, 5, 7, 10, 11))
        else:
            floats = sum(map(len, found.get(4, []))) // 4 + sum(map(len, found.get(10, []))) // 8
            whole = sum(_count(value) for number in (5, 7, 11) for value in found.get(number, []))
            fits = floats + whole == n_numbers
        if not fits:
            raise BundleError("a tensor has more or fewer numbers than its shape says")
        return _text(_one(found, 8, b""))

    def _check_calls(self, n_nodes: int, called: list[str]) -> None:
        """Refuse functions that call others without end, or that become too many operators where they are called."""
        sizes: dict[str, int] = {}

        def size_of(name: str, above: tuple[str, ...]) -> int:
            if name not in self._calls or name in above or len(above) > _DEEPEST:
                raise BundleError(f"its function {_shown(name)} is not there, or calls itself")
            if name not in sizes:
                own, others = self._calls[name]
                sizes[name] = own + sum(size_of(other, (*above, name)) for other in others)
            return sizes[name]

        total = n_nodes + sum(size_of(name, ()) for name in [*called, *self._calls])
        if total > _MOST_NODES:
            raise BundleError(f"it has more than {_MOST_NODES:,} operators")

    def _signature(self, message: Any) -> Signature:
        """One input or output of the graph."""
        found = self._read(message, "signature", once=(1, 2))
        kind = self._read(_one(found, 2, memoryview(b"")), "type", once=(1,), never=(4, 5, 8, 9))
        tensor = self._read(_one(kind, 1, memoryview(b"")), "tensor's type", once=(1, 2))
        shape = self._read(_one(tensor, 2, memoryview(b"")), "shape", once=())
        sizes: list[int | str] = []
        for entry in shape.get(1, []):
            size = self._read(entry, "size", once=(1, 2))
            sizes.append(_one(size, 1, 0) if 1 in size else _text(_one(size, 2, b"")))
        return Signature(_text(_one(found, 1, b"")), _one(tensor, 1, 0), tuple(sizes))


def _one(found: Values, number: int, default: Any) -> Any:
    """The value of a field; a number where one is needed, bytes where they are."""
    value = found.get(number, [default])[0]
    if default is not None and isinstance(value, int) != isinstance(default, int):
        raise BundleError("it is no ONNX file: a field is of another kind than ONNX's")
    return value


def _integers(values: list[Any]) -> Iterator[int]:
    """Whole numbers with a sign, one by one or packed together."""
    for value in values:
        if isinstance(value, int):
            yield value - 2**64 if value >= 2**63 else value
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            yield number - 2**64 if number >= 2**63 else number


def _count(value: Any) -> int:
    """How many whole numbers stand in a field: one, or as many as there are last bytes of packed ones."""
    return 1 if isinstance(value, int) else len(bytes(value).translate(None, _NOT_LAST))


def _text(value: Any) -> str:
    try:
        return str(value, "utf-8")
    except (UnicodeDecodeError, TypeError) as error:
        raise BundleError("it is no ONNX file: a name is no text in UTF-8") from error


def short(error: object, most: int = 200) -> str:
    """The first line of an error's message, cut off where it is long."""
    line = str(error).strip().partition("\n")[0]
    line = "".join(letter if letter.isprintable() else "?" for letter in line[: most + 1])
    return line if len(line) <= most else line[:most] + "..."


def _shown(name: str) -> str:
    return repr(name[:40]) if name else ""
