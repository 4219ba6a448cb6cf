"""Files whose passes lie inside, of which one is imitated here; `tests/serving` has a real one."""

from __future__ import annotations

import pytest
import torch
from ranged import DATA, DYNAMIC
from torch import Tensor

from rlprune.deployment.images import Images
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming import whole
from rlprune.deployment.streaming.request import Found
from rlprune.errors import RLPruneError


class File:
    """Takes images of two sizes, the first of which it cuts to the other, and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], float | None]] = []

    def check_budget(self, budget: float | None) -> None:
        if budget == 9:
            raise RLPruneError("budget is 9")

    def prepared(self, images: Images) -> tuple[list[Tensor], Tensor]:
        assert isinstance(images, Tensor)
        return [images[::2], torch.nn.functional.pad(images[1::2], (0, 4))], torch.tensor([0, 3, 1, 4, 2])

    def __call__(self, images: Tensor, *, budget: float | None = None) -> Prediction:
        self.calls.append((tuple(images.shape), budget))
        return DYNAMIC(images[..., :16])


@pytest.mark.parametrize(("most", "sizes"), [(2**26, [3]), (2 * 3 * 256, [2, 1]), (1, [1, 1, 1])])
def test_images_of_one_size_and_budget_run_together(
    most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_MOST_VALUES", most)
    engine = whole.WholeEngine(file := File())
    accepted = engine.accept(DATA.images[:5], 1)
    points = [point for point, _ in accepted]
    assert points[0] == points[2] == points[4] == ((1, 3, 16, 16), 1.0) and points[1] == points[3] != points[0]
    found = engine.run(points[0], [accepted[i][1] for i in (4, 0, 2)], alone=False)
    assert file.calls == [((size, 3, 16, 16), 1.0) for size in sizes]
    expected = DYNAMIC(DATA.images[[4, 0, 2]])
    for row, each in enumerate(found):
        assert isinstance(each, Found) and each.row == row
        assert torch.equal(each.prediction.profiles, expected.profiles)
    with pytest.raises(RLPruneError, match="budget is 9"):
        engine.accept(DATA.images, 9)
