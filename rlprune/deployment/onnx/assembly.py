"""Makes one file of a graph and its functions: what it says of itself, its notes, its checksum, and a last check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rlprune.data.image_set import InputFormat
from rlprune.deployment.onnx.graph import DOMAIN, IR_VERSION, OPSET
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.passes import CostBreakdown
from rlprune.utils.imports import require

CONTRACT = 2
"""Version of what goes in and out, `model_version` of the file; files without one have the first."""
TASK = "image-classification"
"""What the files do, as the Hugging Face hub calls it."""


@dataclass(frozen=True)
class FileParts:
    """What a file is made of.

    Attributes:
        graph: in the text format of ONNX.
        functions: `onnx.FunctionProto`, those that the graph calls and those that they call.
        tensors: `onnx.TensorProto` that the graph holds.
        title: what the file is, in a sentence.
        image_shape: (C, H, W) of the network's images.
        data: normalisation, class names and preprocessing.
        keep_ratios: of every profile, for every group.
        prices: of stem, bodies, decision and dense network.
        notes: further notes for `OnnxCNN`.
        resized: whether pictures of any size go in.
        budgets: the lowest, the highest and the default budget, where it is an input.
    """

    graph: str
    functions: Sequence[Any]
    tensors: Sequence[Any]
    title: str
    image_shape: tuple[int, ...]
    data: InputFormat
    keep_ratios: list[list[float]]
    prices: CostBreakdown
    notes: Mapping[str, Any] = field(default_factory=dict)
    resized: bool = False
    budgets: tuple[float, float, float] | None = None


def assembled(parts: FileParts) -> bytes:
    """The content of a file.

    Raises:
        RLPruneError: it would be none that can be read safely.
    """
    onnx = require("onnx", "onnx")
    helper = require("onnx.helper", "onnx")
    graph = require("onnx.parser", "onnx").parse_graph(parts.graph)
    graph.initializer.extend(parts.tensors)
    descriptions = _descriptions(parts)
    for entry in (*graph.input, *graph.output):
        entry.doc_string = descriptions[entry.name]
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=parts.functions,
        ir_version=IR_VERSION,
        producer_name="rlprune",
        producer_version=version("rlprune"),
        domain=DOMAIN,
        model_version=CONTRACT,
        doc_string=parts.title,
    )
    file = require("rlprune.deployment.onnx.file")
    helper.set_model_props(model, {file.NOTES: json.dumps(_notes(parts)), **_plain(parts), file.CHECKSUM: "0" * 64})
    try:
        onnx.checker.check_model(model, full_check=True)
        content = file.signed(bytes(model.SerializeToString()))
        file.checked("it", content)
    except (BundleError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RLPruneError(f"this network cannot be stored in an ONNX file that is safe to read: {reason}") from error
    return bytes(content)


def _notes(parts: FileParts) -> dict[str, Any]:
    """What `OnnxCNN` reads."""
    notes: dict[str, Any] = {
        "classes": parts.data.classes,
        "keep_ratios": parts.keep_ratios,
        "prices": {name: [part.tolist() for part in price] for name, price in parts.prices._asdict().items()},
    }
    preprocessing = parts.data.preprocessing.to_json()
    if preprocessing:
        notes["preprocessing"] = preprocessing
    if parts.budgets is not None:
        notes["budgets"] = dict(zip(("least", "most", "default"), parts.budgets, strict=True))
    if parts.resized:
        notes["image_shape"] = list(parts.image_shape)
    return notes


def _plain(parts: FileParts) -> dict[str, str]:
    """The same for any program: the task, class names, and how pictures are prepared, in words and as JSON."""
    preparation = preparation_of(parts.data, parts.image_shape, resized=parts.resized)
    return {
        "task": TASK,
        "labels": json.dumps(list(parts.data.classes), ensure_ascii=False),
        "preprocessing": _in_words(parts),
        "preprocessing.json": json.dumps(preparation),
    }


def preparation_of(data: InputFormat, image_shape: Sequence[int], *, resized: bool) -> dict[str, Any]:
    """How pictures are prepared, as JSON: sizes, channels, statistics, and which of it the file does itself."""
    channels, height, width = image_shape
    colours = "grey" if channels == 1 else "rgb"
    return {
        "layout": "NCHW",
        "dtype": "uint8",
        "range": [0, 255],
        "channels": colours if channels in (1, 3) else str(channels),
        "size": [height, width],
        **{"resize": None, "crop": None, **data.preprocessing.to_json()},
        "channels_of_the_network": data.preprocessing.channels or colours,
        "mean": list(data.mean),
        "std": list(data.std),
        "inside": [*(["resize", "crop"] if resized else []), "channels", "scale", "normalise"],
    }


def _in_words(parts: FileParts) -> str:
    how = parts.data.preprocessing.without_statistics.text or f"scale to cover {_size(parts)}, cut the middle out"
    done = "the file does so itself, pictures of any size go in" if parts.resized else "before the file"
    numbers = ("/".join(f"{number:.6g}" for number in each) for each in (parts.data.mean, parts.data.std))
    return (
        f"{how} ({done}); pixels go in as they are, 0 to 255, {_colours(parts)}; the file scales them to [0, 1] and "
        "normalises by mean {} and std {}".format(*numbers)
    )


def _size(parts: FileParts) -> str:
    return "x".join(map(str, parts.image_shape[1:]))


def _colours(parts: FileParts) -> str:
    return {1: "grey", 3: "red first"}.get(parts.image_shape[0], f"{parts.image_shape[0]} channels")


def _descriptions(parts: FileParts) -> dict[str, str]:
    """What each input and output is."""
    size = "any height and width" if parts.resized else f"{_size(parts)} (height x width)"
    descriptions = {
        "images": f"pixels uint8 0 to 255, layout NCHW, {_colours(parts)}, {size}; not normalised",
        "label": "class of the largest probability, int64, an index into the labels",
        "probability": "of that class, float32 in [0, 1]",
        "logits": "of the final prediction, float32, one for each class; softmax gives probabilities",
        "profiles": "index of the profile of every pass, int64; -1 where there was none",
        "macs": "multiply-adds spent on the image, int64; the decisions' included",
    }
    if parts.budgets is not None:
        least, most, default = parts.budgets
        descriptions["budget"] = (
            f"optional: multiply-adds that an image may cost on average, over the dense network's, float32 (1,), "
            f"{least:.6g} to {most:.6g}, to which others are clipped; {default:.6g} if it is left out"
        )
    return descriptions
