"""Show how a network can be pruned."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import tyro
from rich.console import Console

from rlprune.evaluation import tables
from rlprune.intake.options import ElasticOptions
from rlprune.models import registry
from rlprune.utils.settings import AtMost, Pixels, PositiveInt, settings_dataclass


@settings_dataclass
class Inspect:
    """Show the channel groups of a network: channels, parameters, MACs, skippable, or why not prunable."""

    model: str
    """A name such as resnet20, timm:efficientnet_b0 or torchvision:resnet18; or package.module:callable returning an
    nn.Module."""
    image_shape: tuple[Pixels, Pixels, Pixels] = (3, 32, 32)
    """Channels, height and width of its images."""
    n_classes: Annotated[PositiveInt, AtMost(100_000)] = 10
    """Classes of a network built by name."""
    elastic: tyro.conf.OmitArgPrefixes[ElasticOptions] = field(default_factory=ElasticOptions)

    def run(self) -> None:
        """Do it."""
        model = registry.build(self.model, self.n_classes, self.image_shape[0])
        network = self.elastic.build(model, self.image_shape)
        console = Console()
        console.print(*tables.groups(network))
        console.print(tables.savings(network), markup=False)
