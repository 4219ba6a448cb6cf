"""Weights that profiles share stand in a file once, and give the numbers that they gave before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import make_data, make_levels, make_policy
from torch import nn

from rlprune import DynamicCNN
from rlprune.deployment.onnx.export import export_bodies, to_onnx
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.sharing import SharedWeights
from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DATA = make_data(8)


class Joined(nn.Module):
    """Channels of two branches side by side, so that what is kept of them is no prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.after = nn.Sequential(nn.Conv2d(48, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 32, 2, 2), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, groups=32), nn.BatchNorm2d(32), nn.AdaptiveAvgPool2d(1))
        self.last = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.after(torch.cat([self.left(x), self.right(x)], 1))
        return self.last(self.depthwise(self.up(x)).flatten(1))


def make_dynamic(elastic: ElasticCNN, n_profiles: int) -> DynamicCNN:
    """Under profiles of norms of their own."""
    book = sorted_codebook(torch.cat([make_levels(elastic, n_profiles - 1, seed=3), elastic.full[None]]), Cost(elastic))
    elastic.specialise(book)
    generator = torch.Generator().manual_seed(1)
    for module in elastic.modules():
        if hasattr(module, "running_var"):
            module.running_var = module.running_var * (torch.rand(module.running_var.shape, generator=generator) + 0.5)
    policy = make_policy(elastic, DATA, book, max_passes=1)
    return DynamicCNN(elastic.eval(), policy, DATA.mean, DATA.std, DATA.classes)


def make_joined() -> ElasticCNN:
    torch.manual_seed(0)
    return ElasticCNN.from_model(Joined().eval(), (3, 16, 16), round_to=4)


def test_logits_are_the_same_to_the_bit() -> None:
    dynamic = make_dynamic(make_joined(), 3)
    shared = SharedWeights(dynamic.elastic, dynamic.codebook)
    features = torch.randn(2, *dynamic.elastic.feature_shape)
    used, kinds = set(), set()
    for k, body in enumerate(export_bodies(dynamic, features)):
        (before,) = run(body, features)
        names = shared.replace(body, k)
        used |= {*names}
        kinds |= {node.op_type for node in body.graph.node}
        body.graph.initializer.extend(shared.tensors[name] for name in names)
        onnx.checker.check_model(body, full_check=True)
        assert (run(body, features)[0] == before).all()
    assert used == {*shared.tensors} and len(used) >= 4 and kinds >= {"Mul", "Slice", "Gather"}
    assert not any(tensor.name == "after.0.weight" for tensor in body.graph.initializer)


def run(model: object, features: torch.Tensor) -> list[np.ndarray]:
    runs = session(model.SerializeToString(), 1, spin=False)  # type: ignore[attr-defined]
    found: list[np.ndarray] = runs.run(None, {runs.get_inputs()[0].name: features.numpy()})
    return found


def test_the_file_has_each_weight_once_and_bodies_of_their_own_as_they_are() -> None:
    dynamic = make_dynamic(wide(), 3)
    content = to_onnx(dynamic)
    assert weights(content) <= 1.15 * 4 * int(dynamic.prices.dense.params)
    assert len(content) - weights(content) < 200_000
    dynamic.elastic.separate()
    assert not SharedWeights(dynamic.elastic, dynamic.codebook)._layers


def wide() -> ElasticCNN:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 64), (64, 96), (96, 96)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return ElasticCNN.from_model(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 5)).eval(), (3, 16, 16)
    )


def weights(content: bytes) -> int:
    """Bytes of float tensors in a file."""
    model = onnx.load_from_string(content)
    tensors = list(model.graph.initializer)
    for function in model.functions:
        tensors += [attribute.t for node in function.node for attribute in node.attribute if node.op_type == "Constant"]
    return sum(len(tensor.raw_data) for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT)
