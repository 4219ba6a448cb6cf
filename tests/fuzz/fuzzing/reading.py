"""What is asked of every input: it is refused in one clear line, or it works at once and every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzzing.seeds import ONNX
from rlprune.baselines.stored import load_gated, load_plain
from rlprune.data.image_set import InputFormat, normalise
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.errors import NotFiniteError, RLPruneError
from rlprune.storage.bundle import load
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy

LONGEST = 500
"""Characters that a message may have."""
Call = Callable[[], Any]


def judge(kind: str, folder: Path) -> tuple[str, str]:
    """Read a folder and call what is in it.

    Args:
        kind: how it is read, as in `fuzzing.seeds.Seed`.
        folder: the folder.

    Returns:
        An outcome and a line about it: `refused`; `works`; or a fault: `RAW` for an error that is not the library's,
        for a message that is long, and for a refusal that comes only at a call; `MEMORY` where there was not enough.
    """
    try:
        with torch.no_grad():
            calls = _OPENERS[kind](folder)
    except RLPruneError as error:
        return _refusal(error)
    except Exception as error:
        return _fault("loading", error)
    try:
        for call in calls:
            call()
    except NotFiniteError as error:  # which images cause this cannot be known before
        return "works", _line(error)
    except Exception as error:
        return _fault("a first call", error)
    return "works", ""


def _refusal(error: Exception) -> tuple[str, str]:
    message = str(error)
    if _lacked_memory(error):
        return "MEMORY", f"refused for want of memory: {_line(error)}"
    if len(message) > LONGEST or "\n" in message or not message.isprintable():
        return "RAW", f"a message of {len(message)} characters in {message.count(chr(10)) + 1} lines: {_line(error)}"
    return "refused", _line(error)


def _fault(when: str, error: Exception) -> tuple[str, str]:
    outcome = "MEMORY" if _lacked_memory(error) else "RAW"
    trace, last = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        last = f" at {code.co_name} of {Path(code.co_filename).name}" if "rlprune" in code.co_filename else last
        trace = trace.tb_next
    return outcome, f"{when}{last}: {type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error)[:1000].split())[:220]


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that memory was asked for in vain."""
    while error is not None:
        text = str(error)[:500]
        if (
            isinstance(error, MemoryError)
            or "allocate memory" in text
            or "bad_alloc" in text
            or "bad allocation" in text
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _images(shape: tuple[int, ...], batch: int) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))


def _check(logits: Any, batch: int, n_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.shape != (batch, n_classes):
        raise AssertionError(f"logits of shape {getattr(logits, 'shape', None)}; ({batch}, {n_classes}) was promised")


def _run(network: Callable[[Tensor], Any], shape: tuple[int, ...], data: InputFormat, batch: int) -> None:
    """One batch through a network for normalised images."""
    _check(network(normalise(_images(shape, batch), data.mean, data.std)), batch, len(data.classes))


def _bundle(folder: Path) -> list[Call]:
    dynamic = load(folder)
    penalties = dynamic.source_policy.observer.penalties
    choices: list[dict[str, float]] = [{}]
    if penalties is not None:
        choices += [{"budget": share} for share in dynamic.source_policy.limits]
        choices += [{"penalty": penalties.low}, {"penalty": penalties.high}]
    calls: list[Call] = []
    for batch in (1, 3):
        calls += [partial(dynamic, _images(dynamic.image_shape, batch), **choice) for choice in choices]
        of_each = [dynamic.slice(profile) for profile in range(len(dynamic.slices))]
        calls += [partial(_run, each, dynamic.image_shape, dynamic, batch) for each in of_each]
    return calls


def _network(folder: Path) -> list[Call]:
    saved = load_network(folder)
    network, shape = saved.network, saved.network.image_shape
    profiles = (network.full, network.uniform(len(network.keep_ratios) // 2))
    ways = [lambda images, levels=levels: network(images, levels.expand(len(images), -1)) for levels in profiles]
    ways += [network.slice(levels) for levels in profiles]
    return [partial(_run, way, shape, saved.data, batch) for way in ways for batch in (1, 3)]


def _policy(folder: Path) -> list[Call]:
    policy = load_policy(folder).policy
    fixed = policy.at(policy.chosen())
    return [partial(each.network, torch.zeros(3, each.observer.size)) for each in (policy, fixed)]


def _gated(folder: Path) -> list[Call]:
    saved = load_gated(folder)
    shape = saved.network.source[0].image_shape
    return [partial(_run, saved.network, shape, saved.data, batch) for batch in (1, 3)]


def _plain(folder: Path) -> list[Call]:
    saved = load_plain(folder)
    return [partial(_run, saved.network, saved.image_shape, saved.data, batch) for batch in (1, 3)]


def _onnx(folder: Path) -> list[Call]:
    loaded = OnnxCNN(folder / ONNX, n_threads=1)
    channels, *sizes = loaded.image_shape
    shape = (channels, *(2 * size if loaded.resizes else size for size in sizes))
    budgets = [None, *(loaded.limits or ())]
    return [partial(loaded, _images(shape, batch), budget=budget) for batch in (1, 3) for budget in budgets]


_OPENERS: dict[str, Callable[[Path], list[Call]]] = {
    "bundle": _bundle,
    "network": _network,
    "policy": _policy,
    "gated": _gated,
    "plain": _plain,
    "onnx": _onnx,
}
