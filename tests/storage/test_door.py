"""The door for stored files: what is wrong with them is found before memory is taken for it, and said in a line."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import Change, at, change_json, change_tensors, sign
from nets import make_data, make_elastic, make_levels, make_policy
from started import run
from wrong_networks import WRONG_NETWORKS

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import load_gated, load_plain, save_gated, save_plain
from rlprune.errors import BundleError, OutOfMemoryError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import load, save_bundle
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy

NETWORK = make_elastic("residual")
DATA = make_data(8)
BOOK = sorted_codebook(make_levels(NETWORK, 4, seed=3), Cost(NETWORK))
POLICY = make_policy(NETWORK, DATA, BOOK, max_passes=2, seed=1)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("door")
    save_bundle(root / "bundle", NETWORK, POLICY, DATA, {"note": 1}, {"dynamic.onnx": b"onnx"})
    save_gated(root / "gated", GatedCNN(NETWORK, "branches"), DATA)
    save_plain(root / "plain", NETWORK.slice(NETWORK.full), NETWORK.image_shape, DATA)
    return root


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def refused(read: Callable[[Path], Any], folder: Path, message: str) -> None:
    """A stored folder is refused in one short line, soon."""
    start = time.process_time()
    with pytest.raises(BundleError, match=message) as caught:
        read(folder)
    assert time.process_time() - start < 3
    assert len(str(caught.value)) < 800 and "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), WRONG_NETWORKS)
def test_what_a_network_says_is_checked(folder: Path, change: Change, message: str) -> None:
    change_json(folder, "network.json", change)
    refused(load, folder, message)


WRONG_POLICIES: list[tuple[Change, str]] = [
    (at("sizes", [16, 20000, 5]), "has shape .* in policy.safetensors, and .* is needed"),
    (at("sizes", [16] * 100), "sizes is "),
    (at("sizes.1", 10**12), "sizes.1 is 1000000000000"),
    (at("activation", "Softsign"), "activation is 'Softsign'; allowed: 'Tanh', 'ReLU', 'ELU' or 'SiLU'"),
    (at("n_classes", 10**9), "n_classes is 1000000000"),
    (at("max_passes", 4), "max_passes is 4"),
    (at("pool", -1), "pool is -1"),
    (at("combine", float("nan")), "combine"),
    (at("combine", -1.0), "combine"),
    (at("penalties", [1.0, float("inf")]), "penalties.1 is inf"),
    (at("penalties", [0.1, 1.0]), "policy.safetensors: budgets has shape None"),
    (at("action", ["profiles"]), "action is "),
    (at("min_level", [0] * 99), "codebook"),
    (at("keep_ratios", [0.5, 1.0]), "malformed|another network"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_POLICIES)
def test_what_a_policy_says_is_checked(folder: Path, change: Change, message: str) -> None:
    change_json(folder, "policy.json", change)
    refused(load, folder, message)
    if "another" not in message:
        refused(load_policy, folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("about", []), r"about is \[\]; allowed: a valid dict"),
        (at("about", None), "about is None"),
        (at("kind", ["bundle"]), "kind is "),
        (at("kind", "x" * 10**5), "kind is 'xxx"),
        (at("format", "x" * 10**5), "has format 'xxxx.*, which is unknown"),
        (at("format", 10**300), "has format 1000"),
        (at("sha256", []), "sha256 is "),
        (lambda stored: stored["sha256"].update({"../x": "0"}), "sha256"),
        (lambda stored: stored["sha256"].update({"more.onnx": "0" * 64}), r"more\.onnx cannot be read"),
        (at("data.mean", "0.5"), "mean is '0.5'; allowed: a valid list"),
        (at("data.mean", [0.5]), "mean has 1 numbers and std 3; images have 3 channels"),
        (at("data.std.0", 0), "std.0 is 0; allowed: greater than 0"),
        (at("data.std.0", -1.0), "std.0 is -1.0"),
        (at("data.mean.0", float("inf")), "mean.0 is inf; allowed: a finite number"),
        (at("data.classes.0", ["a"]), r"classes.0 is \['a'\]"),
        (at("data.classes.0", ""), "classes.0 is ''"),
        (at("data.classes", ["a", "b"]), "another network|2 classes, and the network gives 5"),
        (at("data.preprocessing", {"transform": "os:abort"}), "'preprocessing.transform' is unknown"),
        (at("data.preprocessing", {"resize": -5}), "DataError: preprocess: resize is -5"),
    ],
)
def test_what_a_manifest_says_is_checked(folder: Path, change: Change, message: str) -> None:
    change_json(folder, "manifest.json", change)
    refused(load, folder, message)


def put(name: str, index: int, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors[name].view(-1)[index].fill_(value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("network", put("stem.conv.weight", 3, float("nan")), "'stem.conv.weight' has values that are not finite"),
        ("network", put("body.b1.bn1.running_var", 0, -1.0), "'body.b1.bn1.running_var' has a variance of -1"),
        ("network", lambda tensors: tensors["body.linear.weight"].fill_(3e38), "gives logits that are not finite"),
        ("network", lambda tensors: tensors.update(more=torch.zeros(3)), "has 'more', which nothing uses"),
        ("network", lambda tensors: tensors.pop("body.linear.bias"), "network.safetensors lacks 'body.linear.bias'"),
        ("network", lambda tensors: tensors.update({"body.linear.bias": torch.zeros(5).half()}), "is torch.float16"),
        ("policy", put("observer.std", 0, 0.0), "'observer.std' has numbers of 0 or less"),
        ("policy", put("network.0.weight", 0, float("inf")), "'network.0.weight' has values that are not finite"),
        ("policy", put("codebook", 0, 99), "'codebook' has levels that are not in 0 to"),
        ("policy", lambda tensors: tensors.update(codebook=tensors["codebook"].repeat(9, 1)), "codebook has shape"),
    ],
)
def test_the_tensors_are_those_that_are_needed(folder: Path, file: str, change: Any, message: str) -> None:
    change_tensors(folder, f"{file}.safetensors", change)
    refused(load, folder, message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "SafetensorError: the header has"),
        (b"\xff" * 8, "SafetensorError: the header has"),
        ((99).to_bytes(8, "little"), "the header is not complete"),
        ((2).to_bytes(8, "little") + b"[]", "the header is damaged"),
        ((2).to_bytes(8, "little") + b"{}", "lacks|the layers need"),
        ((2).to_bytes(8, "little") + b"{}x", "the header is about 0 bytes, and the file has 1"),
    ],
)
def test_a_header_is_read_before_the_tensors(folder: Path, header: bytes, message: str) -> None:
    (folder / "network.safetensors").write_bytes(header)
    sign(folder)
    refused(load, folder, message)


@pytest.mark.parametrize(
    ("kind", "read", "change", "message"),
    [
        ("gated", load_gated, at("gates.kind", ["channels"]), "gates.kind is"),
        ("gated", load_gated, at("gates.reduction", 10**12), "gates.reduction is 1000000000000"),
        ("gated", load_gated, at("gates.reduction", 1), "size mismatch|lacks"),
        ("gated", load_gated, at("elastic.image_shape", [3, 4000, 4000]), "one image takes more than"),
        ("plain", load_plain, at("image_shape", [3, 4000, 4000]), "one image takes more than"),
        ("plain", load_plain, at("image_shape", [True, 16, 16]), "image_shape.0 is True"),
        ("plain", load_plain, at("parts", {}), "parts is"),
        ("plain", load_plain, at("parts.body.nodes.1.op", "exec"), "parts.body.nodes.1.op is 'exec'"),
    ],
)
def test_rivals_come_through_the_same_door(
    pristine: Path, tmp_path: Path, kind: str, read: Any, change: Change, message: str
) -> None:
    shutil.copytree(pristine / kind, tmp_path / kind)
    change_json(tmp_path / kind, "network.json", change)
    refused(read, tmp_path / kind, message)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "network.json", "policy.safetensors"])
def test_pipes_and_devices_are_no_files(folder: Path, name: str) -> None:
    for make in (lambda path: os.mkfifo(path), lambda path: os.symlink("/dev/zero", path), os.mkdir):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)
        reason = "Is a directory" if path.is_dir() else "it is no regular file"
        refused(load, folder, rf"{name} cannot be read \({reason}\)")


def test_every_file_that_is_listed_is_compared(folder: Path) -> None:
    assert load(folder).metadata == {"note": 1}
    (folder / "dynamic.onnx").write_bytes(b"other")
    refused(load, folder, r"dynamic\.onnx has been altered")
    refused(load_network, folder, r"dynamic\.onnx has been altered")


def test_the_work_of_an_image_is_bounded_by_what_the_caller_allows(folder: Path, pristine: Path) -> None:
    refused(lambda path: load(path, max_macs=1e6), folder, r"has 40,726 numbers; at most 10,000 are allowed \(max_macs")
    refused(lambda path: load_network(path, max_macs=5e6), folder, r"takes more than .* \(max_macs")
    refused(lambda path: load_gated(path, max_macs=1e7), pristine / "gated", r"\(max_macs")
    refused(lambda path: load_plain(path, max_macs=5e6), pristine / "plain", r"\(max_macs")
    assert load(folder, max_macs=1e9)(DATA.images[:1]).probabilities.shape == (1, 5)


BOUNDED = """
import resource, sys
from pathlib import Path
import test_door
from rlprune.errors import BundleError, OutOfMemoryError
from rlprune.storage.bundle import load
test_door.load(Path(sys.argv[1]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
for folder in sys.argv[2:]:
    try:
        load(folder)
    except BundleError as error:
        assert "memory" not in str(error).lower(), error
        print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_what_is_refused_takes_no_memory(pristine: Path, tmp_path: Path) -> None:
    folders = []
    for i, (change, _) in enumerate(WRONG_NETWORKS):
        folders.append(tmp_path / str(i))
        shutil.copytree(pristine / "bundle", folders[-1])
        change_json(folders[-1], "network.json", change)
    said = run(BOUNDED, pristine / "bundle", *folders, beside=__file__)
    assert said.split() == ["refused"] * len(folders)


@pytest.mark.parametrize("where", ["TensorFile.read", "serialization._from_json", "Policy._from_json", "_try"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("you tried to allocate 4000 bytes: out of memory")])
def test_a_lack_of_memory_is_the_machines_not_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise error

    places = {"TensorFile.read": "storage.tensors", "serialization._from_json": "graph", "_try": "storage.bundle"}
    monkeypatch.setattr(f"rlprune.{places.get(where, 'policies.policy')}.{where}", lacking)
    with pytest.raises(OutOfMemoryError, match=r"^memory ran out while (reading|building) .*; end other programs, or"):
        load(folder)
