"""ONNX files that were altered, by mistake or on purpose: each is refused in one line, before it can do harm."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loads import Work, forks, workers
from ranged import DATA, DYNAMIC, onnx_content

from rlprune.deployment.onnx import trial as onnx_trial
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.graph import DOMAIN
from rlprune.errors import BundleError
from rlprune.storage.bundle import save_bundle

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx_file = pytest.importorskip("rlprune.deployment.onnx.file")
CONTENT = onnx_content()


def altered(alter: Callable[[Any], object], *, sign: bool = True) -> bytes:
    """The file after a change to its model, with a checksum that fits, if asked for."""
    model = onnx.load_from_string(CONTENT)
    alter(model)
    for entry in model.metadata_props:
        if entry.key == onnx_file.CHECKSUM:
            entry.value = "0" * 64
    content = model.SerializeToString()
    return onnx_file.signed(content) if sign else content


def noted(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file after a change to its notes."""

    def alter(model: Any) -> None:
        (entry,) = (each for each in model.metadata_props if each.key == "rlprune")
        notes = json.loads(entry.value)
        change(notes)
        entry.value = json.dumps(notes)

    return altered(alter)


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        OnnxCNN(path)
    assert len(str(caught.value)) < 400 + len(str(path)) and "\n" not in str(caught.value)


def function(model: Any, name: str) -> Any:
    return next(each for each in model.functions if each.name == name)


def first_tensor(model: Any) -> Any:
    tensors = [attribute.t for node in function(model, "stem").node for attribute in node.attribute if attribute.t.dims]
    return tensors[0]


def test_any_byte_that_changes_is_seen_before_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.deployment.onnx.cnn.trial", lambda *_: pytest.fail("it was run"))
    generator = random.Random(0)
    for _ in range(40):
        content = bytearray(CONTENT)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        refused(tmp_path / "x.onnx", bytes(content), "has been altered: its SHA-256|is no file that")
    refused(tmp_path / "x.onnx", CONTENT + CONTENT, "has been altered")


def test_a_file_without_a_checksum_is_from_before_there_were_any(tmp_path: Path) -> None:
    before = altered(lambda model: model.metadata_props.pop(), sign=False)
    assert onnx_file.CHECKSUM.encode() not in before
    (tmp_path / "before.onnx").write_bytes(before)
    predicted = OnnxCNN(tmp_path / "before.onnx")(DATA.images)
    assert torch.equal(predicted.profiles, DYNAMIC(DATA.images).profiles)


def test_a_file_in_a_bundle_is_compared_with_its_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, DYNAMIC.elastic, DYNAMIC.source_policy, DATA, more={"dynamic.onnx": CONTENT})
    assert torch.equal(OnnxCNN(folder / "dynamic.onnx")(DATA.images).labels, DYNAMIC(DATA.images).labels)

    def zero(model: Any) -> None:
        tensor = first_tensor(model)
        tensor.raw_data = bytes(len(tensor.raw_data))

    refused(folder / "dynamic.onnx", altered(zero), r"has been altered: its SHA-256 is not the manifest's; copy")
    (folder / "manifest.json").write_text("{}")
    refused(folder / "dynamic.onnx", CONTENT, r"manifest\.json has been altered")
    for name, text in (("manifest.json", "[]"), ("manifest.sha256", hashlib.sha256(b"[]").hexdigest())):
        (folder / name).write_text(text)
    refused(folder / "dynamic.onnx", CONTENT, r"manifest\.json is no manifest of a bundle")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda notes: notes.pop("classes"), "its notes, at classes: Field required"),
        (lambda notes: notes.update(classes=list("abcd")), "it has 5 logits and 4 classes"),
        (lambda notes: notes.update(classes="abcde"), "its notes, at classes: Input should be a valid"),
        (lambda notes: notes.update(more="x" * 10**6), "its notes, at more: Extra inputs"),
        (lambda notes: notes["keep_ratios"][0].__setitem__(0, 1.5), r"at keep_ratios\.0\.0: Input should be less"),
        (
            lambda notes: notes["keep_ratios"][0].__setitem__(0, float("nan")),
            r"at keep_ratios\.0\.0: Input should be a",
        ),
        (lambda notes: notes["keep_ratios"].pop(), "do not agree on the number of profiles: 2 keep_ratios, 3 param"),
        (lambda notes: notes["prices"]["dense"].__setitem__(1, 10**30), r"at prices\.dense\.1"),
        (lambda notes: notes["prices"]["stem"].__setitem__(1, 1), "two images cost .* MACs, by its notes"),
        (lambda notes: notes.update(preprocessing={"resize": -3}), "preprocess: resize is -3"),
        (lambda notes: notes.update(preprocessing={"transform": "os:abort"}), r"at preprocessing\.transform: Extra"),
    ],
)
def test_notes_are_a_schema(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    refused(tmp_path / "x.onnx", noted(change), message)


def external(model: Any) -> None:
    tensor = first_tensor(model)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def claims(model: Any) -> None:
    first_tensor(model).dims[0] = 2**33


def foreign(model: Any) -> None:
    function(model, "start").node[0].domain = "com.example"


def endless(model: Any) -> None:
    function(model, "run").node.add(op_type="run", domain=DOMAIN, input=["features"], output=["more"])


def grows(model: Any) -> None:
    """Functions that call the next one ten times each: a million operators, and more."""
    for k in range(7):
        made = model.functions.add(name=f"grow_{k}", domain=DOMAIN, input=["x"], output=["y"])
        made.opset_import.add(domain="", version=18)
        for n in range(10):
            made.node.add(
                op_type="Relu" if k == 6 else f"grow_{k + 1}",
                domain="" if k == 6 else DOMAIN,
                input=["x"],
                output=[f"y{n}"],
            )


def loops(model: Any) -> None:
    function(model, "profile_0").node[-1].op_type = "Loop"


def strides(model: Any) -> None:
    (node,) = [node for node in function(model, "stem").node if node.op_type == "Conv"][:1]
    next(each for each in node.attribute if each.name == "strides").ints[0] = 0


def renamed(model: Any) -> None:
    model.graph.output[0].name = "scores"


def huge(model: Any) -> None:
    """The logits of a profile go through a tensor of 64 GB."""
    part = function(model, "profile_1")
    (last,) = part.output
    for node in part.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [3], [2**17, 2**17, 1])
    part.node.add(op_type="Constant", output=["shape"]).attribute.append(onnx.helper.make_attribute("value", shape))
    part.node.add(op_type="Expand", input=["before", "shape"], output=["large"])
    part.node.add(op_type="ReduceMax", input=["large"], output=["most"])
    part.node.add(op_type="Add", input=["before", "most"], output=[last])


