from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make_data, make_elastic, make_images

from rlprune.errors import RLPruneError
from rlprune.policies.observations import Observer, pooled_features
from rlprune.policies.protocol import CLIP, MARGIN, pool_features

F = 8  # pooled features of the observers made by hand


def make(n_classes: int = 5, max_passes: int = 2) -> Observer:
    return Observer(torch.zeros(F), torch.ones(F), n_classes, max_passes, 2)


def observe(observer: Observer, logits: torch.Tensor, passes: int = 1, spent: float = 0.5) -> torch.Tensor:
    n = len(logits)
    return observer.observe(torch.zeros(n, F), logits, torch.full((n,), passes), torch.full((n,), spent))


def test_the_features_it_was_fitted_to_are_standardised() -> None:
    elastic, data = make_elastic("residual"), make_data(50)
    observer = Observer.fit(elastic, data, pool=2)
    features = observer.features(elastic.stem(data.normalised())).detach()
    assert features.shape == (50, 16 * 4)
    assert torch.allclose(features.mean(0), torch.zeros(64), atol=1e-5)
    assert torch.allclose(features.std(0, correction=0), torch.ones(64), atol=1e-5)


def test_one_image_is_enough_to_fit() -> None:
    elastic, data = make_elastic("residual"), make_data(1)
    observer = Observer.fit(elastic, data)
    assert torch.equal(observer.features(elastic.stem(data.normalised())), torch.zeros(1, 64))
    assert observer.std.isfinite().all()


def test_features_are_means_over_cells() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert pool_features(features, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pool_features(features, 1).tolist() == [[7.5]]


def test_pooling_in_batches_is_pooling() -> None:
    elastic, data = make_elastic("plain"), make_data(10)
    parts = list(pooled_features(elastic, data, 2, batch_size=4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.allclose(torch.cat(parts), pool_features(elastic.stem(data.normalised()), 2), atol=1e-6)


def test_features_far_out_are_clipped() -> None:
    observer = Observer(torch.zeros(1), torch.full((1,), 0.01), 5, 1, 1)
    assert observer.features(torch.tensor([[[[5.0]]], [[[-5.0]]]])).flatten().tolist() == [CLIP, -CLIP]


def test_before_the_first_pass_there_is_no_belief() -> None:
    observer = make()
    seen = observe(observer, torch.randn(3, 5), passes=0, spent=0.02)
    assert not seen[:, F:-2].any()
    assert torch.allclose(seen[:, -2:], torch.tensor([0.02 / 4, 0]))


def test_beliefs_by_hand() -> None:
    probabilities = torch.tensor([[0.1, 0.6, 0.05, 0.05, 0.2]])
    seen = observe(make(), probabilities.log(), passes=1, spent=0.5)[0, F:]
    entropy = -sum(p * math.log(p) for p in (0.1, 0.6, 0.05, 0.05, 0.2)) / math.log(5)
    margin = math.log(0.6 / 0.2) / (math.log(0.6 / 0.2) + MARGIN)
    assert seen.tolist() == pytest.approx([0.6, 0.2, 0.1, 0.05, 0.05, entropy, margin, 0.5 / 4, 0.5], abs=1e-6)


def test_the_surest_and_the_least_sure_belief() -> None:
    sure, unsure = observe(make(), torch.tensor([[96.0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0]]))[:, F + 5 : F + 7]
    assert sure.tolist() == pytest.approx([0, 0.96], abs=1e-6)
    assert unsure.tolist() == pytest.approx([1, 0], abs=1e-6)


def test_the_sure_and_the_surer_can_be_told_apart() -> None:
    logits = torch.tensor([[8.0, 0, 0, 0, 0], [16.0, 0, 0, 0, 0]])  # 99.87 and 99.99998 %
    assert observe(make(), logits)[:, F + 6].tolist() == pytest.approx([8 / 12, 16 / 20])


def test_what_is_believed_is_the_last_pass_or_all_of_which_later_ones_count_more() -> None:
    last, some = make(max_passes=3), replace(make(max_passes=3), combine=0.5)
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    believed = torch.zeros(4, 5)
    for n in range(3):
        passes = torch.full((4,), n)
        assert torch.equal(last.believe(believed, logits[n], passes), logits[n])
        believed = some.believe(believed, logits[n], passes)
        shares = torch.tensor([[1.0], [1 / 3, 2 / 3], [1 / 9, 2 / 9, 2 / 3]][n])
        torch.testing.assert_close(believed, torch.einsum("n,nbc->bc", shares, logits[: n + 1]))


def test_images_with_different_numbers_of_passes_combine_each_its_own() -> None:
    before, logits = torch.tensor([[0.0, 0.0], [1.0, 4.0], [1.0, 4.0]]), torch.tensor([[7.0, 1.0]]).expand(3, 2)
    believed = replace(make(2), combine=0.5).believe(before, logits, torch.tensor([0, 1, 2]))
    assert believed.tolist() == [[7, 1], [5, 2], [5, 2]]


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_what_earlier_passes_count_is_checked(wrong: float) -> None:
    with pytest.raises(RLPruneError, match=f"combine={wrong}: a number of 0 or more is needed"):
        replace(make(2), combine=wrong)


def test_at_most_ten_probabilities_are_shown() -> None:
    observer = make(n_classes=1000)
    assert observer.n_beliefs == 10
    assert observe(observer, torch.randn(2, 1000)).shape == (2, observer.size) == (2, F + 14)


@settings(deadline=None)
@given(
    n_classes=st.integers(1, 20),
    max_passes=st.integers(1, 3),
    passes=st.integers(0, 3),
    spent=st.floats(0, 10, width=32),
    scale=st.floats(0, 1e4, width=32),
    seed=st.integers(0, 1000),
)
def test_observations_stay_inside_their_space(
    n_classes: int, max_passes: int, passes: int, spent: float, scale: float, seed: int
) -> None:
    observer = make(n_classes, max_passes)
    logits = scale * torch.randn(4, n_classes, generator=torch.Generator().manual_seed(seed))
    seen = observe(observer, logits, min(passes, max_passes), spent)
    assert seen.shape == (4, observer.size)
    assert seen.dtype == torch.float32
    assert ((observer.low <= seen) & (seen <= observer.high)).all()


def test_an_image_s_features_do_not_depend_on_the_others() -> None:
    elastic, images = make_elastic("residual"), make_images(4)
    observer = Observer.fit(elastic, make_data(20))
    together = observer.features(elastic.stem(images))
    assert torch.allclose(observer.features(elastic.stem(images[2:3])), together[2:3], atol=1e-5)
