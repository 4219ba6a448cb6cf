"""Write the pages that nobody types: API, verbs, recipe keys, environment, TensorBoard's tags, networks, results."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import shutil
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faces
import networks
from rich.console import Console
from sphinx.pycode import ModuleAnalyzer

import rlprune
from rlprune.agents.tracking.tags import NETWORK_TAGS, TAGS, table
from rlprune.cli.main import Verb, main
from rlprune.envs import KeepRatioEnv
from rlprune.evaluation.results import EvaluationResult
from rlprune.evaluation.tables import evaluation
from rlprune.optimization import plan
from rlprune.optimization.reports.screen import print_check
from rlprune.optimization.result import load_result
from rlprune.pipelines.recipe import Recipe

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "runs" / "reference"
sys.path.insert(0, str(REFERENCE))

from result_pages import recipe_notes, results  # noqa: E402
from update_readme import screen  # noqa: E402

RECIPES = ("resnet20", "m_cifarnet", "resnet56", "mobilenet_v2")
"""Folders whose recipe says how its results were made."""


def generate(folder: Path) -> None:
    """Write all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {"verbs.md": verbs(), "recipe.md": recipe_keys(), "environment.md": environment(), "tags.md": tags()}
    pages |= {f"api/{name.rpartition('.')[2]}.md": api(name) for name in faces.MODULES}
    pages |= {"api/rlprune.md": front(), "signature.md": onnx_signature()}
    pages |= {"plan.md": plan_rules(), "check.md": check_screen(), "screen.md": f"```text\n{screen()}\n```"}
    pages |= {"evaluation.md": evaluation_screen()}
    pages |= {"networks.md": networks.networks(), "storable.md": networks.storable()}
    pages |= {f"results/{name}.md": page for name, page in results().items()}
    pages |= {f"results/recipe_{name}.md": recipe_notes(name) for name in RECIPES}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip() + "\n")


# ---- the command line


def verb_names() -> list[str]:
    """The verbs of the command line, in its order."""
    return [annotated.__metadata__[0].name for annotated in typing.get_args(Verb)]


def help_of(arguments: list[str]) -> str:
    """What the command line says to `--help`, without colours and at a fixed width."""
    text, before = io.StringIO(), dict(os.environ)
    os.environ |= {"COLUMNS": "82", "NO_COLOR": "1", "TERM": "dumb"}
    path = list(sys.path)
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([*arguments, "--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
        sys.path[:] = path
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue()).rstrip()
    if not plain.startswith("usage: rlprune"):
        raise RuntimeError(f"`rlprune {' '.join(arguments)} --help` says {plain!r}")
    return plain


def verbs() -> str:
    """Every verb by its own help."""
    parts = [f"```text\n{help_of([])}\n```"]
    parts += [f"## {name}\n\n```text\n{help_of([name])}\n```" for name in verb_names()]
    return "\n\n".join(parts)


# ---- recipes


def recipe_keys() -> str:
    """Every key of a recipe: those of the recipe itself, then those of each table in it."""
    nested = {field.name: settings for field in dataclasses.fields(Recipe) if (settings := _settings_of(Recipe, field))}
    parts = ["## Top level", _key_table(Recipe, leave_out=set(nested))]
    for name, settings in nested.items():
        docs = _attribute_docs(Recipe)
        many = "list" in str(typing.get_type_hints(Recipe)[name])
        parts += [f"## `{'[[' if many else '['}{name}{']]' if many else ']'}`", docs.get(name, "")]
        parts.append(_key_table(settings))
    return "\n\n".join(parts)


def _settings_of(owner: type, field: dataclasses.Field[Any]) -> type | None:
    """The dataclass that a field holds, itself, in a list, or maybe; None if it holds a plain value."""
    hint = typing.get_type_hints(owner)[field.name]
    return next((each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)), None)


