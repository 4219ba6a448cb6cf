"""The model card: `deploy/README.md` in the form of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from rlprune.optimization.reports import running, words
from rlprune.optimization.result import OptimizeResult, Row

LICENSE = "unknown"
"""What the hub's list of licences has for a model whose owner has not chosen one."""
_TAGS = ("rlprune", "image-classification", "onnx", "pruning", "dynamic-inference")
_FILES = {
    "dynamic.onnx": "decides for every image which part of the network it runs through",
    "static.onnx": "one small network, the same for all images",
    "int8.onnx": "the network to be deployed, in eight-bit integers",
    "dense.onnx": "the original network",
    "labels.txt": "names of the classes, one a line, in the order of the labels",
    running.BUNDLE: "the network and its policy for `rlprune.load`: safetensors and JSON, no pickle, no code",
    "README.md": "this card",
}
_MOST_CLASSES = 50
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def model_card(result: OptimizeResult, files: Iterable[str]) -> str:
    """The text of the card: metadata in YAML, what it is, accuracy and cost, limits, how to run it.

    The licence is `unknown`, until the model's owner names one.

    Args:
        result: of an optimisation.
        files: names in the folder `deploy/`, such as `dynamic.onnx` and `bundle`.
    """
    row = running.row_of_files(result)
    parts = [
        "---",
        *_yaml(_metadata(result, row)),
        "---",
        "",
        f"# {_escaped(result.check.network)}, pruned by rlprune",
        "",
        *_what_it_is(result),
        *_data(result),
        *_figures(result),
        *_limits(result, row),
        *_files(files),
        *_how_to_run(result),
        *_licence(),
    ]
    text = "\n".join(parts) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # names of files may hold half a character


def _metadata(result: OptimizeResult, row: Row | None) -> dict[str, Any]:
    """What the hub reads; https://github.com/huggingface/hub-docs/blob/main/modelcard.md says what the keys mean."""
    metadata: dict[str, Any] = {
        "license": LICENSE,
        "library_name": "rlprune",
        "pipeline_tag": "image-classification",
        "tags": list(_TAGS),
        "metrics": ["accuracy"],
    }
    if row is not None:
        measured = {
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"type": "imagefolder", "name": _data_name(result), "split": "test"},
            "metrics": [{"type": "accuracy", "value": row.accuracy, "name": "top-1 accuracy"}],
        }
        metadata["model-index"] = [{"name": result.check.network or "network", "results": [measured]}]
    return metadata


def _what_it_is(result: OptimizeResult) -> list[str]:
    check = result.check
    sides = " x ".join(str(side) for side in check.image_shape)
    return [
        f"An image classifier ({len(check.classes):,} classes), made cheaper by rlprune "
        f"{result.version}. The network it was made from is "
        f"{_escaped(check.network)}: {words.count(check.dense_params)} parameters, {words.count(check.dense_macs)} "
        f"multiply-adds for an image of {sides}.",
        "",
        f"Asked for: {_escaped(result.goal.text)}. **{'Reached' if result.reached else 'Not reached'}.** "
        f"To be deployed: {words.what_to_deploy(result.deploy)}.",
        "",
        *(f"> {_escaped(sentence)}" for sentence in result.sentences),
        "",
    ]


def _data(result: OptimizeResult) -> list[str]:
    """Images of each part, and what they are of."""
    parts = ", ".join(f"{n:,} {name}" for name, n in result.check.n_images.items())
    return [
        "## Data",
        "",
        f"Images from {_escaped(_data_name(result))}: {parts}. No image is in two of them; test images chose nothing.",
        "",
    ]


def _data_name(result: OptimizeResult) -> str:
    """The images' folder or source without the path to it, which is nobody else's business."""
    return PurePath(result.check.data.replace("\\", "/")).name or "a folder of images"


def _figures(result: OptimizeResult) -> list[str]:
    batch = result.goal.batch
    lines = [
        "## Accuracy and cost",
        "",
        f"| network | top-1, % | points lost (95 %) | MACs, % | ms at batch {batch} | speed-up | meets the goal |",
        "|---|---:|---:|---:|---:|---:|:---:|",
    ]
    for row in result.rows:
        mark = "**" if row.name == result.deploy_row else ""
        lost = words.points(row.drop) + ("" if row.kind == "dense" else f" ({words.interval(row.drop_interval)})")
        figures = (
            words.percent(row.accuracy, 2),
            lost,
            words.percent(row.macs_share),
            words.milliseconds(row.ms),
            f"{row.speedup:.2f}",
            "yes" if row.meets else "no",
        )
        lines.append(f"| {mark}{_escaped(row.title)}{mark} | {' | '.join(figures)} |")
    made_with = result.conditions
    lines += [
        "",
        "Lost: against the original network on the same test images. MACs: mean multiply-adds of an image over the "
        "original's, every pass and decision counted. Times: medians, speed-up over the original's fastest row in "
        f"float32, on {_escaped(made_with.hardware)}, {made_with.threads} "
        f"{'thread' if made_with.threads == 1 else 'threads'}, {made_with.date}.",
        "",
    ]
    return lines


