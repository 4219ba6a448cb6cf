"""Draw every picture of this folder again, from the JSON that is committed beside it.

    python runs/reference/update_pictures.py
    python runs/reference/update_pictures.py --demo runs/demo

digits.png shows images, which the JSON does not hold: it is drawn again with --demo alone, which names a folder that
`rlprune demo` wrote.
"""

import argparse
import shutil
from pathlib import Path

from reference_plots import growth_plot, one_policy_plot, speed_plot
from reference_results import BudgetsResult, GrowthResult

from rlprune.evaluation.plots import budgets_plot, compare_plot
from rlprune.evaluation.results import RecipeResult
from rlprune.evaluation.timing_results import BenchmarkResult, ComparisonResult

HERE = Path(__file__).parent
TITLES = {"resnet20": "ResNet-20", "m_cifarnet": "M-CifarNet", "resnet56": "ResNet-56", "vgg16_bn": "VGG-16-BN"}


def draw_networks() -> None:
    """What a network's own folder shows."""
    for name, title in {**TITLES, "digits": "Digits"}.items():
        folder = HERE / name
        data = "" if name == "digits" else " on CIFAR-10"
        if (folder / "recipe.toml").exists() and (folder / "results.json").exists():
            recipe = RecipeResult.load(folder / "results.json")
            budgets_plot(folder / "frontier.png", recipe, f"{title}{data}: policies at several budgets")
        if (folder / "budgets.json").exists():
            budgets = BudgetsResult.load(folder / "budgets.json")
            one_policy_plot(folder / "budgets.png", budgets, f"{title}{data}: one policy for all budgets")
        if (folder / "compare.json").exists():
            compared = ComparisonResult.load(folder / "compare.json")
            compare_plot(folder / "compare.png", compared, f"{title}{data}: ways of deciding")


def draw_speed() -> None:
    """Speed-ups of all networks."""
    files = {title: HERE / name / "bench.json" for name, title in TITLES.items()}
    files["ResNet-56, paid in time"] = HERE / "resnet56" / "bench_latency.json"
    speed_plot(
        HERE / "speed.png", {title: BenchmarkResult.load(path) for title, path in files.items() if path.exists()}
    )


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="a folder that `rlprune demo` wrote")
    demo = parser.parse_args().demo
    draw_networks()
    draw_speed()
    growth_plot(HERE / "growth.png", GrowthResult.load(HERE / "growth.json"))
    if demo is not None:
        shutil.copyfile(demo / "digits.png", HERE / "digits" / "digits.png")


if __name__ == "__main__":
    main()
