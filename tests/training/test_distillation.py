from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import IMAGE_SHAPE, colours, make_data, make_elastic, network, relative_error, seen_batches
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.graph.folding import fold_for_teacher
from rlprune.metrics import accuracy
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.batches import Batch
from rlprune.training.distillation import Ensemble, cache_teacher_logits, distillation_loss, soft_labels
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings

TEN = torch.arange(10)
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "bf16": False, "channels_last": False, "padding": 2}
VIEWS = TrainingSettings(views=3, **QUICK)


class Expert(nn.Module):
    """Knows the five colours from their mean, normalised."""

    def __init__(self) -> None:
        super().__init__()
        data = colours(5)
        self.register_buffer("palette", data.normalised().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return -2 * torch.cdist(x.mean((2, 3)), self.get_buffer("palette"))


def shuffled(data: ImageSet) -> ImageSet:
    """The same images under labels that say nothing."""
    return replace(data, labels=data.labels[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_what_is_remembered_is_what_the_teacher_says_of_the_same_view(batch_size: int) -> None:
    teacher, data = network("residual"), make_data(20)
    remembered = cache_teacher_logits(teacher, data, VIEWS, batch_size)
    assert (remembered.shape, remembered.dtype) == ((20, 3, 5), torch.float16)
    for batch in seen_batches(data, replace(VIEWS, epochs=3, seed=4)):  # the seed draws among the views only
        with torch.no_grad():
            live = teacher(batch.images)
        assert relative_error(remembered[batch.indices, batch.views].float(), live) < 1e-3
        assert relative_error(remembered[batch.indices, (batch.views + 1) % 3].float(), live) > 0.05


def test_an_early_size_is_not_shown_to_who_remembers() -> None:
    data = make_data(6)
    early = replace(VIEWS, early_size=8, early_share=1.0)
    assert torch.equal(
        cache_teacher_logits(network("residual"), data, early), cache_teacher_logits(network("residual"), data, VIEWS)
    )


def test_what_is_known_already_is_not_asked_again() -> None:
    data, asked = make_data(20), []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return x[:, 0, 0, :5].clone()

    first = cache_teacher_logits(Watched(), data.subset(slice(0, 12)), VIEWS)
    asked.clear()
    whole = cache_teacher_logits(Watched(), data, VIEWS, known=first)
    assert sum(asked) == 8 * 3 and torch.equal(whole, cache_teacher_logits(Watched(), data, VIEWS))
    assert torch.equal(cache_teacher_logits(Watched(), data, VIEWS, known=whole), whole)
    for wrong in (first[:, :2], first[0], first[..., :4], whole.repeat(2, 1, 1)):
        with pytest.raises(RLPruneError, match=r"known has shape .*; what is said of the first of 20 images"):
            cache_teacher_logits(Watched(), data, VIEWS, known=wrong)


def test_to_be_asked_does_not_change_a_teacher() -> None:
    teacher = network("residual").train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    cache_teacher_logits(teacher, make_data(10), replace(VIEWS, channels_last=True))
    assert teacher.training and all(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_soft_labels_are_log_probabilities_at_the_temperature() -> None:
    warm, data = replace(VIEWS, temperature=4.0), make_data(6)
    logits = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))
    (batch,) = seen_batches(data, warm)
    for teacher, given_logits in ((logits, logits[batch.indices, batch.views]), (Last(), batch.images[:, 0, 0, :5])):
        soft = soft_labels(teacher, warm)(batch)
        assert torch.allclose(soft, (given_logits / 4).log_softmax(1), atol=1e-6)
        assert torch.allclose(soft.exp().sum(1), torch.ones(6))


class Last(nn.Module):
    """Its logits are pixels of the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :5]


def test_logits_of_other_views_are_refused() -> None:
    with pytest.raises(RLPruneError, match=r"shape \(20, 2, 5\); with views=3 they are \(images, 3, classes\): cache"):
        soft_labels(torch.zeros(20, 2, 5), VIEWS)
    with pytest.raises(RLPruneError, match=r"shape \(20, 5\); with views=3 they are"):
        soft_labels(torch.zeros(20, 5), VIEWS)
    with pytest.raises(RLPruneError, match="views=0 keeps no views of an image; give their number"):
        cache_teacher_logits(network("residual"), make_data(5), TrainingSettings(**QUICK))


@pytest.mark.parametrize("how", ["pretrain", "adapt"])
def test_a_student_of_remembered_answers_is_a_student_of_the_teacher(how: str) -> None:
    data, teacher = make_data(32), network("residual", seed=5)
    several = AdaptSettings(views=2, distillation=1.0, **QUICK)
    weights = []
    for one in (teacher, cache_teacher_logits(teacher, data, several), network("residual", seed=6)):
        if how == "adapt":
            student: nn.Module = make_elastic("residual")
            adapt(student, data, several, teacher=one)  # type: ignore[arg-type]
            weights.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
        else:
            student = network("residual")
            pretrain(student, data, several, teacher=one)
            weights.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    live, remembered, other = weights
    assert relative_error(remembered, live) < 1e-3 < relative_error(other, live)


def test_with_all_weight_on_the_teacher_labels_do_not_count() -> None:
    data, student = colours(200), network("plain")
    wrong = shuffled(data)
    assert accuracy(Expert(), data) == 1
    quick = QUICK | {"epochs": 3}
    pretrain(student, wrong, TrainingSettings(learning_rate=0.05, distillation=1.0, **quick), teacher=Expert())
    assert accuracy(student, data) > 0.9 > 0.5 > accuracy(student, wrong)


def test_without_weight_on_the_teacher_it_does_not_count() -> None:
    data, students = make_data(32), [network("plain"), network("plain")]
    for student, teacher in zip(students, (None, network("residual")), strict=True):
        pretrain(student, data, TrainingSettings(distillation=0.0, **QUICK), teacher=teacher)
    one, other = (student.state_dict() for student in students)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_batch_is_labelled_by_image_and_view() -> None:
    answers = torch.arange(4 * 3 * 2.0).view(4, 3, 2).cumsum(0).sin()
    batch = Batch(torch.zeros(2, *IMAGE_SHAPE), torch.zeros(2), torch.tensor([3, 0]), torch.tensor([1, 2]))
    soft = soft_labels(answers, replace(VIEWS, temperature=1.0))(batch)
    assert torch.equal(soft, torch.stack([answers[3, 1], answers[0, 2]]).log_softmax(1))


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0.5, 8), st.floats(0, 1))
def test_a_student_that_equals_its_teacher_pays_for_labels_only(seed: int, temperature: float, weight: float) -> None:
    logits = torch.randn(10, 5, generator=torch.Generator().manual_seed(seed))
    soft = (logits / temperature).log_softmax(1)
    loss = distillation_loss(logits, TEN % 5, soft, temperature, weight)
    assert loss.item() == pytest.approx((1 - weight) * F.cross_entropy(logits, TEN % 5).item(), abs=1e-4)


def test_without_weight_distillation_is_cross_entropy() -> None:
    logits, soft = torch.randn(10, 5), torch.randn(10, 5).log_softmax(1)
    assert torch.equal(distillation_loss(logits, TEN % 5, soft, 2.0, 0.0), F.cross_entropy(logits, TEN % 5))


def test_the_divergence_by_hand() -> None:
    teacher, student = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.5, 0.5]])
    expected = 4 * (0.8 * torch.tensor(0.8 / 0.5).log() + 0.2 * torch.tensor(0.2 / 0.5).log())
    loss = distillation_loss(2 * student.log(), torch.tensor([0]), teacher.log(), 2.0, 1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_an_ensemble_says_the_mean_of_what_its_networks_say() -> None:
    networks, images = [network("residual", seed=seed).eval() for seed in (5, 6)], make_data(8).normalised()
    expected = (networks[0](images) + networks[1](images)) / 2
    assert torch.allclose(Ensemble(networks)(images), expected, atol=1e-6)
    assert torch.allclose(fold_for_teacher(Ensemble(networks))(images), expected, atol=1e-4)
