from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprune.elastic.axes import Axis, Run


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, list[int], list[int]]:
    """An axis of up to four groups with gaps between them; channels of each group, and widths."""
    runs, position = [], 0
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    for group, size in enumerate(sizes):
        position += draw(st.integers(0, 3))
        repeat = draw(st.integers(1, 3))
        runs.append((group, Run(position, 0, size, repeat)))
        position += size * repeat
    widths = [draw(st.integers(0, size)) for size in sizes]
    return Axis(position + draw(st.integers(0, 3)), runs), sizes, widths


@settings(deadline=None)
@given(axes())
def test_an_axis_keeps_the_first_channels_of_every_group_and_all_others(
    case: tuple[Axis, list[int], list[int]],
) -> None:
    axis, _, widths = case
    positions = torch.arange(axis.size)[axis.kept(widths)].tolist()
    owners = {p: (g, run.channel + (p - run.start) // run.repeat) for g, run in axis.runs for p in span(run)}
    assert positions == [p for p in range(axis.size) if p not in owners or owners[p][1] < widths[owners[p][0]]]
    assert len(positions) == axis.n_fixed + sum(axis.count(group, width) for group, width in enumerate(widths))


@settings(deadline=None)
@given(axes(), st.integers(0, 1000))
def test_an_axis_in_another_order_is_a_permutation_of_each_group_s_positions(
    case: tuple[Axis, list[int], list[int]], seed: int
) -> None:
    axis, sizes, _ = case
    generator = torch.Generator().manual_seed(seed)
    for group, size in enumerate(sizes):
        order = torch.randperm(size, generator=generator)
        targets, sources = axis.positions(group, order)
        assert sorted(targets.tolist()) == sorted(sources.tolist())
        assert axis.channel[sources].tolist() == order[axis.channel[targets]].tolist()


def span(run: Run) -> range:
    return range(run.start, run.start + run.n_channels * run.repeat)


def test_channels_that_stand_side_by_side_with_a_copy_keep_their_places() -> None:
    axis = Axis(10, [(0, Run(1, 0, 2, 2)), (0, Run(6, 0, 2, 2))])
    targets, sources = axis.positions(0, torch.tensor([1, 0]))
    assert dict(zip(targets.tolist(), sources.tolist(), strict=True)) == {
        1: 3, 2: 4, 3: 1, 4: 2, 6: 8, 7: 9, 8: 6, 9: 7
    }  # fmt: skip
