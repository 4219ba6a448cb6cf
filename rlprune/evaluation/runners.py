"""What a benchmark times: the dense network prepared in several ways, a static pruned one, and the dynamic one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch_pruning
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.static import count_macs
from rlprune.evaluation.timing.backends import has_onnx
from rlprune.evaluation.timing.runner import Runner, in_parts, onnx_dynamic, onnx_plain, reason, there
from rlprune.graph.folding import optimize_for_inference
from rlprune.utils.notes import say

Maker = Callable[[], Runner]
"""Makes a row, or says why it cannot."""


def prepare_runners(
    dynamic: DynamicCNN, share: float, names: Sequence[str], images: Tensor, rivals: Mapping[str, Maker]
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Prepare networks for timing; a row that cannot be made or run is left out, and a line says why.

    | name | what it is |
    |---|---|
    | `dense` | the whole network, as it is |
    | `dense folded` | without norms, in channels_last, as many images at once as the dynamic one runs |
    | `dense compiled` | that, through `torch.compile`, anew for every batch size |
    | `dense onnxruntime` | that, as ONNX |
    | `dense int8 onnxruntime` | that, in eight-bit integers |
    | `static` | pruned by Torch-Pruning to the dynamic one's mean MACs, then as `dense folded` |
    | `dynamic` | the policy, every pass, and the slices |
    | `dynamic compiled` | the same with slices through `torch.compile` |
    | `dynamic onnxruntime` | the same as one ONNX file, run without torch |
    | `dynamic int8 onnxruntime` | that, with stem and slices in eight-bit integers |
    | `cascade`, `cascade onnxruntime` | the best tuned cascade that costs no more, in place of the policy |
    | `static FOLDER`, `static FOLDER onnxruntime` | networks that were trained for all images |

    Rows in int8 and cascades need images that do not test.

    Threads of onnxruntime do not spin here: they would slow whoever runs next in the same process. Where the network is
    on another device than the processor, images go there and logits come back within the time that is measured.

    Args:
        dynamic: the network with its policy.
        share: of the dense network's MACs, for the static one.
        names: those that are wanted.
        images: some to try each on, uint8 (B, C, H, W).
        rivals: what makes the others, as `rlprune.evaluation.timing.rivals.rival_makers` gives it; the static networks
            of folders are wanted in any case.

    Returns:
        The runners by name, in the order of the table; and why others are left out, by name.

    Raises:
        RLPruneError: there is no row of such a name, or none can be made.
    """
    check_rows(names)
    makers = _makers(dynamic, share) | dict(rivals)
    wanted = [name for name in ROWS if name in names] + [name for name in makers if name not in ROWS]
    normalised = dynamic.normalise(images)
    runners: dict[str, Runner] = {}
    left_out: dict[str, str] = {}
    for name in wanted:
        try:
            runner = makers[name]()
            runner.run(images if runner.dynamic else normalised)
        except Exception as error:  # exporters, compilers and Torch-Pruning raise all sorts
            left_out[name] = reason(error)
            say(f"the row {name} is left out: {left_out[name]}")
        else:
            runners[name] = runner
    if not runners:
        raise RLPruneError(f"no row can be timed: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    return runners, left_out


def _makers(dynamic: DynamicCNN, share: float) -> dict[str, Callable[[], Runner]]:
    """What makes each row."""
    dense = dynamic.elastic.slice(dynamic.elastic.full)
    macs = float(dynamic.prices.dense.macs)

    def of_dense(run: Callable[[Tensor], object], backend: str = "pytorch") -> Runner:
        return Runner(backend, False, run, macs, "dense")

    def compiled() -> Runner:
        return of_dense(in_parts(torch.compile(optimize_for_inference(dense), dynamic=False), dynamic))

    return {
        "dense": lambda: of_dense(there(dense, dynamic)),
        "dense folded": lambda: of_dense(in_parts(optimize_for_inference(dense), dynamic)),
        "dense compiled": compiled,
        "dense onnxruntime": lambda: of_dense(onnx_plain(dense, dynamic), "onnxruntime"),
        "static": lambda: _static(copy.deepcopy(dense).cpu(), dynamic, share * macs),
        "dynamic": lambda: Runner("pytorch", True, dynamic),
        "dynamic compiled": lambda: Runner("pytorch", True, _compiled(dynamic)),
        "dynamic onnxruntime": lambda: Runner("onnxruntime", True, onnx_dynamic(dynamic)),
    }


ROWS = (
    "dense",
    "dense folded",
    "dense compiled",
    "dense onnxruntime",
    "dense int8 onnxruntime",
    "static",
    "cascade",
    "cascade onnxruntime",
    "dynamic",
    "dynamic compiled",
    "dynamic onnxruntime",
    "dynamic int8 onnxruntime",
)
"""All rows that a benchmark can have, in their order."""
DEFAULT_ROWS = ("dense", "dense folded", "dynamic")
"""Those that need nothing but torch, and no time to prepare."""


def available_rows() -> tuple[str, ...]:
    """The rows that can be timed here, with what is installed; some of them need images."""
    return tuple(name for name in ROWS if has_onnx() or not name.endswith("onnxruntime"))


def default_rows() -> tuple[str, ...]:
    """The rows of those who name none: `DEFAULT_ROWS`, and the same networks in onnxruntime where it is installed."""
    of_onnx = ("dense onnxruntime", "dynamic onnxruntime")
    return tuple(name for name in available_rows() if name in (*DEFAULT_ROWS, *of_onnx))


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


def _static(dense: nn.Sequential, dynamic: DynamicCNN, macs: float) -> Runner:
    """The network under the smallest pruning ratio, in steps of 1/64, with which Torch-Pruning makes it so cheap."""
    example = torch.zeros(1, *dynamic.image_shape)
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
    run = in_parts(optimize_for_inference(network.to(dynamic.device)), dynamic)
    return Runner("pytorch", False, run, n_macs, "static")


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
