"""Lets atheris, which sees what code an input reaches, look for inputs that are neither refused nor work.

    python tests/fuzz/guided.py [-max_total_time=300] [other options of libFuzzer]

An input is the content of one file of a seed: a JSON file, a safetensors file, or an ONNX file. It is changed by the
steps of `fuzzing.inputs` where it can be, and as bytes. What is found is written to a file, and told. Without atheris,
which exists for Python 3.11 and later on Linux, it says so and does nothing.
"""

# ruff: noqa: E402

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

if importlib.util.find_spec("atheris") is None:
    print(
        "atheris is not installed, so no inputs are looked for by coverage; it comes with: pip install 'rlprune[fuzz]'"
    )
    sys.exit()

ROOT = Path(tempfile.mkdtemp(prefix="rlprune-fuzz-"))
if PROCESS := os.fork():  # libFuzzer ends its process, and this one cleans up
    STATUS = os.waitpid(PROCESS, 0)[1]
    shutil.rmtree(ROOT)
    sys.exit(os.waitstatus_to_exitcode(STATUS))

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["rlprune.storage", "rlprune.graph", "rlprune.policies", "rlprune.deployment"]):
    import rlprune.storage.bundle  # noqa: F401

from fuzzing import watch
from fuzzing.inputs import Input, draw_steps
from fuzzing.seeds import Seed
from fuzzing.steps import altered
from fuzzing.workers import FAULTS, Workers, judged

WORKERS = Workers(ROOT)
FILES = [
    ("plain", "manifest.json"),
    ("squeeze", "network.json"),
    ("squeeze", "network.safetensors"),
    ("ranged", "policy.json"),
    ("ranged", "policy.safetensors"),
    ("onnx", "dynamic.onnx"),
]
"""Which file of which seed the first byte of an input chooses."""


def one(data: bytes) -> None:
    """Judge the input that bytes stand for."""
    if not data:
        return
    name, file = FILES[data[0] % len(FILES)]
    seed = WORKERS.seeds[name]
    seeds = {name: Seed(seed.kind, seed.files | {file: data[1:]})}
    with tempfile.TemporaryDirectory(dir=WORKERS.root) as folder:
        outcome = judged(Input("guided", name, []), seeds, Path(folder) / "input")
    if outcome.outcome in FAULTS:
        raise AssertionError(f"{name}, {file}: {outcome}")


def mutate(data: bytes, max_size: int, number: int) -> bytes:
    """Change a file by steps that fit it, or as bytes."""
    random = Random(number)
    name, file = FILES[data[0] % len(FILES)] if data else FILES[0]
    files = WORKERS.seeds[name].files | {file: data[1:]}
    for _ in range(3):
        try:
            changed = altered(files, draw_steps(random, name, files)[2])[file]
        except Exception:  # it has become something that has no JSON, or no such entry
            break
        if changed != files[file] and len(changed) < max_size:
            return bytes(data[:1]) + changed
    return bytes(data[:1]) + bytes(atheris.Mutate(bytes(data[1:]), max_size - 1))


def main() -> None:
    corpus = WORKERS.root / "corpus"
    corpus.mkdir()
    for index, (name, file) in enumerate(FILES):
        (corpus / str(index)).write_bytes(bytes([index]) + WORKERS.seeds[name].files[file])
    options = ["-max_len=100000", "-timeout=20", "-rss_limit_mb=1536", *sys.argv[1:], str(corpus)]
    watch.begin()
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
