from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune.data.decoding import decode
from rlprune.data.image_set import ImageSet
from rlprune.data.loading import STATISTICS
from rlprune.data.sources import find
from rlprune.errors import ModelError
from rlprune.models.registry import build
from rlprune.models.weights import find_weights, load_weights, save_weights
from rlprune.utils.files import atomic_write


def small() -> nn.Module:
    return nn.Linear(2, 3)


def test_weights_for_other_classes_keep_all_but_the_last_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    trained = build("digits_cnn", n_classes=7, in_channels=1)
    save_weights(trained, path)
    model = build("digits_cnn", in_channels=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"is for 7 classes and not for 10 \(.*\.weight is its last layer"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    load_weights(model, path, new_head=True)
    anew = [key for key, value in model.state_dict().items() if value.shape != trained.state_dict()[key].shape]
    assert len(anew) == 2 and f"the last layer begins anew, because {anew[0]} and {anew[1]}" in capsys.readouterr().err
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in anew else trained.state_dict()[key])
    save_weights(build("m_cifarnet"), path)
    with pytest.raises(ModelError, match="does not fit this"):
        load_weights(model, path, new_head=True)


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    model = build("digits_cnn", in_channels=1).to(memory_format=torch.channels_last)
    save_weights(model, path)
    other = build("digits_cnn", in_channels=1)
    load_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_tied_weights_survive_a_round_trip(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    save_weights(model, tmp_path / "tied.safetensors")
    other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    load_weights(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[0].weight, model[0].weight) and torch.equal(other[1].weight, model[0].weight)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin"])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_pytorch_files_are_unwrapped(tmp_path: Path, suffix: str, key: str | None) -> None:
    weights = {"module.weight": torch.ones(3, 2), "module.bias": torch.arange(3.0)}
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / f"weights{suffix}")
    model = small()
    load_weights(model, tmp_path / f"weights{suffix}")
    assert torch.equal(model.get_parameter("bias"), torch.arange(3.0))
    assert torch.equal(model.get_parameter("weight"), torch.ones(3, 2))


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"bias": torch.ones(4), "scale": torch.ones(1)}, path)
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        ModelError,
        match=r"missing: weight; unexpected: scale; of another shape: bias is \(4,\) instead of \(3,\)",
    ):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("convert", "held"),
    [
        (lambda value: value.to(torch.int8), r"torch\.int8, torch\.strided"),
        (lambda value: value.to_sparse(), r"torch\.float32, torch\.sparse_coo"),
        (lambda value: value.to("meta"), "no values"),
    ],
)
def test_weights_that_are_no_dense_floats_are_refused(convert: Any, held: str, tmp_path: Path) -> None:
    torch.save({name: convert(value) for name, value in small().state_dict().items()}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=rf"x\.pt holds {held} in .*, and weights are dense floating-point numbers"):
        load_weights(small(), tmp_path / "x.pt")


def test_of_many_misfits_the_first_are_named(tmp_path: Path) -> None:
    save_weights(build("resnet20"), tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"missing: layer1\.3\.conv1\.weight, .* and \d+ more\)"):
        load_weights(build("resnet32"), tmp_path / "weights.safetensors")


def test_batch_norms_may_lack_the_number_of_batches(tmp_path: Path) -> None:
    state = {key: value for key, value in build("resnet20").state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "weights.pt")
    model = build("resnet20")
    load_weights(model, tmp_path / "weights.pt")
    assert torch.equal(model.get_parameter("linear.weight"), state["linear.weight"])


class Executed:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_unusable_files_say_what_to_do_and_run_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no weights file .*none\.pt"):
        load_weights(small(), tmp_path / "none.pt")

    torch.save({"weight": Executed(tmp_path / "made")}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil\.pt cannot be read: .*needs pickle, which is never run.*safetensors"):
        load_weights(small(), tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()

    save_weights(small(), tmp_path / "whole.safetensors")
    torch.save(small().state_dict(), tmp_path / "whole.pt")
    for whole in (tmp_path / "whole.safetensors", tmp_path / "whole.pt"):
        cut = whole.with_stem("cut")
        cut.write_bytes(whole.read_bytes()[:-20])
        with pytest.raises(ModelError, match=rf"{cut.name} cannot be read: it is damaged"):
            load_weights(small(), cut)

    torch.save({"epoch": 3}, tmp_path / "no_tensors.pt")
    with pytest.raises(ModelError, match=r"no_tensors\.pt holds no state dict"):
        load_weights(small(), tmp_path / "no_tensors.pt")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old" and list(tmp_path.glob("*file*")) == [path]

    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.glob("*file*")) == [path]


def test_weights_are_found_in_their_folder_or_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, beside = tmp_path / "weights", tmp_path / "recipes"
    for folder, names in ((first, "a"), (beside, "ab")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.pt").touch()
    monkeypatch.setenv("RLPRUNE_WEIGHTS", str(first))
    assert find_weights("a.pt", beside) == first / "a.pt"
    assert find_weights("b.pt", beside) == beside / "b.pt"
    with pytest.raises(ModelError, match=rf"no weights file c\.pt in {first} or {beside}; let RLPRUNE_WEIGHTS name"):
        find_weights("c.pt", beside)
    for none in ("", None):
        if none is None:
            monkeypatch.delenv("RLPRUNE_WEIGHTS")
        else:
            monkeypatch.setenv("RLPRUNE_WEIGHTS", none)
        assert find_weights("a.pt", beside) == beside / "a.pt"
        with pytest.raises(ModelError, match=rf"no weights file c\.pt in {beside}; let"):
            find_weights("c.pt", beside)


def test_weights_may_be_a_folder_or_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLPRUNE_WEIGHTS", raising=False)
    (tmp_path / "a.pt").mkdir()
    assert find_weights("a.pt", tmp_path) == tmp_path / "a.pt"
    (tmp_path / "a.pt" / "b.pt").touch()
    assert find_weights("a.pt/b.pt", tmp_path) == tmp_path / "a.pt" / "b.pt"
    assert find_weights(str(tmp_path / "a.pt" / "b.pt"), tmp_path / "other") == tmp_path / "a.pt" / "b.pt"


@pytest.mark.cifar10
def test_the_public_resnet20_is_as_accurate_as_it_says(assets: Path) -> None:
    pytest.importorskip("pyarrow")
    source = find(str(assets / "data" / "cifar10" / "test-00000-of-00001.parquet"))
    pixels, labels = map(torch.from_numpy, decode(source, range(10_000), None))
    test = ImageSet(pixels[:2000], labels[:2000], source.classes or (), *STATISTICS["cifar10"])
    model = build("resnet20").eval()
    load_weights(model, assets / "weights" / "cifar10" / "resnet20.safetensors")
    with torch.no_grad():
        n_correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test.batches(250))
    # 91.73 % on all 10,000; the standard error of 2,000 of them is 0.62 points.
    assert n_correct / 2000 == pytest.approx(0.9173, abs=3 * 0.0062)
