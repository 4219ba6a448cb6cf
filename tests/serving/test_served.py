"""What of a folder is served, and how the command begins and ends."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
import torch
from PIL import Image
from served import CLASSES, DATA, Deployed, make_deployed, make_dynamic

from rlprune.cli.main import main
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.onnx.static import save_static_onnx
from rlprune.errors import BundleError, RLPruneError
from rlprune.profiles.cost import ComputeCost
from rlprune.serving import served as module
from rlprune.serving.limits import Limits
from rlprune.serving.pictures import decoded
from rlprune.serving.refusals import RefusedError
from rlprune.serving.served import Backend, Served, Source, Which, find, open_served
from rlprune.serving.triton import save_triton


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `rlprune optimize` leaves it, by its names."""
    folder = tmp_path / "mine" / "deploy"
    (folder / "bundle").mkdir(parents=True)
    for name in ("dynamic.onnx", "static.onnx", "dynamic.int8.onnx", "bundle/manifest.json"):
        (folder / name).write_text("")
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No onnxruntime."""
    monkeypatch.setattr(module, "_has_onnxruntime", lambda: False)


def report(folder: Path, **said: Any) -> None:
    (folder.parent / "report.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("which", "backend", "path", "by"),
    [
        (None, None, "dynamic.onnx", "onnxruntime"),
        ("dynamic", None, "dynamic.onnx", "onnxruntime"),
        ("static", None, "static.onnx", "onnxruntime"),
        ("static", "onnxruntime", "static.onnx", "onnxruntime"),
        (None, "pytorch", "bundle", "pytorch"),
        ("dynamic", "pytorch", "bundle", "pytorch"),
    ],
)
def test_of_a_deploy_folder_what_is_asked_for(
    which: Which | None, backend: Backend | None, path: str, by: str, folder: Path
) -> None:
    for named in (folder, folder.parent):
        assert find(named, which, backend) == Source(folder / path, by, folder / "labels.txt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"deploy": "static"}, "static.onnx"),
        ({"deploy": "static", "deploy_file": "deploy/static.onnx"}, "static.onnx"),
        ({"deploy": "int8", "deploy_file": "deploy/dynamic.int8.onnx"}, "dynamic.int8.onnx"),
        ({"deploy": "dense", "deploy_file": None}, None),
        ({"deploy": "int8", "deploy_file": "../dynamic.int8.onnx"}, None),
        ({"deploy": "int8", "deploy_file": "/etc/passwd"}, None),
    ],
)
def test_what_the_report_advises_comes_first_and_is_said(said: dict[str, Any], name: str | None, folder: Path) -> None:
    report(folder, **said)
    found = find(folder)
    assert found.path == folder / (name or "dynamic.onnx")
    assert found.note == (None if name is None else f"{name} is what {folder.parent / 'report.json'} advises")
    assert find(folder, "dynamic").path.name == "dynamic.onnx"


def test_without_onnxruntime_the_bundle_is_served(folder: Path, bare: None) -> None:
    report(folder, deploy="static")
    assert find(folder) == Source(folder / "bundle", "pytorch", folder / "labels.txt")
    assert find(folder / "bundle") == Source(folder / "bundle", "pytorch")


def test_a_bundle_and_a_file_are_served_too(folder: Path) -> None:
    assert find(folder / "bundle") == Source(folder / "bundle", "pytorch")
    (folder / "bundle" / "dynamic.onnx").write_text("")
    assert find(folder / "bundle") == Source(folder / "bundle" / "dynamic.onnx", "onnxruntime")
    assert find(folder / "bundle", backend="pytorch") == Source(folder / "bundle", "pytorch")
    assert find(folder / "static.onnx") == Source(folder / "static.onnx", "onnxruntime")


@pytest.mark.parametrize(
    ("path", "which", "backend", "message"),
    [
        ("nothing", None, None, r"there is no .*nothing; name a folder that rlprune optimize or rlprune export wrote"),
        ("empty", None, None, r"empty holds nothing to serve; name a folder that"),
        (
            "mine/deploy/static.onnx",
            "dynamic",
            None,
            r"static\.onnx is a file that onnxruntime runs; --which dynamic is",
        ),
        ("mine/deploy/static.onnx", None, "pytorch", r"runs; --backend pytorch is for folders"),
        ("mine", "static", "pytorch", r"static\.onnx is a file that onnxruntime runs; leave --backend pytorch out"),
        ("mine/deploy/bundle", "static", None, r"bundle has no static\.onnx; leave --which out"),
        ("mine/deploy/bundle", None, "onnxruntime", r"bundle has no dynamic\.onnx; leave --backend out"),
        ("only", None, "pytorch", r"only has no bundle for PyTorch; install onnxruntime, which runs dynamic\.onnx"),
    ],
)
def test_what_is_not_there_is_named(
    path: str, which: Which | None, backend: Backend | None, message: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "dynamic.onnx").write_text("")
    with pytest.raises(BundleError, match=message):
        find(tmp_path / path, which, backend)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"deploy": 1'])
def test_a_report_of_others_is_refused(content: str, folder: Path) -> None:
    (folder.parent / "report.json").write_text(content)
    with pytest.raises(BundleError, match=r"report\.json is no report of rlprune optimize; say --which dynamic or"):
        find(folder)
    assert find(folder, "dynamic").path.name == "dynamic.onnx"


def test_other_class_names_beside_the_network_are_refused(tmp_path: Path) -> None:
    deployed = make_deployed(tmp_path)
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in reversed(CLASSES)))
    with pytest.raises(BundleError, match=r"labels\.txt names other classes than the network beside it"):
        open_served(find(deployed.folder, backend="pytorch"))


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime"])
def test_a_budget_is_obeyed_where_there_is_a_choice(backend: Backend, tmp_path: Path) -> None:
    deployed = make_deployed(tmp_path)
    served: Served = open_served(find(tmp_path, "dynamic", backend))
    assert served.budgets == (0.25, 1.5)
    for budget in (0.25, 0.5, 1.5):
        found, expected = served.predict([deployed.images], budget), deployed.dynamic(deployed.images, budget=budget)
        assert torch.equal(found.macs, expected.macs) and torch.equal(found.labels, expected.labels)
    for budget in (0.2, 1.6):
        with pytest.raises(RLPruneError, match=r"budget is .*; 0\.25 to 1\.5 are allowed"):
            served.predict([deployed.images], budget)


def test_a_static_network_is_served_whatever_the_size_of_pictures(tmp_path: Path) -> None:
    how = Preprocessing(resize=20, crop=(16, 16))
    dynamic, data = make_dynamic(), replace(DATA, preprocessing=how)
    static = dynamic.slice(1)
    cost = ComputeCost(torch.tensor(100), torch.tensor(1000))
    sizes = {"image_shape": dynamic.image_shape, "dense": dynamic.prices.dense}
    save_static_onnx(tmp_path / "static.onnx", static, data, cost, resize=True, **sizes)
    served = open_served(find(tmp_path, "static"))
    picture, file = (
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 31, 3), dtype=np.uint8)),
        io.BytesIO(),
    )
    picture.save(file, "PNG")
    contents = [file.getvalue()]
    for whole, shape in ((True, (1, 3, 50, 31)), (False, (1, 3, 16, 16))):
        (pixels,) = decoded(contents, (3, 16, 16), how, Limits(), whole=whole)
        assert tuple(pixels.shape) == shape
    with torch.inference_mode():
        logits = static(dynamic.normalise(pixels))
    found = served.predict(decoded(contents * 2, (3, 16, 16), how, Limits(), whole=served.resizes))
    assert found.labels.tolist() == [int(logits.argmax(1))] * 2
    assert torch.allclose(found.probabilities[0], logits.softmax(1)[0], atol=0.05)  # by pixels that it scales itself
    assert found.macs.tolist() == [1000] * 2 and found.passes.tolist() == [1] * 2
    with pytest.raises(RLPruneError, match="this network was exported for one price; leave budget out"):
        served.predict([pixels], 0.5)
    with pytest.raises(RefusedError, match=r"the pictures have together more than 0\.002 million pixels"):
        decoded(contents * 2, (3, 16, 16), how, Limits(max_megapixels=0.002), whole=True)
    config = save_triton(tmp_path / "models", tmp_path / "static.onnx").joinpath("config.pbtxt").read_text()
    assert '{ name: "images" data_type: TYPE_UINT8 dims: [ 3, -1, -1 ] }' in config
    assert '{ name: "profiles" data_type: TYPE_INT64 dims: [ 1 ] }' in config


def test_the_command_serves_until_it_is_asked_to_end(tmp_path: Path) -> None:
    deployed: Deployed = make_deployed(tmp_path)
    command = [
        sys.executable,
        "-m",
        "rlprune",
        "serve",
        tmp_path,
        "--port",
        "0",
        "--backend",
        "pytorch",
        "--threads",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        assert server.stdout.readline() == f"serving {tmp_path / 'bundle'} by pytorch\n"
        url = server.stdout.readline().removeprefix("at ").strip()
        body = b"P6 16 16 255\n" + deployed.images[0].permute(1, 2, 0).contiguous().numpy().tobytes()
        with build_opener(ProxyHandler({})).open(
            Request(f"{url}/predict", body, {"Content-Type": "image/x-portable-pixmap"}), timeout=30
        ) as answer:
            (row,) = json.loads(answer.read())["predictions"]
        assert row["label"] == int(deployed.dynamic(deployed.images[:1]).labels)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert server.stdout.read() == "ended; nothing was left undone\n" and server.stderr.read() == ""


def test_an_address_that_cannot_be_had_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_deployed(tmp_path)
    for options, message in (
        (("--host", "256.1.1.1"), "nothing can listen at --host 256.1.1.1 --port 8000: "),
        (("--port", "65536"), "--port=65536: give a whole number from 0 to 65535"),
        (("--at-once", "0"), "--at-once=0: give a whole number of 1 or more"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["serve", str(tmp_path), *options])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"rlprune: error: {message}")
