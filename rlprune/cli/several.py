"""Verbs in several processes, which torchrun or Ray starts: who shares their work, and what each process says."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from rlprune.cluster.connection import LOCAL, check_answers
from rlprune.cluster.training import train_on
from rlprune.errors import ClusterError
from rlprune.training.parallel.group import current, joined, launched
from rlprune.utils.files import scratch, writing
from rlprune.utils.notes import say
from rlprune.utils.settings import AtMost, PositiveInt, settings_dataclass

_STREAMS = ("stdout", "stderr")


@settings_dataclass
class ProcessOptions:
    """Several processes that Ray starts, in place of torchrun."""

    processes: Annotated[PositiveInt, AtMost(4096)] = 1
    """Processes that share the work. Ray (extra cluster) starts them, each on a processor, or with --device cuda on a
    GPU, and again if one is lost."""
    cluster: str | None = None
    """Where: local, which it is if not given, starts Ray on this machine; auto is the cluster that it belongs to; or
    the address of one."""


def carry_out(verb: Any) -> None:
    """Run a verb, here or in processes that Ray starts, as it asks.

    Raises:
        ClusterError: torchrun has started several already; or Ray does not answer, or has too few processors.
        MissingExtraError: Ray is not installed.
    """
    asked = getattr(verb, "several", ProcessOptions())
    if asked == ProcessOptions():
        verb.run()
        return
    address = asked.cluster or LOCAL
    check_answers(address)  # before Ray is imported, which takes seconds
    out: Path = verb.folder if hasattr(verb, "folder") else verb.out
    beside = out.resolve().with_suffix("")  # which all machines see
    gpus = (getattr(verb, "settings", verb).device or "cpu").startswith("cuda")
    given = {name: value for name, value in os.environ.items() if name.startswith("RLPRUNE_")}
    given["COLUMNS"] = str(shutil.get_terminal_size().columns)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # Ray Train would say all that is printed twice
    with writing(out), scratch(beside) as folder, _shown(folder):
        arguments = {"verb": verb, "said": folder, "place": Path.cwd(), "environment": given}
        train_on(_carry_out, arguments, folder, n_workers=asked.processes, address=address, gpus=gpus)


def _carry_out(verb: Any, said: Path, place: Path, environment: dict[str, str]) -> None:
    """Be one of the processes that Ray started; all that the first one says goes to files."""
    os.chdir(place)
    os.environ.update(environment)
    group = current()
    again = group.from_first((said / _STREAMS[0]).exists)  # as processes were here that were lost
    files = [said / name if group.leads else Path(os.devnull) for name in _STREAMS]
    with ExitStack() as stack:
        for file, redirect in zip(files, (redirect_stdout, redirect_stderr), strict=True):
            stack.enter_context(redirect(stack.enter_context(file.open("a", buffering=1))))
        if again:
            say("a process was lost; all go on from the last checkpoint")
        resumes = {"resume": True} if again and hasattr(verb, "resume") else {}
        replace(verb, several=ProcessOptions(), **resumes).run()


@contextmanager
def _shown(folder: Path) -> Iterator[None]:
    """Print, in the block, what the first of other processes says in files."""
    folder.mkdir()
    ended = threading.Event()
    places = dict.fromkeys(_STREAMS, 0)

    def show() -> None:
        for name in _STREAMS:
            with suppress(OSError), (folder / name).open("rb") as file:  # it is not there yet; or nobody reads on
                file.seek(places[name])
                text = file.read()
                places[name] += len(text)
                print(text.decode(errors="replace"), end="", file=getattr(sys, name), flush=True)

    def follow() -> None:
        while not ended.wait(0.2):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()


@contextmanager
def shared(verb: Any, name: str, may: tuple[type, ...]) -> Iterator[None]:
    """Be one of the processes that carry out a verb; but for the first they print nothing.

    Args:
        verb: the verb.
        name: of it.
        may: the verbs that share their work.

    Raises:
        ClusterError: the verb is for one process, and there are several; or they do not find each other.
    """
    if launched() > 1 and not isinstance(verb, may):
        error = ClusterError(
            f"rlprune {name} runs in one process, and torchrun started {launched()}; start it alone ("
            f"{', '.join(sorted(kind.__name__.removesuffix('Recipe').lower() for kind in may))} share their work)"
        )
        error.agreed = True  # type: ignore[attr-defined]
        raise error
    with joined() as group:
        if group.leads:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield


def says(error: BaseException, *, begun: bool) -> bool:
    """Whether this process is to say what went wrong: others say it where all of them found the same.

    Args:
        error: what it was.
        begun: whether the verb had begun; what was typed is the same for all.
    """
    return os.environ.get("RANK", "0") == "0" or (begun and not getattr(error, "agreed", False))


def launcher() -> list[str]:
    """The words that start rlprune as it was started."""
    if launched() == 1:
        return ["rlprune"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "N"), "-m", "rlprune"]
