from __future__ import annotations

import torch
from nets import make_elastic, make_images

from rlprune.baselines.gate_layers import Branch, straight_through
from rlprune.baselines.gated_cnn import GatedCNN


def make_gated(net: str, kind: str) -> GatedCNN:
    torch.manual_seed(0)
    return GatedCNN(make_elastic(net), kind).eval()


@torch.no_grad()
def test_a_branch_runs_only_for_the_images_that_want_it() -> None:
    gated, n_seen = make_gated("residual", "branches"), []
    branch = gated.get_submodule("body.gating.branches.1")
    assert isinstance(branch, Branch)
    (first,) = [layer for name, layer in branch.named_modules() if name.endswith("conv1")]
    first.register_forward_hook(lambda _, inputs, __: n_seen.append(len(inputs[0])))
    others = [torch.ones(5, 1), torch.zeros(5, 1)]
    for column in ([1, 0, 0, 1, 0], [0] * 5, [1] * 5):
        gated.decide(make_images(5), [others[0], torch.tensor(column)[:, None].float(), others[1]])
    assert n_seen == [2, 5]  # and not at all for nobody


@torch.no_grad()
def test_a_branch_is_weighted_by_its_gate() -> None:
    gated, images = make_gated("residual", "branches"), make_images(3)
    said = gated.run(images)[1]
    shares = [torch.full_like(one, 0.75) for one in said]
    ones, zeros = ([torch.full_like(one, value) for one in said] for value in (1.0, 0.0))
    branch = gated.get_submodule("body.gating.branches.0")
    assert isinstance(branch, Branch)
    features = gated.stem(images)
    whole, none, part = (branch(told[0], features) for told in (ones, zeros, shares))
    assert torch.allclose(part, 0.75 * whole) and bool((none == 0).all()) and none.shape != whole.shape
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), none)  # below the threshold
    gated.soft()
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), 0.4 * whole)
    gated.soft(False)
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), none)


def test_what_does_not_pass_still_learns() -> None:
    wanted = torch.tensor([0.2, 0.8], requires_grad=True)
    hard = straight_through(wanted, 0.5)
    assert hard.tolist() == [0.0, 1.0]
    (hard * torch.tensor([2.0, 3.0])).sum().backward()
    assert wanted.grad is not None and wanted.grad.tolist() == [2.0, 3.0]
