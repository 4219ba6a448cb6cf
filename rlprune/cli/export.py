"""Pack network and policy."""

from __future__ import annotations

import reprlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import tyro
from torch import Tensor

from rlprune.cli.options import PriceOptions
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.resizing import check_resizable
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, RLPruneError
from rlprune.intake.fitting import load_fitting
from rlprune.intake.notes import how_read, network_notes
from rlprune.intake.options import DataOptions
from rlprune.serving.triton import NAME, check_triton, save_triton
from rlprune.storage import bundle, folders, networks
from rlprune.storage.data_format import DataFormat
from rlprune.storage.policies import SavedPolicy, load_policy
from rlprune.utils.files import check_room, temporaries_beside
from rlprune.utils.locks import hold

N_CALIBRATION = 512
"""Images that int8 is calibrated on, at most."""


@dataclass(frozen=True, eq=False)
class _Parts:
    """What is packed.

    Attributes:
        dynamic: network and policy, at the price that is stored with them, if one is.
        data: what they expect of images.
        metadata: notes of the new bundle.
    """

    dynamic: DynamicCNN
    data: DataFormat
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Export:
    """Put network and policy into one bundle that needs neither pickle nor the learning library."""

    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="BUNDLE")] = None
    """Instead of --network and --policy what has both: a bundle, or a folder with one in it, such as rlprune optimize
    writes."""
    network: Path | None = None
    """Folder that `rlprune adapt` wrote."""
    policy: Path | None = None
    """Folder that `rlprune train` wrote, the policy/ in it, or a bundle."""
    out: Path | None = None
    """Bundle to write. May be left out where a BUNDLE is only to become a model for --triton."""
    onnx: bool = False
    """Also put dynamic.onnx into it: preprocessing, policy and all profiles in one file for onnxruntime. Where the
    policy knows a range of penalties, it takes a budget; --budget or --penalty name what it decides at without one."""
    int8: bool = False
    """Also put dynamic.int8.onnx into it: the same file with stem and profiles in eight-bit integers, a quarter of
    the size, calibrated on images of --data."""
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
        self._check_sources()
        self._check_options()
        with nullcontext() if self.out is None else hold(self.out):
            if self.out is not None:
                folders.check_target(self.out, "bundle")
            self._write(self._parts())
        if self.out is not None:
            own = "" if self.observation is None else f", observation={self.observation!r}"
            print(f"the bundle is in {self.out}; in Python: rlprune.load({str(self.out)!r}{own})")
        if self.triton is not None:
            print(f"the model for Triton is in {self.triton / self.triton_name}")

    def _parts(self) -> _Parts:
        """What is packed."""
        if self.bundle is not None:
            found = bundle.load(self.bundle, observation=self.observation)
            return _Parts(found, DataFormat.of(found), found.metadata)
        assert self.network is not None and self.policy is not None
        folder = self.policy / "policy"
        policy = load_policy(folder if folder.is_dir() else self.policy, self.observation)
        network = networks.load_network(self.network)
        dynamic = DynamicCNN.for_images(network.network, policy.policy, network.data)
        return _Parts(dynamic, network.data, _metadata_of(network, policy))

    def _write(self, parts: _Parts) -> None:
        """Write the bundle, which is held meanwhile."""
        size = sum(value.nbytes for value in parts.dynamic.elastic.state_dict().values())
        if self.out is not None:
            check_room(self.out, (1 + self.onnx + self.int8) * size)
        if self.resize:
            check_resizable(parts.data.preprocessing)
        files = self._onnx_files(parts) if self.onnx or self.int8 else {}
        if self.out is not None:
            elastic = cast(ElasticCNN, parts.dynamic.elastic)
            bundle.save_bundle(self.out, elastic, parts.dynamic.source_policy, parts.data, parts.metadata, files)
        if self.triton is not None:
            save_triton(self.triton, files["dynamic.onnx"], self.triton_name)

    def _check_sources(self) -> None:
        """Make sure that what is packed is named once, and where it goes."""
        both = {"--network": self.network, "--policy": self.policy}
        given = [name for name, value in both.items() if value is not None]
        if self.bundle is not None and given:
            raise RLPruneError(f"the bundle {self.bundle} holds both: leave {' and '.join(given)} out")
        if self.bundle is None and len(given) < 2:
            missing = " and ".join(name for name in both if name not in given)
            raise RLPruneError(f"nothing to pack: {missing} {'are' if not given else 'is'} missing; or name a bundle")
        if self.out is None and (self.bundle is None or self.triton is None):
            raise RLPruneError("--out is missing: name the bundle to write")
        if self.out is None and self.int8:
            raise RLPruneError("--int8 puts a file into a bundle; name that with --out")

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

    def _onnx_files(self, parts: _Parts) -> dict[str, bytes]:
        """The files to put into the bundle, by name."""
        priced = self.price.of(parts.dynamic)
        files = {}
        if self.onnx:
            files["dynamic.onnx"] = to_onnx(priced, resize=self.resize)
        if self.int8:
            images = self._calibration_images(parts)
            assert self.out is not None
            with temporaries_beside(self.out):  # those of onnxruntime, which quantises
                files["dynamic.int8.onnx"] = to_onnx(priced, images, resize=self.resize)
        return files

    def _calibration_images(self, parts: _Parts) -> Tensor:
        """Some of the images that train the network, uint8 (N, C, H, W), split as it was trained."""
        assert self.data is not None
        options = DataOptions(
            **how_read(network_notes(parts.metadata), self.data), data=self.data, preprocess=self.preprocess
        )
        splits = load_fitting(parts.dynamic.image_shape, parts.data, parts.metadata, options)
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
