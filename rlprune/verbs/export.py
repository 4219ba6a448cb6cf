"""Pack network and policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from rlprune import bundle
from rlprune.errors import RLPruneError
from rlprune.onnx import to_onnx
from rlprune.options import PriceOptions
from rlprune.runtime import DynamicCNN


@dataclass(frozen=True)
class Export:
    """Put network and policy into one bundle that needs neither pickle nor the learning library."""

    network: Path
    """Folder that `rlprune adapt` wrote."""
    policy: Path
    """Folder that `rlprune train` wrote, the policy/ in it, or a bundle."""
    out: Path
    """Bundle to write."""
    onnx: bool = False
    """Also put dynamic.onnx into it: preprocessing, policy and all profiles in one file for onnxruntime. It decides at
    one price only, which --budget or --penalty name where the policy knows a range."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def run(self) -> None:
        """Do it."""
        if self.price.given and not self.onnx:
            raise RLPruneError("--budget and --penalty are for --onnx; a bundle takes any, from call to call")
        inner = self.policy / "policy"
        policy, network = (
            bundle.load_policy(inner if inner.is_dir() else self.policy),
            bundle.load_network(self.network),
        )
        notes = policy.about.get("policy", policy.about)  # a bundle keeps those of its policy beside others
        settings = notes.get("settings", {})
        about = {
            "network": network.about.get("network", network.about),
            "policy": notes,
            "penalty": settings.get("penalty_range") or settings.get("penalty"),
            "metrics": notes.get("validation"),
        }
        more = {}
        if self.onnx:
            look = network.data
            dynamic = DynamicCNN(network.network, policy.policy, look.mean, look.std, look.classes)
            more["dynamic.onnx"] = to_onnx(self.price.of(dynamic))
        bundle.save_bundle(self.out, network.network, policy.policy, network.data, about, more)
        print(f"the bundle is in {self.out}; in Python: rlprune.load({str(self.out)!r})")
