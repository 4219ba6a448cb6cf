from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from served import CLASSES, Deployed, make_deployed, make_file

from rlprune.deployment.onnx.pieces import session
from rlprune.errors import BundleError, RLPruneError
from rlprune.serving.triton import config, save_triton

schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")  # the messages of Triton's own model_config.proto
DTYPES = {"TYPE_FP32": "tensor(float)", "TYPE_UINT8": "tensor(uint8)", "TYPE_INT64": "tensor(int64)"}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return make_deployed(tmp_path_factory.mktemp("deploy"))


def parsed(text: str) -> Any:
    """A configuration as Triton reads it: an unknown field, or a value of another type, raises."""
    return text_format.Parse(text, schema.ModelConfig())


def type_of(entry: Any) -> str:
    return DTYPES[schema.DataType.Name(entry.data_type)]


def test_a_repository_is_what_tritons_schema_and_the_file_say(deployed: Deployed, tmp_path: Path) -> None:
    folder = save_triton(tmp_path / "models", deployed.folder / "dynamic.onnx", "birds")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["birds"]
    found = parsed((folder / "config.pbtxt").read_text())
    assert (found.name, found.backend, found.max_batch_size) == ("birds", "onnxruntime", 64)
    assert found.HasField("dynamic_batching")
    runs = session((folder / "1" / "model.onnx").read_bytes(), 1, spin=False)
    for entries, expected in ((found.input, runs.get_inputs()), (found.output, runs.get_outputs())):
        assert [entry.name for entry in entries] == [each.name for each in expected]
        for entry, each in zip(entries, expected, strict=True):
            assert type_of(entry) == each.type and isinstance(each.shape[0], str)
            shape = entry.reshape.shape if entry.HasField("reshape") else entry.dims
            assert list(shape) == each.shape[1:]
            assert list(entry.dims)  # Triton takes no tensor without a dimension of its own
    (labelled,) = (entry for entry in found.output if entry.label_filename)
    assert labelled.name == "logits"
    assert (folder / labelled.label_filename).read_text().splitlines() == list(CLASSES)


def test_what_clients_batch_themselves_takes_a_budget() -> None:
    batched, alone = parsed(config(make_file())), parsed(config(make_file(), "x", 0))
    assert [(entry.name, entry.optional) for entry in alone.input] == [("images", False), ("budget", True)]
    assert not any(entry.optional for entry in batched.input)  # the backend refuses it where it batches
    assert alone.max_batch_size == 0 and not alone.HasField("dynamic_batching")
    assert all(entry.dims[0] == (1 if entry.optional else -1) for entry in alone.input)
    assert all(entry.dims[0] == -1 for entry in alone.output)
    for entry in (*batched.input, *batched.output):
        (same,) = (each for each in (*alone.input, *alone.output) if each.name == entry.name)
        assert list(same.dims[1:]) == list([] if entry.HasField("reshape") else entry.dims)


def test_the_model_is_replaced_as_a_whole_and_nothing_else_is(deployed: Deployed, tmp_path: Path) -> None:
    content = (deployed.folder / "dynamic.onnx").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.pbtxt").write_text('name: "other"\n')
    folder = save_triton(tmp_path, content)
    (folder / "1" / "stray").write_text("")
    with pytest.raises(BundleError, match="it is no file that `rlprune export --onnx` wrote"):
        save_triton(tmp_path, content[:1000])
    assert (folder / "1" / "stray").exists()
    assert save_triton(tmp_path, content) == folder and not (folder / "1" / "stray").exists()
    with pytest.raises(BundleError, match="other exists and is no model that rlprune wrote"):
        save_triton(tmp_path, content, "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["config.pbtxt"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 101, 'a"b', "é"])
def test_names_that_are_no_folders_are_refused(name: str, deployed: Deployed, tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match="is no name of a model: give up to 100 letters"):
        save_triton(tmp_path, b"", name)
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_what_is_wrong(deployed: Deployed, tmp_path: Path) -> None:
    for wrong in (-1, 1.5, True, 2**21):
        with pytest.raises(RLPruneError, match="max_batch="):
            save_triton(tmp_path, deployed.folder / "dynamic.onnx", max_batch=wrong)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="file is a file; name another folder"):
        save_triton(tmp_path / "file", deployed.folder / "dynamic.onnx")
