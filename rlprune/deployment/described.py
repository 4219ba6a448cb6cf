"""A deployed network in a few words: what it tells apart, what it takes, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlprune.policies.passes import CostBreakdown

_FEW = 3
"""How many classes are named."""


def described(name: str, classes: Sequence[str], image_shape: Sequence[int], costs: str, *more: str) -> str:
    """A network in one line.

    Args:
        name: of its type.
        classes: its class names.
        image_shape: (C, H, W) of its images.
        costs: what `costs_in_words` says.
        *more: what else there is to say.
    """
    shown = ", ".join(classes[:_FEW]) + (", ..." if len(classes) > _FEW else "")
    return f"{name}({'; '.join([f'{len(classes)} classes: {shown}', f'images {tuple(image_shape)}', costs, *more])})"


def costs_in_words(prices: CostBreakdown, max_passes: int) -> str:
    """How many profiles there are, and between what an image can cost, as shares of the dense network's MACs.

    Args:
        prices: cost of the network's parts, with K profiles.
        max_passes: the most passes of an image; two that follow each other run different profiles.
    """
    *_, dearest = ordered = prices.bodies.macs.argsort().tolist()
    second = ordered[-2] if len(ordered) > 1 else -1
    passes = torch.full((2, max_passes), -1)
    passes[0, 0] = ordered[0]
    passes[1, 0::2], passes[1, 1::2] = dearest, second
    low, high = (prices.of_passes(passes).macs / prices.dense.macs).tolist()
    plural = "profile" if len(ordered) == 1 else "profiles"
    times = "1 pass" if max_passes == 1 else f"up to {max_passes} passes"
    return f"{len(ordered)} {plural} in {times}, {low:.3f} to {high:.3f} of the dense network's MACs"
