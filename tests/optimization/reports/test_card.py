from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from onnx import TensorProto, helper
from optimized import CLASSES, RESULT, make_result, make_row, missed

from rlprune.optimization.reports.card import model_card
from rlprune.optimization.result import OptimizeResult

FILES = ("dynamic.onnx", "static.onnx", "labels.txt", "bundle/", "README.md")
CARD = model_card(RESULT, FILES)
STRANGE = (
    "a: b\n---\n# \"x\" 'y' \\ | * [z](w) <b> é \U0001f600 \x85 \u2028 \x07 \udcff \uffff \U000e0001 {{ 1 }} - null"
)


def read(card: str) -> ModelCardData:
    """The metadata as the hub reads them."""
    data = ModelCard(card).data
    assert isinstance(data, ModelCardData)
    return data


def result_of(card: str) -> EvalResult:
    found = read(card).eval_results
    assert found is not None
    (result,) = found
    return result


def test_the_hub_reads_task_library_licence_and_accuracy() -> None:
    data = read(CARD)
    assert (data.library_name, data.pipeline_tag, data.license) == ("rlprune", "image-classification", "unknown")
    assert data.metrics == ["accuracy"] and data.tags is not None and "onnx" in data.tags
    found = result_of(CARD)
    assert (found.task_type, found.dataset_type, found.dataset_split) == ("image-classification", "imagefolder", "test")
    assert (found.metric_type, found.metric_value, found.dataset_name) == ("accuracy", 0.9217, "pictures")
    assert data.model_name == "resnet20"
    assert set(data.to_dict()) <= {"license", "library_name", "pipeline_tag", "tags", "metrics", "model-index"}


def test_the_accuracy_is_that_of_what_lies_in_the_folder() -> None:
    static = make_result(deploy="static", deploy_row="static", deploy_file="deploy/static.onnx")
    assert result_of(model_card(static, FILES)).metric_value == 0.9117
    assert 'InferenceSession("static.onnx")' in model_card(static, FILES)
    left = model_card(missed(), FILES)
    assert result_of(left).metric_value == 0.9217 and 'InferenceSession("dynamic.onnx")' in left
    nothing = model_card(make_result(rows=RESULT.rows[:0]), FILES)
    assert read(nothing).eval_results is None


def test_names_of_all_kinds_come_back_from_the_metadata() -> None:
    check = replace(RESULT.check, network=STRANGE, data=STRANGE, classes=(STRANGE,), warnings=(STRANGE,))
    card = model_card(make_result(check=check, sentences=(STRANGE,)), FILES)
    assert read(card).model_name == STRANGE.replace("\udcff", "\ufffd")
    assert card.encode("utf-8").decode("utf-8") == card
    assert not [line for line in card.splitlines() if line == "---"][2:]
    assert "\n# a: b ---" in card and "| \\*" not in card.split("\n---\n")[0]
    for word in ("yes", "null", "1e3", "-", "~", "true", "no", ""):
        named = model_card(make_result(check=replace(RESULT.check, network=word)), FILES)
        assert read(named).model_name == (word or "network")


def test_paths_to_the_images_stay_at_home() -> None:
    for data in ("/home/me/secret/pictures", "C:\\me\\secret\\pictures", "/home/me/secret/pictures/"):
        card = model_card(make_result(check=replace(RESULT.check, data=data)), FILES)
        assert "secret" not in card and result_of(card).dataset_name == "pictures"


def test_it_says_what_it_is_what_it_costs_and_where_it_ends() -> None:
    text = ModelCard(CARD).text
    headings = re.findall("^## (.*)$", text, re.MULTILINE)
    assert headings == ["Data", "Accuracy and cost", "Limits", "Files", "How to run it", "Licence"]
    assert "| **rlprune** | 92.17 | 0.33 (-0.44 to 1.11) | 42.0 | 0.840 | 2.12 | yes |" in text
    assert "95 % interval 90.0 to 94.1 %" in text and "600 test images" in text and "AMD EPYC 7R13" in text
    assert "1,000 network, 400 policy, 600 validation, 600 test" in text
    assert 'deer, dog, \\<b\\>\\&", horse' in text and RESULT.check.warnings[0] in text
    assert [line for line in text.splitlines() if line.startswith("- `dynamic.onnx`: ")]
    for output in ("label", "probability", "logits", "profiles", "macs", "budget"):
        assert output in text


def test_of_many_classes_the_first_are_named() -> None:
    check = replace(RESULT.check, classes=tuple(f"class{n}" for n in range(1000)))
    card = model_card(make_result(check=check), FILES)
    assert "class49, and 950 more in `labels.txt`" in card and "class50," not in card


def test_rows_of_other_titles_and_grey_images() -> None:
    rows = (make_row("rlprune", "a | b", "dynamic", (0.9, -0.004, -1.0, 1.0, 0.5, 123.4, 1.0)),)
    check = replace(RESULT.check, image_shape=(1, 28, 28), preprocessing="")
    card = model_card(make_result(rows=rows, check=check), FILES)
    assert "| **a \\| b** | 90.00 | 0.00 (-1.00 to 1.00) | 50.0 | 123 | 1.00 | no |" in card
    assert "np.zeros((2, 1, 28, 28), np.uint8)" in card and "grey, in the form (B, 1, H, W)" in card


def save_stand_in(path: Path, result: OptimizeResult) -> None:
    """An ONNX file that takes and gives what `dynamic.onnx` does: its logits are the means of the channels."""
    shape = ["B", *result.check.image_shape]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "one"], ["probability"], keepdims=0),
        helper.make_node("Unsqueeze", ["label", "one"], ["profiles"]),
        helper.make_node("Mul", ["probability", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "budget"], ["share"]),
        helper.make_node("Mul", ["share", "dense"], ["spent"]),
        helper.make_node("Cast", ["spent"], ["macs"], to=TensorProto.INT64),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, shape),
        helper.make_tensor_value_info("budget", TensorProto.FLOAT, [1]),
    ]
    kinds = {"label": (7, ["B"]), "probability": (1, ["B"]), "logits": (1, ["B", 3]), "profiles": (7, ["B", 1])}
    kinds["macs"] = (7, ["B"])
    outputs = [helper.make_tensor_value_info(name, kind, sides) for name, (kind, sides) in kinds.items()]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("none", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("dense", TensorProto.FLOAT, [1], [1000.0]),
        helper.make_tensor("budget", TensorProto.FLOAT, [1], [0.5]),
    ]
    graph = helper.make_graph(nodes, "stand-in", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def test_the_code_for_onnxruntime_runs_as_it_stands(tmp_path: Path) -> None:
    save_stand_in(tmp_path / "dynamic.onnx", RESULT)
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    first, budget = re.findall("```python\n(.*?)```", CARD, re.DOTALL)[:2]
    code = first + budget.replace("session.run", "result = session.run") + "print(result[4].tolist())\n"
    code += "print([each.name for each in session.get_overridable_initializers()])\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["airplane 33.3%, 500 multiply-adds"] * 2 + ["[400, 400]"] and "'budget'" in lines[3]


@pytest.mark.parametrize("result", [RESULT, missed()], ids=["reached", "missed"])
def test_code_compiles_and_commands_are_those_of_rlprune(result: OptimizeResult) -> None:
    card = model_card(result, FILES)
    for block in re.findall("```python\n(.*?)```", card, re.DOTALL):
        compile(block, "card", "exec")
    (commands,) = re.findall("```sh\n(.*?)```", card, re.DOTALL)
    assert all(line.startswith("rlprune ") for line in commands.splitlines())
