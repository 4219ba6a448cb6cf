from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import (
    IMAGE_SHAPE,
    KINDS,
    N_CLASSES,
    make_centred,
    make_data,
    make_elastic,
    make_levels,
    make_policy,
    relative_error,
)
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.deployment.onnx.graph import OPSET
from rlprune.deployment.onnx.pieces import export_piece, session
from rlprune.deployment.onnx.static import body_alone
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, DataError, MissingExtraError, RLPruneError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DATA = make_data(60)


# A way of deciding for each kind of network: exporting takes seconds.
OPTIONS: dict[str, dict[str, Any]] = dict(
    zip(
        KINDS,
        (
            {"max_passes": 1},
            {"max_passes": 2, "combine": 0.5},
            {"max_passes": 3, "pool": 0},
            {"max_passes": 2, "action": "levels"},
            {"max_passes": 3, "action": "ratios", "combine": 0.5},
        ),
        strict=True,
    )
)


class Carrying(nn.Module):
    """Layers of many kinds that carry channels, one by one or in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 3, padding=1))
        self.middle = nn.Sequential(
            nn.GroupNorm(16, 32),
            nn.PReLU(32),
            nn.Conv2d(32, 48, 3, 2, 1, groups=8),
            nn.InstanceNorm2d(48, affine=True),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.ConvTranspose2d(48, 24, 3, 2, 1),
            nn.GLU(1),
        )
        self.norm = nn.LayerNorm(12)
        self.last = nn.Sequential(nn.Conv2d(12, 24, 1), nn.GroupNorm(1, 24), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.linear = nn.Linear(24, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.middle(self.first(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.linear(self.last(x).flatten(1))


def dynamic_of(elastic: ElasticCNN, **options: Any) -> DynamicCNN:
    book = sorted_codebook(make_levels(elastic, 2, seed=3), Cost(elastic))
    policy = make_policy(elastic, DATA, book, **options)
    return DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)


DYNAMIC = dynamic_of(make_centred(), max_passes=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of that network."""
    path = tmp_path_factory.mktemp("onnx") / "dynamic.onnx"
    save_onnx(path, DYNAMIC)
    return path


def check(path: Path, dynamic: DynamicCNN) -> None:
    """The file says the same as the network that it was made from, whatever the batch."""
    loaded = OnnxCNN(path)
    for batch in (1, 2, 7, 60):
        expected, found = dynamic(DATA.images[:batch]), loaded(DATA.images[:batch])
        for name in ("labels", "profiles", "keep_ratios", "passes", "params", "macs"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert relative_error(found.probabilities, expected.probabilities) < 1e-3
        (macs,) = loaded.session.run(["macs"], {"images": DATA.images[:batch].numpy()})
        assert macs.tolist() == expected.macs.tolist()


def test_the_file_says_what_the_network_says(path: Path) -> None:
    assert len(DYNAMIC(DATA.images).profiles.unique(dim=0)) >= 3
    check(path, DYNAMIC)


def test_a_body_alone_says_what_the_slice_says(path: Path) -> None:
    with torch.inference_mode():
        features = DYNAMIC.slices.stem(DYNAMIC.normalise(DATA.images)).contiguous()
        for profile in range(len(DYNAMIC.slices)):
            alone = session(body_alone(path.read_bytes(), profile, DYNAMIC.elastic.feature_shape), 1, spin=False)
            (logits,) = alone.run(None, {alone.get_inputs()[0].name: features.numpy()})
            assert relative_error(torch.from_numpy(logits), DYNAMIC.slices[profile](features)) < 1e-4


def test_so_it_does_for_layers_that_carry_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    elastic = ElasticCNN.from_model(Carrying().eval(), IMAGE_SHAPE, round_to=4)
    assert [group.n_channels for group in elastic.groups] == [8, 12, 24]
    dynamic = dynamic_of(elastic, max_passes=2)
    save_onnx(tmp_path / "carrying.onnx", dynamic)
    check(tmp_path / "carrying.onnx", dynamic)


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_does_for_every_kind_of_network_and_policy(kind: str, tmp_path: Path) -> None:
    dynamic = dynamic_of(make_elastic(kind), **OPTIONS[kind])
    save_onnx(tmp_path / "dynamic.onnx", dynamic)
    check(tmp_path / "dynamic.onnx", dynamic)


def test_so_it_does_where_passes_have_resolutions_of_their_own(tmp_path: Path) -> None:
    elastic = make_elastic("depthwise", resolution=True)
    book = elastic.full.repeat(3, 1)
    book[:, -1] = torch.tensor([1, 2, 4])
    policy = make_policy(elastic, DATA, book, max_passes=2)
    dynamic = DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)
    assert len(dynamic(DATA.images).profiles.unique(dim=0)) >= 3
    save_onnx(tmp_path / "dynamic.onnx", dynamic)
    check(tmp_path / "dynamic.onnx", dynamic)


