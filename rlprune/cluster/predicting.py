"""Predictions for millions of files: Ray Data hands parts of them to processes that each hold the network."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlprune.cluster.connection import LOCAL, Cluster, connected, hushed
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.inputs import BATCH_SIZE, batches, names_of
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.errors import ClusterError, DataError, RLPruneError
from rlprune.storage.provenance import check_ours, fingerprint, noted
from rlprune.utils.files import atomic_write, check_target_folder
from rlprune.utils.imports import require
from rlprune.utils.locks import hold
from rlprune.utils.notes import heard, say
from rlprune.utils.progress import counting_bar

Network = DynamicCNN | OnnxCNN
BATCHES_OF_A_PART = 16
"""What is computed again if a worker dies, and at most one file of the table: so many batches."""
_NOTE = "_plan.json"
"""Readers of parquet pass over names that begin so."""
_PART = re.compile(r"part-(\d{6,})\.parquet")
_Row = dict[str, Any]


@dataclass(frozen=True)
class Predicted:
    """What a folder of predictions holds.

    Attributes:
        counts: how many images are in each predicted class, by its name.
        passes: mean per image.
        macs_share: mean per image, as a share of the dense network's MACs.
        n_parts: files of the table.
        n_before: those of them that were there already.
    """

    counts: Counter[str]
    passes: float
    macs_share: float
    n_parts: int
    n_before: int


def predict_files(
    network: Network,
    files: Sequence[str | os.PathLike[str]],
    out: str | Path,
    *,
    cluster: str = LOCAL,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    skip_unreadable: bool = False,
    budget: float | None = None,
) -> Predicted:
    """Classify files with Ray, into parquet files with the columns path, class, probability, passes, macs_share.

    Labels and costs are those of `network.predict` in one process. Pictures are divided into parts of 16 batches, in
    the order of their names; each part is a file, which is there whole or not at all. What a worker that dies was at is
    done again by another one; called again, it goes on with the parts that are not there yet.

    Args:
        network: what predicts; it goes to the workers, which need no copy of its file.
        files: files and folders, as for `network.predict`; every machine must have them, under the same paths.
        out: the folder for `part-000000.parquet` and so on; this process alone writes into it.
        cluster: as for `connected`.
        workers: processes, of one processor each; if None, one for each processor that there is.
        batch_size: how many pictures a worker has in memory at a time.
        skip_unreadable: leave out files that cannot be read, and say which; otherwise nothing runs where there are any.
        budget: as the network takes it.

    Raises:
        ClusterError: Ray cannot be reached, has fewer processors than `workers`, or loses what it is given.
        DataError: there are no pictures, or some cannot be read.
        InUseError: another process writes into the folder.
        RLPruneError: the folder was begun with another network, other images or at another price, or holds others.
        WriteError: the folder may not be written, or its disk is full.
    """
    out = Path(out)
    names = names_of(files)
    check_target_folder(out)
    with hold(out, inside=True):
        check_ours(out, (out / _NOTE).exists())
        size = BATCHES_OF_A_PART * batch_size
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        note = {
            "network": _identity(network),
            "price": budget if budget is not None else getattr(network, "penalty", None),
            "preprocessing": network.preprocessing.text,
            "images": fingerprint(json.dumps(names).encode()),
            "n_images": len(names),
            "images_of_a_part": size,
        }
        with noted(out / _NOTE, note, what=str(out), cure="name another folder", made=out / _NOTE):
            before = _there(out)
            left = [number for number in range(len(parts)) if number not in before]
            if left:
                how: dict[str, Any] = {"batch_size": batch_size, "skip_unreadable": skip_unreadable}
                if budget is not None:
                    how["budget"] = budget
                with connected(cluster) as ray:
                    _predict(ray, network, {number: parts[number] for number in left}, out, workers, how)
        return _summary(out, len(parts), len(parts) - len(left))


def _identity(network: Network) -> str:
    """What tells a network from others."""
    if isinstance(network, OnnxCNN):
        return fingerprint(network.content)
    states = network.elastic.state_dict(), network.source_policy.state_dict()
    tensors = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return fingerprint(*tensors, network.codebook, json.dumps(network.classes).encode())


def _there(out: Path) -> set[int]:
    """Numbers of the parts that are done."""
    return {int(found[1]) for found in map(_PART.fullmatch, os.listdir(out)) if found}


def _path(out: Path, number: int) -> Path:
    return out / f"part-{number:06d}.parquet"


def _predict(
    cluster: Cluster,
    network: Network,
    parts: dict[int, list[str]],
    out: Path,
    workers: int | None,
    how: dict[str, Any],
) -> None:
    """Predict parts, and write each as it comes."""
    n_workers = min(workers or cluster.n_cpus, len(parts))
    if workers is not None and workers > cluster.n_cpus:
        raise ClusterError(
            f"workers={workers}: Ray at {cluster.address} has {cluster.n_cpus} processors; give that many or fewer, "
            "or add machines"
        )
    here = os.getcwd()
    rows = [{"part": number, "names": json.dumps(names).encode()} for number, names in parts.items()]
    with _quiet() as data, _lost_in_words(cluster):
        given = data.from_items(rows, override_num_blocks=len(rows))
        if not how["skip_unreadable"]:
            format_ = network.image_shape, network.preprocessing
            for row in given.map(_looked, fn_args=(here, *format_)).iter_rows():
                _check(row["error"])
        predicted = given.map_batches(
            _Worker,
            fn_constructor_args=(network, here, how),
            compute=data.ActorPoolStrategy(size=n_workers),
            batch_size=1,
            num_cpus=1,
        )
        for row in _shown(predicted.iter_rows(), len(rows)):
            _check(row["error"])
            for line in json.loads(row["said"]):
                say(line)
            with atomic_write(_path(out, int(row["part"]))) as temporary:
                temporary.write_bytes(row["content"])


def _shown(rows: Iterator[_Row], n_rows: int) -> Iterator[_Row]:
    """The same, behind a bar where there is a terminal."""
    if not sys.stderr.isatty():
        yield from rows
        return
    with closing(counting_bar(n_rows, desc="predict", unit="part")) as bar:
        for row in rows:
            yield row
            bar.update()


def _check(error: str) -> None:
    """Raise what went wrong in a worker, if anything did."""
    if error:
        raise DataError(error)


class _Worker:
    """Predicts parts, in a process of its own."""

    def __init__(self, network: Network, here: str, how: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._network, self._here, self._how = network, here, how

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Predict one part."""
        content, error = b"", ""
        with heard() as said:
            try:
                content = self._table(_names(batch["names"][0], self._here))
            except RLPruneError as reason:  # to be raised where the user is, without the traceback of this process
                error = str(reason)
        return {"part": [int(batch["part"][0])], "content": [content], "said": [json.dumps(said)], "error": [error]}

    def _table(self, names: list[str]) -> bytes:
        """The rows of some pictures, as a file of parquet."""
        pyarrow, parquet = require("pyarrow", "cluster"), require("pyarrow.parquet", "cluster")
        kinds = pyarrow.string(), pyarrow.string(), pyarrow.float64(), pyarrow.int64(), pyarrow.float64()
        columns: dict[str, list[Any]] = {name: [] for name in ("path", "class", "probability", "passes", "macs_share")}
        try:
            for predicted in self._network.predictions(names, **self._how):
                columns["path"] += map(_text, predicted.names)
                columns["class"] += predicted.classes
                columns["probability"] += predicted.confidence.tolist()
                columns["passes"] += predicted.passes.tolist()
                columns["macs_share"] += predicted.macs_share.tolist()
        except DataError:
            if not self._how["skip_unreadable"] or columns["path"]:
                raise  # otherwise there is none in this part that can be read
        file = io.BytesIO()
        schema = pyarrow.schema(list(zip(columns, kinds, strict=True)))
        parquet.write_table(pyarrow.table(columns, schema), file)
        return file.getvalue()


