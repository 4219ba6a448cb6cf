"""The command line: `rlprune VERB`, the same as `python -m rlprune VERB`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import tyro

import rlprune
from rlprune.cli.adapt import Adapt
from rlprune.cli.bench import Bench
from rlprune.cli.compare import Compare
from rlprune.cli.demo import Demo
from rlprune.cli.evaluate import Evaluate
from rlprune.cli.export import Export
from rlprune.cli.gate import Gate
from rlprune.cli.inspect import Inspect
from rlprune.cli.parsing import parse, with_options
from rlprune.cli.predict import Predict
from rlprune.cli.pretrain import Pretrain
from rlprune.cli.prune import Prune
from rlprune.cli.run import RunRecipe
from rlprune.cli.train import Train
from rlprune.errors import RLPruneError, SettingsError

Verb = (
    Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Gate, tyro.conf.subcommand("gate")]
    | Annotated[Prune, tyro.conf.subcommand("prune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[RunRecipe, tyro.conf.subcommand("run")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)

_DESCRIPTION = "Prune a pretrained CNN anew for every image, by a policy learnt with reinforcement learning."


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; a user's mistake ends in a message and exit status 2, not in a traceback.

    Args:
        arguments: what follows the name of the program; what was typed if None.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"rlprune {rlprune.__version__}")
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show are shown by their numbers
            stream.reconfigure(errors="backslashreplace")
    try:
        parse(Verb, arguments, _DESCRIPTION).run()
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"rlprune: error: {line}", file=sys.stderr)
        sys.exit(2)
    except (RLPruneError, OSError) as error:
        print(f"rlprune: error: {with_options(str(error), arguments)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "rlprune: interrupted; to continue, give the same command, with --resume where the verb has it",
            file=sys.stderr,
        )
        sys.exit(130)
