"""How to run what an optimisation leaves in `deploy/`, as code that a reader can copy."""

from __future__ import annotations

from pathlib import PurePath

from rlprune.optimization.result import CheckResult, OptimizeResult, Row

BUNDLE = "bundle"
_CODE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{model}")
with open("labels.txt", encoding="utf-8") as file:
    classes = file.read().split("\\n")

images = np.zeros((2, {shape}), np.uint8)  # your pixels, 0 to 255: (B, C, H, W), {channels}
label, probability, logits, profiles, macs = session.run(None, {{"images": images}})
for each in range(len(images)):
    print(classes[label[each]], f"{{probability[each]:.1%}}, {{macs[each]:,}} multiply-adds")
"""
_BUDGET = """\
budget = np.array([0.4], np.float32)  # mean share of the network's multiply-adds
session.run(None, {"images": images, "budget": budget})
"""


def model_file(result: OptimizeResult) -> str:
    """The file to run, relative to `deploy/`: what is to be deployed, or else the network that decides per image."""
    if result.deploy_file is not None and result.deploy_file.endswith(".onnx"):
        return PurePath(result.deploy_file).name
    return "dynamic.onnx"


def row_of_files(result: OptimizeResult) -> Row | None:
    """The row of what the files hold: the one to be deployed, or the network that decides per image where none is."""
    deployed = result.row(result.deploy_row)
    if deployed is not None and result.deploy_file is not None:
        return deployed
    return result.row(result.dynamic_row or "rlprune") or deployed


def with_onnxruntime(result: OptimizeResult) -> str:
    """Python that runs the file with onnxruntime and NumPy alone, in `deploy/`."""
    shape = ", ".join(str(side) for side in result.check.image_shape)
    return _CODE.format(model=model_file(result), shape=shape, channels=_channels(result.check))


def with_budget() -> str:
    """Python that gives a file whose policy serves a range of costs another budget, after `with_onnxruntime`."""
    return _BUDGET


def with_rlprune() -> str:
    """Python that runs the bundle, in `deploy/`."""
    return f"""\
import rlprune

model = rlprune.load("{BUNDLE}")
predicted = model.predict("pictures/")  # a folder, paths, PIL images, arrays or tensors
"""


def on_the_command_line() -> str:
    """Commands that run the bundle, in `deploy/`."""
    return f"""\
rlprune predict {BUNDLE} pictures/
rlprune serve .
"""


def _channels(check: CheckResult) -> str:
    return "grey" if check.image_shape and check.image_shape[0] == 1 else "RGB"
