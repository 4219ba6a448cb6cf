"""The journey of someone who has a trained network and a folder of pictures, tried for real: half an hour on two cores.

    RLPRUNE_ASSETS=... python tests/journey.py    (a folder that holds data/imagenette224)

In build/journey: 900 pictures in folders of classes, and a ResNet-18 for 96 pixels, trained for some minutes on other
pictures and saved as torchvision's reference script does. Then one command, `rlprune optimize`, with a limit of time.
Prints a line per bar, with its figures; the exit status counts what fails. Pictures and checkpoint are kept for another
time; what the command makes is not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import rlprune
from rlprune.data import loading
from rlprune.data.preprocessing_forms import read_preprocessing
from rlprune.optimization.result import load_result

ROOT = Path("build/journey")
ASSETS = Path(os.environ.get("RLPRUNE_ASSETS", ""))
TRAIN = ASSETS / "data" / "imagenette224" / "train-00000-of-00001.parquet"
WORDS = "tench springer casette_player chain_saw church horn garbage_truck gas_pump golf_ball parachute".split()
"""Of the labels in the table."""
CLASSES = sorted(WORDS)
"""In the order of their folders' names, which is that of the network's outputs."""
PER_CLASS = 90
PREPROCESS = "resize=112,crop=96,imagenet"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPOCHS = ((64, 4), (96, 1))
"""Side of the pictures, and passes over them."""
MINUTES = 20
N_COMPARED = 200
COMMAND = (
    *("--model", "torchvision:resnet18", "--weights", "checkpoint.pth", "--data", "pictures"),
    *("--preprocess", PREPROCESS, "--max-drop", "0.5", "--min-speedup", "2", "--batch", "1"),
    *("--time-limit", str(MINUTES), "--out", "mine"),
)
Bar = tuple[str, bool, str]
"""What is asked for, whether it holds, and the figures."""


def make_world() -> None:
    """Pictures and checkpoint, if they are not there yet."""
    if (ROOT / "checkpoint.pth").exists():
        return
    ROOT.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(TRAIN)
    pictures = [(each["img"]["bytes"], CLASSES.index(WORDS[each["label"]])) for each in table.to_pylist()]
    n_kept = [0] * len(CLASSES)
    others = []
    for number, (content, label) in enumerate(pictures):
        if n_kept[label] == PER_CLASS:
            others.append((content, label))
            continue
        n_kept[label] += 1
        path = ROOT / "pictures" / CLASSES[label] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    train_network(others)


def train_network(pictures: list[tuple[bytes, int]]) -> None:
    """Train a ResNet-18 on pictures, and save it as torchvision's reference script does."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    images = torch.stack([decoded(content) for content, _ in pictures])
    labels = torch.tensor([label for _, label in pictures])
    model = resnet18(num_classes=len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    n_steps = sum(epochs for _, epochs in EPOCHS) * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=n_steps)
    n_done = 0
    for side, epochs in EPOCHS:
        for _ in range(epochs):
            begun = time.monotonic()
            right = 0
            for rows in torch.randperm(len(images)).split(64):
                logits = step(model, optimizer, cropped(images[rows], side), labels[rows])
                schedule.step()
                right += int((logits.argmax(1) == labels[rows]).sum())
            n_done += 1
            print(f"epoch {n_done}: {100 * right / len(images):.1f} %, {time.monotonic() - begun:.0f} s", flush=True)
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": n_done - 1,
        "args": argparse.Namespace(model="resnet18", data_path="pictures", epochs=n_done, batch_size=64, lr=0.05),
    }
    torch.save(whole, ROOT / "checkpoint.pth")