def _limits(result: OptimizeResult, row: Row | None) -> list[str]:
    check = result.check
    parts = {name: f"{n:,}" for name, n in check.n_images.items()}
    lines = ["## Limits", ""]
    if row is not None:
        told = "" if result.n_needed is None else f" About {result.n_needed:,} would be needed to tell."
        lines.append(
            f"- Measured once, on {parts.get('test', 'the')} test images: {words.percent(row.accuracy)} %, 95 % "
            f"interval {words.percent_interval(row.accuracy_interval)} %. Other images may give other figures.{told}"
        )
    learnt, chosen = parts.get("policy", "the policy's"), parts.get("validation", "the validation")
    lines += [
        f"- What is decided per image was learnt from {learnt} images and chosen on {chosen} validation images, all "
        "from the same source. Where images differ from those, more or less may be spent, and more may be wrong.",
        "- Multiply-adds and times are means over the test images; harder images cost more. Times are of the hardware "
        "named above, and other processors gain more or less.",
        f"- The ONNX files take `images` in uint8, 0 to 255, {_colours(result)}, not floats: scaling and "
        "normalisation are inside them. What brings pictures to their size comes before, unless the files were "
        f"written with it. All of the preprocessing: {_escaped(_preprocessing(result))}.",
        f"- It knows these classes and no others: {_classes(result)}.",
        *(f"- Warning: {_escaped(warning)}" for warning in check.warnings),
        "",
    ]
    return lines


def _colours(result: OptimizeResult) -> str:
    channels = result.check.image_shape[0] if result.check.image_shape else 3
    return "grey, in the form (B, 1, H, W)" if channels == 1 else "RGB, in the form (B, 3, H, W)"


def _preprocessing(result: OptimizeResult) -> str:
    return result.check.preprocessing or "none; images of another size are scaled to the network's"


def _classes(result: OptimizeResult) -> str:
    """Their names; of many the first."""
    names = [_escaped(name) for name in result.check.classes]
    rest = len(names) - _MOST_CLASSES
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_MOST_CLASSES])}, and {rest:,} more in `labels.txt`"


def _files(files: Iterable[str]) -> list[str]:
    lines = ["## Files", ""]
    for name in files:
        plain = name.rstrip("/")
        lines.append(f"- `{name}`: {_FILES.get(plain, _described(plain))}")
    return [*lines, ""]


def _described(name: str) -> str:
    """What a file is whose name is not one of the known."""
    if name.endswith(".onnx"):
        return "in eight-bit integers" if "int8" in name else "a network for onnxruntime"
    return "see the report"


def _how_to_run(result: OptimizeResult) -> list[str]:
    return [
        "## How to run it",
        "",
        "With onnxruntime and NumPy alone (`pip install onnxruntime numpy`), in this folder:",
        "",
        "```python",
        *running.with_onnxruntime(result).splitlines(),
        "```",
        "",
        "Outputs, in this order: `label` int64 (B,); `probability` float32 (B,), of that label; `logits` float32 "
        "(B, classes); `profiles` int64 (B, passes), which part of the network each pass ran through; `macs` int64 "
        "(B,), what the image cost in multiply-adds. B is any number of images.",
        "",
        "Where the decisions were learnt for a range of costs, the file takes a second, optional input (then "
        "`session.get_overridable_initializers()` names it):",
        "",
        "```python",
        *running.with_budget().splitlines(),
        "```",
        "",
        "With rlprune (`pip install rlprune`), which prepares pictures of any size:",
        "",
        "```python",
        *running.with_rlprune().splitlines(),
        "```",
        "",
        "On the command line, and over HTTP (`pip install 'rlprune[serve]'`):",
        "",
        "```sh",
        *running.on_the_command_line().splitlines(),
        "```",
    ]


def _licence() -> list[str]:
    return [
        "",
        "## Licence",
        "",
        f"None has been chosen yet: put an identifier of https://huggingface.co/docs/hub/repositories-licenses in the "
        f"place of `{LICENSE}` at the top of this file. The original network and images may bind you.",
    ]


def _escaped(text: str) -> str:
    """A text of somebody else's as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _yaml(content: Mapping[str, Any], indent: str = "") -> list[str]:
    """Lines of YAML for nested mappings, lists, texts and numbers."""
    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *_yaml(value, f"{indent}  ")]
        elif isinstance(value, list):
            lines += [f"{indent}{key}:", *(line for item in value for line in _item(item, indent))]
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return lines


def _item(item: Any, indent: str) -> list[str]:
    if not isinstance(item, Mapping):
        return [f"{indent}- {_scalar(item)}"]
    first, *rest = _yaml(item, f"{indent}  ")
    return [f"{indent}- {first.lstrip()}", *rest]


def _scalar(value: Any) -> str:
    """A number, a plain word, or any text between quotation marks."""
    if not isinstance(value, str):
        return repr(value)
    if re.fullmatch(r"[a-z][a-z-]*[a-z]", value) and value not in ("null", "true", "false", "yes", "no", "on", "off"):
        return value
    return '"' + "".join(map(_quoted, value)) + '"'


def _quoted(character: str) -> str:
    """A character as it stands between quotation marks in YAML."""
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    if 0xD800 <= code <= 0xDFFF:  # half a character
        return "\\uFFFD"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
