"""Number formats of one bundle: accuracy, size and time of float32, bfloat16 and int8.

    python runs/reference/compare_precision.py runs/reference/m_cifarnet

takes the bundle of that folder, and writes precision.json beside it. int8 is calibrated on 512 of the images that train
the network; accuracies are of the test images. Times are of the whole dynamic network, policy and all passes included,
in turns, in one process.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rlprune
from rlprune.conditions import conditions
from rlprune.evaluate import codebook_logits
from rlprune.files import write_json
from rlprune.onnx import export_bodies, session, to_onnx
from rlprune.options import DataOptions
from rlprune.quantise import quantised
from rlprune.timing import Turns, interleaved
from rlprune.verbs.export import N_CALIBRATION

BATCHES, PER_TURN, SECONDS = (1, 64), 64, 40.0


@torch.inference_mode()
def features_of(dynamic: rlprune.DynamicCNN, images: Tensor) -> Tensor:
    """What bodies see of images, uint8 (N, C, H, W)."""
    return torch.cat([dynamic.slices.stem(dynamic.normalise(part)) for part in images.split(256)]).contiguous()


def logits_of(content: bytes, inputs: Tensor) -> Tensor:
    """What a model of one input says of inputs (N, ...)."""
    run = session(content, torch.get_num_threads(), spin=False)
    name = run.get_inputs()[0].name
    return torch.cat([torch.from_numpy(run.run(None, {name: part.numpy()})[0]) for part in inputs.split(256)])


def profile_rows(plain: Any, half: Any, calibration: Tensor, test: rlprune.data.ImageSet) -> list[dict[str, Any]]:
    """Accuracy and bytes of every profile alone, in each format."""
    seen, in_use = features_of(plain, test.images), features_of(plain, calibration)
    in_half, rows = codebook_logits(half, test), []
    for index, body in enumerate(export_bodies(plain, seen[:2])):
        formats = {"float32": body.SerializeToString(), "int8": quantised(body, in_use).SerializeToString()}
        row: dict[str, Any] = {
            name: {"accuracy": right(logits_of(content, seen), test), "bytes": len(content)}
            for name, content in formats.items()
        }
        rows.append({"profile": index, **row, "bfloat16": {"accuracy": right(in_half[index], test)}})
        print(rows[-1], flush=True)
    return rows


def right(logits: Tensor, test: rlprune.data.ImageSet) -> float:
    """Share of right answers."""
    return float((logits.argmax(1) == test.labels).double().mean())


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    plain, half = (rlprune.load(folder / "bundle", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    splits = DataOptions(**plain.about["network"]["source"]).load()
    calibration, test = splits.network.images[:N_CALIBRATION], splits.test
    files = {"float32": to_onnx(plain), "int8": to_onnx(plain, calibration)}
    sessions = {name: session(content, torch.get_num_threads(), spin=False) for name, content in files.items()}

    def onnx(name: str) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.from_numpy(sessions[name].run(["logits"], {"images": images.numpy()})[0])

    whole: dict[str, Callable[[Tensor], Tensor]] = {
        "PyTorch, float32": lambda images: plain(images).probabilities,
        "PyTorch, bfloat16": lambda images: half(images).probabilities,
        "onnxruntime, float32": onnx("float32"),
        "onnxruntime, int8": onnx("int8"),
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, run in whole.items():
        logits = torch.cat([run(part) for part in test.images.split(256)])
        rows[name] = {"name": name, "accuracy": right(logits, test), "ms": {}}
    for name, content in files.items():
        rows[f"onnxruntime, {name}"]["bytes"] = len(content)
    for batch in BATCHES:
        n_batches = -(-PER_TURN // batch)
        times = interleaved({name: Turns(run, test.images, batch, n_batches) for name, run in whole.items()}, SECONDS)
        for name, ms in times.items():
            rows[name]["ms"][str(batch)] = float(np.median(ms)) / n_batches
    profiles = profile_rows(plain, half, calibration, test)
    found = {"whole": list(rows.values()), "profiles": profiles, "n_calibration": len(calibration), **conditions()}
    write_json(folder / "precision.json", found)
    print(*rows.values(), sep="\n")


if __name__ == "__main__":
    main()
