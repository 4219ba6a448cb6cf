"""Verbs that fill a folder leave one alone that holds other things."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprune.cli.main import main

RECIPE = 'model = "digits_cnn"\ndata.data = "digits"\n'
VERBS = {
    "train": ("train", "--network", "net", "--data", "digits", "--resume"),
    "compare": ("compare", "--network", "net", "--data", "digits"),
    "demo": ("demo",),
    "run": ("run", "recipe.toml"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["manifest.json", "thesis.txt", "steps/1.txt", "policy/other.json"])
def test_a_folder_with_other_things_is_refused(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(RECIPE)
    file = Path("out") / name
    file.parent.mkdir(parents=True)
    file.write_text('{"kind": "bundle"}')
    with pytest.raises(SystemExit, match="2"):
        main([*VERBS[verb], "--out", "out"])
    message = "holds a bundle, which" if (verb, name) == ("train", "manifest.json") else "holds other things, such as"
    assert message in capsys.readouterr().err
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [file]
