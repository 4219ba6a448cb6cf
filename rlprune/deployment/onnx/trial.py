"""Runs a file's profiles once before it is used, in bounded time and memory.

A checksum says that a file is as it was written, not by whom. What loads should not fail, hang or fill the memory at
its first call, so all of it happens here first, without onnxruntime's optimiser, which would compute before the trial.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from threading import Timer
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlprune.deployment.onnx.graph import DOMAIN
from rlprune.deployment.onnx.proto import fields, short
from rlprune.errors import BundleError

if TYPE_CHECKING:
    from rlprune.deployment.onnx.file import CheckedFile

MOST_MEMORY = 2**30
"""Bytes that the features of two images may take at once."""
_SECONDS = 4.0
_MOST_SECONDS = 60.0
_MACS_A_SECOND = 2e8
"""Speed of a slow machine, in one thread."""
_GRAPH = 7
_NODE, _OUTPUT = 1, 12
_TRIED = "rlprune_tried_"


def trial(name: str, file: CheckedFile) -> None:
    """Run two images as the policy chooses, at both ends of its budgets too, and through every profile.

    Args:
        name: of the file, for messages.
        file: its content, and what is known of it.

    Raises:
        BundleError: onnxruntime does not run it; it takes too long or too much memory; logits are not finite; or it
            says other profiles or MACs than its notes.
    """
    pattern = (np.arange(251) * 37 % 251).astype(np.uint8)
    channels, height, width = file.image_shape
    times = 2 if file.resizes else 1
    pixels = np.resize(pattern, (2, channels, times * height, times * width))
    macs = sum(file.notes.prices.bodies[1]) + file.notes.prices.dense[1]
    seconds = min(_SECONDS + macs / _MACS_A_SECOND, _MOST_SECONDS)
    try:
        results = _run(_with_every_profile(file), _inputs(file, pixels), seconds, _names(file))
    except Exception as error:  # onnxruntime's own, which have no common type
        raise BundleError(f"{name} is no file that `rlprune export --onnx` wrote: {short(error)}") from error
    wrong = next(filter(None, (_wrong_with(file, each) for each in results)), None)
    if wrong:
        raise BundleError(f"{name} cannot be used: {wrong}")


def _inputs(file: CheckedFile, pixels: Any) -> list[dict[str, Any]]:
    """What goes in: pixels without a budget, and with the lowest and the highest, if it takes any."""
    budgets = file.notes.budgets
    ends = [] if budgets is None else [budgets.least, budgets.most]
    return [{"images": pixels}, *({"images": pixels, "budget": np.array([end], np.float32)} for end in ends)]


def _names(file: CheckedFile) -> list[str]:
    """The outputs that are looked at."""
    tried = [f"{_TRIED}{k}" for k in range(len(file.shared))]
    return ["logits", "profiles", "macs", *(["label", "probability"] if file.answers else []), *tried]


def _run(content: bytes, inputs: list[dict[str, Any]], seconds: float, names: list[str]) -> list[list[Any]]:
    """The results of a file that had every profile added to it, for each of some inputs."""
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    run = onnxruntime.RunOptions()
    run.log_severity_level = 4
    run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def stop() -> None:
        run.terminate = True
        with suppress(AttributeError):  # older ones have none
            options.set_load_cancellation_flag(True)

    timer = Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        return [session.run(names, each, run) for each in inputs]
    except Exception as error:
        if not run.terminate:
            raise
        raise BundleError(f"two images take more than {seconds:.0f} seconds") from error
    finally:
        timer.cancel()


@cache
def _bound_memory() -> None:
    """Bound the memory of trials, which share an allocator of their own; where there is one already, it stays."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    as_requested = 1
    with suppress(Exception):
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(MOST_MEMORY, as_requested, -1, -1))


