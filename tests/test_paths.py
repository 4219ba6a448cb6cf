"""Whatever takes the path of a file or folder takes it as text too, and does the same with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nets import IMAGE_SHAPE, make_data, make_elastic, make_levels, make_policy
from PIL import Image

import rlprune
from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import load_gated, load_plain, save_gated, save_plain
from rlprune.data.image_set import Splits
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.pipelines.comparison import CompareSettings, Comparison
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy, save_policy
from rlprune.training.adaptation import SpecialiseSettings

NETWORK = make_elastic("residual")
DATA = make_data(16)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))
POLICY = make_policy(NETWORK, DATA, BOOK)
QUICK = PolicySettings(
    total_steps=32, n_envs=8, n_steps=4, batch_size=32, n_epochs=1, validate_every=32, max_passes=1, hidden=(4,)
)
RECIPE = 'model = "digits_cnn"\npenalties = [0.1]\n[data]\ndata = "mnist5k"\n'


def network_in(name: str) -> bool:
    save_network(name, NETWORK, DATA)
    return load_network(name).network.n_groups == NETWORK.n_groups


def policy_in(name: str) -> bool:
    save_policy(name, POLICY, {})
    return load_policy(name).policy.codebook.equal(BOOK)


def bundle_in(name: str) -> bool:
    rlprune.save_bundle(name, NETWORK, POLICY, DATA)
    return rlprune.load(name).image_shape == IMAGE_SHAPE


def gated_in(name: str) -> bool:
    save_gated(name, GatedCNN(NETWORK, "branches"), DATA)
    return load_gated(name).network.kind == "branches"


def plain_in(name: str) -> bool:
    save_plain(name, NETWORK.slice(NETWORK.full), IMAGE_SHAPE, DATA)
    return load_plain(name).image_shape == IMAGE_SHAPE


def onnx_in(name: str) -> bool:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bundle_in("bundle")
    save_onnx(name, rlprune.load("bundle"))
    return OnnxCNN(name).image_shape == IMAGE_SHAPE


def training_in(name: str) -> bool:
    train_policy(NETWORK, DATA, DATA, name, QUICK, codebook=BOOK, progress=False)
    train_policy(NETWORK, DATA, DATA, f"{name}-on", QUICK, codebook=BOOK, start=name, progress=False)
    return load_policy(f"{name}-on/policy").policy.codebook.equal(BOOK)


def latency_in(name: str) -> bool:
    latency = Latency.measure(NETWORK, batch=1, n_profiles=12, seconds=0)
    latency.save(name)
    return Latency.load(name) == latency


def recipe_in(name: str) -> bool:
    Path(name).write_text(RECIPE)
    recipe = Recipe.read(name)
    return Steps(recipe, "out", ".").out == Path("out") and recipe == Recipe.read(Path(name))


def comparison_in(name: str) -> bool:
    splits = Splits(DATA, DATA, DATA, DATA)
    settings = CompareSettings(methods=("uniform",), n_points=1, n_candidates=5, seconds=0.01)
    training = SpecialiseSettings(epochs=1, batch_size=8, padding=0, flip=False)
    Comparison(NETWORK, splits, name, settings, training, QUICK).run()
    return Path(name).is_dir()


def images_in(name: str) -> bool:
    Image.new("RGB", IMAGE_SHAPE[1:]).save(name, "png")
    return rlprune.data.read_images([name], IMAGE_SHAPE).shape == (1, *IMAGE_SHAPE)


ROUND_TRIPS = (
    network_in,
    policy_in,
    bundle_in,
    gated_in,
    plain_in,
    onnx_in,
    training_in,
    latency_in,
    recipe_in,
    comparison_in,
    images_in,
)


@pytest.mark.parametrize("round_trip", ROUND_TRIPS, ids=lambda function: function.__name__)
def test_a_path_may_be_text(round_trip: Callable[[str], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert round_trip("here")
    assert (tmp_path / "here").exists()
