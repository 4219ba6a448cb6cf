"""Kill training again and again: it must resume every time, and end as if nothing had happened.

    python tests/kills.py                      50 kills of each verb, `make kills`
    python tests/kills.py --verb pretrain --kills 10 --json kills.json

Each verb is run on tiny images and killed by SIGKILL at random moments: half of them anywhere in the run, half as soon
as something hidden lies in its folder, which is in the midst of a write. After every kill the same command is given
again, with `--resume` where the verb has it. A run that ends must leave what an uninterrupted run leaves:

* the same bytes in every result (of figures in JSON, all but times);
* the same events, as (tag, step, value), but for those that hold times; no tag has a step twice;
* nothing hidden, and no checkpoint where the verb removes its own;
* and the same command once more ends well and changes nothing.

Python takes seconds to import everything, so one process does it and forks for each start. The exit status is the
number of faults.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

SHAPE = (1, 12, 12)
DATA = ("--data", "kills:digits", "--padding", "1", "--no-flip", "--bf16", "False", "--no-channels-last")
LEARN = ("--pool", "0", "--n-candidates", "6", "--n-profiles", "3", "--n-envs", "16", "--n-steps", "8")
TRAIN = (*LEARN, "--batch-size", "64", "--total-steps", "4096", "--validate-every", "512", "--data", "kills:digits")
_EPOCHS = "bf16 = false\nchannels_last = false\nepochs ="
RECIPE = f"""
model = "digits_cnn"
penalties = [0.3]
data.data = "kills:digits"
search = {{n_candidates = 6, budgets = [0.5, 1]}}
[dense]\n{_EPOCHS} 3
[adapt]\n{_EPOCHS} 2
[specialise]\n{_EPOCHS} 2
[tune]\n{_EPOCHS} 1\nrounds = 1
[policy]\npenalty = 0.1\ntotal_steps = 1024\nn_envs = 16\nn_steps = 8\nbatch_size = 64\nvalidate_every = 256\npool = 0
"""
LATE = ("rlprune.cli.main", "torch._dynamo", "functorch.compile", "torch.onnx", "torch.utils.tensorboard")
LATE += ("matplotlib.figure", "matplotlib.backends.backend_agg")
"""What is imported before the forks."""
CHANGING = {"seconds", "conditions", "date", "made_of"}
"""Entries of figures that differ from run to run, as they hold times, or are made of files that do."""
UNCOUNTED = ("time/", "_hparams_/")
"""Events that do."""
UNCOMPARED = (".checkpoint.pt", "checkpoint.zip", ".lock")
"""Ends of names of files that hold times, or that only resuming reads."""


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images of ten patterns in noise, as tensors (1, 12, 12) in uint8."""
    patterns = torch.randint(0, 200, (10, *SHAPE), generator=torch.Generator().manual_seed(9))

    def part(n: int, seed: int) -> TensorDataset:
        labels = torch.arange(n) % 10
        noise = torch.randint(0, 56, (n, *SHAPE), generator=torch.Generator().manual_seed(seed))
        return TensorDataset((patterns[labels] + noise).to(torch.uint8), labels)

    return part(600, 0), part(100, 1)


@dataclass(frozen=True)
class Case:
    """A verb that is killed: its words, those that are added when it is given again, a folder that it goes on with."""

    command: tuple[str, ...]
    again: tuple[str, ...] = ()
    given: Path | None = None

    def begin(self, folder: Path) -> None:
        """Make a folder to run it in."""
        folder.mkdir()
        if self.given is not None:
            shutil.copytree(self.given, folder / self.given.name)


@dataclass
class Report:
    """What happened to a verb."""

    seconds: float
    kills: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)


def cases(base: Path) -> dict[str, Case]:
    """The verbs; networks and policy to start from are in a folder."""
    model = ("--model", "digits_cnn", *DATA, "--batch-size", "64")
    weights, network = ("--weights", str(base / "x.safetensors")), ("--network", str(base / "net"))
    return {
        "pretrain": Case(("pretrain", *model, "--epochs", "12", "--out", "x.safetensors"), ("--resume",)),
        "adapt": Case(("adapt", *model, *weights, "--epochs", "6", "--out", "net"), ("--resume",)),
        "train": Case(("train", *network, *TRAIN, "--out", "run"), ("--resume",)),
        "extend": Case(("train", *network, *TRAIN, "--out", "run", "--extend", "4096"), ("--resume",), base / "run"),
        "run": Case(("run", str(base / "recipe.toml"), "--out", "made")),
        "export": Case(("export", *network, "--policy", str(base / "run"), "--out", "bundle")),
    }


def start(words: tuple[str, ...], folder: Path) -> int:
    """Run the command line in a fork of this process, in a folder; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(folder)
        said = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        from rlprune.cli.main import main

        main([*words])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def wait(child: int, until: Callable[[], bool]) -> int | None:
    """The exit status of a process; None if it was killed, because of what `until` says."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until():
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)


def moment(rng: random.Random, seconds: float, folder: Path) -> Callable[[], bool]:
    """When to kill: after a random time, or, from then on, as soon as something is being written."""
    when = time.monotonic() + rng.uniform(0, 1.05) * seconds
    aimed = rng.random() < 0.5
    delay = rng.choice((0, 0, 0.001, 0.005))

    def now() -> bool:
        if time.monotonic() < when:
            return False
        if not aimed:
            return True
        if any(is_write(path.name) for path in folder.rglob(".*")):
            time.sleep(delay)
            return True
        return False

    return now


