"""What files of weights hold, read without running any code in them."""

from __future__ import annotations

import argparse
import json
import pickle  # for the name of an error; nothing is unpickled with it  # nosec B403
import re
import reprlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rlprune.errors import ModelError
from rlprune.utils.files import read_regular, strange_content

USUAL_KEYS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "params_ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "module"),
    *("weights", "params"),
)
"""Keys that a state dict stands under in training checkpoints, best first: averaged weights, as timm takes them."""

_FOLDER_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What a folder of the Hugging Face hub calls its weights, best first."""

_NO_WEIGHTS = re.compile(r"optim|sched|scaler|^amp$|rng|callback|loop|hyper_param|hparam|^args$|^config$|^cfg$|meta")
"""Keys of a checkpoint under which tensors are no weights."""

_MAX_DEPTH = 3
_MOST_INDEX = 64 * 2**20


@dataclass(frozen=True)
class Candidate:
    """A state dict that a file holds.

    Attributes:
        key: where in the file it stands, such as ``state_dict``; empty if it is all of the file.
        usual: whether that is where state dicts usually stand.
        weights: tensors by name.
    """

    key: str
    usual: bool
    weights: dict[str, Tensor]


class _Inert(dict[Any, Any]):
    """Stands for an object beside the weights, such as a setting; it takes any arguments and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass


_HARMLESS = (
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath", "pathlib._local.PurePosixPath"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool", "Str")),
    *("datetime.datetime", "datetime.timedelta"),
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Classes of settings and figures that checkpoints hold beside the weights. None is imported: `_Inert` stands in."""


def weights_in_folder(folder: Path) -> Path | None:
    """The file of weights in a folder as the Hugging Face hub has them; None where there is none."""
    return next((folder / name for name in _FOLDER_FILES if (folder / name).is_file()), None)


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> list[Candidate]:
    """Read the state dicts that a file, or a folder of the Hugging Face hub, holds.

    Args:
        path: ``.safetensors`` or a file of `torch.save`, recognised by content; or a folder with ``model.safetensors``
            or ``pytorch_model.bin``, whole or in shards.
        trust_pickle: read files that hold whole objects, too, which runs code in them.

    Returns:
        At least one, best first.

    Raises:
        ModelError: it is missing, damaged, of another kind, holds no tensors, or needs pickle.
    """
    if path.is_dir():
        inside = weights_in_folder(path)
        if inside is None:
            raise ModelError(f"the folder {path} has no weights; one of {', '.join(_FOLDER_FILES)} is needed")
        path = inside
    check_file(path)
    if path.name.endswith(".index.json"):
        return [Candidate("", True, _read_shards(path, trust_pickle))]
    return _read_file(path, trust_pickle)


def check_file(path: Path) -> None:
    """Make sure that there is such a file, whatever is in it.

    Raises:
        ModelError: there is not.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path} is no regular file; give a .safetensors, .pt, .pth, .th or .bin file")
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}; give a .safetensors, .pt, .pth, .th or .bin file")


def _read_shards(index: Path, trust_pickle: bool) -> dict[str, Tensor]:
    """All tensors of the files that an index names."""
    try:
        names = sorted(set(json.loads(read_regular(index, _MOST_INDEX))["weight_map"].values()))
        strange = next(
            (name for name in names if not isinstance(name, str) or not name or Path(name).name != name), None
        )
        if strange is not None:
            raise ValueError(f"{reprlib.repr(strange)} is no file beside it")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        said = str(error)[:200]
        raise ModelError(f"{index} is no index of weights ({type(error).__name__}: {said}); replace it") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names; download it again")
    weights: dict[str, Tensor] = {}
    for name in names:
        weights |= _read_file(index.parent / name, trust_pickle)[0].weights
    return weights


def _read_file(path: Path, trust_pickle: bool) -> list[Candidate]:
    strange = strange_content(path)
    if strange:
        raise ModelError(f"{path} cannot be read: it {strange}")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return [Candidate("", True, _read_safetensors(path))]
    program = _program_in(path)
    if program is not None:
        return [Candidate("", True, _read_program(path, program, trust_pickle))]
    found = _unpickle(path, start, trust_pickle)
    candidates = sorted(_state_dicts(found), key=lambda each: _rank(each.key))
    if not candidates:
        raise ModelError(f"{path} holds no state dict of tensors{_keys_of(found)}; save model.state_dict() instead")
    return candidates


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights = dict(safetensors.torch.load_file(path))
        with safetensors.safe_open(path, "pt") as file:
            tied = file.metadata() or {}
    except Exception as error:
        raise ModelError(f"{path} cannot be read: it is damaged ({error}); download or write it again") from error
    # `save_model` leaves tied tensors out and notes which of those that are there they equal.
    return weights | {left_out: weights[kept] for left_out, kept in tied.items() if kept in weights}


