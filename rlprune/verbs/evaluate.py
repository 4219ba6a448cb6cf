"""Measure what was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rlprune import bundle, tables
from rlprune.bundle import DataFormat
from rlprune.errors import RLPruneError
from rlprune.evaluate import evaluate, evaluate_dense
from rlprune.evaluate_gated import evaluate_gated
from rlprune.files import write_json
from rlprune.options import DataOptions, PriceOptions, build_model, load_fitting


@dataclass(frozen=True)
class Evaluate:
    """Measure a bundle or a gated network beside its controls, or an ordinary network, on the test split."""

    source: tyro.conf.OmitArgPrefixes[DataOptions]
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="BUNDLE")] = None
    """Folder that `rlprune export` wrote; or `rlprune gate`."""
    model: str | None = None
    """Instead of a bundle, a network by name or package.module:callable; beside one, the network it was made from."""
    weights: Path | None = None
    """That network's weights."""
    json: Path | None = None
    """File to write the figures to."""
    n_candidates: int = 64
    """Static profiles that the search for the best one may try."""
    seed: int = 0
    """Of that search, and of the random profiles."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def run(self) -> None:
        """Do it."""
        if self.bundle is None and self.model is None:
            raise RLPruneError("nothing to evaluate: name a bundle, or a network with --model and --weights")
        if self.bundle is None:
            splits = self.source.load()
            assert self.model is not None
            results = evaluate_dense(build_model(self.model, self.weights, splits).eval(), splits.test)
        elif bundle.kind_of(self.bundle) == "gated":
            saved = bundle.load_gated(self.bundle)
            splits = load_fitting(saved.network.source[0], saved.data, saved.about, self.source)
            model = None if self.model is None else build_model(self.model, self.weights, splits).eval()
            results = evaluate_gated(saved.network, splits.test, dense=model, seed=self.seed)
        else:
            dynamic = self.price.of(bundle.load(self.bundle))
            expected = DataFormat(dynamic.mean, dynamic.std, dynamic.classes)
            splits = load_fitting(dynamic.elastic, expected, dynamic.about.get("network", {}), self.source)
            model = None if self.model is None else build_model(self.model, self.weights, splits).eval()
            results = evaluate(
                dynamic, splits.test, splits.policy, dense=model, n_candidates=self.n_candidates, seed=self.seed
            )
        Console().print(tables.gates(results) if "layers" in results else tables.evaluation(results))
        if self.json is not None:
            write_json(self.json, results)