def not_finite(model: Any) -> None:
    tensors = [attribute.t for node in function(model, "profile_2").node for attribute in node.attribute]
    tensor = next(each for each in tensors if each.data_type == onnx.TensorProto.FLOAT and len(each.raw_data) > 400)
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (external, "a tensor has a field that files of rlprune do not have"),
        (claims, "a tensor has more or fewer numbers than its shape says"),
        (foreign, "its operator .* is of 'com.example'; only ONNX's own are read"),
        (endless, "its function 'run' is not there, or calls itself"),
        (grows, "it has more than 1,000,000 operators"),
        (loops, "its operator 'Loop' is not one that files of rlprune have"),
        (strides, "an operator's strides is 0; 1 to 65536 are allowed"),
        (renamed, r"its outputs are \['logits', .*'scores'\]; label, probability, logits, profiles, macs are expected"),
        (huge, "is no file that `rlprune export --onnx` wrote: "),
        (not_finite, "cannot be used: logits are not finite"),
        (lambda model: model.functions.pop(), "is not there, or calls itself"),
        (lambda model: model.functions.append(model.functions[0]), "two of its functions have one name"),
        (lambda model: model.opset_import.add(domain="", version=99), "its operators are version 99 of ONNX"),
    ],
)
def test_a_graph_holds_nothing_that_onnxruntime_should_not_see(
    alter: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    refused(tmp_path / "x.onnx", altered(alter), message)


def test_what_runs_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_trial, "_SECONDS", 0.0)
    monkeypatch.setattr(onnx_trial, "_MACS_A_SECOND", 1e30)
    refused(tmp_path / "x.onnx", CONTENT, "two images take more than 0 seconds")


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x08\x0a\x3a\x05", b"\x0b\x0c", b"\xff" * 30, CONTENT[:-9]])
def test_what_is_no_file_of_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "x.onnx", content, "is no file that `rlprune export --onnx` wrote: it|has been altered")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_or_a_folder_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.onnx")
    for path, reason in ((tmp_path / "x.onnx", "it is no regular file"), (tmp_path, "")):
        with pytest.raises(BundleError, match=f"cannot be read .*{reason}"):
            OnnxCNN(path)


def test_it_goes_to_other_processes(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(CONTENT)
    dynamic = OnnxCNN(tmp_path / "x.onnx", 1)
    (tmp_path / "x.onnx").unlink()
    for again in (pickle.loads(pickle.dumps(dynamic)), copy.deepcopy(dynamic)):
        assert torch.equal(again(DATA.images).probabilities, dynamic(DATA.images).probabilities)
    work = Work(dynamic, DATA.images)
    assert not workers("fork", work, "fork", 1, 10).n_faults
    assert not forks("forks", work, 10).n_faults
