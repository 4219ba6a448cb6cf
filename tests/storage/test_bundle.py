from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ranged
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import KINDS, make_data, make_elastic, make_levels, make_policy
from started import run

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.errors import BundleError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import load, save_bundle
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.policies import load_policy, save_policy

NETWORK = make_elastic("residual")
DATA = make_data(30)
BOOK = sorted_codebook(make_levels(NETWORK, 6, seed=3), Cost(NETWORK))
POLICY = make_policy(NETWORK, DATA, BOOK, max_passes=2, seed=1)
FILES = (
    *("manifest.json", "manifest.sha256", "network.json", "network.safetensors"),
    *("policy.json", "policy.safetensors"),
)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "bundle", NETWORK, POLICY, DATA, {"note": "a note"})
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that a test may change if it changes it back."""
    path = tmp_path_factory.mktemp("pristine") / "bundle"
    save_bundle(path, NETWORK, POLICY, DATA)
    return path


def check_same(actual: Prediction, expected: Prediction) -> None:
    for name, value in expected.__getstate__().items():
        found = getattr(actual, name)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value, name


def sign(folder: Path, **change: Any) -> None:
    """Make the checksums right again, as somebody who means harm would."""
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    names = [name for name in manifest["sha256"] if (folder / name).exists()]
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    packed = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(packed)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(packed).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_predicts_what_was_saved(kind: str, tmp_path: Path) -> None:
    network = make_elastic(kind)
    policy = make_policy(network, DATA, sorted_codebook(make_levels(network, 4), Cost(network)), max_passes=2)
    save_bundle(tmp_path / "bundle", network, policy, DATA, {"penalty": 0.1})
    loaded = load(tmp_path / "bundle")
    check_same(loaded(DATA.images), DynamicCNN(network, policy, DATA.mean, DATA.std, DATA.classes)(DATA.images))
    assert (loaded.mean, loaded.std, loaded.classes) == (DATA.mean, DATA.std, DATA.classes)
    assert loaded.metadata == {"penalty": 0.1}


def test_a_network_and_a_policy_alone(tmp_path: Path) -> None:
    save_network(tmp_path / "network", NETWORK, DATA, {"model": "mine"})
    save_policy(tmp_path / "policy", POLICY, {"steps": 3})
    network, policy = load_network(tmp_path / "network"), load_policy(tmp_path / "policy")
    levels = make_levels(NETWORK, len(DATA))
    assert torch.equal(network.network(DATA.normalised(), levels), NETWORK(DATA.normalised(), levels))
    assert all(torch.equal(value, POLICY.tensors()[name]) for name, value in policy.policy.tensors().items())
    assert (network.metadata, policy.metadata) == ({"model": "mine"}, {"steps": 3})


def test_a_bundle_s_parts_can_be_read_alone_and_saved_again(folder: Path, tmp_path: Path) -> None:
    network, policy = load_network(folder), load_policy(folder)
    save_bundle(tmp_path / "again", network.network, policy.policy, network.data)
    for name in FILES[2:]:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_folder_holds_what_the_documentation_lists_and_sha256sum_agrees(folder: Path) -> None:
    assert tuple(sorted(os.listdir(folder))) == FILES
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sha256"] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES[2:]}
    check = subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=folder, capture_output=True)
    assert (check.returncode, check.stdout) == (0, b"manifest.json: OK\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(pristine: Path, name: str, where: float, bit: int) -> None:
    content = (pristine / name).read_bytes()
    changed = bytearray(content)
    changed[int(where * len(content))] ^= 1 << bit
    (pristine / name).write_bytes(changed)
    try:
        with pytest.raises(BundleError, match=r"has been altered: its SHA-256 is not"):
            load(pristine)
    finally:
        (pristine / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_shortened_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    blamed = "manifest.json" if name == "manifest.sha256" else name
    with pytest.raises(BundleError, match=rf"bundle/{blamed} has been altered"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"bundle/{name} cannot be read \(No such file .*\); is .*bundle a folder"):
        load(folder)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", POLICY, {})
    with pytest.raises(BundleError, match="policy holds a policy; a bundle is needed; `rlprune export"):
        load(tmp_path / "policy")
    with pytest.raises(BundleError, match="policy holds a policy; a network or bundle is needed"):
        load_network(tmp_path / "policy")
    with pytest.raises(BundleError, match=r"nowhere/manifest\.json cannot be read"):
        load(tmp_path / "nowhere")
    sign(folder, format=3)
    later = r"bundle has format 3, written by rlprune [\d.]+; this is rlprune [\d.]+, which reads format 2 and earlier"
    with pytest.raises(BundleError, match=later):
        load(folder)


def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BundleError, match="exists and is no folder that rlprune wrote; name another one"):
        save_bundle(tmp_path, NETWORK, POLICY, DATA)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_policy_for_another_network_is_not_bundled(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the policy was trained for another network: its lowest levels"):
        save_bundle(tmp_path / "bundle", make_elastic("plain"), POLICY, DATA)
    assert os.listdir(tmp_path) == []


# Content that carries the right checksums and is wrong all the same


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(value)))

    return apply


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda folder: (folder / "network.json").write_text("{"), "the stored network is malformed: JSONDecodeError"),
        (
            lambda folder: (folder / "policy.json").write_bytes(b"\xff\xfe"),
            "the stored policy is malformed: UnicodeDecode",
        ),
        (lambda folder: (folder / "network.safetensors").write_bytes(b"x" * 99), "the stored network is malformed"),
        (lambda folder: (folder / "policy.safetensors").write_bytes(b""), "the stored policy is malformed: Safetensor"),
        (put("network.json", lambda _: []), "the stored network is malformed: TypeError"),
        (put("network.json", lambda value: value | {"groups": value["groups"][:1]}), "is malformed|another network"),
        (put("policy.json", lambda value: value | {"pool": 7}), "trained for another network: its features"),
        (lambda folder: sign(folder, sha256={}), r"network\.json has been altered"),
        (lambda folder: sign(folder, data={}), "the stored manifest is malformed: KeyError"),
    ],
)
def test_forged_content_is_an_error_of_ours(folder: Path, forge: Callable[[Path], Any], message: str) -> None:
    forge(folder)
    if message.find("altered") < 0:
        sign(folder)
    with pytest.raises(BundleError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_what_a_bundle_names_is_never_imported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    original = (folder / "network.json").read_text()

    def body(value: Any) -> Any:
        return value["body"]["nodes"]

    def function(value: Any) -> None:
        next(node for node in body(value) if node["op"] == "call_function")["target"] = "harmful.run"

    def layer(value: Any) -> None:
        next(iter(value["body"]["layers"].values()))["type"] = "harmful.Layer"

    def name(value: Any) -> None:
        body(value)[1]["name"] = "x=__import__('harmful')#"

    for harm in (function, layer, name):
        value = json.loads(original)
        harm(value)
        (folder / "network.json").write_text(json.dumps(value))
        sign(folder)
        with pytest.raises(BundleError, match=r"the stored network is malformed: .* is not allowed"):
            load(folder)
    assert "harmful" not in sys.modules and not (tmp_path / "ran").exists()


# Where only the core is installed

CORE_ONLY = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))  # an import of any of them says that there is none
import torch
torch.set_num_threads(1)
import rlprune
dynamic = rlprune.load(sys.argv[2])
torch.save(dynamic(torch.load(sys.argv[3])).__getstate__(), sys.argv[4])
"""
NOT_CORE = (
    *("gymnasium", "stable_baselines3", "tensorboard", "matplotlib", "pandas", "mlxtend", "datasets", "pyarrow"),
    *("onnx", "onnxruntime", "cloudpickle"),
)


