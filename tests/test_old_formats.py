"""What version 0.1.0 wrote still loads, says the same, and is resumed; what a later version writes is refused."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from old_networks import pixels
from torch import Tensor

import rlprune
from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.baselines.stored import load_gated, load_plain
from rlprune.cli.main import main
from rlprune.data.image_set import ImageSet, Splits
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction
from rlprune.errors import BundleError
from rlprune.pipelines.comparison import CompareSettings, Comparison
from rlprune.profiles.latency import Latency
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.training.adaptation import SpecialiseSettings

FIXTURES = Path(__file__).parent / "fixtures"
DATA = ImageSet(*pixels(), ("red", "green", "blue"), (0.5,) * 3, (0.25,) * 3)
POLICY = PolicySettings(total_steps=128, n_envs=8, n_steps=4, batch_size=8, n_epochs=1, validate_every=32, hidden=(4,))

reads_pickles = pytest.mark.skipif(
    np.__version__.startswith("1."), reason="agents' checkpoints are pickles, which NumPy 2 wrote"
)
same_order = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="the torch of then orders images differently"
)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh copy of everything that version 0.1.0 wrote, and the current folder."""
    with tarfile.open(FIXTURES / "v0_1_0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("RLPRUNE_DATA", "RLPRUNE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "v0_1_0")
    yield tmp_path / "v0_1_0"


@pytest.fixture
def said(old: Path) -> dict[str, Tensor]:
    """What each of them said of the images."""
    loaded: dict[str, Tensor] = torch.load(old / "said.pt")
    return loaded


def close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_networks_say_what_they_said(old: Path, said: dict[str, Tensor]) -> None:
    images = DATA.normalised()
    network, separated = (load_network(old / name).network for name in ("network", "separated"))
    assert close(network(images), said["network"])
    assert network.ranked_order is not None
    assert separated.codebook is not None and len(separated.own_bodies) == len(separated.codebook)
    assert close(separated(images, separated.codebook[0]), said["separated"])
    assert close(load_gated(old / "gated").network(images), said["gated"])
    assert close(load_plain(old / "plain").network(images), said["plain"])
    assert load_network(old / "network").metadata == {"model": "old_networks:tiny"}


@pytest.mark.parametrize(("name", "price"), [("bundle", {}), ("ranged", {"budget": 0.7})])
def test_bundles_predict_and_cost_what_they_did(
    old: Path, said: dict[str, Tensor], name: str, price: dict[str, float]
) -> None:
    predicted = rlprune.load(old / name)(DATA.images, **price)
    check_predicted(predicted, name, said)


def test_the_onnx_file_predicts_what_it_did(old: Path, said: dict[str, Tensor]) -> None:
    pytest.importorskip("onnxruntime")
    check_predicted(OnnxCNN(old / "dynamic.onnx")(DATA.images), "bundle", said)


def check_predicted(predicted: Prediction, name: str, said: dict[str, Tensor]) -> None:
    assert torch.equal(predicted.profiles, said[f"{name}.profiles"])
    assert torch.equal(predicted.macs, said[f"{name}.macs"])
    assert torch.equal(predicted.params, said[f"{name}.params"])
    assert close(predicted.probabilities, said[f"{name}.probabilities"])


def test_a_policy_and_a_latency_table_fit_the_network_still(old: Path) -> None:
    network = load_network(old / "network").network
    policy = load_policy(old / "policy")
    assert policy.metadata == {"steps": 3}
    assert policy.policy.actions.keep_levels == network.keep_levels
    Latency.load(old / "latency.json").check(network)


@reads_pickles
def test_a_recipe_s_run_is_finished_and_its_figures_are_the_same(old: Path) -> None:
    before = json.loads((old / "run" / "results.json").read_text())
    (old / "run" / "results.json").unlink()
    main(["run", "recipe.toml", "--out", "run"])  # every step is there, and was made under the same settings
    after = json.loads((old / "run" / "results.json").read_text())
    for results in (before, after):
        for figures in results["budgets"]:
            for condition in ("date", "hardware", "threads", "torch"):
                figures.pop(condition)
    for then, now in zip(before["budgets"], after["budgets"], strict=True):
        assert now["controls"].keys() - then["controls"].keys() == {"cascade", "oracle"}
        assert now.keys() - then.keys() <= {"decisions"}
        for name, value in then.items():
            assert now[name] == (now[name] | value if isinstance(value, dict) else value)
    assert after["recipe"] == before["recipe"]


@reads_pickles
def test_a_finished_policy_is_not_trained_again(old: Path) -> None:
    network = load_network(old / "run" / "adapted").network
    before = load_policy(old / "train" / "policy").policy
    policy = train_policy(network, DATA, DATA, old / "train", POLICY, resume=True, progress=False)
    assert all(torch.equal(value, before.tensors()[name]) for name, value in policy.tensors().items())


