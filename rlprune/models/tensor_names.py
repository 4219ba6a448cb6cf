"""Names of tensors in files, matched with those of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
"""What data parallelism, compilation, sharding and checkpointing put into the names of a network's tensors."""


@dataclass(frozen=True)
class Match:
    """Weights under a network's own names.

    Attributes:
        weights: tensors by name; those of other networks in the file are left out.
        said: what was done to the names, for the user; empty if nothing was.
        complete: whether every tensor that the network needs is there.
        rivals: prefixes under which others fit as well.
    """

    weights: dict[str, Tensor]
    said: str
    complete: bool
    rivals: tuple[str, ...] = ()


def match_names(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Match:
    """Find the network's tensors under their own names, behind a prefix, or inside of wrappers.

    Args:
        weights: what a file holds, by name.
        expected: the network's state dict; tensors that share memory there need to be in the file once.
    """
    weights = {
        name: value for name, value in weights.items() if name in expected or name != "n_averaged"
    }  # torch's AveragedModel counts
    first = _matched(weights, expected)
    if first.complete:
        return first
    bare = {_without_wrappers(name): value for name, value in weights.items()}
    if len(bare) == len(weights) and bare.keys() != weights.keys():
        second = _matched(bare, expected)
        if second.complete:
            wrappers = sorted({part for name in weights for part in name.split(".") if part in _WRAPPERS})
            words = f"removed {', '.join(wrappers)} from inside the names" + (
                f" and {second.said}" if second.said else ""
            )
            return Match(second.weights, words, True, second.rivals)
    return first


def _matched(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> Match:
    plain = with_tied(weights, expected)
    if not _missing(plain, expected):
        return Match(plain, "", True)
    behind = [(prefix, _behind(weights, prefix, expected)) for prefix in _prefixes(weights, expected)]
    fitting = [(prefix, found) for prefix, found in behind if not _missing(found, expected)]
    if fitting:
        prefix, found = fitting[0]
        others = [name for name in weights if not name.startswith(prefix)]
        left = f" and left out what lacks it: {first_names(others)}" if others else ""
        rivals = tuple(each for each, _ in fitting[1:])
        return Match(found, f"removed the prefix {prefix!r} from the names{left}", True, rivals)
    outer = _common_prefix(expected)
    inner = with_tied({outer + name: value for name, value in weights.items()}, expected)
    if outer and not _missing(inner, expected):
        return Match(inner, f"put the prefix {outer!r} before the names", True)
    return _best_misfit(weights, expected)


def _best_misfit(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> Match:
    """As they are, or without what all names begin with if more of them are known then."""
    prefix = _common_prefix(weights)
    short = {name.removeprefix(prefix): value for name, value in weights.items()}
    better = len(short.keys() & expected.keys()) > len(weights.keys() & expected.keys())
    said = f"removed the prefix {prefix!r} from the names" if better else ""
    return Match(with_tied(short if better else weights, expected), said, False)


def with_tied(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights and, for tensors that the network ties to one that is there, that one."""
    memory = {
        name: (value.data_ptr(), value.shape, value.stride()) for name, value in expected.items() if value.numel()
    }
    there = {memory[name]: value for name, value in weights.items() if name in memory}
    tied = {name: there[place] for name, place in memory.items() if name not in weights and place in there}
    return dict(weights) | tied


def required(expected: Iterable[str]) -> list[str]:
    """Names that a file must have: all but the counters of batch norms, which nothing is computed with."""
    return [name for name in expected if not name.endswith("num_batches_tracked")]


def first_names(names: list[str], n: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _missing(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return any(name not in weights for name in required(expected))


def _prefixes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What stands before the network's first name in the file, shortest first."""
    needed = required(expected)
    found = {
        name.removesuffix(wanted)
        for wanted in needed[:2]  # the first may be tied to another, and left out
        for name in weights
        if name.endswith(f".{wanted}")
    }
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _behind(weights: Mapping[str, Tensor], prefix: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return with_tied(found, expected)


def _common_prefix(names: Iterable[str]) -> str:
    """The longest run of whole parts that all names begin with, such as ``module.``; not a whole name."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return "".join(f"{part}." for part in shared)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
