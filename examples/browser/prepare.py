"""Make what check.mjs needs: dynamic.onnx, labels.txt, pictures, and what PyTorch says of them.

python examples/browser/prepare.py BUNDLE OUT [--images FOLDER] [--n 200]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rlprune
from rlprune.data.decoding import read_images
from rlprune.deployment import save_onnx

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def drawn(number: int) -> Image.Image:
    """A picture of soft patches of colour, of some size."""
    generator = np.random.default_rng(number)
    width, height = generator.integers(20, 300, 2).tolist()
    cells = generator.integers(2, 9, 2)
    patches = Image.fromarray(generator.integers(0, 256, (*cells, 3), dtype=np.uint8))
    return patches.resize((width, height), Image.Resampling.BICUBIC)


def draw(folder: Path, n: int) -> None:
    """Write pictures of several kinds: colour and grey, with and without loss, some turned by their tags."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(n):
        picture, path = drawn(number), folder / f"{number:03}"
        if number % 5 == 0:
            picture.save(path.with_suffix(".jpg"), quality=90)
        elif number % 5 == 1:
            picture.convert("L").save(path.with_suffix(".png"))
        elif number % 5 == 2:
            picture.save(path.with_suffix(".jpg"), quality=95, exif=turned)
        elif number % 5 == 3:
            picture.save(path.with_suffix(".webp"), lossless=True)
        else:
            picture.save(path.with_suffix(".png"))


def copy(source: Path, folder: Path, n: int) -> None:
    """Copy some of the pictures in a folder, drawn at random, under names that are numbers."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) < n:
        raise SystemExit(f"{source} has {len(found)} pictures ({', '.join(SUFFIXES)}); {n} are needed: give --n")
    for number, path in enumerate(random.Random(0).sample(found, n)):
        shutil.copy(path, folder / f"{number:03}{path.suffix.lower()}")


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle, or the deploy folder around it")
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, help="a folder of pictures; drawn ones if not given")
    parser.add_argument("--n", type=int, default=200)
    given = parser.parse_args()
    inner = given.bundle / "bundle"
    model = rlprune.load(inner if inner.is_dir() else given.bundle)
    shutil.rmtree(given.out, ignore_errors=True)
    for name in ("pictures", "pixels"):
        (given.out / name).mkdir(parents=True)
    ready = given.bundle / "dynamic.onnx"
    if ready.exists():
        shutil.copy(ready, given.out)
    else:
        save_onnx(given.out / "dynamic.onnx", model)
    (given.out / "labels.txt").write_text("".join(f"{name}\n" for name in model.classes))
    copy(given.images, given.out / "pictures", given.n) if given.images else draw(given.out / "pictures", given.n)
    paths = sorted((given.out / "pictures").iterdir())
    images = torch.cat([read_images([path], model.image_shape, model.preprocessing) for path in paths])
    found = model(images)
    rows = []
    for path, pixels, label, macs, probabilities in zip(
        paths, images, found.labels.tolist(), found.macs.tolist(), found.probabilities, strict=True
    ):
        (given.out / "pixels" / f"{path.name}.bin").write_bytes(pixels.numpy().tobytes())
        row = {"label": label, "name": model.classes[label], "macs": macs, "probability": float(probabilities[label])}
        rows.append({"picture": path.name, **row})
    (given.out / "expected.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{len(rows)} pictures of {len({*found.labels.tolist()})} classes at {len({*found.macs.tolist()})} costs")


if __name__ == "__main__":
    main()
