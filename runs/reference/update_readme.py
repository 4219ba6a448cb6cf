"""Write the reference figures into the README, between the markers. `make reference` calls it after the demo."""

import json
from pathlib import Path

from rlprune.report import between_markers, markdown_table

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"

if __name__ == "__main__":
    figures = (json.loads((HERE / "digits" / name).read_text()) for name in ("results.json", "bench.json"))
    README.write_text(between_markers(README.read_text(), "digits", markdown_table(*figures)))
