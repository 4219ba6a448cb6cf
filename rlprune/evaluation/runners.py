"""What a benchmark times: the dense network prepared in several ways, a static pruned one, and the dynamic one."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import session
from rlprune.deployment.onnx.export import to_onnx
from rlprune.deployment.onnx.pieces import export_piece
from rlprune.errors import RLPruneError
from rlprune.evaluation.static import count_macs
from rlprune.graph.folding import fold_norms, optimize_for_inference
from rlprune.utils.imports import require
from rlprune.utils.notes import say

Run = Callable[[Tensor], Any]


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


def prepare_runners(
    dynamic: DynamicCNN, share: float, names: Sequence[str], images: Tensor
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Prepare networks for timing; a row that cannot be made or run is left out, and a line says why.

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

    Threads of onnxruntime do not spin here: they would slow whoever runs next in the same process. Where the network is
    on another device than the processor, images go there and logits come back within the time that is measured.

    Args:
        dynamic: the network with its policy.
        share: of the dense network's MACs, for the static one.
        names: those that are wanted.
        images: some to try each on, uint8 (B, C, H, W).

    Returns:
        The runners by name, in the order of the table; and why others are left out, by name.

    Raises:
        RLPruneError: there is no row of such a name, or none can be made.
    """
    check_rows(names)
    makers = _makers(dynamic, share)
    normalised = dynamic.normalise(images)
    runners: dict[str, Runner] = {}
    left_out: dict[str, str] = {}
    for name in (name for name in ROWS if name in names):
        try:
            runner = makers[name]()
            runner.run(images if runner.dynamic else normalised)
        except Exception as error:  # exporters, compilers and Torch-Pruning raise all sorts
            left_out[name] = _reason(error)
            say(f"the row {name} is left out: {left_out[name]}")
        else:
            runners[name] = runner
    if not runners:
        raise RLPruneError(f"no row can be timed: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    return runners, left_out


def _reason(error: Exception) -> str:
    """Why a row cannot be made, in one short line."""
    text = str(error).strip().partition("\n")[0]
    kind = "" if isinstance(error, RLPruneError) else type(error).__name__
    line = ": ".join(part for part in (kind, text) if part)
    return line if len(line) <= _MOST_SAID else f"{line[:_MOST_SAID]}..."


def _makers(dynamic: DynamicCNN, share: float) -> dict[str, Callable[[], Runner]]:
    """What makes each row."""
    device = dynamic.device
    dense = dynamic.elastic.slice(dynamic.elastic.full)
    macs = float(dynamic.prices.dense.macs)
    example = torch.zeros(1, *dynamic.image_shape)

    def there(network: Run) -> Run:
        if device.type == "cpu":
            return network
        return lambda images: network(images.to(device)).cpu()

    def in_parts(network: Run) -> Run:
        whole = there(network)
        return lambda images: [whole(part) for part in images.split(dynamic.max_batch or len(images))]

    return {
        "dense": lambda: Runner("pytorch", False, there(dense), macs),
        "dense folded": lambda: Runner("pytorch", False, in_parts(optimize_for_inference(dense)), macs),
        "dense compiled": lambda: Runner(
            "pytorch", False, in_parts(torch.compile(optimize_for_inference(dense), dynamic=False)), macs
        ),
        "dense onnxruntime": lambda: Runner("onnxruntime", False, _onnx(dynamic, example), macs),
        "static": lambda: _static(copy.deepcopy(dense).cpu(), example, share * macs, in_parts, device),
        "dynamic": lambda: Runner("pytorch", True, dynamic),
        "dynamic compiled": lambda: Runner("pytorch", True, _compiled(dynamic)),
        "dynamic onnxruntime": lambda: Runner("onnxruntime", True, _onnx_dynamic(dynamic)),
    }


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
_MOST_SAID = 200
"""Characters of a reason."""
_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def available_rows() -> tuple[str, ...]:
    """The rows that can be timed here, with what is installed."""
    return tuple(name for name in ROWS if _has_onnx() or not name.endswith("onnxruntime"))


def default_rows() -> tuple[str, ...]:
    """The rows of those who name none: `DEFAULT_ROWS`, and the same networks in onnxruntime where it is installed."""
    return tuple(name for name in available_rows() if name in DEFAULT_ROWS or name.endswith("onnxruntime"))


def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) for name in _ONNX_PACKAGES)


def check_rows(names: Sequence[str]) -> None:
    """Make sure that there are such rows, before anything is loaded or timed for them.

    Raises:
        RLPruneError: there is no row of such a name.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise RLPruneError(f"there is no row {unknown[0]!r}; allowed: {', '.join(ROWS)}")


def _compiled(dynamic: DynamicCNN) -> DynamicCNN:
    return DynamicCNN.for_images(
        dynamic.elastic, dynamic.policy, dynamic, dynamic.device, compiled=True, max_batch=dynamic.max_batch
    )


def _check_onnx(device: torch.device) -> None:
    """Make sure that a row of onnxruntime can be made.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        RLPruneError: the others run on another device.
    """
    for package in _ONNX_PACKAGES:
        require(package, "onnx")
    if device.type != "cpu":
        raise RLPruneError(f"onnxruntime's rows run on the processor, and the others on {device}; time them apart")


def _onnx_dynamic(dynamic: DynamicCNN) -> Run:
    _check_onnx(dynamic.device)
    runs = session(to_onnx(dynamic), torch.get_num_threads(), spin=False)
    return lambda images: runs.run(None, {"images": images.numpy()})


def _onnx(dynamic: DynamicCNN, example: Tensor) -> Run:
    _check_onnx(dynamic.device)
    network = fold_norms(dynamic.elastic.slice(dynamic.elastic.full))
    content = export_piece("dense", network, (example.repeat(2, 1, 1, 1),)).SerializeToString()
    runs = session(content, torch.get_num_threads(), spin=False)
    name = runs.get_inputs()[0].name
    return lambda images: runs.run(None, {name: images.numpy()})


def _static(
    dense: nn.Sequential, example: Tensor, macs: float, in_parts: Callable[[Run], Run], device: torch.device
) -> Runner:
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
    n_macs = float(count_macs(network, example))
    return Runner("pytorch", False, in_parts(optimize_for_inference(network.to(device))), n_macs)


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
        raise RLPruneError(f"Torch-Pruning cannot prune this network ({reason})") from error
    return network.eval()