def test_a_bundle_predicts_where_neither_learner_nor_extras_are_installed(folder: Path, tmp_path: Path) -> None:
    torch.save(DATA.images, tmp_path / "images.pt")
    run(CORE_ONLY, " ".join(NOT_CORE), folder, tmp_path / "images.pt", tmp_path / "predicted.pt")
    predicted = Prediction(**torch.load(tmp_path / "predicted.pt"))
    check_same(predicted, load(folder)(DATA.images))


def test_the_core_imports_no_learner_and_no_extra() -> None:
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "rlprune").rglob("*.py")]
    outside = (
        *("rlprune.__main__", "rlprune.cli", "rlprune.cluster", "rlprune.optimization", "rlprune.pipelines"),
        "rlprune.utils.tensorboard",
    )
    core = [name for name in (".".join(file.parts) for file in sorted(files)) if not name.startswith(outside)]
    code = "import importlib, sys\nfor name in sys.argv[1].split(): importlib.import_module(name)\n"
    loaded = run(code + "print(*sys.modules)", " ".join(core)).split()
    assert "rlprune.deployment.dynamic_cnn" in loaded
    assert [name for name in NOT_CORE if name in loaded] == []


def test_a_bundle_for_another_number_of_classes_is_not_written(tmp_path: Path) -> None:
    other = replace(DATA, classes=tuple("abcdefg"))
    policy = make_policy(NETWORK, other, BOOK)
    for misfit, data, message in (
        (policy, DATA, "its outputs are 7, the network's 5"),
        (POLICY, other, "its classes are 5, the network's 7"),
    ):
        with pytest.raises(BundleError, match=f"the policy was trained for another network: {message}"):
            save_bundle(tmp_path / "bundle", NETWORK, misfit, data)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_for_a_range_of_penalties_decides_at_the_one_in_its_notes(tmp_path: Path) -> None:
    save_bundle(tmp_path / "noted", ranged.NETWORK, ranged.make_ranged(), ranged.DATA, {"penalty": 0.02})
    save_bundle(tmp_path / "bare", ranged.NETWORK, ranged.make_ranged(), ranged.DATA, {"penalty": [0.01, 1.0]})
    assert load(tmp_path / "noted").penalty == 0.02
    assert load(tmp_path / "noted").at(penalty=0.5).penalty == 0.5
    assert load(tmp_path / "bare").penalty == pytest.approx(0.1)  # the middle
    save_bundle(tmp_path / "outside", ranged.NETWORK, ranged.make_ranged(), ranged.DATA, {"penalty": 3.0})
    with pytest.raises(BundleError, match=r"penalty is 3\.0; the policy was trained for 0\.01 to 1"):
        load(tmp_path / "outside")
