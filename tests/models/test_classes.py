from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.errors import ModelError
from rlprune.models import classes, libraries
from rlprune.models.classes import KnownClasses, in_folder, keep_classes, match, matches_any, of_names
from rlprune.models.registry import build

KNOWN = KnownClasses(
    "net",
    (
        ("tench, Tinca tinca", "n01440764"),
        ("crane", "n02012849"),
        ("English springer, English springer spaniel", "n02102040"),
        ("crane, lifter", "n03126707"),
        ("maillot", "n03710637"),
        ("maillot, tank suit", "n03710721"),
        ("jack-o'-lantern", "n03590841"),
    ),
)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["n02102040", "n01440764"], [2, 0]),
        (["n02102040-springer", "n01440764_tench"], [2, 0]),
        (["tinca_tinca", "ENGLISH  SPRINGER"], [0, 2]),
        (["Tench, tinca Tinca", "jack o lantern"], [0, 6]),
        (["maillot", "tank-suit"], [4, 5]),  # the whole name goes before a part of another
        (["lifter", "crane"], [3, 1]),
        (["english_springer_spaniel"], [2]),
    ],
)
def test_names_are_found_however_they_are_written(names: list[str], rows: list[int]) -> None:
    assert match(KNOWN, names) == rows


TWO_CRANES = KnownClasses("net", (("crane", "n02012849"), ("crane", "n03126707"), ("cat", "x")))


@pytest.mark.parametrize(
    ("known", "names", "message"),
    [
        (TWO_CRANES, ["cat", "Crane"], r"'Crane' may be n02012849 \(crane\) or n03126707 \(crane\) of the 3 that net"),
        (of_names("w", ["a,b", "b,c"]), ["b"], r"'b' may be 0 \('a,b'\) or 1 \('b,c'\) of the 2 that w knows"),
        (KNOWN, ["tench", "Tinca tinca"], "'tench' and 'Tinca tinca' are all tench to net; join them"),
        (
            KNOWN,
            ["tench", "ox", "elk"],
            r"net knows 7 classes \(tench, crane, .*, \.\.\.\), and 2 of the images' 3 are none of them: 'ox', 'elk'; "
            r"call them \(their folders, or a list in classes\.json .*, or train a new head with `rlprune pretrain",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(known: KnownClasses, names: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        match(known, names)


def test_one_name_may_settle_another() -> None:
    assert match(TWO_CRANES, ["n02012849", "crane"]) == [0, 1]
    assert matches_any(TWO_CRANES, ["dog", "cat"]) and not matches_any(TWO_CRANES, ["dog"])


def test_ids_without_timm_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "wordnet", dict)
    with pytest.raises(ModelError, match=r"'n01440764'; install \"rlprune\[timm\]\", which knows the names"):
        match(of_names("net", ["tench", "crane"]), ["n01440764"])


def test_the_libraries_say_what_their_networks_know() -> None:
    if not classes.wordnet():
        pytest.skip("needs timm")
    wanted = ["n01440764", "gas_pump", "crane bird"]
    for name in ("torchvision:mobilenet_v2", "timm:resnet18"):
        known = classes.of_library(name)
        assert known is not None and len(known) == 1000
        assert match(known, wanted[:2]) == [0, 571]
        with pytest.raises(ModelError, match=r"n02012849 \(crane.*\) or n03126707 \(crane\)"):
            match(known, ["crane"])
        assert match(known, list(classes.wordnet())) == list(range(1000))
    torchvisions = classes.of_library("torchvision:mobilenet_v2")
    assert torchvisions is not None and match(torchvisions, wanted) == [0, 571, 134]
    every = libraries.class_names("torchvision:mobilenet_v2")
    assert match(torchvisions, every) == list(range(1000))
    ids = of_names("own", ["n01440764", "n03126707"])
    assert match(ids, ["crane", "tench"]) == [1, 0]


def test_a_folder_of_the_hub_says_its_classes(tmp_path: Path) -> None:
    assert in_folder(tmp_path) is None
    for config, names in (
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        ({"label_names": ["c", "d"]}, ("c", "d")),
        ({"id2label": {"1": "b"}}, None),
        ({"id2label": ["a"]}, None),
        ([], None),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = in_folder(tmp_path)
        assert (None if found is None else tuple(name for (name,) in found.names)) == names


class Pooled(nn.Module):
    """A convolution of 1x1, activated and pooled into logits, as SqueezeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 9, 3)
        self.classifier = nn.Conv2d(9, 9, 1)
        self.num_classes = 9

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.classifier(self.body(images))).mean((2, 3))


class Averaged(nn.Module):
    """Two heads whose logits are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(3, 9), nn.Linear(3, 9)])

    def forward(self, images: Tensor) -> Tensor:
        return (self.heads[0](images.mean((2, 3))) + self.heads[1](images.mean((2, 3)))) / 2


@pytest.mark.parametrize("make", [lambda: build("resnet20", 9), lambda: build("digits_cnn", 9), Pooled])
def test_the_logits_that_stay_are_the_same(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, images = make().eval(), torch.rand(4, 3, 16, 16)
    rows = [7, 0, 3]
    with torch.inference_mode():
        before = model(images)
    keep_classes(model, rows, (3, 16, 16))
    with torch.inference_mode():
        assert torch.allclose(model(images), before[:, rows], rtol=1e-5, atol=1e-6)
    assert all(value.requires_grad for value in model.parameters())
    assert getattr(model, "num_classes", 3) == 3
    assert {*map(type, model.parameters())} == {nn.Parameter}


@pytest.mark.parametrize("make", [Averaged, lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.Softmax(1))])
def test_other_heads_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ModelError, match=r"are not those of one last layer .* train a new head with `rlprune pretrain"):
        keep_classes(make(), [1, 2], (3, 4, 4))