def _looked(row: _Row, here: str, image_shape: tuple[int, ...], preprocessing: Any) -> _Row:
    """Whether the pictures of a part can be read, as far as their first bytes tell."""
    try:
        batches(_names(row["names"], here), image_shape, preprocessing)
    except DataError as error:
        return {"error": str(error)}
    return {"error": ""}


def _names(packed: bytes, here: str) -> list[str]:
    """The names of a part; where they are relative, the folder that they are relative to becomes the current one.

    Raises:
        DataError: this machine does not have the folder.
    """
    names: list[str] = json.loads(packed)
    if not all(map(os.path.isabs, names)):
        try:
            os.chdir(here)
        except OSError as error:
            raise DataError(
                f"{here} is not on every machine of the cluster ({error.strerror}); name files that are, "
                "under the same paths"
            ) from error
    return names


def _text(name: str) -> str:
    """A path as UTF-8 can hold it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


@contextmanager
def _quiet() -> Iterator[Any]:
    """Ray Data, without its bars and lines on the screen."""
    with hushed("ray.data") as data:
        context = data.DataContext.get_current()
        before, context.enable_progress_bars = context.enable_progress_bars, False
        try:
            yield data
        finally:
            context.enable_progress_bars = before


@contextmanager
def _lost_in_words(cluster: Cluster) -> Iterator[None]:
    """Say in one line what Ray has lost, or has no room for."""
    errors = cluster.ray.exceptions
    full = errors.ObjectStoreFullError, errors.OutOfDiskError
    try:
        yield
    except full as error:
        raise ClusterError(
            "Ray's object store is full, and so is the disk that it makes room on; give `ray start` a larger "
            "--object-store-memory or a --object-spilling-directory with room: what is written stays"
        ) from error
    except errors.RayError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterError(
            f"Ray at {cluster.address} failed ({reason[-1]}); run it again: what is written stays"
        ) from error


def _summary(out: Path, n_parts: int, n_before: int) -> Predicted:
    """What all parts say together."""
    parquet = require("pyarrow.parquet", "cluster")
    counts: Counter[str] = Counter()
    passes, shares = 0, 0.0
    for number in range(n_parts):
        columns = ("class", "passes", "macs_share")
        table = parquet.ParquetFile(_path(out, number)).read(columns).to_pydict()
        counts.update(table["class"])
        passes += sum(table["passes"])
        shares += sum(table["macs_share"])
    n_images = counts.total()
    if not n_images:
        raise DataError(f"none of the images can be read; {out} has no rows")
    return Predicted(counts, passes / n_images, shares / n_images, n_parts, n_before)
