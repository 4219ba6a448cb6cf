"""Model repositories of the Triton Inference Server, for its onnxruntime backend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rlprune.deployment.onnx.proto import Signature, outline
from rlprune.errors import BundleError, RLPruneError
from rlprune.serving.served import line_of
from rlprune.storage.folders import replaced, write_to_disk
from rlprune.utils.files import check_room, writing
from rlprune.utils.imports import require
from rlprune.utils.locks import hold

NAME = "rlprune"
"""What a model is called where no name is given."""
MAX_BATCH = 64
"""Images that Triton runs together, at most."""
_MARK = "# Written by rlprune"
"""How the configurations begin that may be replaced."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}
"""Triton's names for ONNX's numbers of types."""
_DELAY = 2000
"""Microseconds that Triton waits for more images."""


def save_triton(
    repository: str | Path, file: str | Path | bytes, name: str = NAME, *, max_batch: int = MAX_BATCH
) -> Path:
    """Write an ONNX file as a model of a Triton repository: `NAME/config.pbtxt`, `NAME/1/model.onnx`.

    The model's folder appears, or is replaced, as a whole; other models of the repository stay. Images that come at the
    same time are batched, which changes no prediction. `NAME/labels.txt` has the class names, so that Triton's
    classification extension, asked of `logits`, answers with names.

    The onnxruntime backend takes an optional input only in a model that is not batched. With `max_batch` of 0 there is
    the input `budget`, where the file has one, and clients send whole batches; otherwise the file's own budget counts.

    Args:
        repository: the folder of models, made if it is not there.
        file: the ONNX file, or its content.
        name: of the model: letters, digits, dots, hyphens and underscores.
        max_batch: images that run together at most; 0 leaves batching to the clients.

    Returns:
        The model's folder.

    Raises:
        BundleError: the file is none that `save_onnx` wrote, or something else is in the model's place.
        RLPruneError: the name or `max_batch` cannot be.
        WriteError: the disk is full, or the folder may not be written.
    """
    folder = check_triton(repository, name)
    if type(max_batch) is not int or not 0 <= max_batch <= 2**20:
        raise RLPruneError(f"max_batch={max_batch!r}: give 0 to {2**20:,} images; 0 leaves batching to the clients")
    onnx_file = require("rlprune.deployment.onnx.file")
    checked = onnx_file.checked("it", file) if isinstance(file, bytes) else onnx_file.read(Path(file))
    files = {
        "config.pbtxt": config(checked.content, name, max_batch).encode(),
        "labels.txt": "".join(f"{line_of(name)}\n" for name in checked.notes.classes).encode(),
        "1/model.onnx": checked.content,
    }
    with hold(folder), writing(folder):
        check_triton(repository, name)
        check_room(folder, len(checked.content))
        with replaced(folder) as fresh:
            (fresh / "1").mkdir()
            for path, content in files.items():
                write_to_disk(fresh / path, content)
    return folder


def check_triton(repository: str | Path, name: str = NAME) -> Path:
    """Make sure, before there is anything to write, that a model may be written into a repository.

    Args:
        repository: the folder of models.
        name: of the model.

    Returns:
        The model's folder.

    Raises:
        BundleError: something else is in its place.
        RLPruneError: the name cannot be.
    """
    if not _NAME.fullmatch(name):
        raise RLPruneError(
            f"{name!r} is no name of a model: give up to 100 letters, digits, dots, hyphens and underscores, of which "
            "the first is a letter or a digit"
        )
    folder = Path(repository) / name
    for path in (Path(repository), folder):
        if path.exists() and not path.is_dir():
            raise BundleError(f"{path} is a file; name another folder for the models")
    if folder.exists() and not _is_ours(folder):
        raise BundleError(f"{folder} exists and is no model that rlprune wrote; name another one, or remove it")
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / "config.pbtxt").open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except OSError:
        return False


def config(content: bytes, name: str = NAME, max_batch: int = MAX_BATCH) -> str:
    """The `config.pbtxt` of a file, a `ModelConfig` of Triton in protobuf's text format.

    Args:
        content: of the ONNX file.
        name: of the model.
        max_batch: as for `save_triton`.

    Raises:
        BundleError: the content is no ONNX file of this library.
    """
    found = outline(content)
    batched = [each for each in found.inputs if not _is_optional(each)]
    inputs = [_tensor(each, max_batch) for each in batched]
    if not max_batch:
        inputs += [_tensor(each, 0, optional=True) for each in found.inputs if _is_optional(each)]
    lines = [
        f"{_MARK}: outputs are per image, so any batch gives what single images give.",
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        *_listed("input", inputs),
        *_listed("output", (_tensor(each, max_batch) for each in found.outputs)),
    ]
    if max_batch:
        lines += ["dynamic_batching {", f"  max_queue_delay_microseconds: {_DELAY}", "}"]
    return "\n".join(lines) + "\n"


def _is_optional(signature: Signature) -> bool:
    """Whether an input is one that the file has a default for: it is not per image."""
    return isinstance(signature.shape[0], int)


def _tensor(signature: Signature, max_batch: int, *, optional: bool = False) -> str:
    """An input or output; where Triton batches, without the first dimension, and none at all needs a reshape."""
    sizes = [size if isinstance(size, int) else -1 for size in signature.shape]
    dims = sizes[1:] if max_batch else sizes
    parts = [f'name: "{signature.name}"', f"data_type: {_TYPES[signature.kind]}", f"dims: {_list(dims or [1])}"]
    if not dims:
        parts.append("reshape: { shape: [ ] }")
    if optional:
        parts.append("optional: true")
    if signature.name == "logits":
        parts.append('label_filename: "labels.txt"')
    return f"  {{ {' '.join(parts)} }}"


def _list(sizes: list[int]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]"


def _listed(word: str, entries: Iterable[str]) -> list[str]:
    return [f"{word} [", ",\n".join(entries), "]"]
