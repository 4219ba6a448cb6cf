"""Rivals of somebody's own: found by name, rehearsed on little, and told in a line what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import my_rivals
import pytest
import torch
from nets import colours, make_elastic

from rlprune.baselines.rivals import RivalInputs, find_rival, points_of, rehearse
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.policy import Policy
from rlprune.training.adaptation import SpecialiseSettings

DATA = colours(300)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> RivalInputs:
    adapted, network = make_elastic("plain"), make_elastic("plain")
    codebook = torch.stack([network.uniform(network.narrowest), network.full])
    network.specialise(codebook)
    folder = tmp_path_factory.mktemp("rival") / "made"
    return RivalInputs(adapted, network, codebook, DATA, DATA, DATA, SpecialiseSettings(epochs=7), None, folder)


def test_its_points_are_those_it_gives_and_answer_alike(given: RivalInputs) -> None:
    policy, profile, predict = points_of("my_rivals:every_kind", given)
    assert [point.label for point in (policy, profile, predict)] == ["policy", "profile", "predict"]
    assert isinstance(policy.how, Policy) and torch.equal(profile.how, given.codebook[0])
    labels, macs = predict.how(DATA.images[:9])
    assert torch.equal(labels, given.network.slice(profile.how)(DATA.normalised(slice(9))).argmax(1))
    assert macs.shape == (9,) and macs.min() > 0
    (first,) = points_of("my_rivals:InAClass", given)
    assert torch.equal(first.how, given.codebook[0])


def test_a_rehearsal_is_short_and_leaves_nothing(given: RivalInputs) -> None:
    my_rivals.CALLS.clear()
    rehearse("my_rivals:every_kind", given)
    ((n_images, epochs, folder),) = my_rivals.CALLS
    assert (n_images, epochs) == (256, 1)
    assert folder != given.folder and not folder.parent.exists() and not given.folder.exists()
    assert given.adapted.codebook is None  # it had copies


WRONG = {
    "nothing_there": "failed with AttributeError: .* has no attribute 'nothing_there' .* that works with one argument",
    "number": "is an int; name a function of one argument, RivalInputs",
    "no_argument": r"takes \(\) -> 'list\[Any\]': too many positional arguments; it is called with one argument",
    "nothing": "gave no point; at least one is needed",
    "twice": "gave the label 'same' twice",
    "fails": r"failed with ZeroDivisionError: .* \(my_rivals.py, line \d+\)$",
    "gives_nothing": r"failed with TypeError: 'NoneType' object is not iterable",
    "bare": r"gave an int64 tensor of shape \(3,\); a pair of a label and a Policy, a profile",
    "text": "point 'it' of rival 'my_rivals:text' is a str; a Policy, a profile",
    "floats": r"is a float32 tensor of shape \(3,\), .*; a profile has a level for each of \d groups",
    "too_high": r"is an int64 tensor of shape \(3,\), \[100, .*; a profile has a level .* to 4$",
    "logits": r"gave a float32 tensor of shape \(2, 5\); a tuple of two, labels and MACs, is needed",
    "one_cost": r"gave MACs as an int64 tensor of shape \(\) for 2 images; int64 \(2,\) is needed",
    "no_class": "gave labels from 77 to 77; there are 0 to 4",
    "no_cost": "gave 0 MACs for an image; 1 or more are needed",
    "breaks": r"failed on an uint8 tensor of shape .* with AttributeError: .* \(my_rivals.py, line \d+\)",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(name: str, given: RivalInputs) -> None:
    with pytest.raises(RLPruneError, match=WRONG[name]) as raised:
        list(points_of(f"my_rivals:{name}", given))
    assert "\n" not in str(raised.value) and f"my_rivals:{name}" in str(raised.value)


def test_a_policy_of_another_network_is_refused(given: RivalInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_elastic("residual")
    (policy, *_) = points_of(
        "my_rivals:every_kind", RivalInputs(**vars(given) | {"network": other, "codebook": other.full[None]})
    )
    monkeypatch.setattr(my_rivals, "text", my_rivals.wrong(policy.how))
    with pytest.raises(BundleError, match="the policy was trained for another network"):
        list(points_of("my_rivals:text", given))


def test_what_can_be_called_need_not_say_how(
    monkeypatch: pytest.MonkeyPatch, given: RivalInputs, tmp_path: Path
) -> None:
    assert find_rival("builtins:iter") is iter
    with pytest.raises(
        RLPruneError, match="'builtins:iter' failed with TypeError: 'RivalInputs' object is not iterable"
    ):
        list(points_of("builtins:iter", given))
