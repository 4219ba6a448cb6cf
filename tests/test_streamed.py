"""`make streamed` looks at every step of a training, and ends it."""

from __future__ import annotations

import runpy
from pathlib import Path

from nets import make_data


def test_steps_are_timed_until_there_are_enough() -> None:
    bars = runpy.run_path(str(Path(__file__).parent / "streamed.py"))
    assert bars["step_seconds"](make_data(12 * 128), steps=1, workers=0) > 0
