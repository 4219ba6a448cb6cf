"""The parts of the example for browsers that need no browser, run by Node.js; `make browser` runs the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from rlprune.data.decoding import read_images
from rlprune.data.preprocessing import INTERPOLATIONS, Preprocessing

NODE = shutil.which("node")
EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
PREPARE = """
const { prepare } = await import(process.argv[1]);
const cases = JSON.parse(await new Response(process.stdin).text());
const made = ({ width, height, pixels, notes, to }) => {
  const plane = Uint8Array.from(pixels);
  return Array.from(prepare({ width, height, planes: [plane] }, notes, to[1], to[0]).planes[0]);
};
console.log(JSON.stringify(cases.map(made)));
"""
NOTES = """
const { notesOf } = await import(process.argv[1]);
const { readFileSync } = await import("node:fs");
console.log(JSON.stringify(notesOf(readFileSync(process.argv[2]))));
"""
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


def node(code: str, *arguments: Path, given: Any = None) -> Any:
    command = [str(NODE), "--input-type=module", "-e", code, *map(str, arguments)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(PIL.__version__ < "13", reason="earlier versions round in another order")
def test_pictures_become_the_same_pixels() -> None:
    generator = np.random.default_rng(0)
    cases, expected = [], []
    for how in (*INTERPOLATIONS, None):
        for _ in range(12):
            width, height, crop_width, crop_height, more = generator.integers(2, 60, 5).tolist()
            size = max(crop_width, crop_height) + more
            preprocessing = (
                Preprocessing(resize=size, crop=(crop_height, crop_width), interpolation=how) if how else None
            )
            pixels = generator.integers(0, 256, (height, width), dtype=np.uint8)
            images = read_images([Image.fromarray(pixels)], (1, crop_height, crop_width), preprocessing)
            notes = None if preprocessing is None else preprocessing.to_json()
            sizes = {"width": width, "height": height, "to": (crop_height, crop_width)}
            cases.append({**sizes, "pixels": pixels.ravel().tolist(), "notes": notes})
            expected.append(images.flatten().tolist())
    found = node(PREPARE, EXAMPLE / "resize.js", given=cases)
    assert [case["notes"] for case, a, b in zip(cases, found, expected, strict=True) if a != b] == []


def test_notes_are_read_out_of_a_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    notes = {"classes": ["é", "b" * 300], "prices": {"dense": [1, 2**40]}}
    weight = onnx.helper.make_tensor("w", 1, [1000], np.ones(1000, np.float32))
    graph = onnx.helper.make_graph([], "g", [], [], [weight])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"other": "{}", "rlprune": json.dumps(notes), "rlprune.sha256": "0"})
    onnx.save(model, tmp_path / "model.onnx")
    assert node(NOTES, EXAMPLE / "notes.js", tmp_path / "model.onnx") == notes
