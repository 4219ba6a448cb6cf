"""Tries the networks of zoo.toml, each in a process of its own: what can be pruned, and whether it is exact.

    python tests/zoo.py                        all of them
    python tests/zoo.py timm:resnet18 ...      some of them
    python tests/zoo.py --json FILE ...        also writes the rows to a file; those of other networks stay in it

For each: groups and how many of them can be dropped; the share of MACs that is left at least; how long `from_model`
takes, with the memory that it needs; and whether all of this holds:

- full: the whole profile gives the network's logits;
- slices: five profiles give the same as masks and as slices;
- cost: costs equal an independent count;
- bundle: a bundle gives the same logits in another process;
- onnx: an ONNX file gives the same logits for one image and for three;
- trained: a step of training has a loss that is finite, and changes the weights;
- resolutions: slices and costs hold at lower resolutions, too, or the network is refused for running at one alone.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.models import registry
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import load, save_bundle
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

N_CLASSES = 10
LIST = Path(__file__).with_name("zoo.toml")
CHECKS = ("full", "slices", "cost", "bundle", "onnx", "trained", "resolutions")
COLUMNS = ("network", "groups", "skippable", "down to %", "s", "MiB", *CHECKS, "says")
SECONDS = 600
"""How long one network may take."""


def names() -> list[str]:
    """All networks of the list, as `library:name`."""
    listed = tomllib.loads(LIST.read_text())
    return [f"{library}:{name}" for library in ("torchvision", "timm") for name in listed[library]["names"]]


def image_size(name: str) -> int:
    """Height and width at which a network is tried."""
    listed = tomllib.loads(LIST.read_text())
    return int(listed["sizes"].get(name, listed[name.partition(":")[0]]["size"]))


def build(name: str) -> nn.Module:
    """A network by `library:name`, with fresh weights and norms that are not the identity."""
    torch.manual_seed(0)
    return lively(registry.build(name, N_CLASSES)).eval()


@torch.no_grad()
def lively(model: nn.Module) -> nn.Module:
    """Give norms and scales other values than 0 and 1, so that nothing hides behind them."""
    for module in model.modules():
        for buffer, low, high in (("running_mean", -0.2, 0.2), ("running_var", 0.7, 1.4)):
            if isinstance(getattr(module, buffer, None), Tensor):
                getattr(module, buffer).uniform_(low, high)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.empty_like(parameter).uniform_(0.0, 0.2))
    return model


@torch.no_grad()
def calibrated(model: nn.Module, size: int) -> nn.Module:
    """Give norms the statistics of random images, so that a deep network does not amplify rounding."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(2)))
    return model.eval()


@torch.no_grad()
def examine(name: str) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"network": name}
    shape = (3, image_size(name), image_size(name))
    model = build(name)
    if name in tomllib.loads(LIST.read_text())["calibrated"]["names"]:
        model = calibrated(model, shape[1])
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    before = _peak()
    try:
        elastic = ElasticCNN.from_model(model, shape)
    except RLPruneError as error:
        return row | {"s": round(time.perf_counter() - began, 1), "says": _shortened(str(error))}
    row |= {"s": round(time.perf_counter() - began, 1), "MiB": _peak() - before}
    cost = Cost(elastic)
    least = float(cost.of(elastic.uniform(0)).macs / cost.dense.macs)
    skippable = sum(group.skippable for group in elastic.groups)
    row |= {"groups": elastic.n_groups, "skippable": skippable, "down to %": round(100 * least, 1)}
    row["full"] = _close(elastic(images, elastic.full), model(images))
    row["slices"], row["cost"] = _slices_are_right(elastic, images)
    says = _deployed(elastic, row)
    try:
        row["resolutions"] = all(_slices_are_right(ElasticCNN.from_model(model, shape, resolution=True), images))
    except RLPruneError as error:
        row["resolutions"] = "at full resolution only" in str(error)
        says.append(_shortened(str(error)))
    row["says"] = "; ".join([*says, *_by_reason([(item.name, item.reason) for item in elastic.unprunable])])
    return row


