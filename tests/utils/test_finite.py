from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.data.image_set import ImageSet
from rlprune.errors import NotFiniteError, SettingsError
from rlprune.metrics import accuracy
from rlprune.utils.finite import check_numbers, check_whole, finite_logits, not_finite_in


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


@pytest.mark.parametrize("wrong", [0, 10, 3.0, "3", None, True, float("nan"), 10**400])
def test_arguments_that_are_no_whole_numbers_in_range_are_named(wrong: Any) -> None:
    with pytest.raises(SettingsError, match=r"^n=.{1,80}: give a whole number from 1 to 9$"):
        check_whole(n=wrong, least=1, most=9)
    check_whole(n=np.int64(9), m=1, least=1, most=9)


@pytest.mark.parametrize("wrong", [-0.1, 1e10, "3", None, True, float("nan"), float("inf"), 10**400])
def test_arguments_that_are_no_finite_numbers_in_range_are_named(wrong: Any) -> None:
    with pytest.raises(SettingsError, match=r"^share=.*: give a finite number from 0 to 1$"):
        check_numbers(share=wrong, least=0, most=1)
    check_numbers(share=np.float32(0.5), other=1, least=0, most=1)
    with pytest.raises(SettingsError, match=r"^n=-inf: give a finite number of at most 1e\+09$"):
        check_numbers(n=-float("inf"))
