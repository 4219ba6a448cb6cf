from __future__ import annotations

import torch
from nets import make_elastic

from rlprune.profiles.codebook import sorted_codebook, uniform_codebook
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
