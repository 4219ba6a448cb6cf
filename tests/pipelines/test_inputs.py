from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlprune.cli.options import NetworkOptions, TeacherOptions
from rlprune.errors import ModelError
from rlprune.intake.options import DataOptions
from rlprune.models import libraries
from rlprune.pipelines.inputs import build_model

pytestmark = pytest.mark.usefixtures("apart")


class Remembered:
    """Builds linear networks in place of a library's, all of whose weights are 1 where they are its pretrained ones."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, bool]] = []

    def __call__(self, name: str, n_classes: int, in_channels: int, *, pretrained: bool = False) -> nn.Module:
        self.asked.append((name, n_classes, pretrained))
        linear = nn.Linear(in_channels * 16 * 16, n_classes)
        nn.init.constant_(linear.weight, float(pretrained))
        return nn.Sequential(nn.Flatten(), linear)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> Remembered:
    """What is built of timm, which has weights for seven classes."""
    found = Remembered()
    monkeypatch.setattr(libraries, "build", found)
    monkeypatch.setattr(libraries, "check", lambda name: None)
    monkeypatch.setattr(libraries, "pretrained_classes", lambda name: 7)
    monkeypatch.setattr(libraries, "class_names", lambda name: [])
    return found


def test_a_library_s_network_begins_with_its_weights_a_file_s_or_fresh_ones(
    remembered: Remembered, tmp_path: Path
) -> None:
    splits = DataOptions("my_data:five_colours").load()
    torch.save(build_model("timm:x", Path("none"), splits).state_dict(), tmp_path / "weights.pt")
    build_model("timm:x", tmp_path / "weights.pt", splits)
    weight = next(build_model("timm:x", None, splits, new_head=True).parameters())
    assert bool((weight == 1).all())
    assert remembered.asked == [("timm:x", 5, False), ("timm:x", 5, False), ("timm:x", 5, True)]
    with pytest.raises(
        ModelError, match=r"of timm:x are for 7 classes, the images have 5: train a new head with `rlprune"
    ):
        build_model("timm:x", None, splits)
    with pytest.raises(ModelError, match=r"of timm:x are for 7 classes"):
        TeacherOptions(("timm:x",)).build(splits)


def test_pretrained_weights_are_fetched_before_images_are_read(remembered: Remembered) -> None:
    NetworkOptions("timm:x").check_weights()
    assert remembered.asked == [("timm:x", 7, True)]
    Path("some.pt").touch()
    NetworkOptions("timm:x", Path("some.pt")).check_weights()
    NetworkOptions("timm:x", Path("none")).check_weights(fresh=True)
    assert len(remembered.asked) == 1
    with pytest.raises(ModelError, match="--weights is missing: timm:x alone has random weights"):
        NetworkOptions("timm:x", Path("none")).check_weights()
