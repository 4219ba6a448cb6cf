"""Five small networks, one for each way in which channels can be coupled, with inputs and policies for them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.policies.actions import ActionKind, Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.training.batches import Batch
from rlprune.training.loop import Step, fit
from rlprune.training.settings import TrainingSettings

IMAGE_SHAPE = (3, 16, 16)
N_CLASSES = 5
P = ParamSpec("P")
T = TypeVar("T")


class Plain(nn.Module):
    """Layers in a chain; the first linear layer reads every channel at four positions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 24, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(96, 40), nn.ReLU(), nn.Dropout(), nn.Linear(40, N_CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Block(nn.Module):
    """A residual block; where it widens, the shortcut pads with zero channels."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.padding = stride, (n_out - n_in) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """Three residual blocks, as in the ResNets for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.b1, self.b2, self.b3 = Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)
        self.linear = nn.Linear(32, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b3(self.b2(self.b1(F.relu(self.bn(self.conv(x))))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inverted(nn.Module):
    """An inverted residual block, as in MobileNet: wide inside, depthwise, with squeeze-excite if asked for."""

    def __init__(self, n_in: int, n_out: int, n_inner: int, squeeze: bool) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(n_in, n_inner, 1, bias=False), nn.BatchNorm2d(n_inner)
        self.depthwise = nn.Conv2d(n_inner, n_inner, 3, 1, 1, groups=n_inner, bias=False)
        self.bn2 = nn.BatchNorm2d(n_inner)
        self.project, self.bn3 = nn.Conv2d(n_inner, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.squeeze, self.adds = squeeze, n_in == n_out
        if squeeze:
            self.down, self.up = nn.Conv2d(n_inner, 16, 1), nn.Conv2d(16, n_inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn2(self.depthwise(F.relu6(self.bn1(self.expand(x))))))
        if self.squeeze:
            y = y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        y = self.bn3(self.project(y))
        return x + y if self.adds else y


class Mobile(nn.Module):
    """Three inverted residual blocks; the second one changes the width and so has no shortcut."""

    def __init__(self, squeeze: bool) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.b1 = Inverted(16, 16, 32, squeeze)
        self.b2 = Inverted(16, 24, 48, squeeze)
        self.b3 = Inverted(24, 24, 48, squeeze)
        self.linear = nn.Linear(24, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.b3(self.b2(self.b1(F.relu6(self.bn(self.conv(x)))))).mean((2, 3)))


class Concat(nn.Module):
    """Two branches and their input side by side under one norm: a layer that reads two groups and fixed channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.a, self.b = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 24, 3, 1, 1)
        self.bn = nn.BatchNorm2d(56)
        self.d, self.dbn = nn.Conv2d(56, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16 * 16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.bn(torch.cat([self.a(x), x, self.b(x)], 1)))
        return self.linear(F.adaptive_avg_pool2d(F.relu(self.dbn(self.d(x))), 4).flatten(1))


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "depthwise": lambda: Mobile(squeeze=False),
    "se": lambda: Mobile(squeeze=True),
    "concat": Concat,
}
KINDS = tuple(_MAKERS)


def network(kind: str, seed: int = 0) -> nn.Module:
    """One of the five, in eval mode, with norms that are not the identity."""
    torch.manual_seed(seed)
    return randomise_norms(_MAKERS[kind]()).eval()


def randomise_norms(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics, scales and shifts as if it had been trained."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model


def randomise_levels(elastic: ElasticCNN, seed: int = 0) -> ElasticCNN:
    """Make the norms of all levels below full keep differ, as they do after training."""
    generator = torch.Generator().manual_seed(seed)
    for norm in elastic.elastic_layers().values():
        if isinstance(norm, ElasticBatchNorm):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                below = tensor.data[:-1]
                below *= 0.8 + 0.4 * torch.rand(below.shape, generator=generator)
                below += 0.1 * torch.rand(below.shape, generator=generator)
    return elastic


def made_once(make: Callable[P, T]) -> Callable[P, T]:
    """Give copies of the first one made: to find the groups of a network takes 30 times as long as a copy."""

    @functools.cache
    def first(*of: P.args, **more: P.kwargs) -> tuple[T, Tensor]:
        return make(*of, **more), torch.get_rng_state()

    @functools.wraps(make)
    def copied(*of: P.args, **more: P.kwargs) -> T:
        made, random_state = first(*of, **more)
        torch.set_rng_state(random_state)  # tests go on from the seed, whether or not another one came before
        return copy.deepcopy(made)

    return copied


@made_once
def make_elastic(kind: str, seed: int = 0, residual: bool = False, resolution: bool = False) -> ElasticCNN:
    """The elastic network of one of the five, whose levels have norms of their own."""
    made = ElasticCNN.from_model(network(kind, seed), IMAGE_SHAPE, residual=residual, resolution=resolution)
    return randomise_levels(made, seed)


def make_levels(elastic: ElasticCNN, n: int, seed: int = 0) -> Tensor:
    """Random levels that the network has, int64 (n, G)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(n, elastic.n_groups, generator=generator)
    lowest = elastic.min_level
    return lowest + (share * (elastic.n_levels - lowest)).long()


def make_images(n: int, seed: int = 0) -> Tensor:
    """Normalised images, float32 (n, 3, 16, 16)."""
    return torch.randn(n, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(seed))


def make_data(n: int, seed: int = 0) -> ImageSet:
    """Images of noise with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *IMAGE_SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, N_CLASSES, (n,), generator=generator)
    return ImageSet(images, labels, tuple("abcde"), (0.5,) * 3, (0.25,) * 3)


def colours(n: int) -> ImageSet:
    """Five colours, lightly soiled: anything that sees can tell them apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % N_CLASSES
    palette = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220], [220, 220, 30], [30, 220, 220]])
    images = palette[labels][:, :, None, None] + torch.randint(-30, 30, (n, *IMAGE_SHAPE), generator=generator)
    return ImageSet(images.clamp(0, 255).to(torch.uint8), labels, tuple("rgbyc"), (0.5,) * 3, (0.25,) * 3)


def seen_batches(data: ImageSet, settings: TrainingSettings) -> list[Batch]:
    """The batches of a whole training, in their order."""
    batches: list[Batch] = []

    def make_step(_: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            batches.append(batch)
            return {}

        return step

    fit(nn.Linear(1, 1), data, settings, make_step)
    return batches


@torch.no_grad()
def make_centred() -> ElasticCNN:
    """A network whose logits are centred, or it would give all images of noise one class under all profiles."""
    elastic = make_elastic("residual")
    logits = elastic(make_data(60).normalised(), elastic.full)
    linear = elastic.elastic_layers()["linear"]
    assert isinstance(linear.weight, Tensor) and isinstance(linear.bias, Tensor)
    linear.weight /= logits.std(0)[:, None]
    linear.bias.copy_((linear.bias - logits.mean(0)) / logits.std(0))
    return elastic


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((actual - expected).abs().max() / expected.abs().max())


def make_policy(
    elastic: ElasticCNN,
    data: ImageSet,
    codebook: Tensor,
    action: ActionKind = "profiles",
    max_passes: int = 1,
    seed: int = 0,
    scale: float = 1.0,
    combine: float = 0.0,
    pool: int = 1,
) -> Policy:
    """A policy of random weights, which decides differently from image to image and from pass to pass."""
    observer = Observer.fit(elastic, data, max_passes=max_passes, pool=pool, combine=combine)
    actions = Actions.from_network(elastic, action, codebook if action == "profiles" else None, max_passes)
    policy = Policy((observer.size, 16, actions.n_outputs), "Tanh", observer, actions, codebook)
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.network.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return policy.eval()


class Do(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
