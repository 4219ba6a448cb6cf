from __future__ import annotations

import pytest
import torch
from torch import nn

from rlprune.data.image_set import ImageSet
from rlprune.errors import NotFiniteError
from rlprune.metrics import accuracy
from rlprune.utils.finite import finite_logits, not_finite_in


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_logit_that_is_no_number_is_an_error_and_not_label_0(wrong: float) -> None:
    logits = torch.zeros(3, 2)
    assert finite_logits(logits) is logits
    logits[2, 1] = wrong
    data = ImageSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long(), ("a", "b"), (0.5,), (0.5,))
    for refused in (lambda: finite_logits(logits), lambda: accuracy(lambda _: logits, data)):
        with pytest.raises(NotFiniteError, match="logits are not finite in float32; look for NaN in the weights"):
            refused()


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "1.bias"])
def test_what_is_not_finite_is_named(name: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    network.register_buffer("mask", torch.tensor([0.0, float("-inf")]))  # as of attention: no weight, and meant so
    assert not_finite_in(network) is None
    network.state_dict()[name].view(-1)[1] = float("nan")
    assert not_finite_in(network) == name
