"""A short run of the fuzzer, and what it found before; `make fuzz` is the long one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the fuzzer reads /proc", allow_module_level=True)
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from fuzzing.inputs import Input, draw
from fuzzing.watch import strange_code
from fuzzing.workers import Workers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_whatever_is_stored_is_refused_or_works(workers: Workers, random: Random) -> None:
    altered = draw(random, workers.seeds)
    outcome = workers.judge(altered)
    assert outcome.outcome in ("refused", "works"), (outcome, json.dumps(asdict(altered))[:2000])


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
