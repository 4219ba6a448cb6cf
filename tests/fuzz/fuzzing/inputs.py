"""Inputs: the name of a seed, the steps that alter it, and whether its checksums are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import documents, protobuf
from fuzzing.seeds import ONNX, Seed
from fuzzing.steps import OF_FOLDERS, Files, Step, altered, place, sign
from fuzzing.values import ANY, ENCODED, FILES, KNOWN, NAMES, NEW_LAYERS, NEW_TENSORS, NODES, NUMBERS

GRAPH, WEIGHTS, MANIFEST = "network.json", "network.safetensors", "manifest.json"


@dataclass(frozen=True)
class Input:
    """A seed, altered.

    Attributes:
        mutation: its kind, for tables.
        seed: name of the seed.
        steps: see `fuzzing.steps`.
        signed: whether the checksums are those of the altered files.
    """

    mutation: str
    seed: str
    steps: list[Step]
    signed: bool = True

    def write(self, seeds: dict[str, Seed], folder: Path) -> None:
        """Write the folder that is read, which must not be there."""
        files = altered(seeds[self.seed].files, self.steps)
        place(sign(files) if self.signed else files, self.steps, folder)


def draw(random: Random, seeds: dict[str, Seed]) -> Input:
    """Choose a seed and steps; the same ones for the same numbers of `random`."""
    name = random.choice([*sorted(seeds), "onnx"])
    return Input(*draw_steps(random, name, seeds[name].files), signed=random.random() < 0.93)


def draw_steps(random: Random, name: str, files: Files) -> tuple[str, str, list[Step]]:
    """Choose a kind of change that is possible, and steps of it; the name of the seed stands between them."""
    mutation = random.choice(
        [each for each, (ends, _) in MUTATIONS.items() if any(file.endswith(ends) for file in files)]
    )
    drawn = [MUTATIONS[mutation][1](random, files) for _ in range(random.choice((1, 1, 1, 2, 4)))]
    return mutation, name, [step for steps in drawn for step in steps]


def _graph(random: Random, files: Files) -> tuple[list[Any], Any]:
    """One of the graphs in a network's file, and its path."""
    value = documents.read(GRAPH, files[GRAPH])
    path = list(random.choice([path[:-1] for path in documents.paths(value) if path[-1] == "nodes"]))
    return path, documents.at(value, path)


def _entry(random: Random, files: Files, ending: str = ".json") -> list[Step]:
    """Change any entry of a JSON file in any way; those near the root as often as the many far from it."""
    file = random.choice([name for name in files if name.endswith(ending)] or [ONNX])
    value = old = documents.read(file, files[file])
    path: list[Any] = []
    while old and isinstance(old, (dict, list)) and (not path or random.random() < 0.85):
        path.append(random.choice(list(old)) if isinstance(old, dict) else random.randrange(len(old)))
        old = old[path[-1]]
    same = [list(other) for other in documents.paths(value) if type(documents.at(value, list(other))) is type(old)]
    steps: list[Step] = [["delete", file, path], ["copy", file, path, random.choice(same)]]
    steps += [["set", file, path, new] for new in (random.choice(ANY), random.choice(ENCODED), _near(random, old))]
    steps += [["again", file, path, random.choice(ANY)], ["root", file, random.choice(ANY)]]
    if isinstance(path[-1], str):
        steps.append(["rename", file, path, random.choice([*NAMES, *FILES, path[-1].upper()])])
    return [random.choice(steps)]


def _near(random: Random, old: Any) -> Any:
    """A value that is like an old one."""
    if isinstance(old, (int, float)):
        return random.choice([old + 1, old - 1, -old, old * 2, old * 1.0, *NUMBERS])
    if isinstance(old, list):
        return random.choice([old + old, old[1:], old[::-1], [old], old[:1] * 17, old[:1] * 2000])
    return random.choice(ANY)


