"""What a benchmark times: the dense network prepared in several ways, a static pruned one, and the dynamic one."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import session
from rlprune.deployment.onnx.export import export_piece, to_onnx
from rlprune.errors import RLPruneError
from rlprune.evaluation.static import count_macs
from rlprune.graph.folding import fold_norms, optimize_for_inference
from rlprune.utils.imports import require

Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class Runner:
    """A network that is ready to be timed.

    Attributes:
        backend: `pytorch` or `onnxruntime`.
        dynamic: whether it decides per image. It then takes pixels, uint8 (B, C, H, W), as normalising belongs to it;
            the others take normalised images.
        run: runs a batch.
        macs: of an image; not a number for a dynamic one, whose MACs depend on the images.
    """

    backend: str
    dynamic: bool
    run: Run
    macs: float = float("nan")


def prepare_runners(dynamic: DynamicCNN, share: float, names: tuple[str, ...]) -> dict[str, Runner]:
    """Prepare networks for timing.

    | name | what it is |
    |---|---|
    | `dense` | the whole network, as it is |
    | `dense folded` | without norms, in channels_last, as many images at once as the dynamic one runs |
    | `dense compiled` | that, through `torch.compile`, anew for every batch size |
    | `dense onnxruntime` | that, as ONNX |
    | `static` | pruned by Torch-Pruning to the dynamic one's mean MACs, then as `dense folded` |
    | `dynamic` | the policy, every pass, and the slices |
    | `dynamic compiled` | the same with slices through `torch.compile` |
    | `dynamic onnxruntime` | the same as one ONNX file, run without torch |

    Threads of onnxruntime do not spin here: they would slow whoever runs next in the same process.

    Args:
        dynamic: the network with its policy.
        share: of the dense network's MACs, for the static one.
        names: those that are wanted.

    Returns:
        The runners by name, in the order of the table.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is needed and not installed.
        RLPruneError: there is no row of such a name, or Torch-Pruning cannot prune this network.
    """
    check_rows(names)
    dense = dynamic.elastic.slice(dynamic.elastic.full)
    macs = float(dynamic.prices.dense.macs)
    example = torch.zeros(1, *dynamic.image_shape)

    def in_parts(network: Run) -> Run:
        return lambda images: [network(part) for part in images.split(dynamic.max_batch or len(images))]

    makers: dict[str, Callable[[], Runner]] = {
        "dense": lambda: Runner("pytorch", False, dense, macs),
        "dense folded": lambda: Runner("pytorch", False, in_parts(optimize_for_inference(dense)), macs),
        "dense compiled": lambda: Runner(
            "pytorch", False, in_parts(torch.compile(optimize_for_inference(dense), dynamic=False)), macs
        ),
        "dense onnxruntime": lambda: Runner("onnxruntime", False, _onnx(fold_norms(dense), example), macs),
        "static": lambda: _static(dense, example, share * macs, in_parts),
        "dynamic": lambda: Runner("pytorch", True, dynamic),
        "dynamic compiled": lambda: Runner("pytorch", True, _compiled(dynamic)),
        "dynamic onnxruntime": lambda: Runner("onnxruntime", True, _onnx_dynamic(dynamic)),
    }
    return {name: makers[name]() for name in ROWS if name in names}


ROWS = (
    "dense",
    "dense folded",
    "dense compiled",
    "dense onnxruntime",
    "static",
    "dynamic",
    "dynamic compiled",
    "dynamic onnxruntime",
)
"""All rows that a benchmark can have, in their order."""
DEFAULT_ROWS = ("dense", "dense folded", "dynamic")
"""Those that need nothing but torch, and no time to prepare."""


_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def available_rows() -> tuple[str, ...]:
    """The rows that can be timed here, with what is installed."""
    has_onnx = all(importlib.util.find_spec(name) for name in _ONNX_PACKAGES)
    return tuple(name for name in ROWS if has_onnx or not name.endswith("onnxruntime"))


def check_rows(names: Sequence[str]) -> None:
    """Make sure that rows can be timed here, before anything is loaded or timed for them.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is needed and not installed.
        RLPruneError: there is no row of such a name.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise RLPruneError(f"there is no row {unknown[0]!r}; allowed: {', '.join(ROWS)}")
    if any(name.endswith("onnxruntime") for name in names):
        for package in _ONNX_PACKAGES:
            require(package, "onnx")


def _compiled(dynamic: DynamicCNN) -> DynamicCNN:
    return DynamicCNN.for_images(dynamic.elastic, dynamic.policy, dynamic, compiled=True, max_batch=dynamic.max_batch)


def _onnx_dynamic(dynamic: DynamicCNN) -> Run:
    runs = session(to_onnx(dynamic), torch.get_num_threads(), spin=False)
    return lambda images: runs.run(None, {"images": images.numpy()})


def _onnx(network: nn.Module, example: Tensor) -> Run:
    content = export_piece("dense", network, (example.repeat(2, 1, 1, 1),)).SerializeToString()
    runs = session(content, torch.get_num_threads(), spin=False)
    name = runs.get_inputs()[0].name
    return lambda images: runs.run(None, {name: images.numpy()})


def _static(dense: nn.Sequential, example: Tensor, macs: float, in_parts: Callable[[Run], Run]) -> Runner:
    """The network under the smallest pruning ratio, in steps of 1/64, with which Torch-Pruning makes it so cheap."""
    low = 0
    high = 63
    while low < high:
        middle = (low + high) // 2
        if count_macs(_pruned(dense, example, middle / 64), example) <= macs:
            high = middle
        else:
            low = middle + 1
    network = _pruned(dense, example, low / 64)
    run = in_parts(optimize_for_inference(network))
    return Runner("pytorch", False, run, float(count_macs(network, example)))


def _pruned(dense: nn.Sequential, example: Tensor, ratio: float) -> nn.Sequential:
    network = copy.deepcopy(dense)
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1:]
    try:
        torch_pruning.pruner.BasePruner(
            network,
            example,
            torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=ratio,
            ignored_layers=last,
            round_to=8,
        ).step()
        network(example)
    except Exception as error:  # Torch-Pruning raises all sorts where it does not understand a network
        reason = f"{type(error).__name__}: {error}"
        raise RLPruneError(f"Torch-Pruning cannot prune this network ({reason}); leave out the row static") from error
    return network.eval()
