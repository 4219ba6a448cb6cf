"""One bar for several steps: what a terminal shows, and that nothing else is shown anything."""

from __future__ import annotations

import io
import os
import pty
import re
import sys

import pytest

from rlprune.utils.progress import WholeBar, counting_bar, progress_bar

SECONDS = {"training": 240.0, "measuring": 80.0}


def work(bar: WholeBar) -> None:
    with bar.step("training"):
        part = counting_bar(10, desc="epochs", unit="epoch")
        part.update(5)
    with bar.step("measuring"):
        list(progress_bar(range(3), desc="images", unit="image"))
    with bar.step("training"):  # for a second time, which no time was set aside for
        pass
    bar.close()


def shown_by(monkeypatch: pytest.MonkeyPatch, *, quiet: bool = False) -> list[str]:
    """What a terminal that says no size of its own is shown, frame by frame, without blanks."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        work(WholeBar(SECONDS, quiet=quiet))
        stderr.write("end")
        stderr.flush()
        monkeypatch.undo()
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    return [" ".join(frame.split()) for frame in shown.split("\r") if frame.strip()]


def test_a_terminal_shows_the_step_how_far_it_is_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [re.sub(r"[^\x20-\x7e]+", "|", frame) for frame in shown_by(monkeypatch)]
    assert any(re.match(r"training .*3[78] %, 3 min left", frame) for frame in frames)
    assert any(re.match(r"measuring .*75 %, 80 s left", frame) for frame in frames)
    assert any(re.match(r"training .*100 %, 0 s left", frame) for frame in frames)
    assert not any("epochs" in frame or "images" in frame for frame in frames)


def test_quiet_or_elsewhere_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_by(monkeypatch, quiet=True) == ["end"]
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    work(WholeBar(SECONDS))
    assert file.getvalue() == ""