def is_write(name: str) -> bool:
    """Whether a hidden file is one that is being written, not a lock that is held all the time."""
    return not name.endswith((".lock", ".owner.json", ".held"))


def last_line(folder: Path) -> str:
    """What the last command that ran in a folder said last."""
    return folder.with_suffix(".txt").read_text().strip().rpartition("\n")[2]


def results(folder: Path) -> dict[str, Any]:
    """Everything that a run has left, as what is compared."""
    found: dict[str, Any] = {"events": events(folder), "steps that stand twice": twice(folder)}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.startswith("."):
            found[name] = "hidden"
        elif path.is_file() and not path.name.startswith("events.") and not name.endswith(UNCOMPARED):
            found[name] = figures(path) if path.suffix == ".json" else path.read_bytes()
    return found


def figures(path: Path) -> Any:
    """What a JSON file says, but for times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, list):
            return [timeless(each) for each in value]
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if key not in CHANGING}
        return value

    return timeless(json.loads(path.read_text()))


def events(folder: Path) -> Counter[tuple[str, str, int, bytes]]:
    """How often an event stands in a run's files: its file's folder, tag, step and value."""
    return Counter(event for event in logged(folder) if not event[1].startswith(UNCOUNTED))


def twice(folder: Path) -> list[tuple[str, str, int]]:
    """Steps of which a tag has more than one event, those that hold times included."""
    times = Counter(event[:3] for event in logged(folder))
    return [where for where, n in times.items() if n > 1]


def logged(folder: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """Every event in the files below a folder: its file's folder, tag, step and value."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in folder.rglob("events.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield str(path.parent.relative_to(folder)), value.tag, event.step, value.SerializeToString()


def differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """What differs from an uninterrupted run, in words."""
    for name in sorted({*found, *expected} - {"events"}):
        if found.get(name) != expected.get(name):
            how = "is missing" if name not in found else "is left" if name not in expected else "differs"
            yield f"{name} {how}"
    more, fewer = found["events"] - expected["events"], expected["events"] - found["events"]
    if more or fewer:
        tags = sorted({tag for _, tag, _, _ in (*more, *fewer)})
        yield f"{more.total()} events too many, {fewer.total()} missing: {', '.join(tags[:3])}"


def kill(case: Case, n_kills: int, seed: int, root: Path) -> Report:
    """Run a verb whole, then kill it that often; a run that ends is compared, and another one begins."""
    rng, whole = random.Random(seed), root / "whole"
    case.begin(whole)
    begun = time.monotonic()
    if wait(start(case.command, whole), lambda: False):
        return Report(0.0, faults=[f"the uninterrupted run fails: {last_line(whole)}"])
    report = Report(time.monotonic() - begun)
    expected = results(whole)
    while report.kills < n_kills and len(report.faults) < 20:
        report.runs += 1
        folder = root / f"killed-{report.runs}"
        case.begin(folder)
        words, status = case.command, None
        while status is None:
            until = moment(rng, report.seconds, folder) if report.kills < n_kills else lambda: False
            status = wait(start(words, folder), until)
            report.kills += status is None
            words = (*case.command, *case.again)
        if status:
            report.faults.append(f"run {report.runs} does not resume: {last_line(folder)}")
            continue
        report.faults += [f"run {report.runs}: {what}" for what in differences(results(folder), expected)]
        if wait(start((*case.command, *case.again), folder), lambda: False):
            report.faults.append(f"run {report.runs}: once more fails: {last_line(folder)}")
        shutil.rmtree(folder)
    return report


def prepare(base: Path, verbs: list[str]) -> None:
    """Make what they start from: weights, a network, a policy."""
    base.mkdir()
    (base / "recipe.toml").write_text(RECIPE)
    needed = {"adapt": ["pretrain"], "train": ["pretrain", "adapt"]}
    needed |= {verb: ["pretrain", "adapt", "train"] for verb in ("extend", "export")}
    for name in max((needed.get(verb, []) for verb in verbs), key=len):
        if wait(start(cases(base)[name].command, base), lambda: False):
            sys.exit(f"{name} fails: {last_line(base)}")


def main() -> int:
    """Kill, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="kills of each verb")
    parser.add_argument("--verb", action="append", choices=list(cases(Path())), help="only this verb; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module in LATE:
        importlib.import_module(module)
    from rlprune.utils.files import write_json
    from rlprune.utils.hardware import conditions

    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        verbs = options.verb or [*cases(Path())]
        prepare(root / "base", verbs)
        for name in verbs:
            (root / name).mkdir()
            reports[name] = report = kill(cases(root / "base")[name], options.kills, options.seed, root / name)
            print(f"{name}: {report.kills} kills in {report.runs} runs, {len(report.faults)} faults", flush=True)
            print(*(f"  {fault}" for fault in report.faults), sep="\n", end="\n" if report.faults else "", flush=True)
    n_faults = sum(len(each.faults) for each in reports.values())
    print(f"{sum(each.kills for each in reports.values())} kills, {n_faults} faults")
    if options.json is not None:
        said = {name: vars(report) for name, report in reports.items()}
        write_json(options.json, {**conditions(), "seed": options.seed, "verbs": said})
    return min(n_faults, 125)


if __name__ == "__main__":
    sys.exit(main())
