"""What is served out of a folder: which file of it, and by which program it is run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.stream import Stream
from rlprune.errors import BundleError, RLPruneError
from rlprune.storage.bundle import load
from rlprune.utils.files import read_regular, read_text

Which = Literal["dynamic", "static"]
Backend = Literal["onnxruntime", "pytorch"]
Model = DynamicCNN | OnnxCNN
_MOST_REPORT = 2**26
_MADE_BY = "name a folder that rlprune optimize or rlprune export wrote, or an .onnx file"


@dataclass(frozen=True)
class Source:
    """What is to be served.

    Attributes:
        path: an ONNX file, or a bundle.
        backend: what runs it.
        labels: the file that names the classes, if there is one beside it.
        note: why it is this one, where that was not the user's choice.
    """

    path: Path
    backend: Backend
    labels: Path | None = None
    note: str | None = None


@dataclass(frozen=True)
class Served:
    """A network that answers.

    Attributes:
        source: where it is from.
        model: what predicts.
        preprocessing: how pictures come to their size.
        stream: where the images of several callers run together; None where each call runs its own.
    """

    source: Source
    model: Model
    preprocessing: Preprocessing
    stream: Stream | None = None

    @property
    def resizes(self) -> bool:
        """Whether it scales and cuts pictures of any size itself."""
        return isinstance(self.model, OnnxCNN) and self.model.resizes

    @property
    def budgets(self) -> tuple[float, float] | None:
        """The lowest and the highest budget that a request may ask for; None where there is no choice."""
        if isinstance(self.model, OnnxCNN):
            return self.model.limits
        policy = self.model.source_policy
        return None if policy.budgets is None else policy.limits

    def predict(self, images: Sequence[Tensor], budget: float | None = None) -> Prediction:
        """Classify images.

        Args:
            images: each uint8 (1, C, H, W), or of any height and width where it resizes.
            budget: mean share of the dense network's MACs that they may cost.

        Raises:
            RLPruneError: a budget outside the range, or where there is no choice.
        """
        chosen = {} if budget is None else {"budget": self._checked(budget)}
        batches = images if self.resizes else [torch.cat(list(images))]
        if self.stream is None:
            return Prediction.joined([self.model(batch, **chosen) for batch in batches])
        futures = [self.stream.submit(batch, **chosen) for batch in batches]
        return Prediction.joined([future.result() for future in futures])

    def _checked(self, budget: float) -> float:
        """A budget, if it can be chosen."""
        if self.budgets is None:
            raise RLPruneError("this network was exported for one price; leave budget out")
        low, high = self.budgets
        if not low <= budget <= high:
            raise RLPruneError(f"budget is {budget:g}; {low:.4g} to {high:.4g} are allowed")
        return budget


def find(path: str | Path, which: Which | None = None, backend: Backend | None = None) -> Source:
    """Find what is to be served, without reading it.

    Args:
        path: a folder that `rlprune optimize` wrote or its `deploy`, a bundle, or an ONNX file.
        which: the network that decides for every image, or the static one; if None, what the folder's report advises,
            or else the former.
        backend: what runs it; if None, onnxruntime where that is installed and has a file, or else PyTorch.

    Raises:
        BundleError: there is nothing to be served, or not what is asked for.
    """
    path = Path(path)
    if path.is_file():
        if which is not None or backend == "pytorch":
            asked = f"--which {which}" if which is not None else "--backend pytorch"
            raise BundleError(f"{path} is a file that onnxruntime runs; {asked} is for folders")
        return Source(path, "onnxruntime")
    path = path / "deploy" if (path / "deploy").is_dir() else path
    if not path.is_dir():
        raise BundleError(f"there is no {path}; {_MADE_BY}")
    if (path / "manifest.json").exists():
        return _chosen(path, path, which, backend)
    if not any((path / name).exists() for name in ("dynamic.onnx", "static.onnx", "bundle")):
        raise BundleError(f"{path} holds nothing to serve; {_MADE_BY}")
    found = (which is None and backend != "pytorch" and _advised(path)) or _chosen(
        path, path / "bundle", which, backend
    )
    labels = path / "labels.txt"
    return replace(found, labels=labels) if labels.is_file() else found


def _chosen(folder: Path, bundle: Path, which: Which | None, backend: Backend | None) -> Source:
    """What a folder has of the network that is asked for: a file for onnxruntime, or the bundle for PyTorch."""
    name = f"{which or 'dynamic'}.onnx"
    file = folder / name
    if backend is None and which != "static":
        backend = "onnxruntime" if file.exists() and _has_onnxruntime() else "pytorch"
    if which == "static" and backend == "pytorch":
        raise BundleError(f"{file} is a file that onnxruntime runs; leave --backend pytorch out")
    if backend != "pytorch":
        if not file.exists():
            raise BundleError(f"{folder} has no {name}; leave --{'which' if which else 'backend'} out")
        return Source(file, "onnxruntime")
    if not (bundle / "manifest.json").exists():
        raise BundleError(f"{folder} has no bundle for PyTorch; install onnxruntime, which runs {name}")
    return Source(bundle, "pytorch")


def _has_onnxruntime() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def _advised(folder: Path) -> Source | None:
    """What the report beside a deploy folder advises; None if there is no report, or no such file in the folder."""
    report = folder.parent / "report.json"
    if not report.exists() or not _has_onnxruntime():
        return None
    try:
        said = json.loads(read_regular(report, _MOST_REPORT))
        kind, file = str(said["deploy"]), said.get("deploy_file")
    except OSError as error:
        raise BundleError(f"{report} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise BundleError(f"{report} is no report of rlprune optimize; say --which dynamic or static") from error
    path = folder / f"{kind}.onnx" if file is None else folder.parent / str(file)
    if path.suffix != ".onnx" or path.parent.resolve() != folder.resolve() or not path.is_file():
        return None
    return Source(path, "onnxruntime", note=f"{path.name} is what {report} advises")


def open_served(
    source: Source,
    n_threads: int = 0,
    prepare: Callable[[Model], Preprocessing] | None = None,
    observation: str | None = None,
) -> Served:
    """Read what is to be served, check it, and predict once with it.

    Args:
        source: what `find` found.
        n_threads: threads of the processor for one prediction; 0 takes all.
        prepare: gives how pictures are prepared; None for what is stored with the network.
        observation: as for `rlprune.load`; files of ONNX need none.

    Raises:
        BundleError: it is damaged, or its class names are not those beside it.
        DataError: its pictures come from a transform of the user's own, which is stored nowhere.
        MissingExtraError: onnxruntime is not installed.
        RLPruneError: an observation is given to a file of ONNX.
    """
    model: Model
    if source.backend == "onnxruntime":
        if observation is not None:
            raise RLPruneError(f"observation={observation} is for bundles; {source.path} has it inside")
        model = OnnxCNN(source.path, n_threads, spin=False)
    else:
        if n_threads:
            torch.set_num_threads(n_threads)
        model = load(source.path, observation=observation)
    if source.labels is not None:
        _check_labels(source.labels, model.classes)
    preprocessing = model.preprocessing if prepare is None else prepare(model)
    preprocessing.check_transform()
    served = Served(source, model, preprocessing)
    served.predict([torch.zeros(1, *model.image_shape, dtype=torch.uint8)])  # so that the first request need not wait
    return served


def line_of(name: str) -> str:
    """A class name as a file of labels has it: what would break a line becomes a space."""
    return " ".join(name.split())


def _check_labels(path: Path, classes: tuple[str, ...]) -> None:
    """Compare the class names beside a network with those in it."""
    try:
        names = tuple(read_text(path).splitlines())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as text ({error})") from error
    if names != tuple(line_of(name) for name in classes):
        raise BundleError(f"{path} names other classes than the network beside it; write both again")
