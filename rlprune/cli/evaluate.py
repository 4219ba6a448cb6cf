"""Measure what was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rlprune.baselines import stored
from rlprune.cli import static_folders
from rlprune.cli.options import Device, NetworkOptions, PriceOptions
from rlprune.data.image_set import ImageSet, Splits
from rlprune.errors import RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.dynamic import evaluate, evaluate_alone
from rlprune.evaluation.gated import evaluate_gated
from rlprune.evaluation.static import evaluate_dense, evaluate_static, static_points
from rlprune.intake.fitting import load_fitting
from rlprune.intake.notes import say_kept, say_refitted
from rlprune.intake.options import DataOptions
from rlprune.intake.preparation import load_for
from rlprune.pipelines.inputs import build_model
from rlprune.profiles.search import check_candidates
from rlprune.storage import bundle, folders
from rlprune.storage.data_format import DataFormat
from rlprune.training.parallel.group import current
from rlprune.utils.files import write_json
from rlprune.utils.json_codec import JsonResult
from rlprune.utils.locks import hold_file
from rlprune.utils.settings import NCandidates, Seed, settings_dataclass


@settings_dataclass
class Evaluate:
    """Measure what was made, a bundle or a gated network beside its controls, or an ordinary one, on the test split.

    Several processes that torchrun starts share the images.
    """

    source: tyro.conf.OmitArgPrefixes[DataOptions]
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="BUNDLE")] = None
    """Folder that `rlprune export` or `rlprune optimize` wrote; or `rlprune gate`, or `rlprune prune`."""
    model: str | None = None
    """Instead of a bundle, a network by name, such as timm:resnet18, or package.module:callable; beside one, the
    network it was made from."""
    weights: Path | None = None
    """That network's weights; those that come with it, if it is one of timm or torchvision and none are given."""
    trust_pickle: bool = False
    """Read them from a file that holds whole objects or TorchScript, too, which runs code in it."""
    json: Path | None = None
    """File to write the figures to."""
    controls: bool = True
    """Measure the controls, too, which takes most of the time; --no-controls gives the bundle's own figures."""
    static: tuple[Path, ...] = ()
    """Folders of networks that were each pruned for all images and trained, as `rlprune prune` writes them: they are
    measured, too, and what mixtures of two reach at the bundle's cost is the control static_trained."""
    n_candidates: NCandidates = 64
    """Static profiles that the search for the best one may try."""
    seed: Seed = 0
    """Of that search, and of the random profiles."""
    device: Device = "cpu"
    """Where the networks run, such as cpu or cuda."""
    observation: str | None = None
    """Only for a policy with an observation of your own: its package.module:Class, whose code is then run."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def _conflicts(self) -> Iterator[str]:
        if self.model is None and (self.weights is not None or self.trust_pickle):
            option = "--trust-pickle" if self.weights is None else f"--weights={self.weights}"
            yield f"{option} is for the network that --model names; name one, or leave it out"
        if self.bundle is None and self.observation is not None:
            yield f"observation={self.observation} is for a bundle; name one, or leave it out"
        static = " ".join(map(str, self.static))
        if self.static and self.bundle is None:
            yield f"static={static} is for a bundle; name one, or leave it out"
        if self.static and not self.controls:
            yield f"static={static} is for controls, which --no-controls leaves out; give only one"
        if not self.controls and self.n_candidates != 64:
            yield f"n_candidates={self.n_candidates} is for controls, which --no-controls leaves out; give only one"

    def run(self) -> None:
        """Do it."""
        if self.bundle is None and self.model is None:
            raise RLPruneError("nothing to evaluate: name a bundle, or a network with --model and --weights")
        group = current()
        with group.first(hold_file(self.json)):
            if self.model is not None:
                NetworkOptions(self.model, self.weights, self.trust_pickle).check_weights()
            results, table = self._measured(None if self.bundle is None else folders.kind_of(self.bundle))
            if self.json is not None and group.leads:
                write_json(self.json, results.to_json())
        Console().print(table)

    def _measured(self, kind: str | None) -> tuple[JsonResult, Table]:
        """Figures of what a folder of that kind holds, or of an ordinary network, and their table."""
        if self.bundle is None:
            return self._measured_dense()
        if kind in ("gated", "plain") and self.price.given:
            raise RLPruneError(f"--budget and --penalty are for bundles; {self.bundle} holds a {kind} network")
        if kind in ("gated", "plain") and self.observation is not None:
            raise RLPruneError(f"--observation is for bundles; {self.bundle} holds a {kind} network")
        if kind in ("gated", "plain") and self.static:
            raise RLPruneError(f"--static is for bundles; {self.bundle} holds a {kind} network")
        if kind == "gated":
            return self._measured_gated(self.bundle)
        if kind == "plain":
            return self._measured_static(self.bundle)
        return self._measured_dynamic(self.bundle)

    def _measured_dense(self) -> tuple[JsonResult, Table]:
        assert self.model is not None
        splits = load_for(self.model, self.source, self.weights, trained=True)
        model = build_model(self.model, self.weights, splits, trust_pickle=self.trust_pickle).eval()
        results = evaluate_dense(model.to(self.device), splits.test, self.device)
        return results, tables.evaluation(results)

    def _measured_gated(self, folder: Path) -> tuple[JsonResult, Table]:
        gated = stored.load_gated(folder)
        splits = load_fitting(gated.network.source[0].image_shape, gated.data, gated.metadata, self.source)
        network = gated.network.to(self.device)
        dense = self._original(splits)
        results = evaluate_gated(network, splits.test, dense=dense, seed=self.seed, controls=self.controls)
        return results, tables.gates(results)

    def _measured_static(self, folder: Path) -> tuple[JsonResult, Table]:
        plain = stored.load_plain(folder)
        splits = load_fitting(plain.image_shape, plain.data, plain.metadata, self.source)
        results = evaluate_static(plain.network, splits.test, plain.metadata, self._original(splits), self.device)
        return results, tables.static(results)

    def _measured_dynamic(self, folder: Path) -> tuple[JsonResult, Table]:
        dynamic = self.price.of(bundle.load(folder, self.device, observation=self.observation))
        if self.controls:
            check_candidates(dynamic.elastic, self.n_candidates)
        expected = DataFormat.of(dynamic)
        splits = load_fitting(dynamic.image_shape, expected, dynamic.metadata, self.source)
        dense = self._original(splits)
        if not self.controls:
            alone = evaluate_alone(dynamic, splits.test, dense=dense)
            return alone, tables.evaluation(alone)
        say_refitted(dynamic.metadata)
        say_kept(dynamic.metadata)
        dense_macs = int(dynamic.prices.dense.macs)
        results = evaluate(
            dynamic,
            splits.test,
            splits.policy,
            dense=dense,
            n_candidates=self.n_candidates,
            seed=self.seed,
            static_trained=[self._static_point(folder, splits.test, dense_macs) for folder in self.static],
        )
        return results, tables.evaluation(results)

    def _static_point(self, folder: Path, test: ImageSet, dense_macs: int) -> tuple[float, float]:
        """Cost and accuracy of a network that was pruned for all images, on the bundle's test images.

        Raises:
            RLPruneError: it is for other images, or learnt from some of these.
        """
        plain = stored.load_plain(folder)
        own = static_folders.test_images(folder, plain, test, self.source)
        (point,) = static_points([plain.network], own, dense_macs, self.device)
        return point

    def _original(self, splits: Splits) -> Callable[[Tensor], Tensor] | None:
        """The network that it was made from, if that is named; it takes images on the CPU."""
        if self.model is None:
            return None
        model = build_model(self.model, self.weights, splits, trust_pickle=self.trust_pickle).eval().to(self.device)
        return lambda images: model(images.to(self.device))
