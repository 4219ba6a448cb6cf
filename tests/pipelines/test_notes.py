"""What is stored of a network's origin is shown and compared: nothing follows it, whatever it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nets import make_data, make_elastic

from rlprune.cli.bench import _shown
from rlprune.cli.export import Export, _metadata_of, _Parts
from rlprune.errors import BundleError
from rlprune.evaluation.static import evaluate_static
from rlprune.intake.identity import same_source
from rlprune.intake.notes import network_notes, split_rule_of
from rlprune.intake.options import DataOptions
from rlprune.policies.policy import Policy
from rlprune.storage.data_format import DataFormat
from rlprune.storage.networks import SavedNetwork
from rlprune.storage.policies import SavedPolicy

NETWORK = make_elastic("plain")
DATA = make_data(8)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"network": []}, r"network is \[\]; an object is needed"),
        ({"network": "x" * 10**6}, "network is 'xxx"),
        ({"network": {"source": "x"}}, "TypeError: source is 'x'"),
        ({"source": {"data": 5}}, "source.data is 5; allowed: a valid string"),
        ({"source": {"data": "x" * 10**6}}, "source.data is 'xxx"),
        ({"source": {"shares": [1.0]}}, "source.shares is"),
        ({"source": {"split_seed": "0"}}, "source.split_seed is '0'"),
        ({"model": ["resnet20"]}, "model is "),
        ({"split": 1}, "split is 1"),
        ({"split": {"rule": "2"}}, "split.rule is '2'"),
        ({"split": {"sample": [1]}}, "split.sample.0 is 1"),
    ],
)
def test_notes_of_another_kind_are_an_error_of_one_line(notes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        network_notes(notes)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_notes_that_say_little_are_no_error() -> None:
    assert network_notes({}) == {"split": {}}
    assert network_notes({"network": {"model": "mine", "more": 1}}) == {"model": "mine", "more": 1, "split": {}}
    assert network_notes({"source": None})["source"] is None


def test_a_run_s_rule_is_read_with_care(tmp_path: Path) -> None:
    (tmp_path / "adapted").mkdir()
    for content in ("{", "[]", '{"about": 1}', '{"about": {"split": []}}', '{"about": {"split": {"rule": "x"}}}'):
        (tmp_path / "adapted" / "manifest.json").write_text(content)
        if content.endswith("[]}}"):
            assert split_rule_of(tmp_path) == 1
            continue
        with pytest.raises(BundleError, match="malformed"):
            split_rule_of(tmp_path)


def test_calibration_takes_from_the_notes_how_tables_are_read_and_nothing_that_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = {"data": "cifar10", "image_column": "img", "preprocess": "os:abort", "split_seed": 3, "surprise": 1}
    dynamic: Any = SimpleNamespace(image_shape=NETWORK.image_shape)
    parts = _Parts(dynamic, DataFormat.of(DATA), {"network": {"source": source}})
    seen: list[DataOptions] = []

    def load_fitting(*given: Any) -> Any:
        seen.append(given[-1])
        raise RuntimeError("seen")

    monkeypatch.setattr("rlprune.cli.export.load_fitting", load_fitting)
    for data in ("cifar10", "elsewhere"):
        with pytest.raises(RuntimeError, match="seen"):
            Export(Path("n"), Path("p"), Path("o"), int8=True, data=data)._calibration_images(parts)
    assert seen == [DataOptions("cifar10", image_column="img", split_seed=3), DataOptions("elsewhere")]


@pytest.mark.parametrize("notes", [{"policy": []}, {"policy": "x"}])
def test_a_policy_s_notes_are_an_object(notes: dict[str, Any]) -> None:
    policy: Any = Policy
    with pytest.raises(BundleError, match=r"policy is .*; an object is needed"):
        _metadata_of(SavedNetwork(NETWORK, DataFormat.of(DATA), {}), SavedPolicy(policy, notes))


@pytest.mark.parametrize(
    ("notes", "message"),
    [({"dense": {"params": 0, "macs": 1}}, "dense.params is 0"), ({"dense": 3}, "dense is 3"), ({"how": []}, "how is")],
)
def test_a_pruned_network_s_notes_are_numbers(notes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        evaluate_static(NETWORK.slice(NETWORK.full), DATA, notes)


def test_what_notes_call_their_data_is_compared_and_shown_whatever_it_is() -> None:
    assert not same_source("\0", "cifar10") and not same_source("x" * 10**5, "cifar10")
    assert same_source("cifar10", "cifar10") and not same_source(None, "cifar10")
    assert _shown("\n\x1b[31m") == "'\\n\\x1b[31m'" and len(_shown("x" * 10**6)) < 100
