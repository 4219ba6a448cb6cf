"""The budget of a file: its decisions are those of `DynamicCNN.at`, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import N_CLASSES
from ranged import BOOK, DATA, DYNAMIC, KNOWN, NETWORK, RANGE, make_ranged, onnx_content
from torch import Tensor

from rlprune import DynamicCNN
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.deployment.onnx.graph import GraphSpec, main_graph
from rlprune.deployment.onnx.pricing import BudgetTable, begin_function, budget_table, firsts_of_range, place_function
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import penalty_for
from rlprune.policies.policy import Policy

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
LEAST, MOST = DYNAMIC.source_policy.limits


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "ranged.onnx"
    path.write_bytes(onnx_content())
    return path


def test_decisions_are_those_of_the_network_at_the_same_budget(path: Path) -> None:
    file = OnnxCNN(path)
    assert torch.equal(file(DATA.images).profiles, DYNAMIC(DATA.images).profiles)
    seen = []
    for budget in (LEAST, MOST, *DYNAMIC.source_policy.budgets[::4, 1].tolist(), *np.linspace(LEAST, MOST, 9)):  # type: ignore[index]
        found, expected = file(DATA.images, budget=budget), DYNAMIC(DATA.images, budget=float(budget))
        assert torch.equal(found.profiles, expected.profiles) and torch.equal(found.macs, expected.macs), budget
        seen.append(int(found.macs.sum()))
    assert len({*seen}) >= 5


def test_the_file_says_its_budgets_and_clips_what_is_beyond_them(path: Path) -> None:
    file = OnnxCNN(path)
    assert file.limits == pytest.approx((LEAST, MOST), abs=1e-6) and file.default_budget is not None
    (entry,) = file.session.get_overridable_initializers()
    assert (entry.name, entry.shape, entry.type) == ("budget", [1], "tensor(float)")
    images = DATA.images.numpy()
    for beyond, end in ((0.0, LEAST), (9.0, MOST)):
        (macs,) = file.session.run(["macs"], {"images": images, "budget": np.array([beyond], np.float32)})
        assert macs.tolist() == DYNAMIC(DATA.images, budget=end).macs.tolist()
    assert torch.equal(file(DATA.images, budget=file.default_budget).profiles, file(DATA.images).profiles)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0.01, r"budget is 0\.01; with this policy images can cost 0\.209 to 0\.973 of the dense network's MACs"),
        (float("nan"), "budget is nan; with this policy"),
        (True, "budget is a bool; give a number"),
        ("0.4", "budget is a str; give a number"),
    ],
)
def test_other_budgets_are_refused(budget: Any, message: str, path: Path) -> None:
    with pytest.raises(RLPruneError, match=message):
        OnnxCNN(path)(DATA.images, budget=budget)


def places(table: BudgetTable, budgets: list[float]) -> list[float]:
    """What the function of a file makes of budgets."""
    graph = onnx.parser.parse_graph("g (float[1] budget) => (float[1] place) { place = rlprune.place (budget) }")
    model = onnx.helper.make_model(
        graph,
        functions=[onnx.parser.parse_function(place_function(table))],
        opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("rlprune", 1)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [float(session.run(None, {"budget": np.array([each], np.float32)})[0][0]) for each in budgets]


@pytest.mark.parametrize(
    "known",
    [
        KNOWN,
        torch.tensor([[0.01, 0.9], [0.02, 0.9], [0.1, 0.5], [0.3, 0.5], [0.9, 0.2], [1.0, 0.2]], dtype=torch.float64),
        torch.tensor([[0.02, 0.7], [0.03, 0.6999], [0.5, 0.00001]], dtype=torch.float64),
        torch.tensor([[0.01, 0.5], [1.0, 0.5]], dtype=torch.float64),
    ],
)
def test_places_are_interpolated_as_penalties_are(known: Tensor) -> None:
    table = budget_table(make_ranged(known), 0.3)
    assert table is not None
    budgets = [*known[:, 1].tolist(), *np.linspace(float(known[-1, 1]), float(known[0, 1]), 7)]
    expected = [float(RANGE.place(torch.tensor(penalty_for(each, known)))) for each in budgets]
    assert places(table, budgets) == pytest.approx(
        [
            table.default_place if np.float32(each) == np.float32(table.default_budget) else place
            for each, place in zip(budgets, expected, strict=True)
        ],
        abs=2e-4,
    )
    assert places(table, [table.default_budget]) == pytest.approx([float(RANGE.place(torch.tensor(0.3)))], abs=1e-6)


def blind(slope: float) -> Policy:
    """A policy that sees nothing of an image, whose first profile moves with the price by so much."""
    observer = Observer.fit(NETWORK, DATA, max_passes=2, pool=0, penalties=RANGE)
    actions = Actions.from_network(NETWORK, "profiles", BOOK, 2)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, BOOK, KNOWN)
    (layer,) = policy.network
    assert isinstance(layer, torch.nn.Linear)
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor([0.0, 0.5, 1.0, -9.0])
    layer.weight.data[0, -1] = slope
    return policy.eval()


@pytest.mark.parametrize(("slope", "expected"), [(0.5, (2,)), (2.0, (0, 2)), (0.0, (2,))])
def test_the_profiles_that_come_first_somewhere_are_found(slope: float, expected: tuple[int, ...]) -> None:
    dynamic = DynamicCNN(NETWORK, blind(slope), DATA.mean, DATA.std, DATA.classes)
    table = budget_table(dynamic.source_policy, dynamic.penalty)
    assert table is not None
    assert firsts_of_range(dynamic.source_policy, dynamic.prices, table) == expected


@pytest.mark.parametrize("how", [{}, {"resize": True}, {"calibration": DATA.images}], ids=["plain", "resized", "int8"])
@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_a_first_pass_is_the_same_for_all_images_of_a_call(tmp_path: Path, how: dict[str, Any], slope: float) -> None:
    given = Preprocessing(resize=16, crop=(16, 16)) if "resize" in how else None
    dynamic = DynamicCNN(NETWORK, blind(slope), DATA.mean, DATA.std, DATA.classes, preprocessing=given)
    save_onnx(tmp_path / "x.onnx", dynamic, **how)
    file, seen = OnnxCNN(tmp_path / "x.onnx"), set()
    for budget in (None, 0.2, 0.5, 0.9):
        found, expected = file(DATA.images, budget=budget), dynamic(DATA.images, budget=budget)
        assert torch.equal(found.profiles[:, 0], expected.profiles[:, 0])
        if "calibration" not in how:
            assert torch.equal(found.profiles, expected.profiles) and torch.equal(found.macs, expected.macs)
            assert torch.equal(found.labels, expected.labels)
        seen |= {*found.profiles[:, 0].tolist()}
    assert len(seen) == (2 if slope == 2 else 1)


@pytest.mark.parametrize("firsts", [(2,), (0, 2), (0, 1, 2)])
def test_such_a_first_pass_gathers_nothing(firsts: tuple[int, ...]) -> None:
    spec = GraphSpec((3, 16, 16), N_CLASSES, 2, firsts, 1, (1, 2, 3), 1, ((), (), ()), ranged=True)
    texts = main_graph(spec).partition("Loop")[0], begin_function(spec) if len(firsts) > 1 else ""
    assert not any("Gather (features" in text for text in texts)
