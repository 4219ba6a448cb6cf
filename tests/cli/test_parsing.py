from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rlprune.cli.main import Verb, main
from rlprune.cli.parsing import with_options

INSPECT = ("inspect", "--model", "digits_cnn")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--importance", ""), "--importance is empty: give it a value, or leave it out"),
        (("--importance=",), "--importance is empty: give it a value, or leave it out"),
        (("--keep-ratios", "0.5", ""), "what follows '0.5' is empty: give it a value, or leave it out"),
    ],
)
def test_options_with_nothing_are_refused(
    more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*INSPECT, *more])
    assert capsys.readouterr().err == f"rlprune: error: {message}\n"


@pytest.mark.parametrize("again", [("--round-to", "8"), ("--round_to=8",)])
def test_of_an_option_given_twice_the_last_counts_and_a_line_says_so(
    again: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*INSPECT, "--residual", *again, "--no-residual", "--round-to", "4"])
    said = capsys.readouterr().err
    assert "--residual is given 2 times; the last one counts" in said
    assert "--round-to is given 2 times; the last one counts" in said


def test_options_of_two_groups_may_have_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--network", "n", "--data", "d", "--training.seed", "1", "--policy.seed", "2", "--out", ""])
    assert capsys.readouterr().err == "rlprune: error: --out is empty: give it a value, or leave it out\n"


def test_help_has_no_line_breaks_of_the_source_and_the_goal_before_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["optimize", "--help"])
    said = capsys.readouterr().out
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())
    assert "package.module:callable returning an nn.Module. (required)" in words
    lines = [line.strip("│ ") for line in said.splitlines()]
    assert "nn.Module. (required)" not in lines  # which the width alone would not break
    assert said.index("--max-drop") < said.index("--data ")


def test_messages_name_the_options_that_were_typed() -> None:
    typed = ["--padding=9", "--policy.pool", "3"]
    assert with_options("padding=9: too far", typed) == "--padding=9: too far"
    assert with_options("pool=3, views=2: no", typed) == "--policy.pool=3, views=2: no"
    line = "image_size is 3; set label_column, or pool=2, n_steps=4, (in Python trust_pickle=True), a/n_envs, 'n_envs'"
    assert with_options(line, ["train", *typed], Verb) == (
        "--image-size is 3; set --label-column, or --policy.pool=2, --n-steps=4, (in Python trust_pickle=True), "
        "a/n_envs, 'n_envs'"
    )
    assert with_options("other settings (n_steps: 6, now 9)", ["train"], Verb) == "other settings (n_steps: 6, now 9)"
    assert with_options("--ppo: give n_steps", ["train"], Verb) == "--ppo: give n_steps"
    assert with_options("n_steps and n_points", ["compare"], Verb) == "--policy.n-steps and --n-points"
    assert with_options("refit.padding=9: no; --padding=9", typed) == "refit.padding=9: no; --padding=9"


def test_a_tilde_stands_for_the_users_folder_and_tables_show_in_no_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "0")
    with pytest.raises(SystemExit, match="2"):
        main(["run", "~/none.toml"])
    assert f"rlprune: error: {tmp_path / 'none.toml'} cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "--onnx=~/none.onnx", "none.png"])
    assert str(tmp_path / "none.onnx") in capsys.readouterr().err
    assert int(os.environ["COLUMNS"]) > 20
