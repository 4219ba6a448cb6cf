"""Python code that runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(code: str, *arguments: object, beside: str = __file__) -> str:
    """What the code prints; it may import what lies beside a file, and what tests share."""
    here = Path(beside).parent
    paths = os.pathsep.join(map(str, (here, Path(__file__).parent)))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, cwd=here, env=environment, check=True, capture_output=True, text=True).stdout
