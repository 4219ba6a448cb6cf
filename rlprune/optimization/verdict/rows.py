"""The rows of the verdict: each network in the form in which it would be deployed, run, answered by, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.static import to_static_onnx
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.optimization.goal import Backend
from rlprune.optimization.verdict.figures import Answers, Times
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.utils.imports import require
from rlprune.utils.progress import counting_bar
from rlprune.utils.timing import Turns, interleaved

N_CALIBRATION = 256
"""Images that eight-bit integers are calibrated on, at most."""
_PER_TURN = 32
"""Images that a row runs in each of its turns, at least, where there is time: what a deciding network takes differs
from image to image."""
_N_ROUNDS = 6
"""In which all rows run at least: one to begin with, and five that count."""
OPTIONAL = ("dense int8", "static int8", "cascade", "rlprune int8")
"""Rows that are left out where there is no time for them."""
NO_TIME = "the time limit left no time for it"


@dataclass(frozen=True, eq=False)
class Runnable:
    """A network in the form in which it would be deployed.

    Attributes:
        name: of its row.
        backend: `pytorch` or `onnxruntime`.
        run: pixels uint8 (B, C, H, W) -> labels int64 (B,), and MACs int64 (B,).
        content: of its ONNX file, if that is its form.
    """

    name: str
    backend: str
    run: Callable[[Tensor], tuple[Tensor, Tensor]]
    content: bytes | None = None

    def answers(self, images: ImageSet, dense_macs: int) -> Answers:
        """What it answers to images, one batch after the other."""
        with counting_bar(len(images), desc=self.name, unit="image") as progress:
            parts = []
            for pixels in images.pixels(images.at_once):
                parts.append(self.run(pixels))
                progress.update(len(pixels))
        labels, macs = (torch.cat(each) for each in zip(*parts, strict=True))
        return Answers(labels, macs.double() / dense_macs)


class Runnables:
    """Prepares networks as rows.

    Args:
        elastic: the network as it is, made elastic; nothing of it has been trained.
        images: those that train the network: their format, and some of them to calibrate on.
        backend: what deciding and small networks run on; the network as it is runs on both.
        affords: whether there is time for so many seconds more; what can be left out is, where there is not.
        clock: seconds, from any moment on.
    """

    def __init__(
        self,
        elastic: ElasticCNN,
        images: ImageSet,
        backend: Backend,
        affords: Callable[[float], bool] = lambda _: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._elastic = elastic
        self._images = images
        self._backend = backend
        self._affords = affords
        self._clock = clock
        self._longest = 0.0
        self._whole = Cost(elastic).dense
        self._calibration = images.images[:N_CALIBRATION]
        self.left_out: dict[str, str] = {}

    def dense(self, model: nn.Module) -> dict[str, Runnable]:
        """The network as it is: eager, folded for PyTorch, in onnxruntime, and there in eight-bit integers."""
        network = self._elastic.slice(self._elastic.full)
        whole = self._whole
        runs = {"dense": lambda: self._eager(model)}
        if self._backend == "pytorch":
            runs["dense folded"] = lambda: self._folded("dense folded", network, whole)
        runs["dense onnxruntime"] = lambda: self._static_file("dense onnxruntime", network, whole)
        if self._backend == "onnxruntime":
            runs["dense int8"] = lambda: self._static_file("dense int8", network, whole, int8=True)
        return self._made(runs)

    def affords_more(self) -> bool:
        """Whether there is time for one more network, if that takes as long as the longest so far."""
        return self._affords(self._longest)

    def static(self, network: nn.Sequential, cost: ComputeCost) -> dict[str, Runnable]:
        """One small network for all images.

        Args:
            network: normalised images -> logits.
            cost: of an image.
        """
        if self._backend == "pytorch":
            return self._made({"static": lambda: self._folded("static", network, cost)})
        return self._made(
            {
                "static": lambda: self._static_file("static", network, cost),
                "static int8": lambda: self._static_file("static int8", network, cost, int8=True),
            }
        )

    def slices(self, elastic: ElasticCNN, codebook: Tensor) -> dict[str, Runnable]:
        """The slice of each profile, by its number: in the form of a small network, or folded where one cannot be made.

        Args:
            elastic: what is sliced.
            codebook: the profiles, int64 (K, G).
        """
        costs = zip(*Cost(elastic).of(codebook), strict=True)
        slices = {
            str(number): (elastic.slice(profile), ComputeCost(*cost))
            for number, (profile, cost) in enumerate(zip(codebook, costs, strict=True))
        }
        if self._backend == "onnxruntime":
            try:
                return {name: self._static_file(name, *each) for name, each in slices.items()}
            except RLPruneError:
                pass
        return {name: self._folded(name, *each) for name, each in slices.items()}

    def deciding(self, name: str, dynamic: DynamicCNN, *, int8: bool = False) -> dict[str, Runnable]:
        """A network that decides per image.

        Args:
            name: `cascade` or `rlprune`.
            dynamic: it.
            int8: make a row in eight-bit integers, too, where the backend has them.
        """
        if self._backend == "pytorch":
            return self._made({name: lambda: Runnable(name, "pytorch", _predicting(dynamic))})
        makers = {name: lambda: _of_file(name, to_onnx(dynamic))}
        if int8:
            makers[f"{name} int8"] = lambda: _of_file(f"{name} int8", to_onnx(dynamic, self._calibration))
        return self._made(makers)

    def _made(self, makers: Mapping[str, Callable[[], Runnable]]) -> dict[str, Runnable]:
        """Those that can be made; of the others the reason is kept."""
        made: dict[str, Runnable] = {}
        for name, make in makers.items():
            if name in OPTIONAL and not self.affords_more():
                self.left_out[name] = NO_TIME
                continue
            begun = self._clock()
            try:
                made[name] = make()
                self.left_out.pop(name, None)  # it was tried before, and there is time now
                self._longest = max(self._longest, self._clock() - begun)
            except RLPruneError as error:
                self.left_out[name] = str(error)
        return made

    def _static_file(self, name: str, network: nn.Sequential, cost: ComputeCost, *, int8: bool = False) -> Runnable:
        calibration = self._calibration if int8 else None
        shape = self._elastic.image_shape
        content = to_static_onnx(
            network, self._images, cost, image_shape=shape, dense=self._whole, calibration=calibration
        )
        return _of_file(name, content)

    def _eager(self, model: nn.Module) -> Runnable:
        return Runnable("dense", "pytorch", _classifying(model, self._images, self._whole, channels_last=False))

    def _folded(self, name: str, network: nn.Sequential, cost: ComputeCost) -> Runnable:
        folded = optimize_for_inference(network)
        return Runnable(name, "pytorch", _classifying(folded, self._images, cost, channels_last=True))


def _classifying(
    network: nn.Module, images: ImageSet, cost: ComputeCost, *, channels_last: bool
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    layout = torch.channels_last if channels_last else torch.contiguous_format

    @torch.inference_mode()
    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images.normalise(pixels).contiguous(memory_format=layout))
        return logits.argmax(1), torch.full((len(pixels),), int(cost.macs))

    return run


def _predicting(dynamic: DynamicCNN) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        predicted = dynamic(pixels)
        return predicted.labels, predicted.macs

    return run


def _of_file(name: str, content: bytes) -> Runnable:
    """An ONNX file run by onnxruntime, whose threads do not wait busily after a call, so that rows can take turns."""
    require("onnxruntime", "onnx")
    opened = session(content, torch.get_num_threads(), spin=True)

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        labels, macs = opened.run(["label", "macs"], {"images": pixels.numpy()})
        return torch.from_numpy(np.asarray(labels)), torch.from_numpy(np.asarray(macs))

    return Runnable(name, "onnxruntime", run, content)


def time_rows(rows: Mapping[str, Runnable], images: ImageSet, batch: int, seconds: float) -> dict[str, Times]:
    """Time rows in turns on the same images.

    Args:
        rows: by name.
        images: real ones; where there are fewer than a batch, some come again.
        batch: images at once.
        seconds: for all rows together.
    """
    n = max(batch, len(images) // batch * batch)
    pixels = images.images[torch.arange(n) % len(images)]
    for row in rows.values():
        row.run(pixels[:batch])  # the first time takes longer
    begun = time.perf_counter()
    for row in rows.values():
        row.run(pixels[:batch])
    per_batch = max(time.perf_counter() - begun, 1e-9)
    n_batches = max(1, min(-(-_PER_TURN // batch), int(seconds / (_N_ROUNDS * per_batch)) - 1))
    turns = {name: Turns(row.run, pixels, batch, n_batches) for name, row in rows.items()}
    found = {}
    warm = {name: turn.warm for name, turn in turns.items()}
    for name, all_ms in interleaved(turns, seconds, warm=warm).items():
        low, middle, high = quantiles([ms / n_batches for ms in all_ms], n=4)
        found[name] = Times(middle, low, high)
    return found
