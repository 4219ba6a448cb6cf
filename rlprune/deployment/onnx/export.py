"""Exports preprocessing, policy and every profile as one ONNX file that takes batches of any size.

Torch exports the parts: pixels (which are normalised), stem, observe (what a policy sees of features), decide, combine
(logits of two passes), and the body of every profile. They become functions of the file.
`rlprune.deployment.onnx.graph` writes the graph that joins them: a `Loop` over passes, in which the images that chose a
profile are gathered and run through its body inside an `If`, so that a profile which no image chose costs nothing. A
first pass that is the same for all images comes before the loop, with nothing to gather.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.data.image_set import PixelScale
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.assembly import FileParts, assembled
from rlprune.deployment.onnx.graph import GraphSpec, decide_functions, main_graph, run_function, start_function
from rlprune.deployment.onnx.pieces import as_function, check_calibration, export_piece
from rlprune.deployment.onnx.pricing import BudgetTable, begin_function, budget_table, firsts_of_range, place_function
from rlprune.deployment.onnx.resizing import check_resizable, resize_function
from rlprune.deployment.onnx.sharing import SharedWeights
from rlprune.deployment.quantisation import ByteScale, give_bytes, quantised, read_bytes
from rlprune.errors import RLPruneError
from rlprune.policies.folded import FirstProfile, FoldedPolicy
from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require

_AT_ONCE = 64
"""Calibration images that run through the stem together."""


def save_onnx(
    path: str | Path, dynamic: DynamicCNN, calibration: Tensor | None = None, *, resize: bool = False
) -> None:
    """Write a network with its policy as one ONNX file, which needs neither torch nor this library.

    | name | shape | what |
    |---|---|---|
    | `images` in | uint8 (B, C, H, W) | pixels, red first; with `resize` of any height and width |
    | `budget` in | float32 (1,) | mean share of the dense network's MACs that images may cost; may be left out |
    | `label` out | int64 (B,) | class of the largest probability |
    | `probability` out | float32 (B,) | of that class |
    | `logits` out | float32 (B, classes) | logits of the final predictions |
    | `profiles` out | int64 (B, max_passes) | index into the codebook of every pass; -1 where there was none |
    | `macs` out | int64 (B,) | MACs, those of the policy and of every pass included |

    Only a file whose policy was trained for a range of penalties has a `budget`. Others than those that were measured
    are clipped to them; left out, it is that of `dynamic.penalty`.

    Its metadata `rlprune` is JSON: `classes`, `keep_ratios` (of every profile, for every group), `prices` (parameters
    and MACs of `stem`, `bodies`, `decision` and the `dense` network), `preprocessing` where the network has its own:
    how pictures come to their size, and the order in which it reads channels (pixels are RGB in any case), `budgets`
    (`least`, `most`, `default`) where it has that input, and `image_shape` where pictures of any size go in.

    Weights that profiles share are in it once.

    Args:
        path: file to write.
        dynamic: the network with its policy.
        calibration: images uint8 (N, C, H, W), not of the test set; with them stem and profiles compute
            in int8 (`rlprune.deployment.quantisation`), each profile with weights of its own; the policy does not.
        resize: let pictures of any size go in, which the file scales and cuts as the network's preprocessing says.

    Raises:
        DataError: calibration images that the network does not take, or none.
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the network does not compute in float32, or holds something that ONNX has no operator for; or,
            with `resize`, its preprocessing does.
    """
    content = to_onnx(dynamic, calibration, resize=resize)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def to_onnx(dynamic: DynamicCNN, calibration: Tensor | None = None, *, resize: bool = False) -> bytes:
    """The content of the file that `save_onnx` writes; arguments and errors are the same."""
    if dynamic.dtype != torch.float32:
        raise RLPruneError(f"this network computes in {dynamic.dtype}; only one in torch.float32 can be exported")
    if resize:
        check_resizable(dynamic.preprocessing)
    if calibration is not None:
        check_calibration(calibration, dynamic.image_shape)
        calibration = calibration.cpu()
    require("onnx", "onnx")
    table = budget_table(dynamic.source_policy, dynamic.penalty)
    shared = SharedWeights(dynamic.elastic, dynamic.codebook)
    names: list[tuple[str, ...]] = []
    firsts = _firsts(dynamic, table)
    policy = FoldedPolicy(dynamic.policy if table is None else dynamic.source_policy, begun=bool(firsts))
    functions = [*_running(dynamic, calibration, shared, names), *_deciding(dynamic, policy, ranged=table is not None)]
    feature_type = "float" if calibration is None else "uint8"
    how = {"firsts": firsts, "ranged": table is not None, "resized": resize, "feature_type": feature_type}
    spec = _spec(dynamic, names, **how)
    parse = require("onnx.parser", "onnx").parse_function
    texts = [start_function(), *decide_functions(spec), run_function(spec)]
    texts += [] if table is None else [place_function(table)]
    if len(firsts) > 1:
        first = FirstProfile(dynamic.source_policy, dynamic.prices.spent_before)
        functions.append(as_function("first", export_piece("first", first, (torch.zeros(1),), n_fixed=1), 1))
        texts.append(begin_function(spec))
    texts += [resize_function(dynamic.preprocessing, dynamic.image_shape)] if resize else []
    tensors = list(shared.tensors.values())
    if table is not None:
        budget = np.array([table.default_budget], np.float32)
        tensors.append(require("onnx.numpy_helper", "onnx").from_array(budget, "budget"))
    return assembled(
        FileParts(
            graph=main_graph(spec),
            functions=[*functions, *map(parse, texts)],
            tensors=tensors,
            title=f"Image classifier over {len(dynamic.classes)} classes that chooses for every image how much of the "
            f"network to run, out of {len(dynamic.slices)} profiles; written by rlprune",
            image_shape=dynamic.image_shape,
            data=dynamic,
            keep_ratios=torch.tensor(dynamic.elastic.keep_ratios)[dynamic.codebook].tolist(),
            prices=dynamic.prices,
            resized=resize,
            budgets=None if table is None else (*table.limits, table.default_budget),
        )
    )


def _firsts(dynamic: DynamicCNN, table: BudgetTable | None) -> tuple[int, ...]:
    """The profiles of which all images of a call run the same one first; none if images may begin differently."""
    if table is not None:
        return firsts_of_range(dynamic.source_policy, dynamic.prices, table)
    return () if dynamic.first is None else (dynamic.first,)


def _deciding(dynamic: DynamicCNN, policy: FoldedPolicy, *, ranged: bool) -> Iterator[Any]:
    """The functions of the file that decide, and join the predictions of passes."""
    observer = policy.observer
    observed, logits, more = torch.zeros(2, observer.n_features), *torch.zeros(2, 2, dynamic.elastic.n_classes)
    passes, spent = torch.zeros(2, 2, dtype=torch.int64)
    before = observed, logits.clone(), passes.clone(), spent.clone()
    decide, given = _Decide(policy, int(dynamic.prices.dense.macs)), (torch.zeros(1),) if ranged else ()
    seen = _observation(dynamic)
    yield as_function("decide", export_piece(f"decide{seen}", decide, (*before, *given), n_fixed=len(given)), 2)
    yield as_function("combine", export_piece("combine", _Combine(policy), (before[1], more.clone(), before[2])), 1)


def _observation(dynamic: DynamicCNN) -> str:
    """How an observation of the user's own is named in messages."""
    own = dynamic.policy.observer.own
    return "" if own is None else f", with the observation {own.name},"


