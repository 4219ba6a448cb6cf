"""Files through Ray Data: each once, whatever dies, and what one process says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import clustered
import numpy as np
import pytest
from clustered import Deadly
from PIL import Image
from ranged import DATA, DYNAMIC, NETWORK, make_ranged

from rlprune.cli.main import main
from rlprune.cluster.connection import connected
from rlprune.cluster.predicting import BATCHES_OF_A_PART, predict_files
from rlprune.errors import ClusterError, DataError, RLPruneError
from rlprune.storage.bundle import save_bundle

parquet = pytest.importorskip("pyarrow.parquet")
N = 2 * BATCHES_OF_A_PART + 7


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle, pictures, and one that cannot be read, beside a Ray that is running."""
    root = tmp_path_factory.mktemp("many")
    save_bundle(root / "bundle", NETWORK, DYNAMIC.source_policy, DATA)
    (root / "shots").mkdir()
    generator = np.random.default_rng(0)
    for number in range(N):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "shots" / f"{number:02d},ä.png")
    (root / "bad.png").write_bytes(b"no picture")
    before = os.getcwd()
    os.chdir(root)
    with connected("local", n_cpus=2) as cluster:
        cluster.ray.cloudpickle.register_pickle_by_value(clustered)  # workers do not have the tests
        yield root
    os.chdir(before)


def names() -> list[str]:
    return [f"shots/{number:02d},ä.png" for number in range(N)]


def test_a_worker_that_dies_loses_no_image_and_a_second_call_goes_on_with_the_rest(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deadly, mark = Deadly.of(DYNAMIC, world / "killed"), world / "killed"
    found = predict_files(deadly, ["bad.png", "shots"], "made", batch_size=1, skip_unreadable=True)
    assert mark.exists() and (found.counts.total(), found.n_parts, found.n_before) == (N, 3, 0)
    assert "left out: bad.png cannot be read" in capsys.readouterr().err
    expected = DYNAMIC.predict("shots", batch_size=1)
    whole = parquet.read_table("made")
    table = whole.sort_by("path").to_pydict()
    assert table == {
        "path": names(),
        "class": [*expected.classes],
        "probability": expected.confidence.tolist(),
        "passes": expected.passes.tolist(),
        "macs_share": expected.macs_share.tolist(),
    }
    assert found.counts == {name: table["class"].count(name) for name in set(table["class"])}
    assert found.passes == 1.0 and found.macs_share == pytest.approx(sum(table["macs_share"]) / N)

    kept = Path("made/part-000002.parquet").stat().st_mtime_ns
    Path("made/part-000001.parquet").unlink()
    main("predict bundle bad.png shots --batch-size 1 --skip-unreadable --cluster local --out made".split())
    assert parquet.read_table("made").equals(whole)
    assert Path("made/part-000002.parquet").stat().st_mtime_ns == kept
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{N} images: ") and said[1:] == [
        "made: 3 files of parquet, 2 of which were there already"
    ]
    again = predict_files(DYNAMIC, ["bad.png", "shots"], "made", cluster="dead", batch_size=1, skip_unreadable=True)
    assert (again.counts, again.n_before) == (found.counts, 3)  # there was nothing to do, and no Ray to ask

    (Path("made") / "part-000000.parquet").unlink()
    with pytest.raises(RLPruneError, match=r"made was made under other settings \(images: .*n_images: 40, now 39"):
        predict_files(DYNAMIC, ["shots"], "made", batch_size=1)
    with pytest.raises(RLPruneError, match=r"\(price: .*, now 0\.02; images_of_a_part: 16, now 32\); name another"):
        predict_files(DYNAMIC.at(penalty=0.02), ["bad.png", "shots"], "made", batch_size=2)


def test_nothing_runs_where_a_file_cannot_be_read(world: Path) -> None:
    with pytest.raises(DataError, match=r"bad.png cannot be read as an image .* give skip_unreadable=True"):
        predict_files(DYNAMIC, ["shots", "bad.png"], "none", batch_size=1)
    assert not [path for path in Path("none").rglob("*") if path.suffix == ".parquet"]


def test_more_workers_than_processors_are_refused(world: Path) -> None:
    with pytest.raises(ClusterError, match=r"workers=3: Ray at .* has 2 processors; give that many or fewer"):
        predict_files(DYNAMIC, ["shots"], "few", workers=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--cluster local", "--out is missing: --cluster goes with it"),
        ("--out made", "--cluster is missing: --out goes with it"),
        ("--workers 2", "--workers=2 is for the processes of a cluster; give --cluster, too"),
        ("--cluster local --out x --csv y.csv", "--csv=y.csv is for one process; those of a cluster write to --out"),
        ("--cluster nowhere:x --out x", "'nowhere:x' is no address of Ray"),
    ],
)
def test_calls_that_cannot_be(
    options: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_bundle("bundle", NETWORK, make_ranged(), DATA)
    Image.new("RGB", (16, 16)).save("shot.png")
    if "nowhere" in options:
        monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "bundle", "shot.png", *options.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
