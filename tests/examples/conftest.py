"""A network for the examples: as it was made, so that only the price of compute can be learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rlprune
from rlprune.storage.networks import save_network


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network for digits."""
    folder = tmp_path_factory.mktemp("digits") / "network"
    torch.manual_seed(0)
    model = rlprune.models.build("digits_cnn", in_channels=1).eval()
    elastic = rlprune.ElasticCNN.from_model(model, (1, 28, 28))
    save_network(folder, elastic, rlprune.data.load("mnist5k").network)
    return folder
