"""What users hand over as a network, and the ordinary copy that is made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nets import IMAGE_SHAPE, make_images, network, relative_error
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.graph.plain import plain_copy


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def masked(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[2], "weight", 0.5)  # type: ignore[no-untyped-call]


def tied(model: nn.Sequential) -> None:
    model.add_module("9", nn.Linear(10, 10))
    model.add_module("10", nn.Linear(10, 10))
    model[10].weight = model[9].weight


REPARAMETRISED: dict[str, Callable[[nn.Sequential], object]] = {
    "prune": masked,
    "weight_norm": lambda model: weight_norm(model[2]),
    "spectral_norm": lambda model: spectral_norm(model[2]),
    "parametrized weight_norm": lambda model: parametrizations.weight_norm(model[2]),
    "parametrized spectral_norm": lambda model: parametrizations.spectral_norm(model[2]),
    "tied": tied,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("how", REPARAMETRISED)
@torch.no_grad()
def test_computed_and_shared_weights_become_plain_on_the_copy(how: str) -> None:
    model = chain()
    REPARAMETRISED[how](model)
    model.eval()
    before, images = {name: value.clone() for name, value in model.state_dict().items()}, make_images(2)
    plain = plain_copy(model)
    assert relative_error(plain(images), model(images)) < 1e-6
    parameters = dict(plain.named_parameters(remove_duplicate=False))
    assert "2.weight" in parameters
    assert len({id(value) for value in parameters.values()}) == len(parameters)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert {"2", "4"} <= {group.name for group in elastic.groups}
    assert relative_error(elastic(images, elastic.full), model(images)) < 1e-5


class Compiled(nn.Module):
    """As `torch.compile` wraps a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


@pytest.mark.parametrize("wrap", [nn.DataParallel, Compiled, lambda model: nn.DataParallel(Compiled(model))])
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    assert [group.name for group in ElasticCNN.from_model(wrap(chain()), IMAGE_SHAPE).groups] == ["2", "4"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_other_floats_become_float32(dtype: torch.dtype) -> None:
    model = chain().to(dtype)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert {value.dtype for value in elastic.parameters()} == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {dtype}
    images = make_images(2)
    assert relative_error(elastic(images, elastic.full), model.float()(images)) < 1e-5


class Frozen(nn.Module):
    """A norm whose scale, shift and statistics are all buffers."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(n_channels) + 0.5)
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


class FrozenBatchNorm2d(Frozen):
    """Called as torchvision and Detectron call theirs."""


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.SyncBatchNorm])
@torch.no_grad()
def test_frozen_and_synchronised_norms_are_batch_norms(norm: type[nn.Module]) -> None:
    model = chain()
    model[3] = norm(32).eval()
    elastic, images = ElasticCNN.from_model(model, IMAGE_SHAPE), make_images(2)
    assert "2" in {group.name for group in elastic.groups}
    plain = copy.deepcopy(model)
    plain[3] = nn.BatchNorm2d(32).eval()
    plain[3].load_state_dict(model[3].state_dict(), strict=False)
    assert relative_error(elastic(images, elastic.full), plain(images)) < 1e-5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (chain().state_dict(), r"OrderedDict with 8 entries is no network.*load_state_dict"),
        (lambda x: x, "function is no network; a torch.nn.Module is needed"),
        (nn.ReLU, r"ReLU is a class, not a network; build one: ReLU\(\)"),
        (None, "NoneType is no network"),
        (nn.Sequential(nn.LazyConv2d(16, 3)), "0.weight has no shape yet; run the network on one batch"),
        (network("plain").to("meta"), "features.0.weight is on the meta device, where it has no values"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_is_no_network_is_refused_with_the_cure(model: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ElasticCNN.from_model(model, IMAGE_SHAPE)  # type: ignore[arg-type]
