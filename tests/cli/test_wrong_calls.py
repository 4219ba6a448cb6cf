from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrong_calls.py")


def test_wrong_calls_drawn_at_random_are_refused_by_name_with_nothing_done(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--calls", "30", "--json", str(figures)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found.keys() == {"possible", "calls", "seconds"} and found["calls"] == 30 and found["possible"] > 3000
