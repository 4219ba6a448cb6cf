"""Runs an ONNX file that holds network and policy, as any program can without torch or this library."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlprune.deployment.described import costs_in_words, described
from rlprune.deployment.images import Images, as_batch, as_pictures
from rlprune.deployment.inputs import BATCH_SIZE, Pictures, batches
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.proto import short
from rlprune.deployment.onnx.resizing import check_picture
from rlprune.deployment.onnx.trial import trial, wrong_profiles
from rlprune.deployment.prediction import Prediction, predicted, predictions_of
from rlprune.errors import BundleError, RLPruneError
from rlprune.utils.finite import finite_logits
from rlprune.utils.imports import require
from rlprune.utils.process import ForkLock

if TYPE_CHECKING:
    from rlprune.deployment.onnx.file import CheckedFile


class OnnxCNN:
    """A file that `rlprune.deployment.onnx.export.save_onnx` wrote, run by onnxruntime; called like a `DynamicCNN`.

    Before onnxruntime sees the file, it is compared with the checksum in it, and with the manifest of its bundle if it
    is in one; nothing outside of it is read. Then two images run through every profile, in bounded time and memory.

    Several threads may call it at once. It can be pickled and copied, and goes on in a forked process, which should end
    as those of multiprocessing do, by `os._exit`: onnxruntime itself cannot be taken down there.

    Args:
        path: of the file.
        n_threads: threads of onnxruntime inside an operator; 0 lets onnxruntime choose.
        spin: let idle threads wait busily during a call, which makes it faster and slows down other programs.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BundleError: the file cannot be read, was altered, or was not written by `save_onnx`.

    Attributes:
        classes: class names.
        image_shape: (C, H, W) of the network's images.
        preprocessing: how pictures come to their size.
        resizes: whether the file does that itself, so that pictures of any size go in.
        limits: the lowest and the highest budget, where it can be chosen; else None.
        default_budget: the one that stands for the penalty which the file was exported at; None where there is none.
        prices: active parameters and MACs of stem, bodies, decision and dense network.
    """

    def __init__(self, path: str | Path, n_threads: int = 0, *, spin: bool = True) -> None:
        require("onnxruntime", "onnx")
        file: CheckedFile = require("rlprune.deployment.onnx.file").read(Path(path))
        trial(str(path), file)
        self.classes = tuple(file.notes.classes)
        self.preprocessing = file.preprocessing
        self.image_shape = file.image_shape
        self.resizes = file.resizes
        budgets = file.notes.budgets
        self.limits = None if budgets is None else (budgets.least, budgets.most)
        self.default_budget = None if budgets is None else budgets.default
        self.prices = file.notes.costs()
        self._ratios = torch.tensor(file.notes.keep_ratios)
        self._max_passes = file.max_passes
        self._opens = file.content, n_threads, spin
        try:
            self._open()
        except Exception as error:  # onnxruntime's own, which have no common type
            raise BundleError(f"{path} cannot be used: {short(error)}") from error

    @property
    def session(self) -> Any:
        """The session of onnxruntime in this process."""
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._start()
        return self._session

    @property
    def content(self) -> bytes:
        """What the file holds."""
        return self._opens[0]

    def _open(self) -> None:
        self._lock = ForkLock()
        self._start()

    def _start(self) -> None:
        content, n_threads, spin = self._opens
        self._session = session(content, n_threads, spin=spin)
        self._process = os.getpid()
        _running.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: all but the session, which is opened anew where it arrives."""
        return {name: value for name, value in vars(self).items() if name not in ("_session", "_process", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled or copied."""
        vars(self).update(state)
        self._open()

    def __call__(self, images: Images, *, budget: float | None = None) -> Prediction:
        """Classify a batch of any size.

        Args:
            images: a tensor or a NumPy array of pixels in [0, 255], uint8 (B, C, H, W), in any layout and on any
                device, where the file resizes of any height and width; or a PIL image, or a list of them, of any size.
            budget: mean share of the dense network's MACs that images may cost, where the file takes one.

        Raises:
            DataError: images of another shape or type, or in another container.
            BundleError: onnxruntime fails, or the file names profiles that it does not have.
            NotFiniteError: the logits are NaN or infinite.
            RLPruneError: the file takes no budget, or not this one.
        """
        chosen = self._chosen(budget)
        if not self.resizes:
            return self._run(self._batch(images), chosen)
        batches, order = self.prepared(images)
        if len(batches) == 1:
            return self._run(batches[0], chosen)
        return Prediction.joined([self._run(batch, chosen) for batch in batches]).rows(order)

    def prepared(self, images: Images) -> tuple[list[Tensor], Tensor]:
        """Check images, and make batches of them that the file can run.

        Args:
            images: as for a call.

        Returns:
            Batches uint8 (n, C, height, width), of one size each; and for each image its row among all of theirs,
            int64 (B,).

        Raises:
            DataError: images of another shape or type, or in another container.
        """
        if not self.resizes:
            batch = self._batch(images)
            return [batch], torch.arange(len(batch))
        batches, order = as_pictures(images, self.image_shape[0])
        for batch in batches:
            check_picture(self.preprocessing, self.image_shape, *batch.shape[2:])
        return batches, order

    def _batch(self, images: Images) -> Tensor:
        return as_batch(images, self.image_shape, self.preprocessing, floats=False)

    def check_budget(self, budget: float | None) -> None:
        """Make sure that a call takes a budget.

        Raises:
            RLPruneError: the file takes none, or not this one.
        """
        self._chosen(budget)

    def _chosen(self, budget: float | None) -> dict[str, Any]:
        """What is given to the file for a budget."""
        if budget is None:
            return {}
        if self.limits is None:
            raise RLPruneError(
                f"budget={budget} cannot be chosen: this file decides at one price; export one of a policy that was "
                "trained with --penalty-range"
            )
        if isinstance(budget, bool | str) or not hasattr(budget, "__float__"):
            raise RLPruneError(f"budget is a {type(budget).__name__}; give a number")
        chosen, (least, most) = np.array([float(budget)], np.float32), self.limits
        if not least <= chosen[0] <= most:
            raise RLPruneError(
                f"budget is {budget}; with this policy images can cost {least:.3f} to {most:.3f} of the dense "
                "network's MACs on average"
            )
        return {"budget": chosen}

    def _run(self, batch: Tensor, chosen: dict[str, Any]) -> Prediction:
        pixels = batch.detach().cpu().contiguous().numpy()
        try:
            logits, profiles = self.session.run(["logits", "profiles"], {"images": pixels, **chosen})
        except Exception as error:  # onnxruntime's own, which have no common type
            raise BundleError(f"onnxruntime cannot run the file on these images: {short(error)}") from error
        wrong = wrong_profiles(profiles, (len(pixels), self._max_passes), len(self._ratios))
        if wrong:
            raise BundleError(f"the ONNX file cannot be used: {wrong}")
        finite = finite_logits(torch.from_numpy(logits))
        return predicted(finite, torch.from_numpy(profiles), self._ratios, self.prices, self.classes)

    def predict(
        self,
        images: Pictures,
        *,
        budget: float | None = None,
        batch_size: int = BATCH_SIZE,
        skip_unreadable: bool = False,
    ) -> Prediction:
        """Classify pictures of any size, prepared as the network was trained, as `DynamicCNN.predict` does.

        Args:
            images: files, folders and pictures, as there; pixels are uint8, and where the file resizes pictures also.
            budget: as for a call.
            batch_size: how many pictures are in memory at a time.
            skip_unreadable: leave out files that cannot be read, and say which; otherwise they are an error.

        Returns:
            What calling it returns, with `Prediction.names`: the path of each picture.

        Raises:
            DataError: there are no pictures, or some cannot be read.
            BundleError: as for a call.
            NotFiniteError: as for a call.
            RLPruneError: as for a call.
        """
        how = {"batch_size": batch_size, "skip_unreadable": skip_unreadable}
        return Prediction.joined([*self.predictions(images, budget=budget, **how)])

    def predictions(self, images: Pictures, *, budget: float | None = None, **how: Any) -> Iterator[Prediction]:
        """What `predict` does, one batch after another, for more pictures than there is memory for.

        Args:
            images: as for `predict`.
            budget: as for `predict`.
            **how: `batch_size` and `skip_unreadable` of `predict`.
        """
        self._chosen(budget)
        prepared = batches(images, self.image_shape, self.preprocessing, floats=False, resized=not self.resizes, **how)
        return predictions_of(partial(self, budget=budget), prepared)

    def __repr__(self) -> str:
        return described(
            type(self).__name__, self.classes, self.image_shape, costs_in_words(self.prices, self._max_passes)
        )


_running: weakref.WeakSet[OnnxCNN] = weakref.WeakSet()
_of_parents: list[Any] = []
"""Sessions of the process that was forked: to end one here would wait for threads that only that process has."""


def _after_fork_in_child() -> None:
    _of_parents.extend(each._session for each in list(_running))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