def _wrong_with(file: CheckedFile, results: list[Any]) -> str | None:
    """What is wrong with the results for two images, if anything is."""
    n_answers = 2 * file.answers
    logits, profiles, macs = results[:3]
    answers, tried = results[3 : 3 + n_answers], results[3 + n_answers :]
    shape = (2, len(file.notes.classes))
    if logits.shape != shape or any(each.shape != shape or each.dtype != np.float32 for each in tried):
        return f"the logits of two images have another shape than {shape}"
    if not all(np.isfinite(each).all() for each in (logits, *tried)):
        return "logits are not finite"
    if file.answers and (wrong := _wrong_answers(logits, *answers)):
        return wrong
    wrong = wrong_profiles(profiles, (2, file.max_passes), len(file.notes.keep_ratios))
    if wrong:
        return wrong
    expected = file.notes.costs().of_passes(torch.from_numpy(profiles)).macs
    if macs.shape != (2,) or macs.tolist() != expected.tolist():
        return f"two images cost {macs.tolist()[:2]} MACs, by its notes {expected.tolist()}"
    return None


def _wrong_answers(logits: Any, labels: Any, probabilities: Any) -> str | None:
    """What is wrong with labels and probabilities, if anything is."""
    expected = torch.from_numpy(logits).softmax(1).amax(1).numpy()
    if labels.shape != (2,) or any(not 0 <= label < logits.shape[1] for label in labels):
        return f"the labels of two images are {labels.tolist()[:2]}"
    if (logits[np.arange(2), labels] < logits.max(1) - 1e-4).any():
        return f"the labels of two images are {labels.tolist()}, by their logits {logits.argmax(1).tolist()}"
    if probabilities.shape != (2,) or not np.allclose(probabilities, expected, atol=1e-4):
        return f"the probabilities of two images are {probabilities.tolist()[:2]}, by their logits {expected.tolist()}"
    return None


def wrong_profiles(profiles: Any, shape: tuple[int, int], n_profiles: int) -> str | None:
    """What is wrong with the profiles of every pass, int64 (B, max_passes), if anything is."""
    if profiles.shape != shape:
        return f"the profiles of {shape[0]} images have shape {profiles.shape}, not {shape}"
    if len(profiles) == 1:  # Python is done before NumPy begins
        row = profiles[0].tolist()
        n_passes = sum(profile >= 0 for profile in row)
        are_there = n_passes and -1 <= min(row) and max(row) < n_profiles and -1 not in row[:n_passes]
        return None if are_there else _unknown(n_profiles)
    ran = profiles >= 0
    if profiles.min() < -1 or profiles.max() >= n_profiles or not ran[:, 0].all() or (ran[:, 1:] > ran[:, :-1]).any():
        return _unknown(n_profiles)
    return None


def _unknown(n_profiles: int) -> str:
    return f"it runs profiles that it does not have; there are {n_profiles}"


def _with_every_profile(file: CheckedFile) -> bytes:
    """A file whose graph also runs every profile on the stem's features, whatever the policy chooses."""
    parts = []
    for number, value in fields(memoryview(file.content)):
        if number == _GRAPH:
            features = _features_in(value)
            nodes = [
                _field(
                    _NODE,
                    b"".join(_field(1, name) for name in (features, *(name.encode() for name in names)))
                    + _field(2, _tried(k))
                    + _text(4, f"profile_{k}")
                    + _text(7, DOMAIN),
                )
                for k, names in enumerate(file.shared)
            ]
            outputs = [_field(_OUTPUT, _field(1, _tried(k)) + _field(2, _FLOATS)) for k in range(len(nodes))]
            value = b"".join((value, *nodes, *outputs))
        parts.append(_field(number, value) if not isinstance(value, int) else _varint(number << 3) + _varint(value))
    return b"".join(parts)


_FLOATS = b"\x0a\x02\x08\x01"
"""The type of a tensor of floats of any shape."""


def _features_in(graph: memoryview) -> bytes:
    """The name of the stem's features: the first output of the function `start`, or of `begin`, which calls it."""
    for number, node in fields(graph):
        if number == _NODE:
            found = [(key, bytes(value)) for key, value in fields(node) if not isinstance(value, int)]
            outputs = [value for key, value in found if key == 2]
            if {(4, b"start"), (4, b"begin")} & {*found} and (7, DOMAIN.encode()) in found and outputs:
                return outputs[0]
    raise BundleError("its graph does not begin with the function start or begin")


def _tried(k: int) -> bytes:
    return f"{_TRIED}{k}".encode()


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, value: bytes | memoryview) -> bytes:
    """A field of protobuf that holds bytes."""
    return b"".join((_varint(number << 3 | 2), _varint(len(value)), value))


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
