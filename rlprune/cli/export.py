"""Pack network and policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from rlprune.cli.options import PriceOptions
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx_export import to_onnx
from rlprune.errors import RLPruneError
from rlprune.pipelines.inputs import load_fitting
from rlprune.pipelines.options import DataOptions
from rlprune.storage import bundle, networks
from rlprune.storage.policies import load_policy

N_CALIBRATION = 512
"""Images that int8 is calibrated on, at most."""


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
    int8: bool = False
    """Also put dynamic.int8.onnx into it: the same file with all profiles in eight-bit integers, a quarter of the size,
    calibrated on images of --data."""
    data: str | None = None
    """What the network was adapted to, for --int8: images that train the network calibrate, none that test."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def run(self) -> None:
        """Do it."""
        if self.price.given and not (self.onnx or self.int8):
            raise RLPruneError("--budget and --penalty are for files of ONNX; a bundle takes any, from call to call")
        if self.data is not None and not self.int8:
            raise RLPruneError("--data is for --int8, whose calibration images it names")
        if self.int8 and self.data is None:
            raise RLPruneError("--int8 needs images to calibrate on: name what the network was adapted to with --data")
        inner = self.policy / "policy"
        policy, network = (
            load_policy(inner if inner.is_dir() else self.policy),
            networks.load_network(self.network),
        )
        notes = policy.metadata.get("policy", policy.metadata)  # a bundle keeps those of its policy beside others
        settings = notes.get("settings", {})
        metadata = {
            "network": network.metadata.get("network", network.metadata),
            "policy": notes,
            "penalty": settings.get("penalty_range") or settings.get("penalty"),
            "metrics": notes.get("validation"),
        }
        more = {}
        if self.onnx or self.int8:
            image_format = network.data
            dynamic = DynamicCNN(
                network.network, policy.policy, image_format.mean, image_format.std, image_format.classes
            )
            priced = self.price.of(dynamic)
            if self.onnx:
                more["dynamic.onnx"] = to_onnx(priced)
            if self.data is not None and self.int8:
                before = metadata["network"].get("source", {})
                same = before.get("data") == self.data
                options = DataOptions(**before | {"shares": None}) if same else DataOptions(self.data)
                splits = load_fitting(network.network.image_shape, image_format, metadata["network"], options)
                more["dynamic.int8.onnx"] = to_onnx(priced, splits.network.images[:N_CALIBRATION])
        bundle.save_bundle(self.out, network.network, policy.policy, network.data, metadata, more)
        print(f"the bundle is in {self.out}; in Python: rlprune.load({str(self.out)!r})")
