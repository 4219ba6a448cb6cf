"""Pack network and policy."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from rlprune.cli.options import PriceOptions
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.resizing import check_resizable
from rlprune.errors import BundleError, RLPruneError
from rlprune.pipelines.identity import same_source
from rlprune.pipelines.inputs import load_fitting, network_notes
from rlprune.pipelines.options import DataOptions
from rlprune.serving.triton import NAME, check_triton, save_triton
from rlprune.storage import bundle, folders, networks
from rlprune.storage.policies import SavedPolicy, load_policy
from rlprune.utils.files import check_room, temporaries_beside
from rlprune.utils.locks import hold

_HOW_DATA_IS_READ = ("image_size", "image_column", "label_column", "split_seed", "test_split")
"""What the notes on a network may say of the data that the user names: nothing that is imported or opened."""
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
    """Also put dynamic.onnx into it: preprocessing, policy and all profiles in one file for onnxruntime. Where the
    policy knows a range of penalties, it takes a budget; --budget or --penalty name what it decides at without one."""
    int8: bool = False
    """Also put dynamic.int8.onnx into it: the same file with all profiles in eight-bit integers, a quarter of the size,
    calibrated on images of --data."""
    resize: bool = False
    """Let pictures of any size go into the files of --onnx and --int8, which scale and cut them as the network's
    preprocessing says."""
    triton: Path | None = None
    """Also write dynamic.onnx, which --onnx puts into the bundle, as a model of the Triton Inference Server into this
    folder of models, with its configuration and class names. Other models of the folder stay."""
    triton_name: str = NAME
    """What the model is called there."""
    data: str | None = None
    """What the network was adapted to, for --int8: images that train the network calibrate, none that test."""
    preprocess: str | None = None
    """How its pictures are prepared, for --int8; needed only where that is a transform of your own."""
    observation: str | None = None
    """Only for a policy with an observation of your own: its package.module:Class, whose code is then run."""
    price: tyro.conf.OmitArgPrefixes[PriceOptions] = field(default_factory=PriceOptions)

    def run(self) -> None:
        """Do it."""
        self._check_options()
        with hold(self.out):
            folders.check_target(self.out, "bundle")
            self._write()
        own = "" if self.observation is None else f", observation={self.observation!r}"
        print(f"the bundle is in {self.out}; in Python: rlprune.load({str(self.out)!r}{own})")
        if self.triton is not None:
            print(f"the model for Triton is in {self.triton / self.triton_name}")

    def _write(self) -> None:
        """Write the bundle, which is held meanwhile."""
        folder = self.policy / "policy"
        policy = load_policy(folder if folder.is_dir() else self.policy, self.observation)
        network = networks.load_network(self.network)
        n_copies = 1 + self.onnx + self.int8
        check_room(self.out, n_copies * sum(value.nbytes for value in network.network.state_dict().values()))
        if self.resize:
            check_resizable(network.data.preprocessing)
        metadata = _metadata_of(network, policy)
        files = self._onnx_files(network, policy) if self.onnx or self.int8 else {}
        bundle.save_bundle(self.out, network.network, policy.policy, network.data, metadata, files)
        if self.triton is not None:
            save_triton(self.triton, files["dynamic.onnx"], self.triton_name)

    def _check_options(self) -> None:
        if self.triton is not None:
            if not self.onnx:
                raise RLPruneError("--triton is for the file that --onnx makes; give --onnx, too")
            check_triton(self.triton, self.triton_name)
        elif self.triton_name != NAME:
            raise RLPruneError("--triton-name is for --triton, whose model it names")
        if self.price.given and not (self.onnx or self.int8):
            raise RLPruneError("--budget and --penalty are for files of ONNX; a bundle takes any, from call to call")
        if self.resize and not (self.onnx or self.int8):
            raise RLPruneError("--resize is for files of ONNX; add --onnx or --int8")
        if self.data is not None and not self.int8:
            raise RLPruneError("--data is for --int8, whose calibration images it names")
        if self.preprocess is not None and not self.int8:
            raise RLPruneError("--preprocess is for --int8, whose calibration images it prepares")
        if self.int8 and self.data is None:
            raise RLPruneError("--int8 needs images to calibrate on: name what the network was adapted to with --data")

    def _onnx_files(self, network: networks.SavedNetwork, policy: SavedPolicy) -> dict[str, bytes]:
        """The files to put into the bundle, by name."""
        dynamic = DynamicCNN.for_images(network.network, policy.policy, network.data)
        priced = self.price.of(dynamic)
        files = {}
        if self.onnx:
            files["dynamic.onnx"] = to_onnx(priced, resize=self.resize)
        if self.int8:
            images = self._calibration_images(network)
            with temporaries_beside(self.out):  # those of onnxruntime, which quantises
                files["dynamic.int8.onnx"] = to_onnx(priced, images, resize=self.resize)
        return files

    def _calibration_images(self, network: networks.SavedNetwork) -> Tensor:
        """Some of the images that train the network, uint8 (N, C, H, W), split as it was trained."""
        assert self.data is not None
        made_of = network_notes(network.metadata)
        source = made_of.get("source") or {}
        same_data = same_source(source.get("data"), self.data)
        noted = {name: source[name] for name in _HOW_DATA_IS_READ if name in source} if same_data else {}
        options = DataOptions(**noted, data=self.data, preprocess=self.preprocess)
        splits = load_fitting(network.network.image_shape, network.data, made_of, options)
        return splits.network.images[:N_CALIBRATION]


def _metadata_of(network: networks.SavedNetwork, policy: SavedPolicy) -> dict[str, Any]:
    """The notes of the new bundle."""
    notes = policy.metadata.get("policy", policy.metadata)  # a bundle keeps those of its policy next to others
    if not isinstance(notes, dict):
        raise BundleError(f"the stored notes are malformed: policy is {reprlib.repr(notes)}; an object is needed")
    settings = notes.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    made_of = network_notes(network.metadata)
    split = made_of.pop("split")
    return {
        "network": made_of,
        **({"split": split} if split else {}),
        "policy": notes,
        "penalty": settings.get("penalty_range") or settings.get("penalty"),
        "metrics": notes.get("validation"),
    }
