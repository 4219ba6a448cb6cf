from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nets import make_elastic

from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import read_codebook, sorted_codebook, uniform_codebook
from rlprune.profiles.cost import Cost

BOOK = torch.tensor([[0, 1, 0], [2, 2, 2], [4, 4, 4]])


def test_the_uniform_codebook_rises_in_cost() -> None:
    elastic = make_elastic("depthwise")
    cost = Cost(elastic)
    book = uniform_codebook(elastic, cost)
    assert book.tolist() == [[0, 1, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]]
    assert (cost.of(book).macs.diff() > 0).all()


def test_a_sorted_codebook_is_cheapest_first_without_repetition() -> None:
    cost = Cost(make_elastic("depthwise"))
    book = sorted_codebook(BOOK[[2, 0, 2, 1, 0]], cost)
    assert torch.equal(book, BOOK)


@pytest.mark.parametrize("text", ["", "[[1, 2], [3", "{}", "[]", "[1, 2]", "[[1, 2], [3]]", "[[0.5]]", "null"])
def test_a_damaged_codebook_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "codebook.json"
    path.write_text(json.dumps(BOOK.tolist()))
    assert read_codebook(path).equal(BOOK)
    path.write_text(text)
    with pytest.raises(
        RLPruneError, match=r"codebook\.json (is damaged|holds no profiles).*; remove it, and it is made"
    ):
        read_codebook(path)