def _key_table(settings: type, leave_out: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    docs, hints = _attribute_docs(settings), typing.get_type_hints(settings)
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(settings):
        if field.name in leave_out:
            continue
        cells = (f"`{field.name}`", f"`{_type(hints[field.name])}`", _default(field), docs.get(field.name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _type(hint: Any) -> str:
    name = hint.__name__ if type(hint) is type else str(hint)
    return re.sub(r"\bOptional\[(.*)\]", r"\1 | None", re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", name))


def _default(field: dataclasses.Field[Any]) -> str:
    value = getattr(field.default, "default", field.default)  # what pydantic puts around it
    if value is dataclasses.MISSING:
        return "required" if field.default_factory is dataclasses.MISSING else "`[]`"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`" if value is not None else "not set"


def _attribute_docs(settings: type) -> dict[str, str]:
    """What stands below each field, in the class or where it is inherited from."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if owner is not object and owner.__module__.startswith("rlprune"):
            docs = ModuleAnalyzer.for_module(owner.__module__).find_attr_docs()
            found |= {name: " ".join(lines).strip() for (where, name), lines in docs.items() if where == owner.__name__}
    return found


# ---- the environment and its figures


def environment() -> str:
    """The environment's docstring, whose sections are Markdown already."""
    text = inspect.cleandoc(KeepRatioEnv.__doc__ or "")
    description, _, rest = text.partition("\nArgs:\n")
    arguments, _, history = rest.partition("\n## ")
    rows = ["## Arguments", "", "| argument | meaning |", "|---|---|"]
    for name, meaning in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
        rows.append(f"| `{name}` | {' '.join(meaning.split())} |".replace("\\", "\\\\"))
    return "\n".join([description, "", *rows, "", f"## {history}"])


def tags() -> str:
    """The tables of TensorBoard's tags."""
    heads = {
        "## Training of a policy\n\nOver environment steps.": TAGS,
        "## Trainings of networks\n\nOver images seen, once an epoch. TRAINING is the verb, or the step of a recipe.": (
            NETWORK_TAGS
        ),
    }
    return "\n\n".join(f"{head}\n\n{table(found)}" for head, found in heads.items())


def onnx_signature() -> str:
    """The table of inputs and outputs, from the docstring of what writes the file."""
    from rlprune.deployment import save_onnx
    from rlprune.deployment.onnx.graph import DOMAIN, IR_VERSION, OPSET

    text = inspect.cleandoc(save_onnx.__doc__ or "")
    body = text.partition("\n")[2].partition("\nArgs:")[0].strip()
    return f"{body}\n\nOpset {OPSET} of ONNX's own operators, IR version {IR_VERSION}; local functions in `{DOMAIN}`."


# ---- one command to a verdict


def plan_rules() -> str:
    """The rules by which time is spent, from the docstring of what plans it; names of numbers become the numbers."""
    text = inspect.cleandoc(plan.__doc__ or "").partition("\n")[2].strip()
    return re.sub(r"`([A-Z_]+)`", lambda match: f"{getattr(plan, match[1]):,}", text)


def check_screen() -> str:
    """What `rlprune optimize` says before anything long begins, here of the demo."""
    return _screen(lambda console: print_check(console, load_result(REFERENCE / "digits").check))


def evaluation_screen() -> str:
    """What `rlprune evaluate` shows, here of the demo's bundle."""
    results = EvaluationResult.load(REFERENCE / "digits" / "results.json")
    return _screen(lambda console: console.print(evaluation(results)))


def _screen(show: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        show(console)
    lines = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    return f"```text\n{lines}\n```"


# ---- the API


def api(face: str) -> str:
    """A package's docstring and everything public in it, for autodoc."""
    module = importlib.import_module(face)
    lines = [f".. py:module:: {face}", "", *inspect.cleandoc(module.__doc__ or "").splitlines(), ""]
    for name in faces.names_of(module):
        value = getattr(module, name)
        if inspect.isclass(value):
            known = any(base.__module__.startswith("rlprune") for base in value.__bases__)
            options = ["   :members:", *(["   :show-inheritance:"] if known else []), *_again(face, name, value)]
            lines += [f".. autoclass:: {face}.{name}", *options, ""]
        elif inspect.isfunction(value):
            lines += [f".. autofunction:: {face}.{name}", *_again(face, name, value), ""]
        elif not inspect.ismodule(value):
            lines += _constant(face, name, value)
    return f"# {face}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```"


def _again(face: str, name: str, value: Any) -> list[str]:
    """What keeps an object that a lower face has, too, from being indexed twice."""
    home = faces.HOMES[f"{value.__module__}.{value.__qualname__}"]
    return [] if home == f"{face}.{name}" else ["   :no-index:"]


def _constant(face: str, name: str, value: Any) -> list[str]:
    """A constant, documented where it is defined, which autodoc does not follow through a face."""
    shown = repr(value)
    lines = [f".. py:data:: {face}.{name}", *([f"   :value: {shown}"] if len(shown) < 100 else []), ""]
    for path in sorted(module for module in sys.modules if module.startswith("rlprune.")):
        if vars(sys.modules[path]).get(name) is value:
            docs = ModuleAnalyzer.for_module(path).find_attr_docs()
            if ("", name) in docs:
                return [*lines, *(f"   {line}" for line in docs["", name]), ""]
    return lines


def front() -> str:
    """What `import rlprune` gives, and where each name is documented."""
    rows = ["| name | documented in |", "|---|---|"]
    for name in rlprune.__all__:
        value = getattr(rlprune, name)
        if inspect.ismodule(value):
            rows.append(f"| `rlprune.{name}` | {{py:mod}}`{value.__name__}` |")
        elif not isinstance(value, str):
            home = faces.HOMES[f"{value.__module__}.{value.__qualname__}"]
            rows.append(f"| `rlprune.{name}` | {{py:obj}}`{home}` |")
    return (
        "# rlprune\n\nThe few names that most users need. Everything else is in the packages below it.\n\n"
        + "\n".join(rows)
    )
