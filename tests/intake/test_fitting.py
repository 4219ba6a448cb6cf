from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from my_data import all_codes, picture, write_folders
from nets import make_elastic

from rlprune.data.image_set import Splits
from rlprune.data.loading import SHARES
from rlprune.errors import RLPruneError
from rlprune.intake.fitting import load_fitting
from rlprune.intake.notes import split_notes, split_rule_of
from rlprune.intake.options import DataOptions
from rlprune.storage.data_format import DataFormat

pytestmark = pytest.mark.usefixtures("apart")
NETWORK = make_elastic("residual")
EXPECTED = DataFormat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), tuple("abcde"))
OTHERS = (0.5, 0.3, 0.2)


def load(made_with: dict[str, Any] | None, **options: Any) -> Splits:
    metadata = {} if made_with is None else {"source": {"data": "my_data:five_colours", "split_seed": 0} | made_with}
    return load_fitting(NETWORK.image_shape, EXPECTED, metadata, DataOptions("my_data:five_colours", **options))


def sizes(splits: Splits) -> list[int]:
    return [len(part) for part in (splits.network, splits.policy, splits.validation, splits.test)]


@pytest.mark.parametrize(
    ("made_with", "asked", "expected"),
    [
        ({"shares": [0.5, 0.3, 0.2]}, None, [40, 24, 16, 20]),
        ({"shares": [0.5, 0.3, 0.2]}, OTHERS, [40, 24, 16, 20]),
        ({"shares": None}, None, [56, 16, 8, 20]),
        ({"shares": None}, SHARES, [56, 16, 8, 20]),
        ({}, None, [56, 16, 8, 20]),  # as older networks say it
        ({}, SHARES, [56, 16, 8, 20]),
        ({"data": "elsewhere", "shares": [0.1, 0.1, 0.8]}, OTHERS, [40, 24, 16, 20]),
        ({"data": "elsewhere", "shares": [0.1, 0.1, 0.8]}, None, [56, 16, 8, 20]),
        (None, OTHERS, [40, 24, 16, 20]),
    ],
)
def test_images_are_divided_as_they_were_for_the_network(made_with: Any, asked: Any, expected: list[int]) -> None:
    splits = load(made_with, shares=asked)
    assert sizes(splits) == expected
    assert splits.test.mean == EXPECTED.mean and splits.policy.std == EXPECTED.std


@pytest.mark.parametrize(
    ("made_with", "options", "message"),
    [
        (
            {"shares": [0.5, 0.3, 0.2]},
            {"shares": SHARES},
            r"trained on splits of \(0\.5, 0\.3, 0\.2\); with --shares \(0\.7, 0\.2, 0\.1\) some of its training",
        ),
        (
            {"shares": None},
            {"shares": OTHERS},
            r"trained on splits of \(0\.7, 0\.2, 0\.1\); with --shares \(0\.5, 0\.3, 0\.2\) some",
        ),
        ({"split_seed": 2}, {}, "trained on the split of seed 2; with --split-seed 0 some of its training images"),
    ],
)
def test_images_that_trained_the_network_are_not_measured(made_with: Any, options: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        load(made_with, **options)


def test_shares_decide_how_many_images_there_are_of_each_kind() -> None:
    splits = DataOptions("my_data:hundred", shares=OTHERS).load()
    assert sizes(splits) == [40, 24, 16, 20]
    assert all_codes(splits)[3] == all_codes(DataOptions("my_data:hundred").load())[3]


# A split belongs to the images

PETS = DataFormat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("cat", "dog"))


@pytest.fixture
def trained(tmp_path: Path) -> dict[str, Any]:
    """The notes of a network that was trained on most of pets/."""
    write_folders(tmp_path / "pets", n=120)
    source = {"data": "pets", "split_seed": 0, "shares": [0.9, 0.05, 0.05]}
    return {"source": source, "split": split_notes(DataOptions("pets", shares=(0.9, 0.05, 0.05)).load())}


