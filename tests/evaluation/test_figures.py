"""Names beside lines."""

from __future__ import annotations

import numpy as np
import pytest

from rlprune.evaluation.figures import Line, Look, clip_below, name_lines


def test_a_line_below_the_picture_has_no_name_in_it_and_is_told_below() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    chart = Figure().subplots()
    shown = Line(Look("in sight", "#000000", "o"), np.array([[10.0, 98.0], [20.0, 99.0]]))
    below = Line(Look("far below", "#000000", "o"), np.array([[12.0, 60.0]]))
    clip_below(chart, 97.0, [shown, below])
    name_lines(chart, [shown, below])
    names = [text.get_text() for text in chart.texts]
    assert names[1:] == ["in sight"] and names[0].endswith("far below: 60.0 % at 12 %")
