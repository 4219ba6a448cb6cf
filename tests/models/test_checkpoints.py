"""One network's weights in the forms that people and libraries keep them in."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from rlprune.errors import ModelError
from rlprune.models.weights import load_weights, save_weights


class Small(nn.Module):
    """A network with a batch norm and tied convolutions."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.first(self.stem(images)).relu()).relu()
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


class Around(nn.Module):
    """Another network around it, as in Lightning."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer


def plain(model: Small, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "plain.pth")
    return folder / "plain.pth"


def tensors(model: Small, folder: Path) -> Path:
    save_weights(model, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def parallel(model: Small, folder: Path) -> Path:
    torch.save({"state_dict": nn.DataParallel(model).state_dict(), "best_acc1": np.float64(91.2)}, folder / "best.tar")
    return folder / "best.tar"


def compiled(model: Small, folder: Path) -> Path:
    torch.save(torch.compile(model).state_dict(), folder / "compiled.pt")
    return folder / "compiled.pt"


def torchvision(model: Small, folder: Path) -> Path:
    args = argparse.Namespace(model="small", lr=0.1, output_dir=Path("out"), world_size=1)
    step = torch.optim.lr_scheduler.StepLR(optimizer(Small()), 3)
    saved = {"model": model.state_dict(), "optimizer": optimizer(Small()).state_dict(), "args": args, "epoch": 3}
    torch.save(saved | {"lr_scheduler": step.state_dict()}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def lightning(model: Small, folder: Path) -> Path:
    state = Around(model=model).state_dict()
    more = {"callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}}, "hyper_parameters": {"lr": 0.1}}
    states = {"optimizer_states": [optimizer(Small()).state_dict()], "lr_schedulers": [], "loops": {"fit_loop": {}}}
    torch.save(
        {"epoch": 3, "state_dict": state, "pytorch-lightning_version": "2.4.0"} | more | states, folder / "a.ckpt"
    )
    return folder / "a.ckpt"


def timm(model: Small, folder: Path) -> Path:
    training = Small(1)  # what is trained differs from its average
    args = argparse.Namespace(model="small", lr=0.1)
    try:
        savers = importlib.import_module("timm.utils")
    except (ImportError, RuntimeError):  # not here, or torchvision's operators are not: what its CheckpointSaver writes
        states = {"state_dict": training.state_dict(), "optimizer": optimizer(training).state_dict()}
        more = {"epoch": 3, "arch": "small", "version": 2, "args": args, "metric": 91.2}
        torch.save(more | states | {"state_dict_ema": model.state_dict()}, folder / "last.pth.tar")
    else:
        average = savers.ModelEmaV2(model)
        saver = savers.CheckpointSaver(training, optimizer(training), args, average, checkpoint_dir=str(folder))
        saver.save_checkpoint(3, 91.2)
    return folder / "last.pth.tar"


def under_net(model: Small, folder: Path) -> Path:
    torch.save({"net": nn.DataParallel(model).state_dict(), "acc": 93.1, "epoch": 7}, folder / "ckpt.t7")
    return folder / "ckpt.t7"


def tutorial(model: Small, folder: Path) -> Path:
    saved = {"epoch": 5, "model_state_dict": model.state_dict(), "loss": torch.tensor(0.4)}
    torch.save(saved | {"optimizer_state_dict": optimizer(Small()).state_dict()}, folder / "model.pt")
    return folder / "model.pt"


def hugging_face(model: Small, folder: Path) -> Path:
    (folder / "hub").mkdir()
    (folder / "hub" / "config.json").write_text(json.dumps({"architecture": "small", "num_classes": 4}))
    save_model(model, str(folder / "hub" / "model.safetensors"))
    return folder / "hub"


def tied(model: Small, folder: Path) -> Path:
    save_model(model, str(folder / "tied.safetensors"))
    return folder / "tied.safetensors"


FORMS = (*(plain, tensors, parallel, compiled, torchvision, lightning, timm, under_net, tutorial, hugging_face, tied),)


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_eleven_forms_load_alike(form: Callable[[Small, Path], Path], tmp_path: Path) -> None:
    model = Small()
    path = form(model, tmp_path)
    other = Small(2)
    load_weights(other, path)
    assert same(other, model) and other.second.weight is other.first.weight


def pickled(model: Small, folder: Path) -> Path:
    torch.save(model, folder / "whole.pt")
    return folder / "whole.pt"


def script(model: Small, folder: Path) -> Path:
    torch.jit.trace(model.eval(), torch.rand(1, 3, 8, 8)).save(str(folder / "script.pt"))  # type: ignore[no-untyped-call]
    return folder / "script.pt"


def pointer(_: Small, folder: Path) -> Path:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 60024\n"
    (folder / "pointer.safetensors").write_text(text)
    return folder / "pointer.safetensors"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("form", "message"),
    [
        (pickled, r"whole\.pt cannot be read: it holds the object \S*test_checkpoints\.Small, .*--trust-pickle"),
        (script, r"script\.pt cannot be read: it is TorchScript, .*--trust-pickle"),
        (pointer, r"pointer\.safetensors cannot be read: it is a pointer of Git LFS, .*: run git lfs pull"),
    ],
)
def test_three_forms_are_refused_with_the_cure(
    form: Callable[[Small, Path], Path], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Small()
    path = form(model, tmp_path)
    with pytest.raises(ModelError, match=message) as refused:
        load_weights(Small(1), path)
    if form is pointer:
        return
    lines = str(refused.value).splitlines()[1:]
    assert len(lines) == 3
    exec("\n".join(line.strip() for line in lines), {})  # what the message says to do, done
    cured, trusting = Small(1), Small(2)
    load_weights(cured, path.with_suffix(".weights.pt"))
    load_weights(trusting, path, trust_pickle=True)
    assert same(cured, model) and same(trusting, model)


def load(saved: Any, path: Path, *, model: nn.Module | None = None) -> nn.Module:
    model = model or Small(1)
    torch.save(saved, path)
    load_weights(model, path)
    return model


def behind(prefix: str, model: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "net.", "encoder.", "module.model.net._orig_mod."]
)
def test_a_prefix_is_removed_and_one_line_says_so(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pt"
    assert same(load(behind(prefix, Small()), path), Small())
    assert capsys.readouterr().err == f"rlprune: {path}: removed the prefix '{prefix}' from the names\n"
    load(Small().state_dict(), path)
    assert capsys.readouterr().err == ""


def test_other_networks_in_the_file_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = {"state_dict": behind("model.", Small()) | {"loss.weight": torch.ones(3)}}
    assert same(load(saved, tmp_path / "a.ckpt"), Small())
    assert (
        "removed the prefix 'model.' from the names and left out what lacks it: loss.weight" in capsys.readouterr().err
    )
    assert same(load({"net_g": Small().state_dict(), "net_d": {"weight": torch.ones(2)}}, tmp_path / "b.pt"), Small())
    assert "took 'net_g' and not 'net_d'" in capsys.readouterr().err
    both = behind("student.", Small()) | behind("teacher.", Small(2))
    with pytest.raises(ModelError, match=r"more than once \(removed the prefix 'student\.' .* begin with 'teacher\.'"):
        load(both, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"weights of this network at 'a', 'b'; save those you mean alone"):
        load({"a": Small().state_dict(), "b": Small(2).state_dict()}, tmp_path / "d.pt")


def test_averaged_weights_go_first_and_a_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    average = torch.optim.swa_utils.AveragedModel(Small())
    saved = {"model": Small(2).state_dict(), "model_ema": average.state_dict()}
    assert same(load(saved, tmp_path / "a.pth"), Small())
    assert "took 'model_ema' and not 'model'; removed the prefix 'module.'" in capsys.readouterr().err


def test_wrappers_inside_of_names_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Small()
    model.stem = nn.DataParallel(model.stem)  # type: ignore[assignment]
    assert same(load(model.state_dict(), tmp_path / "a.pt"), Small())
    assert "removed module from inside the names" in capsys.readouterr().err


def test_a_network_around_another_takes_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(Small().state_dict(), tmp_path / "a.pt", model=Around(inner=Small(1)))
    assert same(model, Around(inner=Small()))
    assert "put the prefix 'inner.' before the names" in capsys.readouterr().err


def test_shards_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in Small().state_dict().items()}
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(state)}
    for file in set(files.values()):
        save_file({name: state[name] for name in state if files[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    model = Small(1)
    load_weights(model, tmp_path)
    assert same(model, Small())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors, which model\.safetensors\.index"):
        load_weights(model, tmp_path)


def test_old_and_small_formats_are_read(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = Small(1)
    load_weights(model, tmp_path / "old.pth")
    assert same(model, Small())
    half = load(Small().half().state_dict(), tmp_path / "half.pt")
    assert torch.equal(half.get_parameter("head.weight"), Small().head.weight.half().float())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    model = Small()
    with torch.no_grad():
        model.first.bias[3] = value
        model.stem[1].running_var[0] = value  # type: ignore[index, operator]
    with pytest.raises(ModelError, match=r"not finite \(NaN or infinite\) in stem\.1\.running_var, first\.bias;"):
        load(model.state_dict(), tmp_path / "bad.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"it is empty: download or write it again"),
        (b"<!DOCTYPE html><html>", r"it is a web page, perhaps of a download that failed"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"it is damaged or needs pickle, or is no file of weights"),
    ],
)
def test_files_of_another_kind_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_weights(Small(), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"has no weights; one of model\.safetensors, .* is needed"):
        load_weights(Small(), tmp_path)