@reads_pickles
def test_an_interrupted_policy_is_trained_to_its_end(old: Path) -> None:
    network = load_network(old / "run" / "adapted").network
    assert load_policy(old / "train-half" / "policy").metadata["steps"] < POLICY.total_steps
    train_policy(network, DATA, DATA, old / "train-half", POLICY, resume=True, progress=False)
    assert load_policy(old / "train-half" / "policy").metadata["steps"] == POLICY.total_steps


@reads_pickles
def test_a_comparison_is_measured_again_on_what_is_there(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(old / "run" / "adapted").network
    before = json.loads((old / "compare" / "results.json").read_text())
    for training in ("adapt", "search_profiles"):
        monkeypatch.setattr(f"rlprune.pipelines.comparison.{training}", lambda *_, **__: pytest.fail("made again"))
    settings = CompareSettings(
        methods=("rl once", "threshold", "gates", "static"),
        penalties=(0.1,),
        densities=(0.5,),
        n_profiles=2,
        n_candidates=6,
        n_points=2,
        seconds=0.0,
    )
    quick = SpecialiseSettings(epochs=1, n_random=1, sandwich=False, batch_size=20, bf16=False)
    after = Comparison(network, Splits(DATA, DATA, DATA, DATA), old / "compare", settings, quick, POLICY).run()
    for row_before, row_after in zip(before["rows"], after.to_json()["rows"], strict=True):
        assert {**row_before, "ms": {}} == json.loads(json.dumps({**row_after, "ms": {}}))


@same_order
def test_an_interrupted_training_ends_as_the_uninterrupted_one_did(old: Path) -> None:
    from safetensors.torch import load_file

    options = "--model old_networks:tiny --data old_networks:images --batch-size 8 --bf16 False --epochs 2".split()
    main(["pretrain", *options, "--out", "half.safetensors", "--resume"])
    half, whole = load_file("half.safetensors"), load_file("whole.safetensors")
    assert half.keys() == whole.keys()
    assert all(close(value, whole[name]) for name, value in half.items())


def rewrite_manifest(folder: Path, **change: Any) -> None:
    packed = json.dumps(json.loads((folder / "manifest.json").read_text()) | change).encode()
    (folder / "manifest.json").write_bytes(packed)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(packed).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize("name", ["network", "policy", "bundle", "gated", "plain"])
def test_a_later_format_is_refused_by_naming_the_version_that_reads_it(old: Path, name: str) -> None:
    assert kind_of(old / name) == name
    rewrite_manifest(old / name, format=3, versions={"rlprune": "9.1.0"})
    with pytest.raises(
        BundleError,
        match=rf"{name} has format 3, written by rlprune 9\.1\.0; this is rlprune {rlprune.__version__}, which reads "
        r"format 2 and earlier: install rlprune 9\.1\.0 or later",
    ):
        kind_of(old / name)


@pytest.mark.parametrize("number", [0, -1, "1", None, True, 1.5])
def test_a_format_that_never_was_is_refused(old: Path, number: Any) -> None:
    rewrite_manifest(old / "bundle", format=number)
    with pytest.raises(BundleError, match=r"bundle has format .*, which is unknown"):
        rlprune.load(old / "bundle")


def test_the_settings_of_a_resumed_run_must_be_the_same(old: Path) -> None:
    network = load_network(old / "run" / "adapted").network
    with pytest.raises(rlprune.RLPruneError, match="penalty"):
        train_policy(network, DATA, DATA, old / "train", replace(POLICY, penalty=0.7), resume=True, progress=False)


REFERENCE = Path(__file__).parents[1] / "runs" / "reference"
SAID: dict[str, Any] = json.loads((FIXTURES / "reference_v0_1_0.json").read_text())
"""What version 0.1.0 said, on images of noise, of the bundles that are as it made them, and of their policies."""


@pytest.mark.parametrize("name", sorted(SAID))
def test_what_is_committed_says_what_it_said(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    if kind_of(REFERENCE / name) == "policy":
        policy = load_policy(REFERENCE / name).policy
        profiles, accept = policy(torch.rand(64, policy.observer.size, generator=generator))
        assert {"profiles": profiles.tolist(), "accept": accept.tolist()} == SAID[name]
        return
    model = rlprune.load(REFERENCE / name)
    images = torch.randint(0, 256, (16, *model.image_shape), dtype=torch.uint8, generator=generator)
    images[8:] = images[8:] // 4 + torch.linspace(0, 190, 8).to(torch.uint8)[:, None, None, None]
    predicted = model(images)
    for key in ("labels", "profiles", "macs", "params"):
        assert getattr(predicted, key).tolist() == SAID[name][key]
    assert predicted.probabilities.amax(1).tolist() == pytest.approx(SAID[name]["probability"], abs=2e-5)
