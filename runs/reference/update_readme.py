"""Write the README's table of results and its screen, between their markers, from what is committed in this folder.

python runs/reference/update_readme.py
"""

import io
import json
from pathlib import Path
from typing import Any

from result_tables import between_markers, headline_table
from rich.console import Console

from rlprune.evaluation import tables
from rlprune.evaluation.results import EvaluationResult

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
NETWORKS = {"ResNet-20": "resnet20", "M-CifarNet": "m_cifarnet", "ResNet-56": "resnet56"}
"""Networks of the table, and the folders of their recipes."""


def read(path: str) -> Any:
    """A JSON file of this folder."""
    return json.loads((HERE / path).read_text())


def screen() -> str:
    """What `rlprune evaluate` shows of the demo's bundle."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(tables.evaluation(EvaluationResult.load(HERE / "digits" / "results.json")))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def updated(text: str) -> str:
    """The README with the table as it is to be."""
    measured = {title: read(f"{folder}/results.json") for title, folder in NETWORKS.items()}
    text = between_markers(text, "results", headline_table(measured, read("published.json")))
    return between_markers(text, "screen", f"```text\n{screen()}\n```")


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
