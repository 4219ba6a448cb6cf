"""Draw every picture of this folder again, from the JSON that is committed beside it.

    python runs/reference/update_pictures.py
    python runs/reference/update_pictures.py --demo runs/demo

digits.png shows images, which the JSON does not hold: it is drawn again with --demo alone, which names a folder that
`rlprune demo` wrote.
"""

import argparse
from pathlib import Path

from reference_plots import growth_plot, one_policy_plot, speed_plot
from reference_results import BudgetsResult, GrowthResult, ScaleResult
from scale_tables import scale_plot

import rlprune
from rlprune.errors import RLPruneError
from rlprune.evaluation.plots import budgets_plot, compare_plot
from rlprune.evaluation.results import EvaluationResult, RecipeResult
from rlprune.evaluation.timing_results import BenchmarkResult, ComparisonResult
from rlprune.optimization.demo import demo_images, draw_demo

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


def draw_digits(demo: Path) -> None:
    """Images that the demo's policy spends least and most on, if it is the policy of the committed figures.

    Raises:
        RLPruneError: its figures are others.
    """
    committed = EvaluationResult.load(HERE / "digits" / "results.json")
    found = EvaluationResult.load(demo / "results.json")
    if (found.accuracy, found.macs_cut) != (committed.accuracy, committed.macs_cut):
        raise RLPruneError(
            f"{demo} has an accuracy of {found.accuracy} and saves {found.macs_cut} of the MACs; the committed figures "
            f"are {committed.accuracy} and {committed.macs_cut}: run the demo with as many threads, or commit its own"
        )
    draw_demo(HERE / "digits" / "digits.png", rlprune.load(demo / "deploy" / "bundle"), demo_images(), committed)


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="a folder that `rlprune demo` wrote")
    demo = parser.parse_args().demo
    draw_networks()
    draw_speed()
    growth_plot(HERE / "growth.png", GrowthResult.load(HERE / "growth.json"))
    scale_plot(HERE / "scale.png", ScaleResult.load(HERE / "scale.json"))
    if demo is not None:
        draw_digits(demo)


if __name__ == "__main__":
    main()
