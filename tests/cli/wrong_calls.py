"""Wrong command lines, made of the verbs' own types: each has to be refused at once, by name, with nothing done.

    python tests/cli/wrong_calls.py [--calls N] [--seed N] [--json FILE]

Every option of every verb gets values that its type or its meaning rules out, in a call that is right but for that.
What is wrong with what comes of it is printed, a line for each call; the exit status is 1 if there is such a line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
import tyro
from PIL import Image
from wrong_values import (
    CONFLICTS,
    INPUTS,
    NAMES,
    NO_NUMBER,
    NO_TOML,
    NONE_THERE,
    NOWHERE,
    REQUIRED,
    RIGHT,
    SHARES,
    ZERO_IS_RIGHT,
)

from rlprune.cli.main import Verb, main
from rlprune.pipelines.recipe import Recipe
from rlprune.utils.files import check_target_file, write_json
from rlprune.utils.settings import _is_union

SECONDS = 10


class Call(NamedTuple):
    """A wrong command line."""

    words: tuple[str, ...]
    about: tuple[str, ...]
    """One of these has to stand in the message."""
    recipe: str = ""
    """What wrong.toml says."""


def options(kind: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Of a verb or a group of options: what is typed (nothing for those without a name), the field, its type."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        notes = getattr(hint, "__metadata__", ())
        inner = get_args(hint)[0] if notes else hint
        if dataclasses.is_dataclass(inner):
            yield from options(inner, prefix if tyro.conf.OmitArgPrefixes in notes else f"{prefix}{name}.")
        elif name != "self":
            typed = f"--{prefix}{name}".replace("_", "-")
            yield "" if tyro.conf.Positional in notes else typed, name, hint


def base(hint: Any) -> Any:
    """The type of one value: of a list that of its entries, of a choice with None the other."""
    if hasattr(hint, "__metadata__"):
        return base(get_args(hint)[0])
    if _is_union(hint):
        return base(next(part for part in get_args(hint) if part is not type(None)))
    return base(get_args(hint)[0]) if get_origin(hint) in (tuple, list) else hint


def _plain(hint: Any) -> Any:
    """A type without what restricts it."""
    return get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


def entries(hint: Any) -> int:
    """How many values an option takes; 1 for a list of any length."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    if hasattr(hint, "__metadata__") or _is_union(hint):
        return entries(parts[0])
    return len(parts) if get_origin(hint) is tuple and parts[-1] is not ... else 1


def wrong_values(verb: str, name: str, hint: Any) -> Iterator[str]:
    """Values that an option cannot have, by its type and meaning."""
    kind = base(hint)
    if kind in (int, float):
        yield from NO_NUMBER
        yield from ("1.5",) if kind is int else ()
        yield from () if name in ZERO_IS_RIGHT else ("0",)
        yield from ("2",) if name in SHARES else ()
    elif kind is bool or get_origin(kind) is Literal:
        yield from ("nothing", "maybe", "")
    elif kind is Path:
        yield from NONE_THERE if name in INPUTS else NOWHERE
    else:
        yield from NAMES[name]


def wrong_calls() -> Iterator[Call]:
    """Every wrong call there is to be made."""
    for kind, subcommand in map(get_args, get_args(Verb)):
        verb, right = subcommand.name, RIGHT[subcommand.name]
        for option, name, hint in options(kind):
            yield from _of_option(verb, right, option, name, hint)
        for words in CONFLICTS.get(verb, ()):
            kept = right
            for option in (word for word in words if word.startswith("--")):
                kept = _without(kept, option)
            yield Call((verb, *kept, *words), words)
        yield Call((verb, *right, "--nothing", "3"), ("--nothing",))
    yield from _of_recipes()
    for words in ((), ("nothing",), ("--nothing",)):
        yield Call(words, ("nothing", "inspect,pretrain", "required"))


def _of_option(verb: str, right: tuple[str, ...], option: str, name: str, hint: Any) -> Iterator[Call]:
    """Calls in which one option is wrong: its values, its spelling, or that it is missing."""
    for value in wrong_values(verb, name, hint):
        about = (option or "empty", name, value, value.rpartition(":")[2])
        yield _given(verb, right, option, [value] * entries(hint), about)
    if not option:
        return
    value = () if base(hint) is bool else ("1",)
    yield Call((verb, *_without(right, option), f"{option}x", *value), (option,))
    if option in right and option in REQUIRED and verb != "demo":
        yield Call((verb, *_without(right, option)), (option,))
    if value and get_origin(hint) is None:
        yield Call((verb, *_without(right, option), option), (option,))


def _of_recipes() -> Iterator[Call]:
    """Calls whose recipe has one wrong setting."""
    for option, name, hint in options(Recipe):
        field = option.removeprefix("--").replace("-", "_")
        rest = "" if field in ("model", "data.data") else 'model = "digits_cnn"\ndata.data = "pets"\n'
        for value in NO_TOML if base(hint) in (int, float) else ("true", "3") if base(hint) is str else ("3", '"x"'):
            given = f"[{value}]" if get_origin(_plain(hint)) is tuple else value
            yield Call(("run", "wrong.toml", "--out", "made"), (field, name), f"{rest}{field} = {given}\n")


