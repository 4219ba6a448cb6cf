"""Draw flow.png: what an image goes through.

python docs/pictures/flow.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, BLUE, ORANGE, GREEN = "#222222", "#8a8a8a", "#0072b2", "#d55e00", "#009e73"  # Okabe and Ito's, for all eyes
HERE = Path(__file__).parent


def box(axes: Axes, x: float, y: float, width: float, height: float, title: str, text: str, colour: str) -> None:
    """A step: what it is called, and below that what it does."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", fc="white", ec=colour, lw=2
    )
    axes.add_patch(shape)
    middle = x + width / 2
    axes.text(middle, y + height - 0.28, title, ha="center", va="center", color=colour, weight="bold", size=12)
    axes.text(middle, y + height - 0.52, text, ha="center", va="top", color=INK, size=9.5, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, bend: float = 0) -> None:
    """From one step to the next."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=15, lw=1.6, color=colour, connectionstyle=style)
    )


def slices(axes: Axes, x: float, y: float) -> None:
    """Three slices of the same layers: a part of every layer's channels runs, the rest is not there."""
    kept = ((0.3, 0.3, 0.3, 0.3), (0.6, 0.45, 0.6, 0.75), (1, 1, 1, 1))
    for row, (ratios, name) in enumerate(zip(kept, ("small", "middle", "whole"), strict=True)):
        top = y - row * 0.72
        axes.text(x - 0.12, top + 0.25, name, ha="right", va="center", size=9.5, color=INK)
        for column, ratio in enumerate(ratios):
            left = x + column * 0.4
            axes.add_patch(Rectangle((left, top), 0.26, 0.52, fc="#eeeeee", ec="none"))
            axes.add_patch(Rectangle((left, top), 0.26, 0.52 * ratio, fc=ORANGE, ec="none"))


def draw(path: Path) -> None:
    """The whole picture."""
    figure = plt.figure(figsize=(10, 4.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 12.4)
    axes.set_ylim(0, 5.45)
    axes.axis("off")
    box(axes, 0.2, 2.3, 1.7, 1.5, "image", "uint8 pixels,\nnormalised", INK)
    box(axes, 2.5, 2.3, 1.9, 1.5, "stem", "first layers,\nonce per image", GREY)
    box(axes, 5.0, 2.3, 2.1, 1.5, "policy", "picks a profile, or\naccepts the prediction\n(learnt with PPO)", BLUE)
    box(axes, 7.8, 1.15, 2.5, 3.1, "a slice runs", "ordinary, smaller layers", ORANGE)
    slices(axes, 8.62, 2.85)
    box(axes, 10.8, 2.3, 1.45, 1.5, "prediction", "class\nand MACs\nspent", GREEN)
    arrow(axes, (1.9, 3.05), (2.5, 3.05))
    arrow(axes, (4.4, 3.05), (5.0, 3.05))
    arrow(axes, (7.1, 3.05), (7.8, 3.05))
    arrow(axes, (9.0, 1.15), (6.05, 2.3), BLUE, bend=-0.35)
    axes.text(7.3, 0.62, "logits go back: accept, or run another slice", ha="center", color=BLUE, size=10)
    arrow(axes, (6.05, 3.8), (11.5, 3.8), GREEN, bend=-0.4)
    axes.text(8.9, 5.12, "accept: easy images stop after a small slice", ha="center", color=GREEN, size=10)
    axes.text(0.2, 0.62, "every pass and every decision\nis counted in MACs", color=INK, size=9.5, va="center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw(HERE / "flow.png")
