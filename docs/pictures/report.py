"""Draw report.png and screen.png from what `rlprune optimize` or `rlprune demo` left in a folder; Chromium takes the pictures.

python docs/pictures/report.py runs/demo
"""  # noqa: E501

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from rlprune.optimization.reports.screen import print_verdict
from rlprune.optimization.result import load_result

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 1000, 1760, 20
N_COLOURS = 128
"""That are enough for pages of text, and a third of the bytes."""


def screenshot(page: Path, path: Path) -> None:
    """What a browser shows of a page, without what is empty below and beside it, as a PNG of few colours."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is installed, which takes the pictures")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--window-size={WIDTH},{HEIGHT}"]
    subprocess.run(
        [browser, *options, f"--screenshot={path}", page.resolve().as_uri()], check=True, capture_output=True
    )
    image = Image.open(path).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((image.width - 1, image.height - 1)))
    _, _, right, bottom = ImageChops.difference(image, empty).getbbox() or (0, 0, *image.size)
    corner = min(right + MARGIN, image.width), min(bottom + MARGIN, image.height)
    image = image.crop((0, 0, *corner)).quantize(N_COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def draw_screen(folder: Path, path: Path) -> None:
    """The last screen, as a terminal of 80 columns shows it."""
    console = Console(file=io.StringIO(), width=80, record=True, force_terminal=True, color_system="truecolor")
    print_verdict(console, load_result(folder), "runs/mine")
    svg = console.export_svg(title="rlprune optimize", theme=DIMMED_MONOKAI)
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "screen.html"
        page.write_text(f'<body style="margin:0;background:white"><div style="width:{WIDTH}px">{svg}</div></body>')
        screenshot(page, path)


def main() -> None:
    """Both pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo")
    screenshot(folder / "report.html", HERE / "report.png")
    draw_screen(folder, HERE / "screen.png")


if __name__ == "__main__":
    main()
