"""Write the README's table of results and its screen, between their markers, from what is committed in this folder.

python runs/reference/update_readme.py
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from result_tables import between_markers, headline_table
from rich.console import Console

from rlprune.optimization.reports.screen import print_verdict
from rlprune.optimization.result import load_result

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
NETWORKS = {"ResNet-20": "resnet20", "M-CifarNet": "m_cifarnet", "ResNet-56": "resnet56"}
"""Networks of the table, and the folders of their recipes."""


def read(path: str) -> Any:
    """A JSON file of this folder."""
    return json.loads((HERE / path).read_text())


def screen() -> str:
    """The last screen of the demo: the verdict's table and sentences."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        print_verdict(console, replace(load_result(HERE / "digits"), advice=()))
    lines = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    return lines.replace("\n\n\n", "\n\n")


def updated(text: str) -> str:
    """The README with the table as it is to be."""
    measured = {title: read(f"{folder}/results.json") for title, folder in NETWORKS.items()}
    text = between_markers(text, "results", headline_table(measured, read("published.json")))
    return between_markers(text, "screen", f"```text\n{screen()}\n```")


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
