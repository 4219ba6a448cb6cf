"""What the documentation shows is true: its Python runs, its command lines parse, its names are those of the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tyro
from pages import PAGES, ROOT, blocks, command_lines

import rlprune
from rlprune.cli.main import Verb
from rlprune.deployment import save_onnx

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
ALONE = [page for page in WITH_PYTHON if page.name != "optimize.md"]  # which test_journey.py runs after its commands
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
EXAMPLES = (ROOT / "docs" / "deploy" / "examples.md").read_text()


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_the_python_of_a_page_runs(
    page: Path, made_before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "reference").symlink_to(ROOT / "runs" / "reference")
    (tmp_path / "runs" / "mine" / "bundle").symlink_to(made_before)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python"))
    scope: dict[str, object] = {"__name__": "page"}
    exec(compile(code, str(page), "exec"), scope)
    assert len(scope) > 2  # it defined something


def test_every_guide_has_python_that_is_run() -> None:
    guides = [page for page in PAGES if page.parent.name in ("guides", "deploy")]
    assert len(guides) == 16
    assert [page.name for page in guides if page not in WITH_PYTHON] == []


@pytest.mark.parametrize(
    "arguments",
    [line for page in [*TOP, *PAGES] for line in command_lines(page)],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_every_command_line_parses(arguments: list[str]) -> None:
    here = ["cpu" if word == "cuda" else word for word in arguments]  # settings refuse a device that is not there
    verb = tyro.cli(Verb, args=here)  # type: ignore[arg-type]
    assert type(verb).__name__.lower().startswith(arguments[0])


def test_there_are_command_lines_to_parse() -> None:
    verbs = {line[0] for page in [*TOP, *PAGES] for line in command_lines(page)}
    assert {
        "optimize",
        "pretrain",
        "adapt",
        "train",
        "export",
        "evaluate",
        "bench",
        "gate",
        "prune",
        "compare",
        "run",
    } <= verbs


def test_examples_in_other_languages_have_the_names_and_shapes_of_a_file(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = rlprune.load(ROOT / "runs" / "reference" / "resnet20" / "bundle")
    save_onnx(tmp_path / "dynamic.onnx", model)
    session = onnxruntime.InferenceSession(tmp_path / "dynamic.onnx")
    (images,), outputs = session.get_inputs(), {each.name: each for each in session.get_outputs()}
    kinds = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}
    triton = re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[ ([\d, ]+) \]( reshape)?', EXAMPLES)
    assert [name for name, *_ in triton] == [images.name, *outputs]
    for name, kind, dims, scalar in triton:
        entry = images if name == images.name else outputs[name]
        assert kinds[kind] == entry.type, name
        assert ([] if scalar else [int(size) for size in dims.split(",")]) == entry.shape[1:], name
    assert f'inputs{{"{images.name}"}}' in EXAMPLES
    assert "outputs{{{}}}".format(", ".join(f'"{name}"' for name in outputs)) in EXAMPLES
    assert "const {{ {} }} = await".format(", ".join(outputs)) in EXAMPLES


def test_links_in_the_documentation_lead_somewhere() -> None:
    found = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())]
    assert len(found) > 30
    assert [(page.name, link) for page, link in found if not (page.parent / link).exists()] == []
