from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nets import (
    IMAGE_SHAPE,
    N_CLASSES,
    make_data,
    make_elastic,
    network,
    seen_batches,
)
from torch import nn

from rlprune.data.image_set import normalise
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import NotFiniteError, RLPruneError
from rlprune.training.adaptation import AdaptSettings, adapt, calibrate
from rlprune.training.batches import Batch, index_batches, remembered_views
from rlprune.training.loop import fit
from rlprune.training.pretraining import pretrain
from rlprune.training.run import share_of_peak
from rlprune.training.settings import TrainingSettings

QUICK: dict[str, Any] = {"batch_size": 16, "bf16": False, "channels_last": False, "padding": 2}


class Interrupted(Exception):
    pass


def interrupt_after(epochs: int) -> Any:
    """A log that stops the training at the end of the epoch after these."""
    calls = []

    def log(_: int, figures: dict[str, float]) -> None:
        calls.append(figures)
        if len(calls) > epochs:
            raise Interrupted

    return log


@pytest.mark.parametrize("kind", ["residual", "plain"])  # plain has dropout
@pytest.mark.parametrize("more", [{}, {"views": 2, "early_size": 12, "early_share": 0.3}, {"average_share": 0.7}])
def test_an_interrupted_run_that_goes_on_equals_one_that_was_not(kind: str, more: Any, tmp_path: Path) -> None:
    settings, data = AdaptSettings(epochs=3, **QUICK, **more), make_data(40)
    whole, first, second = (make_elastic(kind) for _ in range(3))
    adapt(whole, data, settings)
    with pytest.raises(Interrupted):
        adapt(first, data, settings, checkpoint=tmp_path / "run.pt", log=interrupt_after(2))
    adapt(second, data, settings, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_a_run_that_is_over_is_not_trained_again(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    model, again = network("plain"), network("plain", seed=1)
    pretrain(model, data, settings, checkpoint=tmp_path / "run.pt")
    figures: list[float] = []
    pretrain(again, data, settings, checkpoint=tmp_path / "run.pt", log=lambda n, _: figures.append(n))
    assert figures == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_the_same_seed_gives_the_same_network_and_another_another() -> None:
    data, weights = make_data(20), []
    for seed in (0, 0, 1):
        model = network("plain")
        torch.rand(seed + 1)  # whatever the process drew before
        pretrain(model, data, TrainingSettings(epochs=1, seed=seed, **QUICK))
        weights.append(model.classifier[1].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    pretrain(network("plain"), data, settings, checkpoint=tmp_path / "run.pt")
    message = r"was made under other settings \(epochs: 1, now 2; learning_rate: 0\.1, now 0\.3\); go back to those, or"
    with pytest.raises(RLPruneError, match=message):
        pretrain(
            network("plain"),
            data,
            replace(settings, epochs=2, learning_rate=0.3),
            checkpoint=tmp_path / "run.pt",
        )


class _StdPool(nn.Module):
    """Its gradient is NaN where all features of a channel are equal, though its output is a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.var((2, 3)).sqrt()


def test_a_gradient_that_is_not_finite_stops_training_before_it_is_applied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), _StdPool(), nn.Linear(8, N_CLASSES))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = make_data(16)
    black = replace(data, images=torch.zeros_like(data.images), mean=(0.0,) * 3)
    message = (
        r"stopped: the gradient is not finite in epoch 1 of 2, at learning rate 0\.\d+; .*no checkpoint was written"
    )
    with pytest.raises(NotFiniteError, match=message):
        pretrain(model, black, TrainingSettings(epochs=2, **QUICK))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bf16", [False, True])
def test_a_loss_that_is_not_finite_stops_training_and_leaves_the_last_good_checkpoint(
    bf16: bool, tmp_path: Path
) -> None:
    model = network("plain")
    settings = TrainingSettings(epochs=3, **(QUICK | {"bf16": bf16}))

    def spoil(*_: Any) -> None:
        log.append(_)
        if len(log) == 2:  # the second epoch is over, its checkpoint is not written yet
            with torch.no_grad():
                model.classifier[1].weight[0] = 1e38

    log: list[Any] = []
    message = "the loss is not finite in epoch 3 of 3.*" + (
        "bf16=False, which --resume can" if bf16 else "run.pt has the"
    )
    with pytest.raises(NotFiniteError, match=message) as raised:
        pretrain(model, make_data(20), settings, checkpoint=tmp_path / "run.pt", log=spoil)
    assert ("bf16" in str(raised.value)) is bf16
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert saved["epoch"] == 2 and all(value.isfinite().all() for value in saved["network"].values())


def test_weights_that_hold_nan_are_not_trained() -> None:
    model = network("plain")
    with torch.no_grad():
        model.classifier[1].weight[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"classifier\.1\.weight of the network holds NaN or infinity before"):
        pretrain(model, make_data(20), TrainingSettings(epochs=1, **QUICK))


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({"device": "cuda"}, "(device=cuda, now cpu)"),
        ({"device": "cuda:1", "bf16": True}, "(bf16=True, now False; device=cuda:1, now cpu)"),
        ({"channels_last": True}, "(channels_last=True, now False)"),
        ({}, None),
    ],
)
def test_a_run_goes_on_elsewhere_and_in_another_precision(
    before: dict[str, Any], said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, data = TrainingSettings(epochs=3, **QUICK), make_data(20)
    whole, first, second = (network("plain") for _ in range(3))
    pretrain(whole, data, settings)
    with pytest.raises(Interrupted):
        pretrain(first, data, settings, checkpoint=tmp_path / "run.pt", log=interrupt_after(1))
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    torch.save(saved | {"settings": saved["settings"] | before}, tmp_path / "run.pt")  # as another machine writes it
    pretrain(second, data, settings, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())
    out = capsys.readouterr().out
    assert f"{said}: rounding may differ" in out if said else out == ""


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    pretrain(network("plain"), data, settings, checkpoint=tmp_path / "run.pt")
    with pytest.raises(RLPruneError, match="belongs to another network"):
        pretrain(network("residual"), data, settings, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"warm_up": 1.0}, r"warm_up=1\.0: give a number of 0 or more, below 1"),
        (
            {"momentum": 1.0},
            r"momentum=1\.0: give a number of 0 or more, below 1",
        ),
        ({"momentum": -0.1}, r"momentum=-0\.1"),
        ({"weight_decay": -1.0}, r"weight_decay=-1\.0"),
        ({"scale_penalty": -1.0}, r"scale_penalty=-1\.0"),
        ({"padding": -1}, "padding=-1"),
        ({"device": "toaster"}, r"device='toaster': it cannot be used here \(.*\); cpu always can"),
        ({"device": "meta"}, r"device='meta': it cannot be used here \(.*\); cpu always can"),
        ({"device": "cuda:99"}, r"device='cuda:99': it cannot be used here \(.*\); cpu always can"),
        ({"n_random": -1}, "n_random=-1"),
        (
            {"n_random": 0, "sandwich": False},
            r"n_random=0, sandwich=False: a step needs a profile; give an n_random of 1",
        ),
        (
            {"views": -1},
            "views=-1: give a whole number of 0 or more",
        ),
        ({"early_size": -1}, "early_size=-1"),
        ({"early_share": 1.1}, r"early_share=1\.1"),
        ({"average_share": 1.1}, r"average_share=1\.1: give a number from 0 to 1"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"distillation": 1.5}, "distillation=1.5"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        AdaptSettings(**wrong)


def test_one_step_is_gradient_descent_and_vectors_do_not_decay() -> None:
    model = nn.Linear(1, 1)
    model.weight.data.fill_(2.0)
    model.bias.data.fill_(1.0)
    model.forward = lambda x: x  # type: ignore[method-assign]
    settings = TrainingSettings(epochs=1, batch_size=4, momentum=0, weight_decay=0.5, learning_rate=0.1, warm_up=0)

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (3 * model.weight + 3 * model.bias).sum().backward()
            return {"seen": float(len(batch.images))}

        return run

    figures: list[dict[str, float]] = []
    fit(model, make_data(4), settings, step, log=lambda _, f: figures.append(f))
    assert model.weight.item() == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))
    assert model.bias.item() == pytest.approx(1 - 0.1 * 3)
    assert figures == [{"seen": 4, "learning_rate": 0}]


def test_weights_are_averaged_over_the_last_steps_at_a_rate_that_stays() -> None:
    model, seen, rates = nn.Linear(1, 1, bias=False), [], []
    model.weight.data.fill_(0.0)
    settings = TrainingSettings(epochs=4, batch_size=4, momentum=0, weight_decay=0, average_share=0.5, warm_up=0)

    def step(_: torch.Generator) -> Any:
        def run(_: Batch) -> dict[str, float]:
            seen.append(model.weight.item())
            (-model.weight).sum().backward()
            return {}

        return run

    fit(model, make_data(8), settings, step, log=lambda _, figures: rates.append(figures["learning_rate"]))
    steps = torch.tensor(seen[:8]).diff()  # two steps in each of four epochs; more settle norms
    assert rates[1:] == pytest.approx([0.05] * 3)
    assert steps[:4].tolist() == pytest.approx([0.1 * share_of_peak(n, 8, 0) for n in range(4)])
    assert steps[4:].tolist() == pytest.approx([0.05] * 3)
    assert model.weight.item() == pytest.approx((sum(seen[5:8]) + seen[7] + 0.05) / 4)


def test_norms_measure_the_statistics_of_averaged_weights() -> None:
    model, data = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1)), make_data(64)
    settings = TrainingSettings(epochs=2, batch_size=16, average_share=1.0, padding=0, flip=False, bf16=False)

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (model(batch.images).relu().square().mean() - model[0].weight.sum()).backward()
            return {}

        return run

    fit(model, data, settings, step)
    with torch.no_grad():
        features = model[0](data.normalised(torch.arange(64)))
    assert model[1].running_mean.item() == pytest.approx(features.mean().item(), abs=0.05 * features.std().item())
    assert model[1].running_var.item() == pytest.approx(features.var().item(), rel=0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scales_of_norms_are_drawn_to_zero_one_by_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    model[1].weight.data.copy_(torch.tensor([2.0, -2.0, 0.5, 0.0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = TrainingSettings(
        epochs=1, batch_size=4, momentum=0, weight_decay=0, learning_rate=0.1, warm_up=0, scale_penalty=0.5, bf16=False
    )

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (0 * model(batch.images)).sum().backward()
            return {}

        return run

    fit(model, make_data(4), settings, step)
    for name, value in model.state_dict().items():
        moved = torch.tensor([-0.05, 0.05, -0.05, 0.0]) if name == "1.weight" else torch.zeros(())
        if name.endswith(("weight", "bias")):
            assert torch.allclose(value, before[name] + moved), name


def test_a_checkpoint_of_before_a_setting_was_known_is_gone_on_with(tmp_path: Path) -> None:
    path, model = tmp_path / "checkpoint.pt", network("plain")
    settings = TrainingSettings(epochs=1, **QUICK)
    pretrain(model, make_data(16), settings, checkpoint=path)
    saved = torch.load(path, weights_only=True)
    del saved["settings"]["scale_penalty"]
    torch.save(saved, path)
    again = network("plain", seed=1)
    pretrain(again, make_data(16), settings, checkpoint=path)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [share_of_peak(n, 10, 0.2) for n in range(11)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0)


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_learning_rate_has_one_peak(n_steps: int, warm_up: float) -> None:
    rates = [share_of_peak(n, n_steps, warm_up) for n in range(n_steps + 1)]
    peak = rates.index(max(rates))
    assert 0 < rates[0]
    assert max(rates) <= 1
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


def test_a_last_batch_of_one_image_is_left_out() -> None:
    assert [batch.tolist() for batch in index_batches(torch.arange(5), 2)] == [[0, 1], [2, 3]]
    assert [batch.tolist() for batch in index_batches(torch.arange(6), 4)] == [[0, 1, 2, 3], [4, 5]]
    assert [batch.tolist() for batch in index_batches(torch.arange(1), 4)] == [[0]]  # there is nothing else


@given(st.integers(2, 60), st.integers(2, 20))
def test_batches_are_all_images_in_order_but_a_single_last_one(n: int, batch_size: int) -> None:
    batches = index_batches(torch.arange(n), batch_size)
    left_out = n > batch_size and n % batch_size == 1
    assert torch.equal(torch.cat([*batches]), torch.arange(n - left_out))
    assert len(batches) == -(-n // batch_size) - left_out and min(map(len, batches)) >= 2


def view_of(images: torch.Tensor, view: list[int], padding: int) -> torch.Tensor:
    """One image, cut out and mirrored by hand."""
    down, right, mirrored = view
    cut = F.pad(images, (padding,) * 4)[:, down : down + images.shape[1], right : right + images.shape[2]]
    return cut.flip(2) if mirrored else cut


def test_with_views_batches_hold_these_views_and_no_others() -> None:
    data, settings = make_data(12), TrainingSettings(epochs=20, views=3, **QUICK)
    table = remembered_views(12, settings)
    seen = set()
    for batch in seen_batches(data, settings):
        for row, (i, v) in enumerate(zip(batch.indices.tolist(), batch.views.tolist(), strict=True)):
            view = view_of(data.images[i], table[i, v].tolist(), 2)
            assert torch.equal(batch.images[row], normalise(view[None], data.mean, data.std)[0])
            assert batch.labels[row] == data.labels[i]
            seen.add((i, v))
    assert seen == {(i, v) for i in range(12) for v in range(3)}  # of 240 draws; one missing has a chance of 1 %


def test_each_image_has_views_of_its_own_that_no_seed_changes() -> None:
    settings = TrainingSettings(views=8, padding=3)
    views = remembered_views(50, settings)
    assert views.shape == (50, 8, 3) and len(views.flatten(0, 1).unique(dim=0)) == 7 * 7 * 2
    assert len(views.unique(dim=0)) == 50
    for other in (replace(settings, seed=5), replace(settings, epochs=3), AdaptSettings(views=8, padding=3)):
        assert torch.equal(remembered_views(50, other), views)
    assert not remembered_views(50, replace(settings, flip=False))[..., 2].any()
    assert remembered_views(50, replace(settings, padding=1))[..., :2].unique().tolist() == [0, 1, 2]


def test_more_images_change_no_views_of_the_first() -> None:
    settings = TrainingSettings(views=3)
    few, many = remembered_views(40, settings), remembered_views(1000, settings)
    assert torch.equal(few, many[:40]) and not torch.equal(few, many[40:80])
    assert (many[..., :2].unique() == torch.arange(9)).all() and 0.45 < many[..., 2].double().mean() < 0.55


def test_without_views_every_epoch_sees_new_ones() -> None:
    data, settings = make_data(8), TrainingSettings(epochs=5, **QUICK)
    batches = seen_batches(data, settings)
    assert not torch.stack([batch.views for batch in batches]).any()
    firsts = [batch.images[batch.indices == 0][0] for batch in batches]
    assert len(torch.stack(firsts).unique(dim=0)) > 3
    one = [batch.images[batch.indices == 0][0] for batch in seen_batches(data, replace(settings, views=1))]
    assert len(torch.stack(one).unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("early", "sizes"),
    [
        ({}, [16, 16, 16, 16, 16]),
        ({"early_size": 8}, [8, 8, 8, 16, 16]),
        ({"early_size": 8, "early_share": 0.0}, [16, 16, 16, 16, 16]),
        ({"early_size": 12, "early_share": 0.25}, [12, 16, 16, 16, 16]),
        ({"early_size": 4, "early_share": 1.0, "views": 2}, [4, 4, 4, 4, 4]),
    ],
)
def test_images_are_shrunk_in_early_epochs_only(early: dict[str, Any], sizes: list[int]) -> None:
    data = make_data(16)
    grey = replace(data, images=data.labels.to(torch.uint8)[:, None, None, None].expand(16, *IMAGE_SHAPE) * 20)
    settings = TrainingSettings(epochs=5, **QUICK | {"padding": 0} | early)
    batches = seen_batches(grey, settings)
    assert [tuple(batch.images.shape[1:]) for batch in batches] == [(3, size, size) for size in sizes]
    for batch in batches:  # of an image of one grey nothing but its size changes
        expected = ((batch.labels * 20 / 255 - 0.5) / 0.25)[:, None, None, None].expand_as(batch.images)
        assert torch.allclose(batch.images, expected, atol=1e-5)


class Normed(nn.Module):
    """A network with a norm that has one value per channel and image, and so needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.hidden, self.norm, self.linear = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(F.relu(self.stem(x)))).mean((2, 3))
        return self.linear(F.relu(self.norm(self.hidden(x))))


def test_one_image_too_many_for_whole_batches_does_not_stop_training() -> None:
    model, data = Normed(), make_data(17)
    steps: list[int] = []
    model.register_forward_hook(lambda module, inputs, _: steps.append(len(inputs[0])))
    pretrain(model, data, TrainingSettings(epochs=2, **QUICK))
    assert steps == [16, 16]
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert "norm" in elastic.elastic_layers()
    calibrate(elastic, data, TrainingSettings(**QUICK))
    adapt(elastic, data, AdaptSettings(epochs=1, **QUICK))
    assert all(value.isfinite().all() for value in elastic.state_dict().values())


@pytest.mark.parametrize(
    ("bf16", "capabilities", "expected"),
    [
        (None, {"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        (None, {"amx_bf16": True}, torch.bfloat16),
        (None, {"arm_bf16": True}, torch.bfloat16),
        (None, {"avx512_bf16": False, "avx2": True}, torch.float32),
        (None, {}, torch.float32),
        (True, {}, torch.bfloat16),
        (False, {"avx512_bf16": True}, torch.float32),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it_or_as_it_is_said(
    monkeypatch: pytest.MonkeyPatch, bf16: bool | None, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with TrainingSettings(bf16=bf16).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with TrainingSettings().autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_network_of_one_image_size_says_what_to_set() -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, N_CLASSES))
    with pytest.raises(RLPruneError, match=r"early_size=8: no step can .* \(mat1 and mat2 .*\); .* needs early_size=0"):
        pretrain(fixed, make_data(40), TrainingSettings(epochs=2, early_size=8, **QUICK))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        pretrain(nn.Sequential(nn.Flatten(), nn.Linear(5, N_CLASSES)), make_data(40), TrainingSettings(**QUICK))
