"""Write the reference figures into the README, between the markers, from what is committed in this folder."""

import json
from pathlib import Path
from typing import Any

from result_tables import (
    between_markers,
    budgets_table,
    compare_table,
    gates_table,
    markdown_table,
    precision_table,
    prices_table,
    rankings_table,
    reference_table,
    signals_table,
    speed_table,
)

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
TITLES = {"resnet20": "ResNet-20", "m_cifarnet": "M-CifarNet", "resnet56": "ResNet-56", "vgg16_bn": "VGG-16-BN"}


def read(path: str) -> Any:
    """A JSON file of this folder."""
    return json.loads((HERE / path).read_text())


if __name__ == "__main__":
    text = README.read_text()
    text = between_markers(text, "digits", markdown_table(read("digits/results.json"), read("digits/bench.json")))
    there = {name: title for name, title in TITLES.items() if (HERE / name / "results.json").exists()}
    measured = {title: read(f"{name}/results.json") for name, title in there.items()}
    text = between_markers(text, "cifar10", reference_table(measured, read("published.json")))
    timed, compared, budgeted, precise, ranked, priced = (
        {title: read(f"{name}/{file}") for name, title in TITLES.items() if (HERE / name / file).exists()}
        for file in ("bench.json", "signals.json", "budgets.json", "precision.json", "rankings.json", "prices.json")
    )
    gated = {
        title: [read(f"{name}/{file}") for file in ("gates.json", "branches.json") if (HERE / name / file).exists()]
        for name, title in TITLES.items()
    }
    if any(gated.values()):
        text = between_markers(text, "gates", gates_table(gated))
    if (HERE / "resnet20" / "compare.json").exists():
        text = between_markers(text, "compare", compare_table(read("resnet20/compare.json")))
    if compared:
        text = between_markers(text, "signals", signals_table(compared))
    if budgeted:
        text = between_markers(text, "budgets", budgets_table(budgeted))
    if precise:
        text = between_markers(text, "precision", precision_table(precise))
    if ranked:
        text = between_markers(text, "rankings", rankings_table(ranked))
    if priced:
        text = between_markers(text, "prices", prices_table(priced))
    if (HERE / "resnet56" / "bench_latency.json").exists():
        timed["ResNet-56, paid in time"] = read("resnet56/bench_latency.json")
    if timed:
        text = between_markers(text, "speed", speed_table(timed))
    README.write_text(text)
