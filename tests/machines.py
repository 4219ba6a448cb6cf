"""Trainings, many images and requests, on Ray, while processes are killed. Half an hour on two cores.

    python tests/machines.py
    python tests/machines.py train --kills 1
    python tests/machines.py serve --seconds 20
    python tests/machines.py predict --images 2000

Images are CIFAR-10's for training, which RLPRUNE_ASSETS has, written as PNG; the network is the committed ResNet-20.
Prints a line per bar, with its figures; the exit status counts what fails.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.append(str(Path(__file__).parent / "support"))

from clustered import below
from ranks import misfit
from rayed import trained

from rlprune.cluster.connection import connected
from rlprune.cluster.predicting import predict_files
from rlprune.cluster.replicas import Opening, Replicas
from rlprune.cluster.serving import serving
from rlprune.cluster.training import train_on
from rlprune.storage.bundle import load
from rlprune.utils.imports import require

BUNDLE = Path(__file__).parents[1] / "runs" / "reference" / "resnet20" / "bundle"
Bar = tuple[int, str]
"""How much was wrong, and figures."""


def images_of(n_images: int) -> list[bytes]:
    """So many of CIFAR-10's images for training, as PNG."""
    parquet = require("pyarrow.parquet", "data")
    contents: list[bytes] = []
    for file in sorted((Path(os.environ["RLPRUNE_ASSETS"]) / "data" / "cifar10").glob("train*.parquet")):
        table = parquet.read_table(file)
        column = next(name for name in table.column_names if "im" in name)
        contents += [each["bytes"] for each in table[column].to_pylist()]
    return contents[:n_images]


def wait_for(title: str, n: int, seconds: float) -> list[int]:
    """The processes with a title, once there are so many of them, or when time is up."""
    end = time.monotonic() + seconds
    while len(found := below(title)) < n and time.monotonic() < end:
        time.sleep(0.2)
    return found


def train(root: Path, given: argparse.Namespace) -> Bar:
    """Two workers train what one process does, and what they do undisturbed though one is killed at random moments."""
    rng, killed = random.Random(given.seed), []

    def on_ray(name: str, epochs: int) -> dict[str, Tensor]:
        place = root / name
        place.mkdir()
        arguments = {"checkpoint": place / "run.pt", "epochs": epochs}
        found: dict[str, Tensor] = train_on(trained, arguments, place, n_workers=2)[1]
        return found

    def kill(processes: Path, after: float) -> None:
        while not (processes.exists() and len(processes.read_text().splitlines()) == 2):  # so that they are at work
            time.sleep(0.01)
        time.sleep(after)
        if not (processes.parent / "ended").exists():
            os.kill(int(rng.choice(processes.read_text().split())), signal.SIGKILL)
            killed.append(f"{after:.1f}")

    with connected("local", n_cpus=3):
        apart = misfit(on_ray("short", 2), trained(root / "alone.pt", 2)[1])
        whole, files = on_ray("whole", given.epochs), root / "whole"
        seconds = (files / "run.pt").stat().st_mtime - (files / "run.processes").stat().st_mtime
        again = other = 0
        for number in range(2 * given.kills):  # some may be over before their moment comes
            if len(killed) == given.kills:
                break
            processes = root / f"killed-{number}" / "run.processes"
            killer = threading.Thread(target=kill, args=(processes, rng.uniform(0, seconds)), daemon=True)
            killer.start()
            found = on_ray(processes.parent.name, given.epochs)
            (processes.parent / "ended").touch()
            killer.join()
            again += len(processes.read_text().split()) == 4
            other += any(not torch.equal(found[name], value) for name, value in whole.items())
    said = f"1 x 128 and 2 x 64 images are {apart:.1e} apart after 20 steps; trainings of {seconds:.1f} s, "
    said += f"a worker killed after {', '.join(killed)} s: {again} began again, {other} end in other weights"
    return (apart > 1e-5) + 2 * given.kills - len(killed) - again + other, said


