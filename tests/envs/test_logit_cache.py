from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import make_data, make_elastic
from torch import Tensor

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs import LogitCache, World
from rlprune.errors import RLPruneError

NETWORK, DATA = make_elastic("residual").eval(), make_data(12)
BOOK = torch.stack([NETWORK.uniform(0), NETWORK.full])
IMAGES = torch.tensor([3, 0, 3, 11])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the network is run on, pass by pass."""
    runs: list[int] = []
    forward = ElasticCNN.forward

    def counting(network: ElasticCNN, images: Tensor, *levels: Any) -> Tensor:
        runs.append(len(images))
        return forward(network, images, *levels)

    monkeypatch.setattr(ElasticCNN, "forward", counting)
    return runs


def test_they_are_the_network_s_and_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LogitCache(NETWORK, DATA, BOOK)
    profiles = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        expected = NETWORK(DATA.normalised(IMAGES), BOOK[profiles])
    runs = counted(monkeypatch)
    for _ in range(2):
        assert torch.allclose(cache.of_profiles(IMAGES, profiles), expected, atol=1e-5)
    assert runs == [len(DATA)] * 2  # the images around, too, which are always computed together
    assert torch.equal(cache.of_whole(IMAGES[1:3]), cache.of_profiles(IMAGES[1:3], torch.tensor([1, 1])))
    assert sum(runs) == 2 * len(DATA)  # the whole network is one of the profiles: it has been asked


@pytest.mark.parametrize("book", [None, BOOK[:1]])
def test_the_whole_network_is_asked_by_itself_where_it_is_no_profile(book: Tensor | None) -> None:
    with torch.no_grad():
        expected = NETWORK(DATA.normalised(IMAGES), NETWORK.full)
    assert torch.allclose(LogitCache(NETWORK, DATA, book).of_whole(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("other", ["network", "data", "codebook", "no codebook"])
def test_of_something_else_they_are_refused(other: str) -> None:
    parts = {
        "network": (make_elastic("residual").eval(), DATA, BOOK),
        "data": (NETWORK, replace(DATA), BOOK),
        "codebook": (NETWORK, DATA, BOOK[:1]),
        "no codebook": (NETWORK, DATA, None),
    }[other]
    with pytest.raises(RLPruneError, match="the logit cache is for another network, other images or another codebook"):
        World(NETWORK, DATA, action="profiles", codebook=BOOK, logit_cache=LogitCache(*parts))


def test_trainings_that_share_them_learn_the_same_and_run_the_network_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PolicySettings(total_steps=64, n_envs=8, n_steps=4, batch_size=8, n_epochs=1, validate_every=32)
    alone = train_policy(NETWORK, DATA, DATA, tmp_path / "alone", settings, codebook=BOOK, progress=False)
    cache = LogitCache(NETWORK, DATA, BOOK)
    runs = counted(monkeypatch)
    for folder in ("first", "second"):
        shared = train_policy(
            *(NETWORK, DATA, DATA, tmp_path / folder, settings),
            codebook=BOOK,
            logit_caches=(cache, cache),
            progress=False,
        )
        learnt = shared.state_dict()
        assert all(value.equal(learnt[name]) for name, value in alone.state_dict().items())
    assert sum(runs) <= 2 * len(DATA)