def _node(random: Random, files: Files) -> list[Step]:
    """Add a node, which the next one may read in place of another, with the layer or tensor that it needs."""
    path, graph = _graph(random, files)
    index = random.randrange(1, len(graph["nodes"]))
    before = json.dumps({"node": graph["nodes"][index - 1]["name"]})
    op, values = (
        random.choice(("call_function", "call_method")),
        ["@x", "@x", *NUMBERS, None, True, [1, -1], [2, 3], "x"],
    )
    args = ["@x", *random.choices(values, k=random.randrange(4))]
    other = {"op": op, "target": random.choice(KNOWN[op]), "args": {"tuple": args}, "kwargs": {}}
    text = json.dumps(random.choice([random.choice(NODES), other]) | {"name": "added"})
    node = json.loads(text.replace('"@x"', before).replace('"@x 3000 times"', ",".join([before] * 3000)))
    steps: list[Step] = []
    if node["op"] in ("call_module", "get_attr"):
        node["target"] = random.choice(("added", "compile", "train", "apply", "training"))
        place, new = ("layers", NEW_LAYERS) if node["op"] == "call_module" else ("tensors", NEW_TENSORS)
        steps.append(["set", GRAPH, [*path, place, node["target"]], random.choice(new)])
    steps.append(["insert", GRAPH, [*path, "nodes"], index, node])
    if random.random() < 0.7:
        after = graph["nodes"][index]["args"]
        readers = [where for where in documents.paths(after) if documents.at(after, list(where)) == json.loads(before)]
        steps += [["set", GRAPH, [*path, "nodes", index + 1, "args", *at], {"node": "added"}] for at in readers]
    return steps


def _target(random: Random, files: Files) -> list[Step]:
    """Let a node call something else that may be called, or may not."""
    path, graph = _graph(random, files)
    index = random.randrange(len(graph["nodes"]))
    op = random.choice(
        (graph["nodes"][index]["op"], "call_function", "call_method", "call_module", "get_attr", "output")
    )
    targets = list(graph["layers"]) if op == "call_module" else KNOWN.get(op, NAMES)
    new = {"op": op, "target": random.choice(targets or NAMES)}
    return [["set", GRAPH, [*path, "nodes", index, key], each] for key, each in new.items()]


def _reference(random: Random, files: Files) -> list[Step]:
    """Let an argument be another node, also a later one or itself, or something else."""
    path, graph = _graph(random, files)
    at = [*path, "nodes", *random.choice([each for each in documents.paths(graph["nodes"]) if each[-1] == "node"])]
    new = random.choice(graph["nodes"])["name"]
    if random.random() < 0.7:
        return [["set", GRAPH, at, new]]
    return [["set", GRAPH, at[:-1], random.choice([*ENCODED, *NUMBERS, [{"node": new}] * 3, None])]]


def _layer(random: Random, files: Files) -> list[Step]:
    """Give a layer another type or argument, or add layers or tensors that nothing reads."""
    path, graph = _graph(random, files)
    if not graph["layers"] or random.random() < 0.3:
        kind, new = random.choice((("layers", NEW_LAYERS), ("tensors", NEW_TENSORS)))
        return [["set", GRAPH, [*path, kind, random.choice(["more", "more.inner", *NAMES])], random.choice(new)]]
    layer = random.choice(list(graph["layers"]))
    argument = random.choice(list(graph["layers"][layer]))
    near = _near(random, graph["layers"][layer][argument])
    choices = KNOWN["layer"] if argument == "type" else [near, near, *NUMBERS, *ENCODED, "zeros", "@nan"]
    return [["set", GRAPH, [*path, "layers", layer, argument], random.choice(choices)]]


def _name(random: Random, files: Files) -> list[Step]:
    """Give a node or a layer, with its weights and who calls it, a name that could be code."""
    path, graph = _graph(random, files)
    new, node = random.choice(NAMES), [*path, "nodes", random.randrange(len(graph["nodes"]))]
    old = random.choice([None, *graph["layers"]])
    if old is None:
        where = random.choice((["name"], ["target"], ["op"], ["kwargs", new]))
        return [["set", GRAPH, [*node, *where], new]]
    users = [index for index, each in enumerate(graph["nodes"]) if each["target"] == old]
    steps: list[Step] = [["rename", GRAPH, [*path, "layers", old], new]]
    steps += [["set", GRAPH, [*path, "nodes", index, "target"], new] for index in users]
    weights = [name for name in documents.read(WEIGHTS, files[WEIGHTS]) if f".{old}." in name]
    return steps + [["rename", WEIGHTS, [name], name.replace(f".{old}.", f".{new}.")] for name in weights]