def _given(verb: str, right: tuple[str, ...], option: str, values: list[str], about: tuple[str, ...]) -> Call:
    """A call with an option's values, in place of those that it has."""
    about = tuple(word for word in about if len(word) > 2)
    if not option:
        n_positional = next((i for i, word in enumerate(right) if word.startswith("--")), len(right))
        return Call((verb, *values, *right[1:n_positional], *right[n_positional:]), (*about, "bundle", "images"))
    if values == ["maybe"]:
        return Call((verb, *_without(right, option), f"{option}=maybe"), about)
    return Call((verb, *_without(right, option), option, *values), about)


def _without(words: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The words but for an option and its values."""
    if option not in words:
        return words
    start = words.index(option)
    stop = next((i for i in range(start + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:start] + words[stop:]


def make_world() -> None:
    """Pictures, and everything that verbs make of them, in the current folder."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("pets", name, f"{number}.png"))
    Path("recipe.toml").write_text('model = "digits_cnn"\n[data]\ndata = "pets"\n')
    Path("empty").touch()
    os.mkfifo("pipe")
    for verb, out in (("pretrain", "dense.safetensors"), ("adapt", "net"), ("train", "run"), ("export", "bundle")):
        more = ("--onnx",) if verb == "export" else ()
        main([verb, *_without(RIGHT[verb], "--out"), "--out", out, *more])


def in_child(work: Any, *arguments: Any) -> tuple[int | None, str, float]:
    """Exit status (None if it never ended), all that was said, and its own seconds, of work in a fork."""
    with tempfile.TemporaryFile("w+") as said:
        begun = time.monotonic()
        if not (child := os.fork()):
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                work(*arguments)
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc()
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
        limit = 20 * SECONDS if work is make_world else 4 * SECONDS  # of the clock: the machine may be busy
        while not (done := os.wait4(child, os.WNOHANG))[0] and time.monotonic() < begun + limit:
            time.sleep(0.01)
        if not done[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        said.seek(0)
        seconds = done[2].ru_utime + done[2].ru_stime
        return (os.waitstatus_to_exitcode(done[1]) if done[0] else None), said.read(), seconds


def content() -> dict[str, tuple[int, int]]:
    """Every file of the current folder, with its size and time."""
    found = {path: path.stat() for path in sorted(Path().rglob("*")) if path.name not in ("__pycache__", "wrong.toml")}
    return {str(path): (0, 0) if path.is_dir() else (about.st_size, about.st_mtime_ns) for path, about in found.items()}


def faults(call: Call, before: dict[str, tuple[int, int]]) -> tuple[list[str], str]:
    """What is wrong with what comes of a call, and what it said."""
    Path("wrong.toml").write_text(call.recipe)
    status, said, seconds = in_child(main, list(call.words))
    plain = re.sub(r"[\s│╭╮╰╯─]+", "", said)
    after = content()
    found = {
        "hangs": status is None or seconds > SECONDS,
        f"exits with {status}": status not in (2, None),
        "traceback": "Traceback (most" in said,
        "names nothing": status == 2 and not any(re.sub(r"\s+", "", each) in plain for each in call.about if each),
        "trained": "batch/s" in said or "step/s" in said,
        "wrote": after != before,
    }
    return [name for name, wrong in found.items() if wrong], said


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    """Work in a folder; `contextlib.chdir` is not in Python 3.10."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(n_calls: int | None, seed: int) -> Counter[str]:
    """Try calls, all or so many of them; print what is wrong with each, and count it."""
    torch.set_num_threads(1)
    os.environ.update(COLUMNS="300", TERM="dumb", HF_HUB_OFFLINE="1", TQDM_MININTERVAL="0")
    os.environ.pop("RLPRUNE_DATA", None)
    calls = list(dict.fromkeys(wrong_calls()))
    counts = Counter(possible=len(calls))
    random.Random(seed).shuffle(calls)
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        status, said, _ = in_child(make_world)
        assert status == 0, said
        before = content()
        for call in calls[:n_calls]:
            found, said = faults(call, before)
            counts.update(calls=1, **dict.fromkeys(found, 1))
            if found:
                last = next((line for line in reversed(said.splitlines()) if line.strip(" │╰─╯")), "")
                print(f"{', '.join(found)} | {' '.join(map(repr, call.words))} | {last.strip()[:200]}", flush=True)
                for path in (Path(each) for each in content() if each not in before):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, help="how many of the calls, drawn at random; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    if given.json is not None:
        check_target_file(given.json)
    begun = time.monotonic()
    counts = run(given.calls, given.seed)
    figures = dict(counts) | {"seconds": round(time.monotonic() - begun)}
    print(json.dumps(figures))
    if given.json is not None:
        write_json(given.json, figures)
    sys.exit(set(counts) > {"possible", "calls"})
