"""From the words of a command line to a verb, with messages that name the options that were typed."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast, get_args, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from rlprune.errors import SettingsError
from rlprune.utils.notes import say

_ALTERNATIVES = (("penalty", "penalty_range"),)
"""Options of which only one may be given, though one of them has a default."""


def parse(verbs: Any, arguments: Sequence[str], description: str) -> Any:
    """Build the verb that a command line asks for; exits with a message or the help where it asks for none.

    Args:
        verbs: a union of dataclasses, each a subcommand.
        arguments: what was typed after the name of the program.
        description: what the help begins with.

    Raises:
        SettingsError: options have values that cannot be; the message has a line for each.
    """
    _check_words(arguments)
    wrong: list[str] = []
    verb = None
    try:
        verb = tyro.cli(verbs, prog="rlprune", description=description, args=arguments, registry=_registry(wrong))
    except SettingsError as error:  # from what earlier versions of tyro make after they left the registry
        wrong.append(str(error))
    typed = _typed(arguments)
    lines = [with_options(line, arguments, verbs) for lines in wrong for line in lines.splitlines()]
    lines += [
        f"{typed[one]} and {typed[other]} exclude each other; give only one"
        for one, other in _ALTERNATIVES
        if one in typed and other in typed and not lines
    ]
    if lines:
        raise SettingsError("\n".join(lines))
    for line in _repeated(arguments):
        say(line)
    return verb


def _check_words(arguments: Sequence[str]) -> None:
    """Make sure that no value is empty.

    Raises:
        SettingsError: one is; the message has a line for each.
    """
    lines = []
    for before, word in zip(("", *arguments), arguments, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            option = word if word else before if before.startswith("--") else f"what follows {before!r}"
            lines.append(f"{option.rstrip('=')} is empty: give it a value, or leave it out")
    if lines:
        raise SettingsError("\n".join(lines))


def _repeated(arguments: Sequence[str]) -> list[str]:
    """A line for every option that is given twice: the last one counts, as in other programs, but not in silence."""
    names = Counter(_name(word) for word in arguments if word.startswith("--"))
    return [f"--{name} is given {n} times; the last one counts" for name, n in names.items() if n > 1]


def _name(word: str) -> str:
    """An option's name, as tyro reads it: --no-flip sets what --flip sets, and underscores are hyphens."""
    *prefix, name = word.removeprefix("--").partition("=")[0].replace("_", "-").split(".")
    return ".".join([*prefix, name.removeprefix("no-")])


def _typed(arguments: Sequence[str]) -> dict[str, str]:
    """The options of a command line, by the settings that they are for."""
    return {_setting(word): word.partition("=")[0] for word in arguments if word.startswith("--")}


def _setting(word: str) -> str:
    """The setting that an option is for: max_passes for --policy.max-passes."""
    return word.lstrip("-").partition("=")[0].rpartition(".")[2].replace("-", "_")


def with_options(line: str, arguments: Sequence[str], verbs: Any = None) -> str:
    """Put options in place of the settings that a message names as they are called in Python.

    Those are the settings of ``setting=value``, if their options were typed, and names such as ``image_size`` that are
    an option of the verb.

    Args:
        line: the message.
        arguments: what was typed.
        verbs: the union of verbs, of which the first argument names one; None knows the options that were typed alone.
    """
    typed = _typed(arguments)
    if line.startswith("--ppo"):  # whose arguments are called like options
        return line
    named = {name: option for name, option in _options_of(verbs, arguments).items() if "_" in name} | typed
    line = re.sub(r"(?<![-\w./])(?<!Python )\w+(?==)", lambda match: named.get(match.group(), match.group()), line)
    return re.sub(
        r"(?<![-\w./\\'\"])[a-z]+(?:_[a-z]+)+(?![\w/\\'\"=:]|\.\w)",
        lambda match: named.get(match.group(), match.group()),
        line,
    )


def _options_of(verbs: Any, arguments: Sequence[str]) -> dict[str, str]:
    """The options of the verb that is asked for, by the settings that they are for; none that stand for several."""
    for kind, subcommand in map(get_args, get_args(verbs)):
        if arguments and subcommand.name == arguments[0]:
            found = list(_named(kind, ""))
            times = Counter(setting for setting, _ in found)
            return {setting: option for setting, option in found if times[setting] == 1}
    return {}


def _named(kind: type, prefix: str) -> Iterator[tuple[str, str]]:
    """Every setting of a verb or of a group of options, and its option."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        notes = getattr(hint, "__metadata__", ())
        inner = get_args(hint)[0] if notes else hint
        if dataclasses.is_dataclass(inner):
            yield from _named(cast(type, inner), prefix if tyro.conf.OmitArgPrefixes in notes else f"{prefix}{name}.")
        else:
            yield name, f"--{prefix}{name}".replace("_", "-")


def _help_of(field: StructFieldSpec) -> str | None:
    """The help of an option, without the line breaks that its docstring has in the source, which tyro would keep."""
    text = field.helptext() if callable(field.helptext) else field.helptext
    return None if text is None else "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def _registry(wrong: list[str]) -> ConstructorRegistry:
    """Tyro's ways of making dataclasses, and one more, for settings; of all of them the help is set anew.

    Args:
        wrong: gets what is wrong with each group of options. An empty one stands in for it, so that the others are
            looked at, too.
    """
    registry = ConstructorRegistry()
    asking = False

    @registry.struct_rule
    def dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal asking
        if asking or not dataclasses.is_dataclass(info.type):
            return None
        asking = True  # for tyro's own rule now
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            asking = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        spec = replace(spec, fields=tuple(replace(each, helptext=partial(_help_of, each)) for each in spec.fields))
        if not hasattr(info.type, "__pydantic_validator__"):
            return spec
        make = spec.instantiate

        def instantiate(**given: Any) -> Any:
            try:
                return make(**given)
            except SettingsError as error:
                wrong.append(str(error))
                return object.__new__(info.type)

        instantiate.__doc__ = make.__doc__  # which the help shows
        return replace(spec, instantiate=instantiate)

    return registry
