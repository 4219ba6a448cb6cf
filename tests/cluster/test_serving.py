"""A real Ray Serve: what its replicas say, when one is killed, and what cannot be served."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import torch
from clustered import below
from PIL import Image
from served import DATA, make_dynamic

from rlprune.cluster.connection import Cluster, connected
from rlprune.cluster.replicas import Opening, Replicas
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import BundleError, ClusterError, RLPruneError, SettingsError
from rlprune.storage.bundle import load, save_bundle

pytest.importorskip("fastapi")
from rlprune.cluster.serving import app, serving

DIRECT = build_opener(ProxyHandler({}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    dynamic = make_dynamic()
    save_bundle(folder, dynamic.elastic, dynamic.source_policy, DATA)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected("local", n_cpus=2) as cluster:
        yield cluster


def ask(url: str, data: bytes | None = None) -> Any:
    """An answer; of a request that a dying replica had, the next one's, as any client of Ray Serve has to ask again."""
    for _ in range(100):
        try:
            with DIRECT.open(Request(url, data, {"Content-Type": "image/png"}), timeout=30) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            assert error.code in (500, 503), error.read()
        except URLError:
            pass
        time.sleep(0.1)
    raise AssertionError("no answer")


def encoded(image: torch.Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def test_replicas_say_what_the_network_says_and_one_may_die(cluster: Cluster, bundle: Path) -> None:
    expected: DynamicCNN = load(bundle)
    predicted = expected(DATA.images)
    with serving(Opening(str(bundle)), Replicas(replicas=2), port=0) as url:
        replicas = below("ray::ServeReplica:rlprune")
        assert len(replicas) == 2
        for number, image in enumerate(DATA.images):
            if number == 20:
                os.kill(replicas[0], signal.SIGKILL)
            (row,) = ask(f"{url}/predict", encoded(image))["predictions"]
            assert (row["label"], row["macs"]) == (int(predicted.labels[number]), int(predicted.macs[number]))
        assert ask(f"{url}/ready") == {"status": "ready"} and ask(f"{url}/model")["file"] == "bundle"
        with (
            pytest.raises(ClusterError, match=r"serves rlprune already; end that first"),
            serving(Opening(str(bundle))),
        ):
            pass
    assert not below("ray::ServeReplica:rlprune")


def test_what_finds_no_place_is_refused_before_it_begins(cluster: Cluster, bundle: Path) -> None:
    with (
        pytest.raises(
            ClusterError, match=r"replicas=2 of 2 processors each find no place: .* 2 processors, room for 1;"
        ),
        serving(Opening(str(bundle), threads=2), Replicas(replicas=2), port=0),
    ):
        pass


def test_a_bundle_that_a_machine_does_not_have_is_refused(cluster: Cluster, bundle: Path, tmp_path: Path) -> None:
    from rlprune.cluster.serving import _check_everywhere, _content

    source = Opening(str(bundle)).source()
    _check_everywhere(cluster, source, _content(str(bundle)))
    with pytest.raises(BundleError, match=r"gone is not on the machine .*; put it there, under the same path"):
        _check_everywhere(cluster, type(source)(tmp_path / "gone", "pytorch"), "0" * 64)
    with pytest.raises(BundleError, match=r"bundle is another one on the machine"):
        _check_everywhere(cluster, source, "0" * 64)


def test_arguments_of_serves_own_command_are_checked(bundle: Path) -> None:
    assert app({"folder": str(bundle), "replicas": "2", "threads": 1, "limits": {"max_pictures": 3}}) is not None
    for wrong, message in (
        ({}, "folder is missing; give folder and, as you like, which"),
        ({"folder": "x", "replica": 2}, "replica: there is no such argument; give folder"),
    ):
        with pytest.raises(RLPruneError, match=message):
            app(wrong)
    with pytest.raises(SettingsError, match=r"replicas=0: give a whole number of 1 or more"):
        app({"folder": "x", "replicas": "0"})
    with pytest.raises(SettingsError, match=r"max_replicas=1 is less than replicas=2"):
        Replicas(replicas=2, max_replicas=1)
