"""What the snippets of the documentation find: committed results, and a bundle that somebody made before."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlprune
from rlprune.agents import PolicySettings, train_policy


@pytest.fixture(scope="session")
def made_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of digits with a policy for a range of penalties, learnt for as short as can be."""
    out = tmp_path_factory.mktemp("made")
    splits = rlprune.data.load("mnist5k")
    network = rlprune.ElasticCNN.from_model(rlprune.models.build("digits_cnn", in_channels=1).eval(), (1, 28, 28))
    settings = PolicySettings(penalty_range=(0.01, 0.3), pool=0, total_steps=2048, validate_every=2048)
    policy = train_policy(network, splits.policy, splits.validation, out / "policy", settings, progress=False)
    rlprune.save_bundle(out / "bundle", network, policy, splits.network)
    return out / "bundle"
