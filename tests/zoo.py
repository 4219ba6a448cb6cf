"""Tries the networks of zoo.toml, each in a process of its own: what can be pruned, and whether it is exact.

    python tests/zoo.py                        all of them
    python tests/zoo.py timm:resnet18 ...      some of them
    python tests/zoo.py --json zoo.json        also writes the rows

For each: groups and how many of them can be dropped; whether full keep gives the network's logits; whether five
profiles give the same as masks and as slices; whether costs equal an independent count; whether it can be stored and
read again; the share of MACs that is left at least; and how long `from_model` takes, with the memory that it needs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.profiles.cost import Cost
from rlprune.storage.structure import describe, rebuild

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIST = Path(__file__).with_name("zoo.toml")
COLUMNS = ("network", "groups", "skippable", "down to %", "s", "MiB", "full", "slices", "cost", "stored", "says")
SECONDS = 120
"""How long one network may take."""
_KEPT: list[Any] = []


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
    library, _, plain = name.partition(":")
    if torch.version.cuda is None and not _KEPT:  # the wheels of torchvision expect compiled operators at import
        stubs = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            stubs.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(stubs)
    torch.manual_seed(0)
    if library == "timm":
        import timm

        model = timm.create_model(plain, num_classes=10)
    else:
        from torchvision import models

        extra = {"init_weights": False} if plain in ("googlenet", "inception_v3") else {}
        model = getattr(models, plain)(num_classes=10, **extra)
    return lively(model).eval()


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
def examine(name: str) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"network": name}
    shape = (3, image_size(name), image_size(name))
    model = build(name)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    before = _peak()
    try:
        elastic = ElasticCNN.from_model(model, shape)
    except RLPruneError as error:
        return row | {"s": round(time.perf_counter() - began, 1), "says": str(error)}
    row |= {"s": round(time.perf_counter() - began, 1), "MiB": _peak() - before}
    cost = Cost(elastic)
    least = float(cost.of(elastic.uniform(0)).macs / cost.dense.macs)
    skippable = sum(group.skippable for group in elastic.groups)
    row |= {"groups": elastic.n_groups, "skippable": skippable, "down to %": round(100 * least, 1)}
    row["full"] = _close(elastic(images, elastic.full), model(images))
    row["slices"] = row["cost"] = True
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        share = torch.rand(elastic.n_groups, generator=generator)
        profile = elastic.min_level + (share * (elastic.n_levels - elastic.min_level)).long()
        small = elastic.slice(profile)
        row["slices"] &= _close(small(images), elastic(images, profile.expand(2, -1)))
        with FlopCounterMode(display=False) as counter:
            small(images[:1])
        counted = (sum(p.numel() for p in small.parameters()), counter.get_total_flops() // 2)
        row["cost"] &= tuple(int(value) for value in cost.of(profile)) == counted
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    row["stored"] = torch.equal(again(images, profile), elastic(images, profile))
    reasons = {item.reason: item.name for item in elastic.unprunable}
    row["says"] = "; ".join(f"{name}: {reason}" for reason, name in reasons.items())
    return row


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
    return all(row.get(column) is True for column in ("full", "slices", "cost", "stored"))


def main() -> int:
    """Print the table; the number of networks that are refused or wrong."""
    parser = argparse.ArgumentParser(description="Try the networks of zoo.toml.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return 0
    print(" | ".join(COLUMNS))
    rows = []
    for name in options.names or names():
        row = examine_apart(name)
        rows.append(row)
        print(" | ".join(str(row.get(column, ""))[:150] for column in COLUMNS), flush=True)
    for library in ("torchvision", "timm"):
        own = [row for row in rows if row["network"].startswith(library)]
        print(f"{library}: {sum(map(passed, own))} of {len(own)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return sum(not passed(row) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
