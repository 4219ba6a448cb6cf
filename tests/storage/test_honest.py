"""What people store without harm in mind is read, and what would take long to refuse is refused soon."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import at, change_json, extra
from nets import make_data, make_elastic, make_levels, make_policy
from torch import Tensor, nn

from rlprune.baselines.stored import load_plain, save_plain
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, OutOfMemoryError, RLPruneError, SettingsError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage import policies
from rlprune.storage.bundle import load, save_bundle
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy

CALL = "_operator."
NETWORK = make_elastic("plain")
DATA = make_data(6)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=1), Cost(NETWORK))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "bundle", NETWORK, make_policy(NETWORK, DATA, BOOK, max_passes=2, seed=1), DATA)
    return tmp_path / "bundle"


def test_two_classes_may_have_one_name_as_two_of_imagenet_have(folder: Path) -> None:
    change_json(folder, "manifest.json", at("data.classes", ["crane", "crane", "c", "d", "e"]))
    assert load(folder).classes == ("crane", "crane", "c", "d", "e")


class Masked(nn.Module):
    """Reads tensors that are no weights: a mask, and the order of the rows."""

    mask: Tensor
    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        self.register_buffer("mask", torch.arange(16) % 3 > 0)
        self.register_buffer("order", torch.arange(15, -1, -1))

    def forward(self, images: Tensor) -> Tensor:
        values = self.body(self.stem(images).relu()).relu()[:, :, self.order] * self.mask
        result: Tensor = self.head(self.last(values).relu().mean((2, 3)))
        return result


@torch.no_grad()
def test_tensors_that_are_no_weights_keep_their_type(tmp_path: Path) -> None:
    elastic = ElasticCNN.from_model(Masked().eval(), (3, 16, 16))
    save_network(tmp_path / "network", elastic, DATA)
    save_plain(tmp_path / "plain", elastic.slice(elastic.full), (3, 16, 16), DATA)
    images = DATA.normalised()
    again = load_network(tmp_path / "network").network
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32, torch.bool, torch.int64}
    assert torch.equal(again(images, again.full), elastic(images, elastic.full))
    assert torch.allclose(load_plain(tmp_path / "plain").network(images), again(images, again.full), atol=1e-5)


@pytest.mark.parametrize(
    ("file", "entry", "wrong", "message"),
    [
        ("manifest.json", "data.classes", [0] * 10**6, "classes.0 is 0"),
        ("network.json", "groups.0.members.0.runs", [[]] * 10**6, "runs.0 is "),
    ],
)
def test_a_million_wrong_entries_are_one(folder: Path, file: str, entry: str, wrong: Any, message: str) -> None:
    change_json(folder, file, at(entry, wrong))
    start = time.process_time()
    with pytest.raises(BundleError, match=message):
        load(folder)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "nodes",
    [
        [("size", ["x", 0]), (CALL + "floordiv", ["n0", 3]), ("narrow", ["x", 2, "n1", 1])],
        [("size", ["x", 0]), (CALL + "mod", ["n0", 17]), ("narrow", ["x", 2, 0, "n1"])],
        [("size", ["x", 0]), (CALL + "eq", ["n0", 3])],
        [("chunk", ["x", 3])],
    ],
)
def test_a_network_takes_every_number_of_images(folder: Path, nodes: list[tuple[str, list[Any]]]) -> None:
    ops = [("call_function" if name.startswith(CALL) else "call_method", name, args) for name, args in nodes]
    change_json(folder, "network.json", extra(*ops))
    with pytest.raises(BundleError, match=r"body\.nodes\.n\d.*images"):
        load(folder)


def torn_apart(stored: Any) -> None:
    """A group becomes two, of the layer that gives its channels and of the one that takes them."""
    group = stored["groups"][0]
    taking = [member for member in group["members"] if member["axis"] == "in"]
    giving = [member for member in group["members"] if member["axis"] == "out"]
    stored["groups"][:1] = [{**group, "members": giving}, {**group, "members": taking}]


def test_groups_work_at_any_levels(tmp_path: Path) -> None:
    save_network(tmp_path / "network", NETWORK, DATA)
    change_json(tmp_path / "network", "network.json", torn_apart)
    with pytest.raises(BundleError, match="malformed"):
        load_network(tmp_path / "network")


def test_a_policy_holds_as_much_as_one_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_MOST_NUMBERS", 10)
    for read in (load, load_policy):
        with pytest.raises(BundleError, match=r"policy\.safetensors has .* numbers; 10 are the most"):
            read(folder)


def test_a_lack_of_memory_says_nothing_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\nmuch to say")

    monkeypatch.setattr(DynamicCNN, "for_images", full)
    with pytest.raises(OutOfMemoryError, match=r"^memory ran out while reading the stored network \(2.00 GiB more"):
        load(folder)


class Exact(Masked):
    """Insists on float32, as some norms do."""

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        result: Tensor = self.head(self.last(self.body(self.stem(images).relu()).relu().float()).mean((2, 3)))
        return result


def test_what_runs_in_float32_alone_says_so(tmp_path: Path) -> None:
    elastic = ElasticCNN.from_model(Exact().eval(), (3, 16, 16))
    book = sorted_codebook(make_levels(elastic, 2, seed=1), Cost(elastic))
    save_bundle(tmp_path / "bundle", elastic, make_policy(elastic, DATA, book), DATA)
    assert load(tmp_path / "bundle")(DATA.images).labels.shape == (6,)
    with pytest.raises(BundleError, match=r"does not run in torch\.bfloat16, perhaps in float32 \(.*\)$"):
        load(tmp_path / "bundle", dtype=torch.bfloat16)


@pytest.mark.parametrize("wrong", [float("nan"), 0, -1e9, "1e9", True])
def test_a_limit_is_a_number(folder: Path, wrong: Any) -> None:
    for read in (load, load_network):
        with pytest.raises(SettingsError, match="max_macs="):
            read(folder, max_macs=wrong)
    assert load(folder, max_macs=float("inf")).classes == replace(DATA).classes


def test_the_environment_has_the_limit_of_who_gives_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPRUNE_MAX_MACS", "1e7")
    for read in (load, load_network):
        with pytest.raises(BundleError, match=r"trust give more, on the command line by \$RLPRUNE_MAX_MACS"):
            read(folder)
        read(folder, max_macs=1e11)
    monkeypatch.setenv("RLPRUNE_MAX_MACS", "much")
    with pytest.raises(SettingsError, match="RLPRUNE_MAX_MACS="):
        load(folder)


def test_what_reads_a_bundle_does_not_come_from_the_current_folder(folder: Path) -> None:
    (folder.parent / "pydantic.py").write_text("print('was run')\n")
    code = "import rlprune; rlprune.load('bundle'); print('is read')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["is read", ""], done.stderr[-500:]


@pytest.mark.parametrize("wrong", ["0.5", True, [0.5]])
def test_budgets_and_penalties_are_numbers(folder: Path, wrong: Any) -> None:
    dynamic = load(folder)
    for name in ("budget", "penalty"):
        with pytest.raises(RLPruneError, match=f"{name} is a {type(wrong).__name__}; give a number"):
            dynamic(DATA.images, **{name: wrong})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file takes the room that it claims")
def test_files_without_content_are_not_hashed_for_long(folder: Path) -> None:
    for name in ("a.bin", "b.bin"):
        with (folder / name).open("wb") as file:
            file.truncate(2**32 - 1)
    stored = json.loads((folder / "manifest.json").read_text())
    stored["sha256"] |= {"a.bin": "0" * 64, "b.bin": "0" * 64}
    packed = json.dumps(stored).encode()
    (folder / "manifest.json").write_bytes(packed)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(packed).hexdigest()}  manifest.json\n")
    with pytest.raises(BundleError, match=r"lists files of 8,589,934,590 bytes; at most 4,294,967,296 are compared"):
        load(folder)
