"""The folders and the ONNX file that are altered: as small as can be, and every kind of entry in one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import save_gated, save_plain
from rlprune.data.image_set import ImageSet
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.actions import ActionKind, Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import save_bundle
from rlprune.storage.networks import save_network
from rlprune.storage.policies import save_policy

ONNX = "dynamic.onnx"
SHAPE = (3, 8, 8)
NOTES = {"network": {"source": {"data": "digits", "model": "digits_cnn"}}, "metric": 0.5}


@dataclass(frozen=True)
class Seed:
    """What is altered: `kind` says how it is read (a folder's kind, or `onnx`), `files` holds content by name."""

    kind: str
    files: dict[str, bytes]


class Plain(nn.Module):
    """A chain with a norm of each kind."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.groups = nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(4, 16)
        self.linear = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.groups(self.b(F.relu(self.norm(self.a(x))))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Residual(nn.Module):
    """One block that can be dropped; with squeeze-excite and depthwise, or without."""

    def __init__(self, squeeze: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.a, self.norm = nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16)
        self.mid = nn.Conv2d(16, 16, 3, 1, 1, groups=16 if squeeze else 1, bias=False)
        self.b = nn.Conv2d(16, 8, 1)
        self.down, self.up = (nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)) if squeeze else (None, None)
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu6(self.mid(F.relu(self.norm(self.a(x)))))
        if self.down is not None and self.up is not None:
            y = y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        return self.linear((x + self.b(y)).mean((2, 3)))


class Concat(nn.Module):
    """Two branches and their input side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.c, self.linear = nn.Conv2d(24, 8, 1), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.c(torch.cat([self.a(x), x, self.b(x)], 1)))
        return self.linear(F.max_pool2d(x, 2).flatten(1))


def _elastic(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> ElasticCNN:
    return ElasticCNN.from_model(model.eval(), shape, keep_ratios=(0, 0.5, 1), round_to=4)


def _images(shape: tuple[int, ...] = SHAPE, **preprocessing: Any) -> ImageSet:
    images = torch.randint(0, 256, (12, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    statistics = (0.5,) * shape[0], (0.25,) * shape[0]
    return ImageSet(images, torch.arange(12) % 3, tuple("abc"), *statistics, Preprocessing(**preprocessing))


def _policy(
    network: ElasticCNN,
    data: ImageSet,
    kind: ActionKind = "profiles",
    passes: int = 2,
    pool: int = 1,
    ranged: bool = False,
) -> Policy:
    book = sorted_codebook(torch.stack([network.uniform(1), network.full]), Cost(network))
    penalties = PenaltyRange(0.01, 1.0) if ranged else None
    budgets = torch.tensor([[0.01, 0.9], [0.1, 0.5], [1.0, 0.2]], dtype=torch.float64) if ranged else None
    observer = Observer.fit(network, data, max_passes=passes, pool=pool, penalties=penalties)
    actions = Actions.from_network(network, kind, book if kind == "profiles" else None, passes)
    return Policy((observer.size, 8, actions.n_outputs), "Tanh", observer, actions, book, budgets).eval()


def make_seeds() -> dict[str, Seed]:
    """All seeds by name, always the same ones."""
    torch.manual_seed(0)
    grey = (1, 10, 10)
    plain, residual, concat = _elastic(Plain()), _elastic(Residual(False)), _elastic(Concat())
    squeeze, small = _elastic(Residual(True)), _elastic(Plain(1), grey)
    data, greys = _images(), _images(grey, resize=12, crop=(10, 10), channels="grey")
    of_plain, ranged = _policy(plain, data), _policy(residual, data, passes=1, ranged=True)
    content = to_onnx(DynamicCNN.for_images(plain, of_plain, data))
    any_size = to_onnx(DynamicCNN.for_images(residual, ranged, _images(resize=9, crop=(8, 8))), resize=True)
    writers: dict[str, Callable[[Path], None]] = {
        "plain": lambda folder: save_bundle(folder, plain, of_plain, data, NOTES, {ONNX: content}),
        "residual": lambda folder: save_bundle(folder, residual, _policy(residual, data, "levels"), data, NOTES),
        "squeeze": lambda folder: save_bundle(folder, squeeze, _policy(squeeze, data, "ratios"), data),
        "concat": lambda folder: save_bundle(folder, concat, _policy(concat, data, passes=3, pool=0), data),
        "ranged": lambda folder: save_bundle(folder, residual, ranged, data, NOTES),
        "grey": lambda folder: save_bundle(folder, small, _policy(small, greys, pool=2), greys),
        "network": lambda folder: save_network(folder, residual, data, NOTES),
        "policy": lambda folder: save_policy(folder, ranged, NOTES),
        "gated": lambda folder: save_gated(folder, GatedCNN(residual, "branches"), data, NOTES),
        "static": lambda folder: save_plain(folder, plain.slice(plain.uniform(1)), SHAPE, data, NOTES),
    }
    kinds = {"network": "network", "policy": "policy", "gated": "gated", "static": "plain"}
    seeds = {name: Seed(kinds.get(name, "bundle"), _files_of(write)) for name, write in writers.items()}
    return seeds | {"onnx": Seed("onnx", {ONNX: content}), "onnx ranged": Seed("onnx", {ONNX: any_size})}


def _files_of(write: Callable[[Path], None]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "seed"
        write(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