def _running(
    dynamic: DynamicCNN, calibration: Tensor | None, shared: SharedWeights, names: list[tuple[str, ...]]
) -> Iterator[Any]:
    """The functions of the file that run the network: to the stem's features, what is observed of these, and a profile.

    Args:
        dynamic: the network with its policy.
        calibration: images uint8 (N, C, H, W); with them all compute in int8, and features are uint8 (N, H', W', F).
        shared: where profiles take their weights from.
        names: to which the shared weights that each of them reads are added.
    """
    pixels, images = PixelScale(dynamic), torch.zeros(2, *dynamic.elastic.image_shape, dtype=torch.uint8)
    yield as_function("pixels", export_piece("pixels", pixels, (images,)), 1)
    features = torch.zeros(2, *dynamic.elastic.feature_shape)
    integers = calibration is not None
    stem = export_piece("stem", dynamic.slices.stem, (pixels(images),), integers=integers)
    if calibration is not None:
        seen = _features(dynamic, calibration)
        stem = quantised(stem, dynamic.normalise(calibration))
        scale = give_bytes(stem, seen)
    yield as_function("stem", stem, 1)
    observe = _ObserveBytes(dynamic, scale) if integers else _Observe(dynamic)
    given = features.permute(0, 2, 3, 1).contiguous().byte() if integers else features
    yield as_function("observe", export_piece(f"observe{_observation(dynamic)}", observe, (given,)), 1)
    for k, body in enumerate(export_bodies(dynamic, features, integers=integers)):
        piece = body
        if integers:
            piece = quantised(body, seen)
            read_bytes(piece, scale)
        names.append(() if integers else tuple(shared.replace(piece, k)))
        yield as_function(f"profile_{k}", piece, 1, names[-1])


