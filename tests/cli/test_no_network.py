from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        raise OSError("no network is to be used")

sys.addaudithook(refuse)
"""
DATA = """
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}

pq.write_table(pa.table({"image": [picture(n) for n in range(40)], "label": [n % 2 for n in range(40)]}), "set.parquet")
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("picture.png")
"""
VERBS = """
from rlprune.cli.main import main

common = ["--data", "set.parquet", "--epochs", "1", "--batch-size", "8"]
steps = ["--data", "set.parquet", "--total-steps", "32", "--n-envs", "8", "--n-steps", "4", "--batch-size", "32"]
untrained = ["--data", "set.parquet", "--epochs", "0", "--out", "timm.safetensors"]
main(["pretrain", "--model", "timm:test_resnet", "--weights", "none", *untrained])
main(["pretrain", "--model", "digits_cnn", *common, "--out", "dense.safetensors"])
main(["adapt", "--model", "digits_cnn", "--weights", "dense.safetensors", *common, "--out", "net"])
main(["train", "--network", "net", *steps, "--n-candidates", "8", "--out", "run"])
main(["export", "--network", "net", "--policy", "run", "--out", "bundle", "--onnx"])
main(["evaluate", "bundle", "--data", "set.parquet", "--n-candidates", "8"])
main(["bench", "bundle", "--data", "set.parquet", "--rows", "dense", "dynamic", "--seconds", "0"])
main(["predict", "bundle", "picture.png"])
main(["predict", "--onnx", "bundle/dynamic.onnx", "picture.png"])
print("ALL DONE")
"""


def test_no_verb_uses_the_network_for_what_is_on_the_machine(tmp_path: Path) -> None:
    free = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RLPRUNE_"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + DATA + VERBS],
        cwd=tmp_path,
        env=free | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "ALL DONE" in done.stdout, done.stderr
    assert "NETWORK" not in done.stderr


def test_the_watch_sees_what_would_be_sent(tmp_path: Path) -> None:
    call = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')"
    done = subprocess.run([sys.executable, "-c", WATCHED + call], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "NETWORK socket." in done.stderr


SENDING = """
import os, sys
from rlprune.utils.imports import require
require("onnxruntime", "onnx")
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


@pytest.mark.parametrize("said", [None, "0"])
def test_onnxruntime_notes_and_sends_nothing_unless_somebody_wants_it(tmp_path: Path, said: str | None) -> None:
    pytest.importorskip("onnxruntime")
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    free = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    free |= places | ({} if said is None else {"ORT_DISABLE_TELEMETRY": said})
    done = subprocess.run([sys.executable, "-c", SENDING], env=free, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (said or "1")
    if said is None:
        assert not [*tmp_path.rglob(".ses"), *tmp_path.rglob("Microsoft")]  # its session, and who it takes us for
