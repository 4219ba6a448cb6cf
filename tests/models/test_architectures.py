from __future__ import annotations

import torch
from torch import nn

from rlprune.models.registry import build


def test_a_shortcut_of_option_a_drops_pixels_and_pads_channels_on_both_sides() -> None:
    block = build("resnet20").get_submodule("layer2.0").eval()
    for name in ("bn2.weight", "bn2.bias"):
        nn.init.zeros_(block.get_parameter(name))  # leaves the shortcut alone
    images = torch.rand(1, 16, 8, 8)
    out = block(images)
    assert torch.equal(out[:, 8:24], images[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()
