"""Batches of streamed images: the same whatever reads them, and after any interruption."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import Interrupted, every_second_step
from nets import make_data, make_elastic, network, seen_batches
from quick import QUICK
from streams import streamed, write_gradients
from torch import Tensor

from rlprune.data.loading import load
from rlprune.data.streamed import StreamedPixels
from rlprune.errors import DataError, RLPruneError, SettingsError
from rlprune.training import loop
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.run import TrainingRun
from rlprune.training.settings import TrainingSettings

DATA = make_data(40)
SETTINGS = AdaptSettings(epochs=2, average_share=0.5, workers=0, **QUICK)


def adapted(data: Any, settings: AdaptSettings = SETTINGS, **kept: Any) -> dict[str, Tensor]:
    elastic = make_elastic("plain")
    adapt(elastic, data, settings, **kept)
    return elastic.state_dict()


@pytest.mark.parametrize("crop_scale", [None, (0.3, 0.8)])
def test_they_are_the_same_for_any_number_of_workers(crop_scale: tuple[float, float] | None) -> None:
    settings = TrainingSettings(epochs=2, crop_scale=crop_scale, workers=0, **QUICK)
    one = seen_batches(streamed(DATA), settings)
    other = seen_batches(streamed(DATA), replace(settings, workers=2))
    assert len(one) == 6
    for first, second in zip(one, other, strict=True):
        assert all(map(torch.equal, first[:4], second[:4])) and first[4:] == second[4:]


@pytest.mark.parametrize("crop_scale", [None, (0.3, 0.8)])
def test_fixed_views_are_those_in_memory(crop_scale: tuple[float, float] | None) -> None:
    settings = TrainingSettings(epochs=1, views=1, crop_scale=crop_scale, workers=0, **QUICK)

    def by_image(data: Any) -> Tensor:
        batches = seen_batches(data, settings)
        return torch.cat([batch.images for batch in batches])[torch.cat([b.indices for b in batches]).argsort()]

    assert torch.equal(by_image(DATA), by_image(streamed(DATA)))


def test_a_training_that_is_interrupted_anywhere_ends_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_N_MEASURED", 3)
    data = streamed(DATA)
    whole = adapted(data)
    every_second_step(monkeypatch)
    again: dict[str, Tensor] = {}
    attempts = 0
    while not again:
        attempts += 1
        with suppress(Interrupted):  # with another number of workers, which changes nothing
            again = adapted(data, replace(SETTINGS, workers=attempts % 2), checkpoint=tmp_path / "run.pt")
    assert attempts > 2 and all(torch.equal(value, whole[name]) for name, value in again.items())


def test_a_damaged_picture_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_gradients(tmp_path / "pets", 60)
    data = replace(load("pets", image_size=16, memory=0).network, classes=tuple("abcde"))
    settings = TrainingSettings(epochs=1, workers=1, **QUICK | {"batch_size": 8})

    def pretrained(**kept: Any) -> dict[str, Tensor]:
        trained = network("plain")
        pretrain(trained, data, settings, **kept)
        return trained.state_dict()

    whole = pretrained()
    assert isinstance(data.images, StreamedPixels)
    last = TrainingRun(network("plain"), settings, 5).begin_epoch(data).order[-8]
    victim = Path(data.images.pictures[0].records[int(data.images.rows[last])][0])  # type: ignore[attr-defined]
    known = victim.read_bytes()
    victim.write_bytes(known[:50])
    stopped = rf"{victim.name} cannot be read .*\. training stopped after \d of \d steps of epoch 1; "
    with pytest.raises(DataError, match=stopped + "they are lost, since there is no checkpoint"):
        pretrained()
    with pytest.raises(DataError, match=stopped + r".*run\.pt has them: put a readable picture"):
        pretrained(checkpoint=tmp_path / "run.pt")
    victim.write_bytes(known + b" ")  # another size, which nobody minds here
    again = pretrained(checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole[name]) for name, value in again.items())


def test_images_that_changed_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    adapted(DATA, replace(SETTINGS, epochs=1), checkpoint=checkpoint)
    with pytest.raises(RLPruneError, match=r"written on images in memory, which are streamed now"):
        adapted(streamed(DATA), replace(SETTINGS, epochs=1), checkpoint=checkpoint)
    with pytest.raises(RLPruneError, match=r"the images have changed since .*run\.pt was written \(their labels\)"):
        adapted(replace(DATA, labels=DATA.labels.flip(0)), replace(SETTINGS, epochs=1), checkpoint=checkpoint)


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.2), (0.5, 1.5)])
def test_shares_of_a_picture_are_shares(scale: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="crop_scale"):
        TrainingSettings(crop_scale=scale)
