"""The tables of the committed results, each with the command, the machine and the seed that made it."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent.parent / "runs" / "reference"
sys.path.insert(0, str(REFERENCE))

import decision_tables  # noqa: E402
import result_tables as tables  # noqa: E402
from demo_tables import evaluation_table, verdict_table  # noqa: E402
from reference_results import ScaleResult  # noqa: E402
from scale_tables import loads_table, serving_table, storage_table  # noqa: E402
from time_tables import equal_time_table  # noqa: E402

TITLES = {
    "resnet20": "ResNet-20",
    "m_cifarnet": "M-CifarNet",
    "resnet56": "ResNet-56",
    "vgg16_bn": "VGG-16-BN",
    "mobilenet_v2": "MobileNetV2",
}


def read(path: str) -> Any:
    """A JSON file of the committed results."""
    return json.loads((REFERENCE / path).read_text())


def by_network(file: str) -> dict[str, Any]:
    """The files of a name, by the title of the network."""
    return {title: read(f"{name}/{file}") for name, title in TITLES.items() if (REFERENCE / name / file).exists()}


def conditions(found: dict[str, Any], command: str) -> str:
    """The line under a table: the command that makes it, the machine, the seed and the time, as far as known."""
    parts = [f"{found['hardware']}, {found['threads']} threads, {found['dtype']}, torch {found['torch']}"]
    parts += [f"measured on {found['date']}"]
    parts += [f"seed {found['seed']}"] if "seed" in found else []
    parts += [f"{found['seconds']:.0f} s in all"] if "seconds" in found else []
    return f"Made by `{command}`. {'; '.join(parts)}."


def script(name: str) -> str:
    """The command line of a script, as its docstring says it."""
    return next(
        line.strip() for line in (REFERENCE / name).read_text().splitlines() if line.strip().startswith("python runs/")
    )


def recipe_notes(name: str) -> str:
    """How the results of a recipe were made: the comment that it begins with."""
    lines = (REFERENCE / name / "recipe.toml").read_text().splitlines()
    comment = [line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return f"```text\n{chr(10).join(comment)}\n```"


def results() -> dict[str, str]:
    """Every table of results, each above the conditions that it was measured under."""
    measured = by_network("results.json")
    cifar10 = {title: each for title, each in measured.items() if each["recipe"]["data"]["data"] == "cifar10"}
    published = read("published.json")
    pages = {"headline": tables.headline_table(cifar10, published)}
    for name, title in TITLES.items():
        if title in measured:
            table = tables.reference_table({title: measured[title]}, published)
            first = measured[title]["budgets"][0]
            command = f"rlprune run runs/reference/{name}/recipe.toml --out runs/{name}"
            parts = (table, decision_tables.decisions_table(measured[title]), conditions(first, command))
            pages[f"{'cifar10' if title in cifar10 else 'imagenette'}_{name}"] = "\n\n".join(
                part for part in parts if part
            )
    digits, report = read("digits/results.json"), read("digits/report.json")
    pages["digits"] = f"{evaluation_table(digits)}\n\n{conditions(digits, 'rlprune demo')}"
    for name, told, command in (
        ("verdict", report, "rlprune demo"),
        ("imagenette", read("imagenette/report.json"), "the command above"),
    ):
        found = told["conditions"] | {"seed": told["seed"], "seconds": told["seconds"]}
        pages[name] = f"{verdict_table(told)}\n\n{conditions(found, command)}"
    timed = by_network("bench.json") | {"ResNet-56, paid in time": read("resnet56/bench_latency.json")}
    bench = "rlprune bench BUNDLE --data cifar10 --batch 1 64 --rows all"
    pages["speed"] = f"{tables.speed_table(timed)}\n\n{conditions(timed['ResNet-20'], bench)}"
    raced = by_network("time.json")
    race = "rlprune bench BUNDLE --data cifar10 --batch 1 8 64 256 --static FOLDERS --rows ... --plot time.png"
    pages["equal_time"] = f"{equal_time_table(raced)}\n\n{conditions(raced['M-CifarNet'], race)}"
    cards = by_network("bench_gpu.json")
    pages["speed_gpu"] = f"{tables.speed_table(cards)}\n\n{conditions(cards['ResNet-20'], 'make gpu')}"
    single = {
        "signals": (tables.signals_table, "compare_signals.py"),
        "decisions": (decision_tables.ahead_table, "compare_decisions.py"),
        "observations": (decision_tables.observations_table, "compare_observations.py"),
        "designs": (decision_tables.designs_table, "compare_designs.py"),
        "hand_over": (decision_tables.hand_over_table, "compare_hand_over.py"),
        "budgets": (tables.budgets_table, "compare_budgets.py"),
        "precision": (tables.precision_table, "compare_precision.py"),
        "rankings": (tables.rankings_table, "compare_rankings.py"),
        "prices": (tables.prices_table, "compare_prices.py"),
    }
    for name, (table, file) in single.items():
        measured = by_network(f"{name}.json")
        pages[name] = f"{table(measured)}\n\n{conditions(next(iter(measured.values())), script(file))}"
    measured = by_network("decisions.json")
    made = conditions(next(iter(measured.values())), script("compare_decisions.py"))
    pages["spoiled"] = f"{decision_tables.conditions_table(measured)}\n\n{made}"
    gates = {"ResNet-20": [read("resnet20/gates.json")], "ResNet-56": [read("resnet56/branches.json")]}
    pages["gates"] = f"{tables.gates_table(gates)}\n\n{conditions(gates['ResNet-20'][0], 'rlprune gate')}"
    for name in ("resnet20", "digits"):
        compared = read(f"{name}/compare.json")
        pages[f"compare_{name}"] = f"{tables.compare_table(compared)}\n\n{conditions(compared, 'rlprune compare')}"
    seeds, growth = read("resnet20/seeds.json"), read("growth.json")
    pages["seeds"] = f"{tables.seeds_table(seeds)}\n\n{conditions(seeds, script('compare_seeds.py'))}"
    pages["growth"] = f"{tables.growth_tables(growth)}\n\n{conditions(growth, script('growth.py'))}"
    scale = ScaleResult.load(REFERENCE / "scale.json")
    for name, table in (("serving", serving_table), ("loads", loads_table), ("storage", storage_table)):
        pages[f"scale_{name}"] = f"{table(scale)}\n\n{conditions(scale.to_json(), script('scale.py'))}"
    return pages