def _spec(dynamic: DynamicCNN, names: list[tuple[str, ...]], **how: Any) -> GraphSpec:
    """What the joining graph depends on: the network, its weights, and the file's other properties."""
    prices = dynamic.prices
    return GraphSpec(
        image_shape=dynamic.image_shape,
        n_classes=dynamic.elastic.n_classes,
        max_passes=dynamic.policy.observer.max_passes,
        stem_macs=int(prices.stem.macs),
        body_macs=tuple(prices.bodies.macs.tolist()),
        decision_macs=int(prices.decision.macs),
        shared=tuple(names),
        **how,
    )


class _Observe(nn.Module):
    """Features of the stem, float32 (B, F, H', W') -> what the policy observes of them."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.observer = dynamic.policy.observer

    def forward(self, features: Tensor) -> Tensor:
        return self.observer.features(features)


class _ObserveBytes(_Observe):
    """The same of what stands for features in uint8, (B, H', W', F)."""

    def __init__(self, dynamic: DynamicCNN, scale: ByteScale) -> None:
        super().__init__(dynamic)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        if self.observer.n_features:
            features = (features.permute(0, 3, 1, 2).float() - self.scale.zero) * self.scale.scale
        return self.observer.features(features)


class _Decide(nn.Module):
    """Decides for images: profile int64 (n,), and whether to accept the prediction so far instead, bool (n,).

    Observed features, logits so far, passes and MACs spent go in; and, where the policy was trained for a range of
    penalties, the place in it, float32 (1,).
    """

    def __init__(self, policy: FoldedPolicy, dense_macs: int) -> None:
        super().__init__()
        self.policy = policy
        self.dense_macs = dense_macs

    def forward(
        self, observed: Tensor, logits: Tensor, passes: Tensor, spent: Tensor, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        share = spent.float() / self.dense_macs
        decisions: tuple[Tensor, Tensor] = self.policy(observed, logits, passes, share, place)
        return decisions


class _Combine(nn.Module):
    """Logits so far (n, classes), and those of one more pass -> logits of the prediction after it."""

    def __init__(self, policy: FoldedPolicy) -> None:
        super().__init__()
        self.observer = policy.observer
        self.begun = policy.begun

    def forward(self, before: Tensor, logits: Tensor, passes: Tensor) -> Tensor:
        if self.begun:
            return self.observer.joined(before, logits)
        return self.observer.believe(before, logits, passes)


def export_bodies(dynamic: DynamicCNN, features: Tensor, *, integers: bool = False) -> Iterator[Any]:
    """Export the body of every profile as an `onnx.ModelProto`.

    Args:
        dynamic: the network with its policy.
        features: those of two images, (2, F, H', W').
        integers: whether they will be quantised.
    """
    for k in range(len(dynamic.slices)):
        yield export_piece(f"profile {k}", dynamic.slices.prepared(k), (features,), integers=integers)


@torch.inference_mode()
def _features(dynamic: DynamicCNN, images: Tensor) -> Tensor:
    """The stem's features of images, uint8 (N, C, H, W) -> float32 (N, F, H', W')."""
    parts = [dynamic.slices.stem(dynamic.normalise(part).to(dynamic.device)) for part in images.split(_AT_ONCE)]
    return torch.cat(parts).cpu().contiguous()
