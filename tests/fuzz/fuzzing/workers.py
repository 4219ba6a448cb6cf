"""Judges inputs in forked processes, which are ended when they take too long."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from fuzzing import watch
from fuzzing.inputs import Input, draw
from fuzzing.reading import judge
from fuzzing.seeds import Seed, make_seeds

SECONDS = 5
"""CPU that one input may take; one that waits may take as long on the clock."""
MOST_MEMORY = 2**30
"""Bytes that one input may take, beyond the half GiB that Python and torch take."""
_ROOM = 4 * 2**30
"""Bytes that a process gets beyond its start, so that one input does not take the machine's."""
_AT_ONCE = 250
"""Inputs for which a process is forked: it starts afresh before what inputs leave behind adds up."""
FAULTS = ("RAW", "HANG", "MEMORY", "EXECUTED")


@dataclass(frozen=True)
class Outcome:
    """What came of an input: `refused`, `works` or one of `FAULTS`; a line about it; CPU seconds; the peak in bytes."""

    outcome: str
    detail: str
    seconds: float = 0.0
    memory: int = 0


class Workers:
    """Processes that judge, forked from this one, in which everything is imported and every seed has been read.

    Args:
        root: a folder for what is read; None makes one in memory.
    """

    def __init__(self, root: Path | None = None) -> None:
        torch.set_num_threads(1)
        self.seeds = make_seeds()
        room = Path("/dev/shm")
        self.root = root or Path(tempfile.mkdtemp(prefix="rlprune-fuzz-", dir=room if room.is_dir() else None))
        for name in [*self.seeds] * 2:  # what only the first one does, such as late imports, is done by no input then
            outcome = judged(Input("none", name, []), self.seeds, self.root / name)
            assert outcome.outcome == "works", f"{name}: {outcome}"
            shutil.rmtree(self.root / name)
        for encoding in ("utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"):
            json.loads("{}".encode(encoding))  # which imports what reads it
        gc.collect()
        gc.freeze()

    def make(self, number: int) -> Input:
        """The input of a number."""
        return draw(Random(number), self.seeds)

    def run(
        self, numbers: Sequence[int], n_processes: int = 1, make: Callable[[int], Input] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Judge the inputs of some numbers, those of `draw` or others; they come back in about that order."""
        waiting = [list(numbers[start : start + _AT_ONCE]) for start in range(0, len(numbers), _AT_ONCE)][::-1]
        children: list[_Child] = []
        while waiting or children:
            while waiting and len(children) < n_processes:
                children.append(_Child(self, waiting.pop(), make or self.make))
            for child in list(children):
                yield from child.news()
                if child.ended:
                    children.remove(child)
                    if child.left:
                        waiting.append(child.left)
            time.sleep(0.005)

    def judge(self, given: Input) -> Outcome:
        """Judge one input."""
        return next(self.run([0], make=lambda _: given))[1]

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.root, ignore_errors=True)


class _Child:
    """A forked process that judges some inputs one after the other, and says so line by line."""

    def __init__(self, workers: Workers, numbers: list[int], make: Callable[[int], Input]) -> None:
        self.left = numbers
        self.ended = False
        self.folder = workers.root / str(numbers[0])
        self._text = b""
        there, here = os.pipe()
        self.process = os.fork()
        if not self.process:
            os.close(there)
            _work(map(make, numbers), workers.seeds, self.folder, here)
        os.close(here)
        os.set_blocking(there, False)
        self._pipe = there
        self._since, self._cpu = time.monotonic(), 0.0

    def news(self) -> Iterator[tuple[int, Outcome]]:
        """What it has said since, and what its end says of the input that it was at."""
        alive = os.waitpid(self.process, os.WNOHANG) == (0, 0)
        while part := self._read():
            self._text += part
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            yield self.left.pop(0), Outcome(*json.loads(line))
            self._since, self._cpu = time.monotonic(), _cpu_of(self.process) if alive else 0.0
        if alive and self.left and (why := self._overdue()):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            yield from self._finish(Outcome("HANG", why, SECONDS))
        elif not alive:
            yield from self._finish(Outcome("RAW", "the process ended") if self.left else None)

    def _finish(self, outcome: Outcome | None) -> Iterator[tuple[int, Outcome]]:
        self.ended = True
        os.close(self._pipe)
        shutil.rmtree(self.folder, ignore_errors=True)
        if outcome is not None:
            yield self.left.pop(0), outcome

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return b""

    def _overdue(self) -> str | None:
        """Why the input takes too long, if it does; a machine that is busy with other things is no reason."""
        waited = time.monotonic() - self._since
        if waited < SECONDS:
            return None
        if _cpu_of(self.process) - self._cpu > SECONDS:
            return f"more than {SECONDS} s of CPU"
        state = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]
        return f"it waits for {SECONDS} s" if state in "SD" and waited > 2 * SECONDS else None


def _cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(inputs: Iterable[Input], seeds: dict[str, Seed], folder: Path, pipe: int) -> None:
    """All that a forked process does; whatever happens, it never returns."""
    try:
        _prepare()
        for given in inputs:
            outcome = judged(given, seeds, folder)
            os.write(pipe, json.dumps(list(outcome.__dict__.values())).encode() + b"\n")
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def _prepare() -> None:
    """Say nothing, take no more memory than there is, and be watched."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
    warnings.simplefilter("ignore")
    watch.begin()


def judged(given: Input, seeds: dict[str, Seed], folder: Path) -> Outcome:
    """Judge one input in this process."""
    given.write(seeds, folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of this input
    before, began = _peak(), time.process_time()
    with watch.watched(folder) as seen:
        outcome, detail = judge(seeds[given.seed].kind, folder)
    seconds, memory = time.process_time() - began, _peak()
    if seen:
        outcome, detail = "EXECUTED", "; ".join(seen[:3])
    elif memory - before > MOST_MEMORY:
        outcome, detail = "MEMORY", f"{memory / 2**20:.0f} MiB; {outcome}: {detail}"
    elif seconds > SECONDS:
        outcome, detail = "HANG", f"{seconds:.1f} s; {outcome}: {detail}"
    return Outcome(outcome, detail[:400], round(seconds, 4), memory)


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
