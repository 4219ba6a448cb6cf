"""A real server on a free port, asked by urllib."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import torch
from PIL import Image
from served import CLASSES, Deployed, make_deployed
from torch import Tensor

from rlprune.data.decoding import read_images
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming import Stream
from rlprune.errors import DataError, RLPruneError
from rlprune.serving.limits import Limits
from rlprune.serving.served import Served, find, open_served

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")
from rlprune.serving.server import HttpServer, listen, url_of

BORDER = "borderline"
PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": f"multipart/form-data; boundary={BORDER}"}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return make_deployed(tmp_path_factory.mktemp("deploy"))


@pytest.fixture(scope="module")
def served(deployed: Deployed) -> Served:
    return open_served(find(deployed.folder), 1)


@contextmanager
def serving(served: Served, limits: Limits | None = None) -> Iterator[str]:
    listening = listen(port=0)
    server = HttpServer(served, listening, limits)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield url_of(listening)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def url(served: Served) -> Iterator[str]:
    with serving(served) as url:
        yield url


DIRECT = build_opener(ProxyHandler({}))
"""Asks without a proxy, whatever the environment says."""


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """The status of an answer, and what it says: of JSON the value."""
    try:
        with DIRECT.open(Request(url, data, headers or {}), timeout=30) as answer:
            status, kind, content = answer.status, answer.headers["Content-Type"], answer.read()
    except HTTPError as error:
        status, kind, content = error.code, error.headers["Content-Type"], error.read()
    return status, json.loads(content) if kind == "application/json" else content.decode()


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def form(*files: bytes, name: str = "files", extra: str = '; filename="{}.png"') -> bytes:
    parts = [
        f'--{BORDER}\r\nContent-Disposition: form-data; name="{name}"{extra.format(number)}\r\n\r\n'.encode() + file
        for number, file in enumerate(files)
    ]
    return b"\r\n".join([*parts, f"--{BORDER}--\r\n".encode()])


def test_pictures_get_what_the_network_says(url: str, deployed: Deployed) -> None:
    expected = deployed.dynamic(deployed.images)
    files = [encoded(picture) for picture in pictures(deployed.images)]
    status, found = ask(f"{url}/predict?top_k=2", form(*files), FORM)
    assert status == 200 and len(expected.profiles.unique(dim=0)) >= 3
    rows = found["predictions"]
    assert [row["label"] for row in rows] == expected.labels.tolist()
    assert [row["class"] for row in rows] == [CLASSES[label] for label in expected.labels.tolist()]
    assert [row["macs"] for row in rows] == expected.macs.tolist()
    assert [row["passes"] for row in rows] == expected.passes.tolist()
    assert [row["image"] for row in rows] == [f"{number}.png" for number in range(60)]
    best = expected.probabilities.sort(dim=1, descending=True)
    assert [[each["label"] for each in row["top"]] for row in rows] == best.indices[:, :2].tolist()
    for row, probability in zip(rows, best.values[:, 0].tolist(), strict=True):
        assert row["probability"] == row["top"][0]["probability"] == pytest.approx(probability, rel=1e-4)
        assert row["macs_share"] == pytest.approx(row["macs"] / int(deployed.dynamic.prices.dense.macs))
    for number in (0, 7):
        assert ask(f"{url}/predict?top_k=2", files[number], PNG) == (
            200,
            {"predictions": [{**rows[number], "image": None}]},
        )


def test_pictures_of_any_kind_are_decoded_as_files_are(url: str, deployed: Deployed) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (37, 23, 3), dtype=torch.uint8, generator=generator).numpy()
    picture = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encoded(picture),
        encoded(picture.convert("L"), "JPEG"),
        encoded(picture, "JPEG", exif=turned),
        encoded(picture.convert("RGBA"), "WEBP"),
        encoded(picture.quantize(9), "GIF"),
        encoded(Image.fromarray(pixels[:, :, 0].astype("uint16") * 257), "TIFF"),
    ]
    images = [read_images([Image.open(io.BytesIO(file))], (3, 16, 16)) for file in files]
    expected = deployed.dynamic(torch.cat(images))
    _, found = ask(f"{url}/predict", form(*files), FORM)
    assert [row["label"] for row in found["predictions"]] == expected.labels.tolist()
    assert [row["macs"] for row in found["predictions"]] == expected.macs.tolist()


def test_what_is_served_is_said(url: str, deployed: Deployed) -> None:
    status, model = ask(f"{url}/model")
    assert status == 200 and model["classes"] == list(CLASSES)
    assert (model["file"], model["backend"]) == ("dynamic.onnx", "onnxruntime")
    assert model["budget"] == {"lowest": 0.25, "highest": 1.5}
    assert model["image"] == {"channels": 3, "height": 16, "width": 16}
    prices = deployed.dynamic.prices
    assert model["prices"]["dense"] == {"params": int(prices.dense.params), "macs": int(prices.dense.macs)}
    assert [each["macs"] for each in model["prices"]["profiles"]] == prices.bodies.macs.tolist()
    assert ask(f"{url}/health") == (200, {"status": "ok"})
    assert ask(f"{url}/ready") == (200, {"status": "ready"})
    status, page = ask(f"{url}/")
    assert status == 200 and "<title>rlprune</title>" in page and "://" not in page
    assert set(ask(f"{url}/openapi.json")[1]["paths"]) == {"/", "/predict", "/model", "/health", "/ready", "/metrics"}


def test_what_was_done_is_counted(served: Served, deployed: Deployed) -> None:
    picture = encoded(pictures(deployed.images)[0])
    with serving(served) as url:
        for data in (form(picture, picture), form(picture), form(b"")):
            ask(f"{url}/predict", data, FORM)
        ask(f"{url}/a/strange?path")
        status, text = ask(f"{url}/metrics")
    figures = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert status == 200
    assert figures['rlprune_requests_total{code="200",endpoint="/predict"}'] == 2
    assert figures['rlprune_requests_total{code="422",endpoint="/predict"}'] == 1
    assert figures['rlprune_requests_total{code="404",endpoint="other"}'] == 1
    assert figures['rlprune_errors_total{code="422"}'] == figures['rlprune_errors_total{code="404"}'] == 1
    assert figures["rlprune_images_total"] == figures["rlprune_macs_share_count"] == 3
    share = float(deployed.dynamic(deployed.images[:1]).macs / deployed.dynamic.prices.dense.macs)
    assert figures["rlprune_macs_share_sum"] == pytest.approx(3 * share)
    assert figures["rlprune_predict_seconds_count"] == 2 and figures["rlprune_in_flight"] == 0
    assert figures["rlprune_bucket_images"] == 1.5
    assert 0 <= figures['rlprune_wait_seconds{quantile="0.5"}'] <= figures['rlprune_wait_seconds{quantile="0.99"}']


def test_whole_images_wait_for_a_file(served: Served, deployed: Deployed) -> None:
    model, images = served.model, deployed.images
    with Stream(model) as stream, ThreadPoolExecutor(8) as callers:
        for chosen in ({}, {"budget": 0.5}):
            found = Prediction.joined(list(callers.map(lambda image, how=chosen: stream(image[None], **how), images)))
            expected = model(images, **chosen)
            for name in ("labels", "profiles", "macs"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name
            torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-5)
        with pytest.raises(RLPruneError, match=r"budget is 9; with this policy images can cost 0\.250 to 1\.500"):
            stream.submit(images, budget=9)
        with pytest.raises(DataError, match=r"images are torch.float32 of shape \(60, 3, 16, 16\); uint8"):
            stream.submit(images / 255)
        assert stream.max_batch == 64 and stream.figures().images == 120


BOMB = encoded(Image.new("1", (20_000, 20_000)))
THIN = encoded(Image.new("L", (1, 60_000)))


@pytest.mark.parametrize(
    ("query", "data", "headers", "status", "message"),
    [
        ("", b"abc", PNG, 422, "picture 0 cannot be read as an image; send one of "),
        ("", encoded(Image.new("RGB", (40, 40)))[:60], PNG, 422, "picture 0 cannot be read as an image"),
        ("", b"", PNG, 422, "picture 0 is empty"),
        ("", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", PNG, 422, "picture 0 cannot be read as an image"),
        ("", BOMB, PNG, 413, "picture 0 has, as it is or scaled for the network, more than 50 million pixels"),
        ("", THIN, PNG, 200, None),
        (
            "",
            b"abc",
            {"Content-Type": "text/plain"},
            415,
            "the content type is 'text/plain': send one picture as image",
        ),
        ("", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "the content type is 'application/x"),
        ("", form(), FORM, 422, "there is no picture in the request"),
        ("", form(b"1", extra=""), FORM, 422, "the field 'files' of the form is no file"),
        ("", form(THIN, b"abc"), FORM, 422, "picture 1 cannot be read as an image"),
        ("", b"no form", FORM, 400, ""),
        ("", b"", {"Content-Type": "multipart/form-data"}, 400, "Missing boundary in multipart"),
        ("", form(*[THIN] * 65), FORM, 400, "Too many files. Maximum number of files is 64"),
        ("?budget=x", THIN, PNG, 422, "budget is 'x': input should be a valid number"),
        ("?budget=nan", THIN, PNG, 422, "budget is 'nan': input should be a finite number"),
        ("?budget=-1", THIN, PNG, 422, "budget is '-1': input should be greater than 0"),
        ("?budget=2", THIN, PNG, 422, "budget is 2; 0.25 to 1.5 are allowed"),
        ("?budget=1.5", THIN, PNG, 200, None),
        ("?top_k=0", THIN, PNG, 422, "top_k is '0': input should be greater than or equal to 1"),
        ("?top_k=9", THIN, PNG, 200, None),
        ("", None, {}, 405, "Method Not Allowed"),
        ("/more", None, {}, 404, "Not Found"),
    ],
)
def test_wrong_requests_get_a_sentence(
    query: str, data: bytes | None, headers: dict[str, str], status: int, message: str | None, url: str
) -> None:
    found, said = ask(f"{url}/predict{query}", data, headers)
    assert found == status
    if message is None:
        assert len(said["predictions"]) == 1
    else:
        assert said.keys() == {"error"} and said["error"].startswith(message)
        assert "\n" not in said["error"] and len(said["error"]) < 200


def test_requests_are_bounded(served: Served) -> None:
    limits = Limits(max_megabytes=0.01, max_pictures=2, max_megapixels=0.05, upload_seconds=0.3)
    picture = encoded(Image.new("L", (200, 200)))
    with serving(served, limits) as url:
        host, port = url.removeprefix("http://").split(":")
        assert ask(f"{url}/predict", picture, PNG)[0] == 200
        assert ask(f"{url}/predict", form(picture, picture, picture), FORM)[0] == 400
        too_large = "picture 0 has, as it is or scaled for the network, more than 0.05 million pixels"
        for size in ((400, 200), (1, 5000)):  # the second would have 16 x 80,000 pixels
            assert ask(f"{url}/predict", encoded(Image.new("L", size)), PNG) == (413, {"error": too_large})
        assert ask(f"{url}/predict", bytes(20_000), PNG)[0] == 413
        assert ask(f"{url}/predict", form(bytes(20_000)), FORM)[0] == 413
        for length, body, status in (
            ("Transfer-Encoding: chunked", b"5000\r\n" + bytes(0x5000), 413),
            ("Content-Length: 99", b"x", 408),
        ):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{length}\r\n\r\n"
                connection.sendall(head.encode() + body)
                assert connection.recv(1000).startswith(f"HTTP/1.1 {status} ".encode())


@dataclass(frozen=True)
class Slow(Served):
    """Answers when it is let."""

    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    let: threading.Event = field(default_factory=threading.Event)

    def predict(self, images: Sequence[Tensor], budget: float | None = None) -> Prediction:
        self.entered.release()
        assert self.let.wait(20)
        return super().predict(images, budget)


def at_once(call: Callable[[], Any], n: int) -> tuple[list[threading.Thread], list[Any]]:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(n)]
    for thread in threads:
        thread.start()
    return threads, found


def test_the_server_answers_while_it_computes_and_ends_when_all_is_answered(served: Served) -> None:
    slow = Slow(served.source, served.model, served.preprocessing)
    picture = encoded(Image.new("L", (16, 16)))
    with serving(slow, Limits(max_waiting=2, at_once=2)) as url:
        threads, found = at_once(lambda: ask(f"{url}/predict", picture, PNG)[0], 2)
        assert slow.entered.acquire(timeout=20) and slow.entered.acquire(timeout=20)
        assert ask(f"{url}/health")[0] == 200
        assert ask(f"{url}/predict", picture, PNG) == (
            503,
            {"error": "the server has as many requests as it takes: try again soon"},
        )
        threading.Timer(0.3, slow.let.set).start()
    for thread in threads:  # the server was asked to end before it was let
        thread.join(20)
    assert found == [200, 200]
