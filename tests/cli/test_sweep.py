"""What `rlprune sweep` refuses, before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from lamp import make_lamp, make_lamp_data

from rlprune.cli.main import main
from rlprune.storage.networks import save_network


def test_the_command_line_refuses_before_anything_begins(
    apart: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_network("net", make_lamp(), make_lamp_data(4))
    command = ["sweep", "--network", "net", "--data", "mine:lamps", "--out", "out"]
    for more, said in (
        (["--over", "penalty=x"], "rlprune: error: --over='penalty=x': penalty='x': give a number"),
        (["--over", "penalty=1..2"], "rlprune: error: trials is missing: give how many"),
        (["--over", "penalty=1,2", "--cluster", "127.0.0.1:1"], "Ray at '127.0.0.1:1' does not answer"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *more])
        assert said in capsys.readouterr().err
    assert not Path("out").exists()