def fitting(notes: dict[str, Any], data: str, **options: Any) -> Splits:
    return load_fitting((3, 3, 4), PETS, notes, DataOptions(data, **options))


@pytest.mark.parametrize("name", ["pets", "pets/", "./pets", "../{}/pets", "{}/pets", "link"])
def test_a_folder_is_the_same_however_it_is_spelt(name: str, trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("pets")
    data = name.format(tmp_path.name if name.startswith(".") else tmp_path)
    assert sizes(fitting(trained, data)) == [86, 5, 5, 24]
    with pytest.raises(RLPruneError, match="trained on the split of seed 0; with --split-seed 3 some"):
        fitting(trained, data, split_seed=3)


def test_a_copy_is_known_by_its_images(trained: dict[str, Any], tmp_path: Path) -> None:
    write_folders(tmp_path / "copy", n=120)
    with pytest.raises(RLPruneError, match=r"copy has images that trained the network .* of 64 that are known, \d+"):
        fitting(trained, "copy")
    with pytest.raises(RLPruneError, match=r"it was 'pets', split otherwise: give --split-seed 0 and --shares 0\.9 0"):
        fitting(trained, "copy", split_seed=3)
    assert sizes(fitting(trained, "copy", shares=(0.9, 0.05, 0.05))) == [86, 5, 5, 24]
    write_folders(tmp_path / "others", n=60, first=120)
    assert sizes(fitting(trained, "others")) == [34, 9, 5, 12]


def test_a_changed_folder_is_refused_or_told(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pets" / "cat" / "000.png").rename(tmp_path / "pets" / "cat" / "zzz.png")
    with pytest.raises(RLPruneError, match=r"pets has images that trained the network .* its pictures have changed"):
        fitting(trained, "pets")
    (tmp_path / "pets" / "cat" / "zzz.png").rename(tmp_path / "pets" / "cat" / "000.png")
    fitting(trained, "pets")
    assert "changed" not in capsys.readouterr().err
    for path in (tmp_path / "pets").rglob("*.png"):  # every one a little brighter, as another decoder might make it
        picture(int(path.stem)).point(lambda value: min(255, value + 1)).save(path)
    fitting(trained, "pets")
    assert "pets has changed since the network was trained on it: of 64 training images" in capsys.readouterr().err


def test_classes_in_another_order_are_refused(trained: dict[str, Any]) -> None:
    other = DataFormat(PETS.mean, PETS.std, ("dog", "cat"))
    with pytest.raises(RLPruneError, match=r"pets has the network's classes in another order \(cat, dog, .* dog, cat"):
        load_fitting((3, 3, 4), other, trained, DataOptions("pets"))


def test_what_tested_then_tests_now(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("val", 200), ("test", 100)):
        write_folders(tmp_path / "pets" / name, n=20, first=first)
    notes = {"source": {"data": "pets", "split_seed": 0, "test_split": "val"}, "split": {"rule": 2, "sample": []}}
    assert sizes(fitting(notes, "pets/")) == [14, 4, 2, 20]
    with pytest.raises(RLPruneError, match=r"was trained where val tests; with --test-split test the images are split"):
        fitting(notes, "pets", test_split="test")
    old = {"source": {"data": "pets", "split_seed": 0}}  # its notes say no rule: val was not used then
    assert sizes(fitting(old, "pets")) == [14, 4, 2, 20]
    assert sizes(fitting(old | {"split": {"rule": 2, "sample": []}}, "pets")) == [16, 4, 20, 20]


def test_a_run_folder_keeps_its_rule(tmp_path: Path) -> None:
    assert split_rule_of(tmp_path) == 2
    (tmp_path / "adapted").mkdir()
    for about, rule in (({"model": "x"}, 1), ({"split": {"rule": 2}}, 2)):
        (tmp_path / "adapted" / "manifest.json").write_text(json.dumps({"about": about}))
        assert split_rule_of(tmp_path) == rule
