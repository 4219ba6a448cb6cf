"""Generated pages have everything: all public names, verbs, recipe keys and results."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

from rlprune.graph import operators

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
pytest.importorskip("sphinx")
sys.path.insert(0, str(ROOT / "docs"))
faces, generate = importlib.import_module("faces"), importlib.import_module("generate")
networks = importlib.import_module("networks")
to_rst = importlib.import_module("docstrings").to_rst


def test_every_package_with_public_names_is_in_the_reference() -> None:
    folders = [ROOT / "rlprune", ROOT / "envs", ROOT / "agents"]
    packages = {path.parent.name for folder in folders for path in folder.rglob("__init__.py")}
    assert packages - {name.rpartition(".")[2] for name in faces.MODULES} == {"rlprune", "utils", "cli"}
    listed = (ROOT / "docs" / "reference" / "api.md").read_text()
    assert [name for name in faces.MODULES if f"api/{name.rpartition('.')[2]}" not in listed] == []


@pytest.mark.parametrize("face", faces.MODULES)
def test_every_public_name_is_documented(face: str) -> None:
    page, module = generate.api(face), importlib.import_module(face)
    for name in faces.names_of(module):
        value = getattr(module, name)
        assert f":: {face}.{name}\n" in page
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), name
        else:
            documented = re.search(rf"py:data:: {re.escape(face)}\.{name}\n(?:   :value:.*\n)?\n   \S", page)
            assert documented, f"{name} needs a docstring below it"


def test_every_verb_shows_its_help() -> None:
    page = generate.verbs()
    names = generate.verb_names()
    assert len(names) >= 13
    assert [name for name in names if f"usage: rlprune {name} " not in page] == []


def test_every_key_of_a_recipe_has_a_type_a_default_and_a_meaning() -> None:
    page = generate.recipe_keys()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+?) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 60
    assert [name for name, _, _, meaning in rows if not meaning.strip()] == []
    assert ("epochs", "int", "`20`", "Passes over the training images; 0 leaves the network as it is.") in rows
    keys = {name for name, *_ in rows} | set(re.findall(r"\[(\w+)\]", page))
    assert {field.name for field in dataclasses.fields(generate.Recipe)} <= keys


def test_every_committed_file_of_results_has_its_table() -> None:
    pages = generate.results()
    assert len(pages) >= 14
    assert [name for name, page in pages.items() if "|---|" not in page] == []
    assert [name for name, page in pages.items() if name != "headline" and "Made by `" not in page] == []
    included = "".join(path.read_text() for path in (ROOT / "docs" / "results").glob("*.md"))
    assert [name for name in pages if f"results/{name}.md" not in included] == []


def test_markdown_in_docstrings_becomes_what_sphinx_reads() -> None:
    lines = ["With `x` and `rlprune.deployment.slices.Slices`:", "", "| a | b |", "|---|---|", "| `1` | two |"]
    to_rst(None, "class", "", None, None, lines)
    text = "\n".join(lines)
    assert "With ``x`` and :py:obj:`Slices <rlprune.deployment.Slices>`:" in text
    assert "   * - ``1``\n     - two" in text and "|" not in text


def test_every_network_that_was_tried_is_in_the_table() -> None:
    page = networks.networks()
    rows = json.loads(networks.FOUND.read_text())["rows"]
    listed = tomllib.loads((ROOT / "tests" / "zoo.toml").read_text())
    names = [f"{library}:{name}" for library in ("torchvision", "timm") for name in listed[library]["names"]]
    assert [row["network"] for row in rows] == names
    assert [row["network"] for row in rows if f"| `{row['network']}` | " not in page] == []
    assert "Made by `python tests/zoo.py`" in page


def test_a_network_is_refused_wrong_or_right_and_the_page_says_which() -> None:
    checks = dict.fromkeys(("full", "slices", "cost", "bundle", "onnx", "trained"), True)
    right = {"network": "timm:a", "groups": 8, "skippable": 3, "down to %": 7.61, "s": 1.5, **checks}
    table = networks.table([right, right | {"onnx": False}, {"network": "timm:b", "s": 2.0, "says": "too odd"}])
    assert "| `timm:a` | 8 | 3 | 7.6 | yes | yes | yes | yes | 1.5 |" in table
    assert "| yes | yes | no | yes | 1.5 |" in table
    assert "| `timm:b` | refused | |" in re.sub(" +", " ", table)


def test_everything_that_can_be_stored_is_listed() -> None:
    page = networks.storable()
    assert "`Conv2d`" in page and "`torch.nn.functional.relu`" in page and "`operator.add`" in page
    assert page.count("`") // 2 >= sum(map(len, (operators.LAYERS, operators.FUNCTIONS, operators.METHODS)))


def test_the_rules_of_the_plan_have_numbers_in_the_place_of_names() -> None:
    page = generate.plan_rules()
    assert page.startswith("| what | rule |\n|---|---|\n") and page.count("\n| ") >= 12
    assert f"at most {generate.plan.MOST_EPOCHS} |" in page and not re.search(r"`[A-Z_]{4,}`", page)


def test_what_is_said_before_and_after_an_optimisation_is_that_of_the_committed_report() -> None:
    report = json.loads((generate.REFERENCE / "digits" / "report.json").read_text())
    before, after = generate.check_screen(), generate.screen()
    assert [line for line in report["check"]["lines"] if line.split()[0] not in before] == []
    assert [row["title"] for row in report["rows"] if row["title"] not in after] == []
    assert " ".join(report["sentences"][0].split()) in " ".join(after.split())
