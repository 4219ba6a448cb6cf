"""`rlprune predict`: files and folders, tables that are written row by row, and a summary."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranged import DATA, DYNAMIC, NETWORK, make_ranged

from rlprune import save_bundle
from rlprune.cli.main import main
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy

N = 45


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deploy folder with a bundle in it, a folder of pictures, and one that cannot be read."""
    root = tmp_path_factory.mktemp("predicting")
    save_bundle(root / "deploy" / "bundle", NETWORK, make_ranged(), DATA)
    (root / "shots" / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(N):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "shots" / ("more" if number % 2 else ".") / f"{number:02d},x.png")
    (root / "bad.png").write_bytes(b"no picture")
    return root


@pytest.fixture(autouse=True)
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("COLUMNS", "200")


def paths() -> list[str]:
    names = [f"{number:02d},x.png" for number in range(N)]
    return [f"shots/{name}" for name in names[::2]] + [f"shots/more/{name}" for name in names[1::2]]


def test_every_verb_takes_the_folder_that_has_the_bundle_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    main("predict . shots/00,x.png".split())
    main("export . --out copy".split())
    for name in ("manifest.json", "network.safetensors", "policy.json", "policy.safetensors"):
        assert Path("copy", name).read_bytes() == Path("deploy/bundle", name).read_bytes()
    assert [kind_of(Path(folder)) for folder in (".", "deploy", "copy")] == ["bundle"] * 3
    assert load_network(".").metadata == load_policy(".").metadata
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export --out made", "nothing to pack: --network and --policy are missing; or name a bundle"),
        ("export --network deploy --out made", "nothing to pack: --policy is missing; or name a bundle"),
        ("export . --policy deploy --out made", "the bundle . holds both: leave --policy out"),
        ("export .", "--out is missing: name the bundle to write"),
        ("export . --triton models", "--triton is for the file that --onnx makes; give --onnx, too"),
        (
            "export . --onnx --int8 --data shots --triton models",
            "--int8 puts a file into a bundle; name that with --out",
        ),
        ("predict nowhere shots", "there is no folder nowhere"),
        ("predict runs/typo shots", "there is no folder runs/typo"),
    ],
)
def test_what_is_to_be_packed_is_named_once(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_row_for_each_picture_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    main("predict deploy/bundle shots --csv made.csv --json made.json --batch-size 7".split())
    rows = json.loads(Path("made.json").read_text())
    with open("made.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [row["path"] for row in table] == paths()
    assert list(table[0]) == ["path", "class", "probability", "passes", "macs_share"]
    for row, cells in zip(rows, table, strict=True):
        assert row["class"] == cells["class"] and row["passes"] == int(cells["passes"])
        assert (row["probability"], row["macs_share"]) == (float(cells["probability"]), float(cells["macs_share"]))
    assert Path("made.json").read_text() == json.dumps(rows, indent=1) + "\n"
    expected = DYNAMIC.predict(paths())
    assert [row["class"] for row in rows] == [*expected.classes]
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith(f"... {N} images: ") and "on average 1.00 passes and" in said
    assert said.count(".png") == 20


def test_a_deploy_folder_is_taken_for_its_bundle_and_files_and_folders_may_be_mixed() -> None:
    main(["predict", "deploy", "shots/00,x.png", "shots/more", "--budget", "0.5", "--json", "mixed.json"])
    rows = json.loads(Path("mixed.json").read_text())
    assert [row["image"] for row in rows] == ["shots/00,x.png", *(name for name in paths() if "more" in name)]


def test_what_cannot_be_read_stops_it_or_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("kept.csv").write_text("as it was")
    with pytest.raises(SystemExit, match="2"):
        main("predict deploy shots bad.png --csv kept.csv".split())
    (line,) = capsys.readouterr().err.splitlines()
    assert "bad.png cannot be read as an image" in line and line.endswith("remove it, or give --skip-unreadable")
    assert Path("kept.csv").read_text() == "as it was"
    main("predict deploy bad.png shots --csv kept.csv --skip-unreadable".split())
    assert "left out: bad.png cannot be read" in capsys.readouterr().err
    assert len(Path("kept.csv").read_text().splitlines()) == N + 1


def test_a_table_that_fails_half_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("shots") / "more" / "zz.png").write_bytes(Path("shots/00,x.png").read_bytes()[:400])
    Path("kept.csv").write_text("as it was")
    with pytest.raises(SystemExit, match="2"):
        main("predict deploy shots --csv kept.csv --json new.json --batch-size 4".split())
    (Path("shots") / "more" / "zz.png").unlink()
    assert Path("kept.csv").read_text() == "as it was"
    assert not [path for path in Path().iterdir() if path.name.startswith((".kept", ".new", "new"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("deploy bad.png --csv a --json ./a", "--csv=a and --json=a are the same file; give two"),
        ("--onnx x.onnx bad.png --device cpu:0", "--device=cpu:0 is for bundles; onnxruntime runs on the cpu"),
        ("deploy bad.png --device tpu", "--device='tpu': it cannot be used here"),
        ("deploy bad.png --batch-size 0", "--batch-size=0: give a whole number of 1 or more"),
        ("deploy", "there are no images; name at least one file"),
        ("deploy deploy", "deploy has no pictures (.bmp .gif"),
        ("shots bad.png", "shots/manifest.json cannot be read"),
        ("deploy bad.png --csv shots", "shots cannot be written: it is a folder; name a file"),
    ],
)
def test_calls_that_cannot_be(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", *arguments.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
