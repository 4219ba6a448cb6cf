from __future__ import annotations

from pathlib import Path

import pytest
import torch
from my_data import write_folders
from nets import make_elastic
from torch import nn

from rlprune.cli.main import main
from rlprune.data.image_set import ImageSet, Splits
from rlprune.errors import ModelError
from rlprune.intake.options import DataOptions
from rlprune.intake.preparation import load_for, note_of
from rlprune.models import libraries, registry
from rlprune.models.classes import wordnet
from rlprune.models.weights import load_weights, save_weights
from rlprune.pipelines.inputs import build_model
from rlprune.storage.networks import save_network

pytestmark = pytest.mark.usefixtures("apart")
KNOWN = ("bird", "cat", "crow", "dog", "elk", "cat, house cat", "fox")


def images(classes: tuple[str, ...], size: int = 8) -> Splits:
    """Two random images of each class, as all four splits."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2 * len(classes), 3, size, size), dtype=torch.uint8, generator=generator)
    one = ImageSet(pixels, torch.arange(len(pixels)) % len(classes), classes, (0.5,) * 3, (0.5,) * 3)
    return Splits(one, one, one, one)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(images(("a", "b")).test.normalised())
    return found


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return registry.build("digits_cnn", len(KNOWN))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> nn.Module:
    """A library whose network comes with weights for the seven classes."""

    def build(name: str, n_classes: int, in_channels: int, *, pretrained: bool = False) -> nn.Module:
        assert not pretrained or n_classes == len(KNOWN)
        fresh = registry.build("digits_cnn", n_classes)
        if pretrained:
            fresh.load_state_dict(network.state_dict())
        return fresh

    monkeypatch.setattr(libraries, "build", build)
    monkeypatch.setattr(libraries, "pretrained_classes", lambda name: len(KNOWN))
    monkeypatch.setattr(libraries, "class_names", lambda name: list(KNOWN))
    return network


def test_a_library_s_network_keeps_the_classes_of_the_images(
    library: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = images(("Dog", "bird", "house_cat"))
    expected = logits(library)[:, [3, 0, 5]]
    assert torch.allclose(logits(build_model("timm:x", None, splits)), expected, atol=1e-6)
    assert "timm:x: 3 of its 7 classes: dog, bird, cat\n" in capsys.readouterr().err
    torch.save(library.state_dict(), tmp_path / "w.pt")
    assert torch.allclose(logits(build_model("timm:x", tmp_path / "w.pt", splits)), expected, atol=1e-6)
    assert "cat (the weights are taken to be for the same classes as those that" in capsys.readouterr().err
    with pytest.raises(
        ModelError, match=r"timm:x knows 7 classes \(bird, .* 1 of the images' 2 are none of them: 'ox'"
    ):
        build_model("timm:x", tmp_path / "w.pt", images(("ox", "dog")))


def test_as_many_classes_in_another_order_are_put_in_order(
    library: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ordered = ("fox", "bird", "cat", "crow", "dog", "elk", "house cat")
    rows = [6, 0, 1, 2, 3, 4, 5]
    assert torch.allclose(logits(build_model("timm:x", None, images(ordered))), logits(library)[:, rows], atol=1e-6)
    assert "timm:x: its classes in the images' order: fox, bird" in capsys.readouterr().err
    torch.save(library.state_dict(), tmp_path / "w.pt")  # whose order may be that of the images
    assert torch.equal(logits(build_model("timm:x", tmp_path / "w.pt", images(ordered))), logits(library))
    other = ("fox", "bird", "ox", "crow", "dog", "elk", "house cat")
    assert torch.equal(logits(build_model("timm:x", None, images(other))), logits(library))
    assert "timm:x: some of the images' classes have other names; they are taken in" in capsys.readouterr().err


def test_weights_and_folders_of_our_own_say_their_classes(network: nn.Module, tmp_path: Path) -> None:
    everything, few = images(KNOWN), images(("elk", "crow"))
    save_weights(network, tmp_path / "w.safetensors", note_of(everything.network))
    own = build_model("digits_cnn", tmp_path / "w.safetensors", few)
    assert torch.allclose(logits(own), logits(network)[:, [4, 2]], atol=1e-6)
    with pytest.raises(ModelError, match=r"w\.safetensors knows 7 classes .* 2 of the images' 2 are none of them"):
        build_model("digits_cnn", tmp_path / "w.safetensors", images(("ox", "cow")))
    elastic = make_elastic("residual")
    save_network(tmp_path / "net", elastic, images(tuple("abcde"), 16).network, {})
    dense = elastic.slice(elastic.full).eval()
    some = images(("d", "a"), 16)
    kept = build_model("any", tmp_path / "net", some).eval()
    with torch.inference_mode():
        pictures = some.test.normalised()
        assert torch.allclose(kept(pictures), dense(pictures)[:, [3, 0]], atol=1e-6)
        save_network(tmp_path / "old", elastic, images(tuple("01234"), 16).network, {})
        same = build_model("any", tmp_path / "old", images(("tea", "ox", "cow", "dog", "elk"), 16)).eval()
        assert torch.allclose(same(pictures), dense(pictures), atol=1e-6)


def test_weights_that_say_nothing_are_refused_as_ever(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is for 7 classes and not for 2 .* train a new one with"):
        build_model("digits_cnn", tmp_path / "w.pt", images(("dog", "cat")))


def test_the_verbs_say_which_classes_are_not_known(
    network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path / "pets", n=20)  # cats and dogs
    everything = images(("ant", "cat", "cow", "dog"))
    save_weights(registry.build("digits_cnn", 4), tmp_path / "w.safetensors", note_of(everything.network))
    base = "evaluate --model digits_cnn --weights w.safetensors --image-size 8 --data"
    main([*base.split(), "pets"])
    assert "w.safetensors: 2 of its 4 classes: cat, dog" in capsys.readouterr().err
    (tmp_path / "pets" / "cat").rename(tmp_path / "pets" / "lynx")
    with pytest.raises(SystemExit):
        main([*base.split(), "pets"])
    assert "(ant, cat, cow, dog, ...), and 1 of the images' 2 are none of them: 'lynx'; call" in capsys.readouterr().err


@pytest.mark.cifar10
def test_a_network_of_imagenet_tells_ten_of_its_classes(assets: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    if not wordnet():
        pytest.skip("needs timm")
    table = parquet.read_table(assets / "data" / "imagenette224" / "test-00000-of-00001.parquet")
    unseen = [i for i, img in enumerate(table["img"].to_pylist()) if "ILSVRC2012_val_" in img["path"]]
    parquet.write_table(table.take(unseen[::3]), tmp_path / "test.parquet")
    parquet.write_table(table.take(list(range(0, len(table), 80))), tmp_path / "train.parquet")
    (tmp_path / "classes.json").write_text((assets / "data" / "imagenette224" / "classes.json").read_text())
    name, weights = "torchvision:mobilenet_v2", assets / "weights" / "imagenet" / "mobilenet_v2.safetensors"
    test = load_for(name, DataOptions(str(tmp_path)), weights, trained=True).test
    splits = Splits(test, test, test, test)
    model = build_model(name, weights, splits).eval()
    whole = registry.build(name, 1000)
    load_weights(whole, weights)
    with torch.inference_mode():
        own, chosen = (each.eval()(test.normalised()) for each in (model, whole))
    chosen = chosen[:, [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]]
    assert torch.allclose(own, chosen, rtol=1e-5, atol=1e-5) and test.classes[0] == "n01440764"
    assert (own.argmax(1) == test.labels).sum() == 44 and len(test) == 45
