"""A short run of the fuzzer, and what it found before; `make fuzz` is the long one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the fuzzer reads /proc", allow_module_level=True)
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from fuzzing.inputs import Input
from fuzzing.watch import strange_code
from fuzzing.workers import Workers

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
CORPUS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("corpus.json").read_text())


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.close()


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry["mutation"])
def test_what_was_found_before(workers: Workers, entry: dict[str, Any]) -> None:
    outcome = workers.judge(Input(entry["mutation"], entry["seed"], entry["steps"], entry.get("signed", True)))
    assert outcome.outcome == entry["outcome"], outcome


def test_whatever_is_stored_is_refused_or_works(workers: Workers) -> None:
    numbers = range(10**9, 10**9 + 300)  # others than those of `make fuzz`
    wrong = [
        (outcome, json.dumps(asdict(workers.make(number)))[:2000])
        for number, outcome in workers.run(numbers)
        if outcome.outcome not in ("refused", "works")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "self.compile(x)",
        "x.__class__",
        "lambda: x",
        "torch.load('x')",
        "[y for y in x]",
        "x.numpy()",
    ],
)
def test_code_that_no_graph_has_is_seen(expression: str) -> None:
    forward = "def forward(self, x):\n    y = {};  x = None\n    return y\n"
    assert strange_code(forward.format("torch.flatten(self.layer(x), 1)")) is None
    assert strange_code(forward.format(expression)) is not None