def _slices_are_right(elastic: ElasticCNN, images: Tensor) -> tuple[bool, bool]:
    """Whether five random profiles give the same as masks and as slices, and whether costs are what is counted."""
    cost = Cost(elastic)
    slices = costs = True
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        share = torch.rand(elastic.n_groups, generator=generator)
        profile = elastic.min_level + (share * (elastic.n_levels - elastic.min_level)).long()
        small = elastic.slice(profile)
        slices &= _close(small(images), elastic(images, profile.expand(2, -1)))
        with FlopCounterMode(display=False) as counter:
            small(images[:1])
        counted = (sum(p.numel() for p in small.parameters()), counter.get_total_flops() // 2)
        costs &= tuple(int(value) for value in cost.of(profile)) == counted
    return slices, costs


def _by_reason(layers: list[tuple[str, str]]) -> list[str]:
    """Why layers are left alone: each reason once, with the first of the layers that it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in layers:
        names.setdefault(re.sub(r"^\S+ \((\w+)\)", r"a \1", reason), []).append(name)
    more = {reason: f" and {len(found) - 1} more" if len(found) > 1 else "" for reason, found in names.items()}
    return [f"{found[0]}{more[reason]}: {reason}" for reason, found in names.items()]


def _shortened(message: str) -> str:
    """An error that lists the reasons of all layers, with each reason once."""
    about, point, rest = message.partition(". ")
    layers = [tuple(each.split(": ", 1)) for each in rest.split("; ")]
    if not all(len(each) == 2 for each in layers):
        return message
    return f"{about}{point}{'; '.join(_by_reason(layers))}"


def _deployed(elastic: ElasticCNN, row: dict[str, Any]) -> list[str]:
    """Check what is made of an elastic network, and the training of it; why some of that fails."""
    says = []
    images = torch.randint(0, 256, (4, *elastic.image_shape), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(4), tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)
    policy = _undecided(elastic, data)
    with tempfile.TemporaryDirectory() as folder:
        for name, check in (("bundle", _bundle_is_right), ("onnx", _onnx_is_right), ("trained", _is_trained)):
            try:
                row[name] = check(elastic, data, policy, Path(folder))
            except (RLPruneError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                row[name] = False
                says.append(f"{name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    return says


def _undecided(elastic: ElasticCNN, data: ImageSet) -> Policy:
    """A policy of random weights over the smallest and the whole profile that chooses both, if one is found."""
    codebook = sorted_codebook(torch.stack([elastic.uniform(elastic.narrowest), elastic.full]), Cost(elastic))
    observer = Observer.fit(elastic, data, max_passes=1)
    actions = Actions.from_network(elastic, "profiles", codebook, 1)
    for seed in range(20):
        policy = Policy((observer.size, 4, actions.n_outputs), "Tanh", observer, actions, codebook).eval()
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dynamic = DynamicCNN(elastic, policy, data.mean, data.std, data.classes)
        if len(dynamic(data.images[:3]).profiles.unique()) == 2:
            break
    return policy


def _logits(elastic: ElasticCNN, data: ImageSet, policy: Policy) -> Tensor:
    """Of the first three images under the profiles that the policy chooses, by masks."""
    dynamic = DynamicCNN(elastic, policy, data.mean, data.std, data.classes)
    chosen = dynamic(data.images[:3]).profiles[:, 0]
    logits: Tensor = elastic(data.normalised()[:3], policy.codebook[chosen])
    return logits


def _bundle_is_right(elastic: ElasticCNN, data: ImageSet, policy: Policy, folder: Path) -> bool:
    save_bundle(folder / "bundle", elastic, policy, data, {})
    torch.save(data.images, folder / "images.pt")
    command = [sys.executable, __file__, "--bundle", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    expected = _logits(elastic, data, policy).softmax(1)
    return _close(torch.load(folder / "found.pt"), expected)


def _run_bundle(folder: Path) -> None:
    """What another process does with the bundle."""
    found = load(folder / "bundle")(torch.load(folder / "images.pt")[:3])
    torch.save(found.probabilities, folder / "found.pt")


def _onnx_is_right(elastic: ElasticCNN, data: ImageSet, policy: Policy, folder: Path) -> bool:
    path = folder / "dynamic.onnx"
    save_onnx(path, DynamicCNN(elastic, policy, data.mean, data.std, data.classes))
    session = OnnxCNN(path, 1).session
    expected = _logits(elastic, data, policy)
    found = [session.run(["logits"], {"images": data.images[:n].numpy()})[0] for n in (1, 3)]
    return all(_close(torch.from_numpy(each), expected[: len(each)]) for each in found)


def _is_trained(elastic: ElasticCNN, data: ImageSet, policy: Policy, folder: Path) -> bool:
    before = {name: parameter.clone() for name, parameter in elastic.named_parameters()}
    losses: list[float] = []
    settings = AdaptSettings(epochs=1, batch_size=4, n_random=1, learning_rate=1e-3, warm_up=0.0, bf16=False)
    with torch.enable_grad():
        adapt(elastic, data, settings, log=lambda step, figures: losses.append(figures["loss"]))
    changed = [not torch.equal(before[name], parameter) for name, parameter in elastic.named_parameters()]
    return bool(torch.tensor(losses).isfinite().all()) and sum(changed) > len(changed) / 2


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-3 * b.abs().max())


def _peak() -> int:
    """Most memory that this process has used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def examine_apart(name: str) -> dict[str, Any]:
    """`examine` in a process of its own, which may take so long and no longer."""
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"network": name, "says": f"not done after {SECONDS} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"network": name, "says": (done.stderr.strip().splitlines() or ["died"])[-1]}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def passed(row: dict[str, Any]) -> bool:
    """Whether a network is taken, and right."""
    return all(row.get(column) is True for column in CHECKS)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a file, in the order of the list; those of other networks that it has stay."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    known = {row["network"]: row for row in [*before, *rows]}
    versions = {library: version(library) for library in ("timm", "torchvision")}
    kept = [known[name] for name in names() if name in known]
    write_json(path, {**conditions(), **versions, "rows": kept})


def main() -> int:
    """Print the table; the number of networks that are refused or wrong."""
    parser = argparse.ArgumentParser(description="Try the networks of zoo.toml.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return 0
    if options.bundle:
        _run_bundle(options.bundle)
        return 0
    print(" | ".join(COLUMNS))
    rows = []
    for name in options.names or names():
        row = examine_apart(name)
        rows.append(row)
        if options.json:
            write_rows(options.json, rows)
        print(" | ".join(str(row.get(column, ""))[:150] for column in COLUMNS), flush=True)
    for library in ("torchvision", "timm"):
        own = [row for row in rows if row["network"].startswith(library)]
        print(f"{library}: {sum(map(passed, own))} of {len(own)}")
    return sum(not passed(row) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