def _program_in(path: Path) -> Literal["jit", "export"] | None:
    """Whether a file is a whole program, of `torch.jit.save` or `torch.export.save`."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    if "constants.pkl" in names:
        return "jit"
    return "export" if names & {"models/model.json", "serialized_exported_program.json"} else None


def _read_program(path: Path, kind: Literal["jit", "export"], trust_pickle: bool) -> dict[str, Tensor]:
    what = {"jit": "is TorchScript", "export": "is of torch.export"}[kind]
    if not trust_pickle:
        raise ModelError(_refusal(path, f"{what}, a program and not weights alone", f"torch.{kind}.load"))
    try:
        program: Any = torch.jit.load(str(path), "cpu") if kind == "jit" else torch.export.load(path)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(_damaged(path, error)) from error
    weights = program.state_dict() if kind == "jit" else program.state_dict
    return {name: value.detach() for name, value in weights.items()}


def _unpickle(path: Path, start: bytes, trust_pickle: bool) -> Any:
    """What `torch.save` wrote; whole objects only where they are trusted."""
    inert: list[Any] = [argparse.Namespace, *((_Inert, name) for name in _HARMLESS)]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.simplefilter("ignore")  # of old pickle protocols, which are read or refused all the same
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)  # as the user asked  # nosec B614
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if start[:1] not in (b"\x80", b"P"):  # neither a pickle nor an archive with one
            raise ModelError(_damaged(path, error)) from error
        what = f"holds the object {found[1]}" if found else "holds more than tensors"
        raise ModelError(_refusal(path, what, "torch.load")) from error
    except (AttributeError, ImportError) as error:  # only of a file that is trusted
        raise ModelError(
            f"{path} holds objects whose classes are not here ({error}); put the package that defines them on Python's "
            "path, or save the state dict where it is"
        ) from error
    except Exception as error:
        raise ModelError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0].partition(". ")[0]
    return (
        f"{path} cannot be read: it is damaged or needs pickle, or is no file of weights ({type(error).__name__}: "
        f"{reason}); download or write it again"
    )


def _refusal(path: Path, what: str, loader: str) -> str:
    """Why a file that runs code is not read, and the three lines that make one that is."""
    options = {"torch.load": ", map_location='cpu', weights_only=False", "torch.jit.load": ", map_location='cpu'"}
    state_dict = "state_dict" if loader == "torch.export.load" else "state_dict()"
    target = path.with_name(f"{path.stem}.weights.pt")
    return (
        f"{path} cannot be read: it {what}, and needs pickle, which is never run; save its state dict, which holds "
        "tensors alone as .safetensors do, with these lines, or add --trust-pickle (in Python trust_pickle=True) if "
        "you trust whoever made it:\n"
        "    import torch\n"
        f"    model = {loader}({str(path)!r}{options.get(loader, '')})\n"
        f"    torch.save(model.{state_dict}, {str(target)!r})"
    )


def _state_dicts(found: Any, key: str = "", depth: int = 0) -> Iterator[Candidate]:
    """Every state dict in what a file held, its own tensors last."""
    if isinstance(found, nn.Module):  # of a file that is trusted
        found = found.state_dict()
    if not isinstance(found, Mapping) or isinstance(found, _Inert):
        return
    inside: list[Candidate] = []
    for name, value in found.items():
        if depth < _MAX_DEPTH and not _NO_WEIGHTS.search(str(name)) and isinstance(value, Mapping | nn.Module):
            inside += _state_dicts(value, f"{key}.{name}" if key else str(name), depth + 1)
    yield from inside
    own = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if own and not any(each.usual for each in inside):
        last = key.rpartition(".")[2]
        yield Candidate(key, not key or last in USUAL_KEYS, own)


def _rank(key: str) -> int:
    parts = key.split(".")
    ranks = [USUAL_KEYS.index(part) for part in parts if part in USUAL_KEYS]
    return min(ranks, default=-1 if not key else len(USUAL_KEYS))


def _keys_of(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f" but a {type(found).__name__}"
    names = ", ".join(repr(str(name)) for name in list(found)[:5])
    return f" but {names}" if names else ""
