"""Data sets in which every image can be told apart, as callables (`my_data:hundred`), folders and tables."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import colours as make_colours
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.loading import load

PARTS = ("network", "policy", "validation", "test")


class Codes(Dataset[Any]):
    """Image i is filled with the value i and has the label i % 2, so that every image can be told apart."""

    classes = ("even", "odd")

    def __init__(self, n: int, first: int = 0) -> None:
        self.n, self.first = n, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, int]:
        code = self.first + index
        if code % 3 == 0:
            return Image.new("L", (4, 3), code), code % 2
        if code % 3 == 1:
            return torch.full((1, 3, 4), code, dtype=torch.uint8), code % 2
        return torch.full((3, 4), code / 255), code % 2


def hundred() -> Codes:
    return Codes(100)


def with_test() -> tuple[Codes, Codes]:
    return Codes(100), Codes(20, first=100)


class Renamed(Codes):
    """The same images, whose labels stand for other classes."""

    classes = ("odd", "even")


def renamed() -> Any:
    return torch.utils.data.Subset(Codes(100), range(100)), Renamed(20, first=100)


def a_list() -> list[Codes]:
    return [*with_test()]


def by_name() -> dict[str, Codes]:
    return {"train": Codes(100), "val": Codes(10, first=200), "test": Codes(20, first=100)}


class Converted(Codes):
    """The same images in another form."""

    def __init__(self, convert: Callable[[Any, int], Any]) -> None:
        super().__init__(100)
        self.convert = convert

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        if isinstance(image, torch.Tensor):
            image = image.numpy()
        return self.convert(np.asarray(image), label)


def dictionaries() -> Converted:
    return Converted(lambda image, label: {"image": image, "label": label, "caption": "a code"})


def other_keys() -> Converted:
    return Converted(lambda image, label: {"photo": image, "kind": label})


def arrays() -> Converted:
    return Converted(lambda image, label: (image, np.int64(label)))


def hub_splits() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    parts = {"train": table(20), "validation": table(6, first=200), "test": table(6, first=100)}
    return datasets.DatasetDict(
        {name: datasets.Dataset.from_dict(t.to_pydict(), features) for name, t in parts.items()}
    )


def hub_table() -> Any:
    return hub_splits()["train"]


def three_images() -> Codes:
    return Codes(3)


def tensors(images: torch.Tensor, labels: list[Any] | None = None) -> TensorDataset:
    return TensorDataset(images, torch.tensor(labels if labels is not None else [i % 2 for i in range(len(images))]))


def normalised_images() -> TensorDataset:
    return tensors(torch.full((20, 1, 2, 2), -0.5))


def white_images() -> TensorDataset:
    return tensors(torch.ones(20, 1, 2, 2))


def int64_images() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2, dtype=torch.int64))


def four_channels() -> TensorDataset:
    return tensors(torch.zeros(20, 4, 2, 2))


def fractional_labels() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [0.5] * 20)


def labels_from_one() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [1, 2] * 10)


def negative_labels() -> TensorDataset:
    return tensors(torch.zeros(20, 1, 2, 2), [0, -1] * 10)


def labels_in_test_only() -> tuple[TensorDataset, TensorDataset]:
    images = torch.zeros(20, 1, 2, 2)
    return tensors(images), tensors(images, [2] * 20)


def too_many_labels() -> Codes:
    codes = Codes(100)
    codes.classes = ("even",)  # type: ignore[assignment]
    return codes


def five_colours() -> TensorDataset:
    images = make_colours(100)
    return tensors(images.images, images.labels.tolist())


def few_digits() -> TensorDataset:
    """What stands for mnist5k where a test is about the way and not about the figures."""
    test = load("mnist5k").test
    return tensors(test.images[:300], test.labels[:300].tolist())


def not_pairs() -> list[int]:
    return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def no_length() -> object:
    return object()


def codes(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def all_codes(splits: Splits) -> list[list[int]]:
    return [codes(getattr(splits, part)) for part in PARTS]


def flat(parts: list[list[int]]) -> list[int]:
    return [code for part in parts for code in part]


def picture(code: int, size: tuple[int, int] = (4, 3)) -> Image.Image:
    noise = np.random.default_rng(code).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[0, 0] = code
    return Image.fromarray(noise)


def write_folders(root: Path, n: int = 20, first: int = 0) -> Path:
    for code in range(first, first + n):
        folder = root / ("cat", "dog")[code % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(code).save(folder / f"{code:03d}.png")
    return root


def table(n: int = 20, first: int = 0, **columns: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")

    def png(code: int) -> bytes:
        file = io.BytesIO()
        picture(code).save(file, "png")
        return file.getvalue()

    every = range(first, first + n)
    content = {
        "img": [{"bytes": png(code), "path": f"{code}.png"} for code in every],
        "label": [code % 2 for code in every],
        **columns,
    }
    return pyarrow.table({name: column for name, column in content.items() if column is not None})


def write_parquet(path: Path, content: Any, classes: tuple[str, ...] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if classes:
        features = {"label": {"names": classes, "_type": "ClassLabel"}}
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pytest.importorskip("pyarrow.parquet").write_table(content, path, row_group_size=7)
    return path