def _tensor(random: Random, files: Files) -> list[Step]:
    """Fill a tensor with a number, or change what a safetensors file says of it."""
    file = random.choice([name for name in files if name.endswith(".safetensors")])
    header = documents.read(file, files[file])
    tensor = random.choice([name for name in header if name != "__metadata__"])
    shape, offsets = header[tensor]["shape"], header[tensor]["data_offsets"]
    change = random.choice(("fill", "fill", "entry", "shape", "dtype", "data_offsets"))
    if change == "entry":
        return _entry(random, {file: files[file]}, file)
    if change == "fill":
        return [["fill", file, tensor, random.choice(("nan", "inf", 0, -1, 1e38, 1e-40, 99))]]
    dtypes = ("F16", "BF16", "I32", "I64", "F64", "BOOL", "F8_E4M3", "C64")
    new = {"shape": [shape[::-1], [1, *shape], [*shape, 0]], "dtype": dtypes}
    new["data_offsets"] = [[random.choice([0, *offsets]), random.choice([*NUMBERS, *offsets])]]
    return [["set", file, [tensor, change], random.choice(new[change])]]


def _bytes(random: Random, files: Files) -> list[Step]:
    """Change bytes."""
    file, other = random.choice(list(files)), random.choice(list(files))
    length = len(files[file])
    at = random.choice((random.randrange(length), random.randrange(min(length, 64))))
    start, size = random.randrange(len(files[other])), random.choice((1, 8, 64, 1000))
    steps: list[Step] = [
        ["flip", file, at, random.randrange(8)],
        ["cut", file, at, at + size],
        ["cut", file, at, length],
    ]
    steps += [["put", file, at, f"{random.getrandbits(64):016x}"], ["splice", file, at, other, start, start + size]]
    return [random.choice(steps)]


def _folder(random: Random, files: Files) -> list[Step]:
    """Put something in the place of a file."""
    how = random.choice(list(OF_FOLDERS))
    link = random.choice(("/dev/zero", "/dev/null", ".", "nowhere", "/proc/self/mem"))
    return [
        [how, random.choice(list(files)), *{"sparse": [random.choice((10**10, 2**31))], "link": [link]}.get(how, [])]
    ]


def _manifest(random: Random, files: Files) -> list[Step]:
    """Change what a manifest says, or the notes of an ONNX file."""
    if MANIFEST not in files:
        return _entry(random, files)
    source = {"source": {"data": random.choice([*ANY, "fuzz_canary:run"])}}
    path, new = random.choice(
        (
            (["sha256", random.choice([*FILES, *NAMES, "dynamic.onnx", "more"])], ["0" * 64, *ANY]),
            (["about"], ANY),
            (["about", "network"], [source, source, *ANY]),
            (["data", random.choice(("mean", "std", "classes", "preprocessing"))], ANY),
            ([random.choice(("format", "kind", "versions", "more"))], [1, 2, 3, "plain", "bundle", *ANY]),
        )
    )
    return [["set", MANIFEST, path, random.choice(new)]]


def _protobuf(random: Random, files: Files) -> list[Step]:
    """Change a message of an ONNX file."""
    return [["proto", ONNX, *protobuf.draw(random, files[ONNX])]]


MUTATIONS: dict[str, tuple[str, Callable[[Random, Files], list[Step]]]] = {
    "bytes": ("", _bytes),
    "entry": ("", _entry),
    "folder": ("", _folder),
    "layer": (GRAPH, _layer),
    "manifest": ("", _manifest),
    "name": (GRAPH, _name),
    "node": (GRAPH, _node),
    "protobuf": (ONNX, _protobuf),
    "reference": (GRAPH, _reference),
    "target": (GRAPH, _target),
    "tensor": (".safetensors", _tensor),
}
"""What kinds of changes there are, by name: how a file's name must end for it to be possible, and who draws it."""
