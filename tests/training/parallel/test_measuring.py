"""What several processes measure together is what one process measures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nets import make_centred, make_data, make_elastic, make_levels, make_policy, network
from ranks import ranks
from torch import Tensor

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.evaluation.dynamic import evaluate, evaluate_alone
from rlprune.evaluation.gated import evaluate_gated
from rlprune.evaluation.static import evaluate_dense, static_points
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.training.parallel.measuring import shared_accuracies, shared_parts, shared_rows

N = 270
"""Images, in two batches of 256 at the most."""


def measured() -> dict[str, Any]:
    """Figures of everything that is measured on a whole set."""
    elastic, test = make_centred(), make_data(N)
    policy = make_policy(elastic, test, sorted_codebook(make_levels(elastic, 3, seed=3), Cost(elastic)), max_passes=2)
    dynamic = DynamicCNN(elastic, policy, test.mean, test.std, test.classes)
    few = make_data(20, 1)  # in a single batch, which the second process has
    torch.manual_seed(1)
    gates = GatedCNN(make_elastic("plain"), "channels").eval()
    figures = [
        evaluate(dynamic, test, few, n_candidates=6),
        evaluate_alone(dynamic, few, dense=network("residual")),
        evaluate_dense(network("plain"), test),
        evaluate_gated(gates, test),
    ]
    return {
        "figures": [{key: value for key, value in each.to_json().items() if key != "date"} for each in figures],
        "static": static_points([network("plain")], few, 1000),
        "accuracies": shared_accuracies(elastic, test, elastic.full[None]),
        "logits": [shared_rows(partial(codebook_logits, dynamic), images, dim=1) for images in (test, few)],
        "labels": [torch.cat(shared_parts(lambda own: own.labels, images, 64)) for images in (test, few)],
    }


def leaves(found: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested mappings and sequences, under the path to it; a tensor is a value."""
    if isinstance(found, Mapping):
        inner = found.items()
    elif isinstance(found, (list, tuple)):
        inner = enumerate(found)
    else:
        return {path: found}
    return {name: value for key, each in inner for name, value in leaves(each, f"{path}/{key}").items()}


def test_they_measure_what_one_does(tmp_path: Path) -> None:
    # Up to rounding, as what a matrix product rounds to may hang on where in memory its factors lie.
    alone, *found = [leaves(each) for each in [measured(), *ranks(measured, tmp_path)]]
    for one in found:
        assert one.keys() == alone.keys()
        for path, expected in alone.items():
            if isinstance(expected, (float, Tensor)):
                torch.testing.assert_close(
                    one[path], expected, rtol=1e-5, atol=1e-5, msg=f"{path}: {one[path]}, {expected}"
                )
            else:
                assert one[path] == expected, path