@pytest.mark.parametrize(("max_passes", "combine"), [(1, 0.0), (2, 0.5), (3, 0.0)])
def test_so_it_does_where_all_images_begin_alike(max_passes: int, combine: float, tmp_path: Path) -> None:
    elastic = make_centred()
    book = sorted_codebook(make_levels(elastic, 3, seed=3), Cost(elastic))
    policy = make_policy(elastic, DATA, book, max_passes=max_passes, combine=combine, pool=0, seed=5, scale=2.0)
    dynamic = DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)
    assert dynamic.first is not None and len(dynamic(DATA.images).passes.unique()) == max_passes
    save_onnx(tmp_path / "dynamic.onnx", dynamic)
    check(tmp_path / "dynamic.onnx", dynamic)


def test_the_file_is_whole_and_says_its_version(path: Path) -> None:
    model = onnx.load(path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    tensors = [attribute.t for function in model.functions for node in function.node for attribute in node.attribute]
    assert not any(tensor.external_data for tensor in tensors)
    names = {function.name for function in model.functions}
    running = {"start", "pixels", "stem", "observe", "run", "profile_0", "profile_1"}
    assert names == {*running, "decide", "decide_next", "go_on", "combine"}


def test_what_no_image_chose_is_not_run(path: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    profiles, ran = DYNAMIC(DATA.images).profiles, []
    only = [DATA.images[(profiles == torch.tensor([k, -1, -1])).all(1)] for k in (0, 1)]
    for images in (*only, torch.cat(only)):
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        session = onnxruntime.InferenceSession(path, options)
        session.run(None, {"images": images.numpy()})
        events = json.loads(Path(session.end_profiling()).read_text())
        kernels = [event["args"]["op_name"] for event in events if event["name"].endswith("kernel_time")]
        ran.append(sum("conv" in kind.lower() for kind in kernels))
    n_stem = ran[0] + ran[1] - ran[2]
    assert all(len(images) for images in only)
    assert 0 < n_stem < min(ran[:2])


ALONE = """
import json, sys
for name in ("torch", "rlprune"):
    sys.modules[name] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
outputs = session.run(None, {"images": np.load(sys.argv[2])})
np.savez(sys.argv[3], **dict(zip(["label", "probability", "logits", "profiles", "macs"], outputs, strict=True)))
print(session.get_modelmeta().custom_metadata_map["rlprune"])
"""


def test_it_runs_where_there_is_no_torch(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", DATA.images.numpy())
    command = [sys.executable, "-c", ALONE, path, "images.npy", "found.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    notes, found, expected = json.loads(done.stdout), np.load(tmp_path / "found.npz"), DYNAMIC(DATA.images)
    assert notes["classes"] == list(DATA.classes)
    assert notes["prices"]["dense"] == [int(amount) for amount in DYNAMIC.prices.dense]
    assert (found["profiles"] == expected.profiles.numpy()).all()
    assert (found["macs"] == expected.macs.numpy()).all()
    assert (found["label"] == expected.labels.numpy()).all()
    assert found["probability"] == pytest.approx(expected.probabilities.amax(1).numpy(), abs=1e-4)
    assert relative_error(torch.from_numpy(found["logits"]).softmax(1), expected.probabilities) < 1e-3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            DATA.images.float(),
            r"images are torch\.float32 of shape \(60, 3, 16, 16\); uint8 \(B, 3, 16, 16\) is needed",
        ),
        (DATA.images[0], r"of shape \(3, 16, 16\)"),
        (DATA.images[..., :8], r"of shape \(60, 3, 16, 8\)"),
    ],
)
def test_other_images_are_refused(images: torch.Tensor, message: str, path: Path) -> None:
    with pytest.raises(DataError, match=message):
        OnnxCNN(path)(images)


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"missing\.onnx cannot be read \(No such file"):
        OnnxCNN(tmp_path / "missing.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(BundleError, match=r"noise\.onnx is no file that `rlprune export --onnx` wrote"):
        OnnxCNN(tmp_path / "noise.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match=r"other\.onnx is no file that"):
        OnnxCNN(tmp_path / "other.onnx")


def test_what_cannot_be_exported_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dynamic.onnx").write_bytes(b"before")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(RLPruneError, match="pixels cannot be exported to ONNX: division by zero"):
        save_onnx(tmp_path / "dynamic.onnx", DYNAMIC)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("dynamic.onnx", b"before")]


def test_what_it_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rlprune\[onnx\]'"):
        save_onnx(tmp_path / "dynamic.onnx", DYNAMIC)


def test_padding_before_a_max_pool_stays_zero() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 1), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.Conv2d(8, 4, 1), nn.ConstantPad2d(1, 0.5)
    network = nn.Sequential(*layers, nn.MaxPool2d(2)).eval()
    images = torch.randn(2, 3, 9, 9)
    runs = session(export_piece("network", network, (images,)).SerializeToString(), 1, spin=False)
    (found,) = runs.run(None, {runs.get_inputs()[0].name: images.numpy()})
    assert torch.allclose(torch.from_numpy(found), network(images), atol=1e-5)
