"""Number formats of one bundle: accuracy, size and time of float32, bfloat16 and int8.

    python runs/reference/compare_precision.py runs/reference/m_cifarnet --epochs 1

takes the bundle of that folder, and writes precision.json there. int8 is calibrated on 512 of the images that train
the network; accuracies are of the test images. Times are of the whole dynamic network, policy and all passes included,
in turns, in one process. For so many epochs the network is also trained on with the rounding of int8 and, so that what
that is worth is compared with training on without it (then in bfloat16, where the processor has it); the
policy stays as it is.
"""

import argparse
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rlprune
from rlprune.cli.export import N_CALIBRATION
from rlprune.deployment.image_sets import codebook_logits
from rlprune.deployment.onnx.export import export_bodies, to_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.quantisation import quantised
from rlprune.intake.options import DataOptions
from rlprune.training.adaptation import SpecialiseSettings, adapt
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions
from rlprune.utils.timing import Turns, interleaved

BATCHES = (1, 64)
PER_TURN = 64
SECONDS = 40.0
TRAINING = SpecialiseSettings(learning_rate=0.003, n_random=1, sandwich=False, temperature=3.0, distillation=0.8)


def trained_on(plain: Any, images: rlprune.data.image_set.ImageSet, epochs: int, int8: bool) -> Any:
    """The same with its profiles trained on, with the rounding of int8 or without."""
    elastic = copy.deepcopy(plain.elastic)
    settings = dataclasses.replace(TRAINING, epochs=epochs, int8=int8)
    adapt(elastic, images, settings, codebook=plain.codebook)
    return rlprune.DynamicCNN(elastic, plain.policy, plain.mean, plain.std, plain.classes)


@torch.inference_mode()
def features_of(dynamic: Any, images: Tensor) -> Tensor:
    """What bodies see of images, uint8 (N, C, H, W)."""
    return torch.cat([dynamic.slices.stem(dynamic.normalise(part)) for part in images.split(256)]).contiguous()


def logits_of(content: bytes, inputs: Tensor) -> Tensor:
    """What a model of one input returns for inputs (N, ...)."""
    run = session(content, torch.get_num_threads(), spin=True)
    name = run.get_inputs()[0].name
    return torch.cat([torch.from_numpy(run.run(None, {name: part.numpy()})[0]) for part in inputs.split(256)])


def right(logits: Tensor, test: rlprune.data.image_set.ImageSet) -> float:
    """Share of right answers."""
    return float((logits.argmax(1) == test.labels).double().mean())


def alone(
    dynamic: Any, test: rlprune.data.image_set.ImageSet, calibration: Tensor | None = None
) -> list[dict[str, Any]]:
    """Accuracy and bytes of every profile alone: in float32, or in int8 if there are images to calibrate it on."""
    seen = features_of(dynamic, test.images)
    bodies = export_bodies(dynamic, features_of(dynamic, test.images[:2]))
    if calibration is not None:
        in_use = features_of(dynamic, calibration)
        bodies = (quantised(body, in_use) for body in bodies)
    contents = [body.SerializeToString() for body in bodies]
    return [{"accuracy": right(logits_of(content, seen), test), "bytes": len(content)} for content in contents]


def in_bfloat16(half: Any, test: rlprune.data.image_set.ImageSet) -> list[dict[str, Any]]:
    """Accuracy in half precision."""
    return [{"accuracy": right(logits, test)} for logits in codebook_logits(half, test)]


def timed(ways: dict[str, Callable[[Tensor], Tensor]], images: Tensor) -> dict[str, dict[str, float]]:
    """Median milliseconds of a batch, by way and batch size."""
    ms: dict[str, dict[str, float]] = {name: {} for name in ways}
    for batch in BATCHES:
        n_batches = -(-PER_TURN // batch)
        times = interleaved({name: Turns(run, images, batch, n_batches) for name, run in ways.items()}, SECONDS)
        for name, each in times.items():
            ms[name][str(batch)] = float(np.median(each)) / n_batches
    return ms


def main() -> None:
    """Train on, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    plain, half = (rlprune.load(arguments.folder / "bundle", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    splits = DataOptions(**plain.metadata["network"]["source"]).load()
    calibration = splits.network.images[:N_CALIBRATION]
    test = splits.test
    on, aware = (trained_on(plain, splits.network, arguments.epochs, int8) for int8 in (False, True))
    files = {
        "float32": to_onnx(plain),
        "int8": to_onnx(plain, calibration),
        "int8, trained for it": to_onnx(aware, calibration),
    }

    def onnx(content: bytes) -> Callable[[Tensor], Tensor]:
        runs = session(content, torch.get_num_threads(), spin=True)
        return lambda images: torch.from_numpy(runs.run(["logits"], {"images": images.numpy()})[0])

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "PyTorch, float32": lambda images: plain(images).probabilities,
        "PyTorch, bfloat16": lambda images: half(images).probabilities,
        **{f"onnxruntime, {name}": onnx(content) for name, content in files.items()},
    }
    ms = timed(ways, test.images)
    whole: list[dict[str, Any]] = []
    for name, run in ways.items():
        logits = torch.cat([run(part) for part in test.images.split(256)])
        content = files.get(name.removeprefix("onnxruntime, "))
        size = {} if content is None else {"bytes": len(content)}
        whole.append({"name": name, "accuracy": right(logits, test), "ms": ms[name], **size})
    formats = {
        "float32": alone(plain, test),
        "bfloat16": in_bfloat16(half, test),
        "int8": alone(plain, test, calibration),
        "trained_on": alone(on, test, calibration),
        "trained_for_it": alone(aware, test, calibration),
    }
    profiles = [
        {"profile": index, **dict(zip(formats, row, strict=True))}
        for index, row in enumerate(zip(*formats.values(), strict=True))
    ]
    found = {"whole": whole, "profiles": profiles, "n_calibration": len(calibration), "epochs": arguments.epochs}
    write_json(arguments.folder / "precision.json", found | conditions())
    print(*whole, *profiles, sep="\n")


if __name__ == "__main__":
    main()