def predict(root: Path, given: argparse.Namespace) -> Bar:
    """Every image once and the labels of one process, though a worker is killed."""
    (root / "images").mkdir()
    for number, content in enumerate(images_of(given.images)):
        (root / "images" / f"{number:06d}.png").write_bytes(content)
    network, out, killed = load(BUNDLE), root / "out", []

    def kill() -> None:
        while not list(out.glob("part-*")):  # so that it is at work
            time.sleep(0.1)
        killed.extend(below("ray::MapWorker")[:1])
        for process in killed:
            os.kill(process, signal.SIGKILL)

    with connected("local"):
        threading.Thread(target=kill, daemon=True).start()
        begun = time.monotonic()
        found = predict_files(network, [root / "images"], out, batch_size=64)
        seconds = time.monotonic() - begun
    table = require("pyarrow.parquet", "data").read_table(out).sort_by("path").to_pydict()
    begun = time.monotonic()
    alone = network.predict(root / "images")
    of_one = time.monotonic() - begun
    twice = sum(n - 1 for n in Counter(table["path"]).values())
    lost = len(set(alone.names) - set(table["path"]))
    if lost or twice:
        return lost + twice, f"{lost} images lost, {twice} twice"
    other = sum(a != b for a, b in zip(table["class"], alone.classes, strict=True))
    other += sum(a != b for a, b in zip(table["macs_share"], alone.macs_share.tolist(), strict=True))
    figures = f"{len(table['path'])} images once each in {found.n_parts} parts, {other} labels or costs differ, "
    return other + (not killed), f"{figures}{len(killed)} worker killed; {seconds:.0f} s, {of_one:.0f} s in one process"


def serve(root: Path, given: argparse.Namespace) -> Bar:
    """No request is lost but those that a killed replica was at, which are sent again; answers are right."""
    contents = images_of(200)
    pixels = [torch.from_numpy(np.array(Image.open(io.BytesIO(each)))).permute(2, 0, 1) for each in contents]
    labels = load(BUNDLE)(torch.stack(pixels)).labels
    with connected("local"), serving(Opening(str(BUNDLE), backend="pytorch"), Replicas(replicas=2), port=0) as url:
        return _loaded(url, contents, labels, given.seconds)


def _loaded(url: str, contents: list[bytes], labels: Tensor, seconds: float, n_clients: int = 8) -> Bar:
    """What 8 clients, each with a request at a time, see while a replica is killed at a third of the time."""
    begun, times, again, wrong, lost = time.monotonic(), [], [], [], []

    def client(number: int) -> None:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
        while time.monotonic() < begun + seconds:
            number = (number + n_clients) % len(contents)
            sent = time.monotonic()
            for attempt in range(20):
                try:
                    connection.request("POST", "/predict", contents[number], {"Content-Type": "image/png"})
                    answer = connection.getresponse()
                    content = answer.read()
                    if answer.status == 200:
                        break
                    again.append(f"{answer.status}")
                except (OSError, HTTPException) as error:
                    again.append(type(error).__name__)
                    connection.close()
                time.sleep(0.05 * (attempt + 1))
            else:
                lost.append(number)
                continue
            times.append(time.monotonic() - sent)
            if json.loads(content)["predictions"][0]["label"] != int(labels[number]):
                wrong.append(number)

    with ThreadPoolExecutor(n_clients) as clients:
        for number in range(n_clients):
            clients.submit(client, number)
        time.sleep(seconds / 3)
        killed = below("ray::ServeReplica:rlprune")[:1]
        for process in killed:
            os.kill(process, signal.SIGKILL)
    back = len(wait_for("ray::ServeReplica:rlprune", 2, 60))
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    # Of the requests that were in flight there, each client had one; those that were sent again may meet it once more.
    n_faults = len(wrong) + len(lost) + (not killed) + (back != 2) + (len(again) > 2 * n_clients)
    said = f"{len(times)} answers in {seconds:g} s, {len(wrong)} wrong, {len(lost)} lost, {len(again)} sent again "
    said += f"({', '.join(f'{n} x {what}' for what, n in Counter(again).items())}); " if again else "; "
    return n_faults, f"{said}p50 {p50:.1f} ms, p99 {p99:.1f} ms; {len(killed)} replica killed, {back} there at the end"


def main() -> int:
    """Print a line for each that is asked for; return how much was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", help="train, predict, serve; all if none is named")
    parser.add_argument("--kills", type=int, default=3, help="trainings in which a worker is killed")
    parser.add_argument("--epochs", type=int, default=10, help="of each of them")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = [str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # for workers
    n_faults = 0
    for name, run in (("train", train), ("predict", predict), ("serve", serve)):
        if given.bars and name not in given.bars:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            wrong, figures = run(Path(root), given)
        n_faults += wrong
        print(f"{'FAULT' if wrong else 'ok   '} {name:8} {figures} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{n_faults} faults")
    return min(n_faults, 255)


if __name__ == "__main__":
    sys.exit(main())
