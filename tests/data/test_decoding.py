from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from my_data import PARTS, picture, write_folders
from PIL import Image

from rlprune.data.loading import load

pytestmark = pytest.mark.usefixtures("apart")


def test_one_image_in_colour_makes_all_of_them_colour(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    for file in root.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    grey = load("pets").network
    assert grey.images.shape[1] == 1
    picture(7).save(root / "dog" / "007.png")
    colour = [getattr(load("pets"), part) for part in PARTS]
    n_grey = sum(int((part.images == part.images[:, :1]).flatten(1).all(1).sum()) for part in colour)
    assert colour[0].images.shape[1] == 3 and n_grey == 19
    same = (colour[0].images[:, :1] == grey.images).flatten(1).all(1)
    assert int(same.sum()) >= len(grey) - 1


def test_image_size_scales_the_shorter_side_and_cuts_out_the_centre(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 15:25] = 200
    Image.fromarray(wide).save(root / "dog" / "001.png")
    found = load("pets", image_size=10)
    pixels = torch.cat([getattr(found, part).images for part in PARTS])
    assert pixels.shape == (20, 3, 10, 10)
    assert int((pixels == 200).flatten(1).all(1).sum()) == 1
