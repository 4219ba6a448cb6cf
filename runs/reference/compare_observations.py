"""Would a policy decide better if it saw more? Gates learnt from more and more of what passes gave, beside the margin.

    python runs/reference/compare_observations.py runs/reference/resnet20 cifar10 --out runs/decisions/resnet20

takes the logits that compare_decisions.py left in its folder, and writes observations.json next to the bundle. For each
of five seeds, a random half of the test images teaches a gate what another pass would gain (1 if it repairs the
prediction, -1 if it breaks it), a fifth of it says when to stop, and the other half measures: of its images, those of
the highest gain go on, as many as a share allows. Two decisions: the widest profile after the narrowest, and the widest
after the two others.

| what is seen | entries |
|---|---|
| `margin` | of the last logits; nothing is learnt |
| `belief` | what policies see: sorted class probabilities, entropy, margin |
| `class` | that, and the class predicted |
| `logits` | that, and the logits in their order |
| `all passes` | that, of both passes before, and whether they agree |
"""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch
from arguments import bundle_of
from compare_decisions import N_SEEDS
from torch import Tensor, nn

from rlprune.baselines.cascade_search import margins_of
from rlprune.policies.observations import Observer
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

GOING_ON = (0.1, 0.2, 0.3)
"""Shares of the images that make another pass."""
_EPOCHS = 60


def seen_of(logits: Tensor) -> dict[str, Tensor]:
    """What gates see after some passes, by name: logits (passes, N, classes) -> float32 (N, D) each."""
    n_passes, n, n_classes = logits.shape
    observer = Observer.without_features(n_classes, 3)
    beliefs = [observer.observe(torch.zeros(n, 0), each, torch.ones(n), torch.zeros(n)) for each in logits]
    classes = [nn.functional.one_hot(each.argmax(1), n_classes).float() for each in logits]
    centred = logits - logits.mean(2, keepdim=True)
    last = torch.cat([beliefs[-1], classes[-1]], 1)
    seen = {"belief": beliefs[-1], "class": last, "logits": torch.cat([last, centred[-1]], 1)}
    if n_passes > 1:
        agree = (logits[0].argmax(1) == logits[1].argmax(1)).float()[:, None]
        seen["all passes"] = torch.cat([*beliefs, *classes, *centred, agree], 1)
    return seen


def gate(seen: Tensor, gain: Tensor, seed: int) -> nn.Module:
    """Learn to tell what another pass gains, float32 (N,), from what is seen, (N, D); the best epoch is kept."""
    torch.manual_seed(seed)
    n = len(seen) // 5
    network = nn.Sequential(nn.BatchNorm1d(seen.shape[1]), nn.Linear(seen.shape[1], 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    best = float("inf"), {name: value.clone() for name, value in network.state_dict().items()}
    for _ in range(_EPOCHS):
        network.train()
        for batch in (n + torch.randperm(len(seen) - n)).split(128):
            loss = (network(seen[batch])[:, 0] - gain[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            error = float((network(seen[:n])[:, 0] - gain[:n]).square().mean())
        if error < best[0]:
            best = error, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best[1])
    return network


def accuracies(scores: Tensor, earlier: Tensor, later: Tensor) -> list[float]:
    """Accuracy where the images of the highest scores go on, for each share."""
    order = scores.argsort(descending=True, stable=True)
    right = earlier[order].double()
    gained = (later[order].double() - right).cumsum(0)
    return [float(right.mean() + gained[int(share * len(order)) - 1] / len(order)) for share in GOING_ON]


def decided(before: Tensor, after: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Accuracies on the measured halves by what is seen, means over seeds.

    Args:
        before: logits of the passes made, (passes, N, classes).
        after: of the pass that may follow, (N, classes).
        labels: (N,).
    """
    earlier, later = before[-1].argmax(1) == labels, after.argmax(1) == labels
    gain = later.float() - earlier.float()
    rows: dict[str, list[list[float]]] = {}
    for seed in range(N_SEEDS):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        learnt, measured = order[: len(order) // 2], order[len(order) // 2 :]
        scores = {"margin": -margins_of(before[-1])[measured]}
        for name, seen in seen_of(before).items():
            with torch.no_grad():
                network = torch.enable_grad()(gate)(seen[learnt], gain[learnt], seed)
                scores[name] = network(seen[measured])[:, 0]
        for name, each in scores.items():
            rows.setdefault(name, []).append(accuracies(each, earlier[measured], later[measured]))
    return {name: [mean(each) for each in zip(*found, strict=True)] for name, found in rows.items()}


def main() -> None:
    """Learn, measure, write."""
    reference, _, test, out = bundle_of(__doc__, "folder of compare_decisions.py")
    labels = test.labels
    logits: Tensor = torch.load(out / "logits clean.pt")
    found: dict[str, Any] = {"going_on": GOING_ON, "decisions": {}}
    for title, passes in (("the widest after the narrowest", (0, -1)), ("the widest after both others", (0, 1, -1))):
        if len(logits) >= len(passes):
            *before, after = (logits[index] for index in passes)
            found["decisions"][title] = decided(torch.stack(before), after, labels)
            print(title, *found["decisions"][title].items(), sep="\n", flush=True)
    write_json(reference / "observations.json", found | conditions())


if __name__ == "__main__":
    main()
