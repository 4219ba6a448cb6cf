"""Sphinx's settings. What can be told from the code or the committed results is generated (`generate.py`)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from docstrings import to_rst  # noqa: E402
from generate import generate  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import rlprune  # noqa: E402

project = "rlprune"
author = "the rlprune authors"
version = release = rlprune.__version__
copyright = "the rlprune authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_generated/**"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"rlprune {version}"
html_copy_source = False
html_show_sphinx = False
pygments_dark_style = "monokai"


def setup(app: Sphinx) -> None:
    """Generate pages first; read docstrings as the Markdown that they partly are."""
    generate(HERE / "_generated")
    app.connect("autodoc-process-docstring", to_rst, priority=100)  # before napoleon, which divides them
