"""Make a network elastic."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro

from rlprune import bundle
from rlprune.adapt import AdaptSettings, adapt
from rlprune.errors import ModelError
from rlprune.options import DataOptions, ElasticOptions, build_model
from rlprune.pretrain import accuracy
from rlprune.verbs.resumable import resumable


@dataclass(frozen=True)
class Adapt:
    """Make a pretrained network elastic and fine-tune it, so that its slices stay accurate."""

    model: str
    """A name such as resnet20, or package.module:callable returning an nn.Module."""
    out: Path
    """Folder to write. Events for TensorBoard go beside it, into logs/."""
    source: tyro.conf.OmitArgPrefixes[DataOptions]
    weights: Path | None = None
    """The network's weights, safetensors or a state dict; not needed if the callable loads its own."""
    resume: bool = False
    """Go on with an interrupted run."""
    elastic: tyro.conf.OmitArgPrefixes[ElasticOptions] = field(default_factory=ElasticOptions)
    settings: tyro.conf.OmitArgPrefixes[AdaptSettings] = field(default_factory=AdaptSettings)

    def run(self) -> None:
        """Do it."""
        if self.weights is None and ":" not in self.model:
            raise ModelError(
                f"--weights is missing: {self.model} alone has random weights; `rlprune pretrain` makes some"
            )
        bundle.check_target(self.out, "network")
        splits = self.source.load()
        model = build_model(self.model, self.weights, splits)
        print(f"validation accuracy before: {accuracy(model.eval(), splits.validation):.4f}")
        network = self.elastic.build(model, tuple(splits.network.images.shape[1:]))
        about = {"model": self.model, "source": asdict(self.source)}
        with resumable(self.out, "adapt", resume=self.resume) as kept:
            adapt(network, splits.network, self.settings, **kept)
            bundle.save_network(self.out, network.cpu(), splits.network, about)
        for level in range(network.narrowest, network.n_levels):
            share = accuracy(network.slice(network.uniform(level)), splits.validation)
            print(f"validation accuracy at keep ratio {network.keep_ratios[level]:g}: {share:.4f}")
        print(f"the elastic network is in {self.out}")