def decoded(content: bytes) -> Tensor:
    """A picture, uint8 (3, 112, 112)."""
    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((112, 112), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def cropped(images: Tensor, side: int) -> Tensor:
    """Random crops of 96 pixels, some of them mirrored, normalised and resized: float32 (B, 3, side, side)."""
    top, left = torch.randint(0, 17, (2,)).tolist()
    images = images[:, :, top : top + 96, left : left + 96]
    images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    pixels = (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    if side != 96:
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor, labels: Tensor) -> Tensor:
    """A step of training; returns the logits."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels).float()
    optimizer.zero_grad()
    F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
    optimizer.step()
    return logits.detach()


def run_command() -> tuple[int, str, float]:
    """Exit status, what was printed, and seconds, of the one command."""
    shutil.rmtree(ROOT / "mine", ignore_errors=True)
    helper = "import torchvision_cpu; " if (ASSETS / "tools" / "torchvision_cpu.py").exists() else ""
    code = f"{helper}from rlprune.cli.main import main; main()"
    paths = os.pathsep.join(filter(None, [str((ASSETS / "tools").absolute()), os.environ.get("PYTHONPATH")]))
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "optimize", *COMMAND],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, time.monotonic() - begun


def bars(status: int, said: str, seconds: float) -> Iterator[Bar]:
    """What is asked for, one after the other."""
    yield "one command", status == 0, f"exit status {status}"
    yield "within the time limit", seconds <= 60 * MINUTES, f"{seconds / 60:.1f} of {MINUTES} minutes"
    if status:
        return
    result = load_result(ROOT / "mine")
    flat = " ".join(said.split())
    yield "verdict printed", all(each in flat for each in result.sentences), f"deploy {result.deploy_row}"
    ratio = max(seconds, result.check.seconds) / min(seconds, result.check.seconds)
    told = f"{result.check.seconds:.0f} s expected, {seconds:.0f} s taken"
    yield "estimate within 1.5x", ratio <= 1.5, f"{told}, {ratio:.2f}x"
    deploy = ROOT / "mine" / "deploy"
    wanted = ("dynamic.onnx", "static.onnx", "labels.txt", "README.md", "bundle")
    missing = [name for name in wanted if not (deploy / name).exists()]
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(deploy.glob("*.onnx")))
    yield "deploy folder is whole", not missing, f"missing: {', '.join(missing) or 'nothing'}; {sizes}"
    dense = 4 * result.check.dense_params
    ratio = (deploy / "dynamic.onnx").stat().st_size / dense
    yield "dynamic.onnx <= 1.15 x dense weights", ratio <= 1.15, f"{ratio:.2f}x of {dense / 1e6:.2f} MB"
    yield from same_labels(deploy)


def same_labels(deploy: Path) -> Iterator[Bar]:
    """The files' labels where there is onnxruntime and NumPy alone, against PyTorch's."""
    splits = loading.load(str(ROOT / "pictures"), preprocess=read_preprocessing(PREPROCESS))
    images = torch.cat([splits.test.images, splits.network.images])[:N_COMPARED]
    np.save(ROOT / "pixels.npy", images.numpy())
    make_alone()
    from rlprune.baselines.stored import load_plain

    static = load_plain(ROOT / "mine" / "work" / "static").network.eval()
    with torch.inference_mode():
        in_torch = {
            "dynamic.onnx": rlprune.load(deploy / "bundle")(images).labels,
            "static.onnx": static(splits.test.normalise(images)).argmax(1),
        }
    for name, labels in in_torch.items():
        found = labels_alone(deploy / name)
        n_same = int((found == labels).sum())
        yield f"{name}: PyTorch's labels", n_same == N_COMPARED, f"{n_same} of {N_COMPARED}"


def make_alone() -> None:
    """A folder of onnxruntime, NumPy, and what these need, and nothing else."""
    alone = ROOT / "alone"
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir()
    wanted = ["onnxruntime", "numpy"]
    for name in wanted:
        distribution = importlib.metadata.distribution(name)
        for requirement in distribution.requires or ():
            needed = re.split(r"[^\w.-]", requirement)[0]
            if "extra ==" not in requirement and needed not in wanted:
                wanted.append(needed)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            source = Path(str(distribution.locate_file(top))).absolute()
            if not (alone / top).exists():
                (alone / top).symlink_to(source)


ALONE = """\
import importlib.util, json, sys
sys.path.insert(0, "alone")
import numpy as np, onnxruntime
assert not any(importlib.util.find_spec(name) for name in ("torch", "onnx", "rlprune", "PIL"))
print(json.dumps(onnxruntime.InferenceSession(sys.argv[1]).run(["label"], {"images": np.load("pixels.npy")})[0].tolist()))
"""  # noqa: E501


def labels_alone(path: Path) -> Tensor:
    """What a file answers, int64 (N,), asked by a Python that has nothing else."""
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(path.relative_to(ROOT))],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return torch.tensor(json.loads(told.stdout))


def main() -> int:
    """Make what is needed, run the command, print the bars; returns how many fail."""
    if not TRAIN.exists():
        print("RLPRUNE_ASSETS names no folder with data/imagenette224", file=sys.stderr)
        return 1
    if (ASSETS / "tools" / "torchvision_cpu.py").exists():
        sys.path.append(str(ASSETS / "tools"))
        __import__("torchvision_cpu")
    make_world()
    print("$ rlprune optimize", " ".join(COMMAND), flush=True)
    status, said, seconds = run_command()
    print(said)
    n_failed = 0
    for name, holds, figures in bars(status, said, seconds):
        print(f"{'met   ' if holds else 'MISSED'}  {name}: {figures}", flush=True)
        n_failed += not holds
    return n_failed


if __name__ == "__main__":
    sys.exit(main())
