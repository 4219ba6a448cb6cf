"""The resolution of a pass: the features behind the stem, shrunk to a share of their positions before the body runs.

Convolutions cost in proportion to positions. Shrinking an image is what EfficientNet (Tan and Le, ICML 2019) and
resolution-adaptive networks (Yang et al., CVPR 2020) do; here it is the stem's features, which all passes share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from rlprune.errors import ModelError
from rlprune.graph.nodes import measure_also


def side_share(ratio: float) -> float:
    """The share of rows, and of columns, that keeps this share of the positions of an image."""
    return math.sqrt(ratio)


def shrinking(ratio: float) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function, and its arguments by name, that shrinks features (B, F, H', W') to a share of their positions.

    Means of squares where the sides become a whole part, such as a half; bilinear interpolation else. Sides are rounded
    down.

    Args:
        ratio: above 0, at most 1.
    """
    share = side_share(ratio)
    step = round(1 / share)
    if math.isclose(step * share, 1):
        return F.avg_pool2d, {"kernel_size": step}
    return F.interpolate, {"scale_factor": share, "mode": "bilinear", "align_corners": False}


def shrink(features: Tensor, ratio: float) -> Tensor:
    """Features (B, F, H', W') shrunk to a share of their positions: as they are where it is 1."""
    if ratio == 1:
        return features
    function, arguments = shrinking(ratio)
    shrunk: Tensor = function(features, **arguments)
    return shrunk


def parted(rows: Tensor, level: Tensor) -> list[Tensor]:
    """Rows int64 (N,), parted by the level of each, int64 (N,); one part without rows if there are none."""
    return [rows[level == each] for each in level.unique()] if len(rows) else [rows]


def measure_smaller(body: fx.GraphModule, feature_shape: Sequence[int], ratios: Sequence[float]) -> None:
    """Note what the nodes of a measured body give and take at lower resolutions, as `measure_also` does.

    Args:
        body: features (B, F, H', W') -> logits.
        feature_shape: (F, H', W').
        ratios: shares of the positions.

    Raises:
        ModelError: it does not run at one of them.
    """
    device = next((tensor.device for tensor in (*body.parameters(), *body.buffers())), None)
    features = torch.zeros(1, *feature_shape, device=device)
    try:
        measure_also(body, [shrink(features, ratio) for ratio in ratios])
    except (ModelError, RuntimeError) as error:
        raise ModelError(f"resolution: the network runs at full resolution only; {error}") from error
