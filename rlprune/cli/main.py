"""The command line: `rlprune VERB`, the same as `python -m rlprune VERB`."""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn, TextIO

import tyro

import rlprune
from rlprune import startup
from rlprune.cli.adapt import Adapt
from rlprune.cli.bench import Bench
from rlprune.cli.compare import Compare
from rlprune.cli.demo import Demo
from rlprune.cli.evaluate import Evaluate
from rlprune.cli.export import Export
from rlprune.cli.gate import Gate
from rlprune.cli.inspect import Inspect
from rlprune.cli.optimize import Optimize
from rlprune.cli.parsing import parse, with_options
from rlprune.cli.predict import Predict
from rlprune.cli.pretrain import Pretrain
from rlprune.cli.prune import Prune
from rlprune.cli.resumable import FinishedError
from rlprune.cli.run import RunRecipe
from rlprune.cli.serve import Serve
from rlprune.cli.several import carry_out, launcher, says, shared
from rlprune.cli.sweep import SweepPolicies
from rlprune.cli.train import Train
from rlprune.errors import RLPruneError, SettingsError
from rlprune.utils.files import ROOM
from rlprune.utils.hardware import out_of_memory

Verb = (
    Annotated[Optimize, tyro.conf.subcommand("optimize")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[SweepPolicies, tyro.conf.subcommand("sweep")]
    | Annotated[Gate, tyro.conf.subcommand("gate")]
    | Annotated[Prune, tyro.conf.subcommand("prune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[RunRecipe, tyro.conf.subcommand("run")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)

_SHARED = (Adapt, Evaluate, Gate, Pretrain, Prune, RunRecipe)
"""The verbs that train or measure networks, which several processes may do together."""
_NARROWEST = 40
"""Columns that tables and helps are laid out for at least; laying out the help takes minutes in a few."""
_DESCRIPTION = "Prune a pretrained CNN anew for every image, by a policy learnt with reinforcement learning."


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; a user's mistake ends in a message and exit status 2, not in a traceback.

    Args:
        arguments: what follows the name of the program; what was typed if None.
    """
    arguments = [_at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if arguments == ["--version"]:
        print(f"rlprune {rlprune.__version__}")
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show are shown by their numbers
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("COLUMNS", "").isdecimal():  # some terminals say 0, at which nothing would be shown
        os.environ["COLUMNS"] = str(max(_NARROWEST, int(os.environ["COLUMNS"])))
    verb: Any = None
    try:
        verb = parse(Verb, arguments, _DESCRIPTION)
        with shared(verb, arguments[0], _SHARED):
            carry_out(verb)
        sys.stdout.flush()
    except FinishedError as done:
        _say(done, verb, f"rlprune: {done}", file=sys.stdout)
    except SettingsError as error:
        _fail(error, verb, *str(error).splitlines())
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)  # as rich does
    except (RLPruneError, OSError, MemoryError, RuntimeError) as error:
        _fail(error, verb, with_options(_explained(error, arguments), arguments, Verb))
    except KeyboardInterrupt as error:
        number = startup.status_of(error)
        how = "terminated" if number == startup.TERMINATED else "interrupted"
        _say(error, None, f"rlprune: {how}; {_how_to_continue(verb, arguments)}")
        sys.exit(number)


def _at_home(word: str) -> str:
    """A word of the command line in which ~ stands for the user's folder, also where shells leave it: in --out=~/x."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value) if value == '~' or value.startswith('~/') else value}"


def _explained(error: Exception, arguments: list[str]) -> str:
    """What went wrong, in a line.

    Raises:
        Exception: it is nothing that a user can change, so a traceback is what helps.
    """
    if (reason := out_of_memory(error)) and not isinstance(error, RLPruneError):
        cure = "a smaller --batch-size or fewer or smaller images need less; what was finished stays"
        return f"rlprune {' '.join(arguments[:1])} ran out of memory ({reason}); {cure}"
    if isinstance(error, RLPruneError):
        return str(error)
    if not isinstance(error, OSError):
        raise error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        _drop_output()  # which may be what finds no room: it would be tried again at the end
        place = error.filename or "what was to be written last (TensorBoard's events, or the output)"
        reason = (error.strerror or str(error)).lower()
        return f"rlprune {' '.join(arguments[:1])} found no room for {place}: {reason}; {ROOM}"
    return str(error)


def _how_to_continue(verb: Any, arguments: list[str]) -> str:
    """The command that goes on where a verb was interrupted."""
    if verb is None:
        return "nothing was begun"
    again = [*arguments, "--resume"] if getattr(verb, "resume", None) is False else arguments
    return f"to continue: {shlex.join([*launcher(), *again])}"


def _fail(error: Exception, verb: Any, *lines: str) -> NoReturn:
    """Say what is wrong, and end."""
    _say(error, verb, *(f"rlprune: error: {line}" for line in lines))
    sys.exit(2)


def _say(error: BaseException, verb: Any, *lines: str, file: TextIO | None = None) -> None:
    """Print lines on an error, in one of the processes that it is the same for; a verb, if it had begun."""
    if says(error, begun=verb is not None):
        print(*lines, sep="\n", file=file or sys.stderr)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere, as it cannot be printed."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
