"""Worlds from plain values: networks by their folders, images by their names, each loaded once per process.

What fits into JSON says it all, so that a command line, a YAML file or a stored specification makes the environment.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet, Splits
from rlprune.data.sources import path_of
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.module import ElasticModule
from rlprune.envs.arguments import PARTS, check_given, check_network, shown
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.rules import Rules
from rlprune.envs.world import World
from rlprune.errors import BundleError, DataError, LevelsError, RLPruneError
from rlprune.intake.fitting import load_fitting
from rlprune.intake.notes import how_read, network_notes
from rlprune.intake.options import DataOptions
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import KINDS, Cost
from rlprune.profiles.latency import Latency
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import SavedNetwork, load_network
from rlprune.storage.policies import load_profiles
from rlprune.utils.files import before_of, read_text
from rlprune.utils.settings import read_settings

T = TypeVar("T")
NetworkLike = str | os.PathLike[str] | ElasticCNN
"""A folder with a network or a bundle, or the network itself."""
DataLike = str | os.PathLike[str] | Mapping[str, Any] | ImageSet | Splits
"""What `rlprune.data.load` takes, alone or with options, or images."""
CodebookLike = str | os.PathLike[str] | Tensor | Sequence[Sequence[int]]
"""A run folder, a policy, a bundle or a JSON file, or profiles."""
_HOLD_PROFILES = ("manifest.json", "codebook.json", "policy/manifest.json", "bundle/manifest.json")
"""What a folder may have that holds profiles."""


class _Kept:
    """The latest things that were loaded, by what names them.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of that name; it is made if it is not there, or if the key is None."""
        if key is None:
            return make()
        with self._lock:
            if key not in self._things:
                self._things[key] = make()
            self._things.move_to_end(key)
            while len(self._things) > self._most:
                self._things.popitem(last=False)
            found: T = self._things[key]
            return found

    def clear(self) -> None:
        """Forget all of them."""
        self._things.clear()


_networks, _images, _caches, _worlds = _Kept(8), _Kept(4), _Kept(16), _Kept(16)


def forget() -> None:
    """Free the memory of what environments were made of in this process; those that there are keep theirs."""
    for kept in (_networks, _images, _caches, _worlds):
        kept.clear()


def make_world(
    network: NetworkLike | None,
    data: DataLike | None,
    *,
    split: str | None = None,
    codebook: CodebookLike | None = None,
    cost: str | os.PathLike[str] | Latency = "macs",
    **rules: Any,
) -> World:
    """Make the world of an environment, from objects or from what names them.

    What is named is loaded once per process, and a world that is made of plain values alone is one object for all who
    make it of the same ones: its logits are computed once. Copy its network before changing weights.

    Args:
        network: a folder with a network or a bundle, or an elastic network.
        data: what `rlprune.data.load` takes as its source; a table of `rlprune.intake.options.DataOptions`, whose
            `data` is that; or images. Named images are divided and prepared as the network in the folder was trained.
        split: which part of them is shown: `policy` (the default), `network`, `validation` or `test`. Observations are
            standardised by the images of `policy` for all of them.
        codebook: profiles, int64 (K, G), cheapest first; or a file of JSON, a run folder, a policy or a bundle that has
            them. If None, and actions are profiles, those of the bundle, or that the network is specialised to, or
            uniform ones.
        cost: `params`, `macs`, a measured `Latency`, or its file or run folder.
        rules: the other arguments of `World`.

    Raises:
        RLPruneError: a value is missing or of the wrong kind, or what it names cannot be read or does not fit.
    """
    check_given(network=network, data=data)
    subject = _subject(network)
    images = _images_of(data, subject)
    values = {
        "observer": None,
        **{field.name: field.default for field in fields(Rules) if field.default is not MISSING},
        "split": images.part_named(split),
        "codebook": _profiles(codebook, subject, rules.get("action", Rules.action)),
        **rules,
        "cost": _cost(cost),
    }
    names = (subject.key, images.key, _plain(values))
    return _worlds.get(None if None in names else names, lambda: _build(subject, images, **values))


@dataclass(frozen=True, eq=False)
class _Subject:
    """An elastic network.

    Attributes:
        network: itself.
        key: what tells a folder's apart; None for an object.
        folder: where it was read; None for an object.
        saved: it, with its notes, if it was read.
    """

    network: ElasticModule
    key: Hashable | None = None
    folder: Path | None = None
    saved: SavedNetwork | None = None


@dataclass(frozen=True, eq=False)
class _Images:
    """Images that may be divided.

    Attributes:
        content: all parts, or the one that was given.
        key: what tells named ones apart; None for objects.
    """

    content: Splits | ImageSet
    key: Hashable | None = None

    def part_named(self, split: str | None) -> str | None:
        """The part that is meant; None where there are none.

        Raises:
            DataError: there is no such part.
        """
        if split is not None and split not in PARTS:
            raise DataError(f"split is {shown(split)}; give one of {', '.join(PARTS)}")
        if isinstance(self.content, ImageSet):
            if split is not None:
                raise DataError(f"split is {split!r}, and data is one set of images already; leave split out")
            return None
        return "policy" if split is None else split


def _build(subject: _Subject, images: _Images, *, split: str | None, **arguments: Any) -> World:
    """A world of its own, with the logits that worlds of the same names have computed."""
    network, content = subject.network, images.content
    if isinstance(content, ImageSet):
        return World(network, content, **arguments)
    assert split is not None
    shown_part = getattr(content, split)
    if subject.key is not None and images.key is not None:
        codebook = arguments["codebook"] if arguments["action"] == "profiles" else None
        key = (subject.key, images.key, split, None if codebook is None else str(codebook.tolist()))
        arguments["logit_cache"] = _caches.get(key, lambda: LogitCache(network, shown_part, codebook))
    return World(network, shown_part, fitted_to=content.policy, **arguments)


def _plain(values: Mapping[str, Any]) -> str | None:
    """Values as text that tells them apart; None if one is an object."""

    def known(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist()
        if isinstance(value, Latency):
            return asdict(value)
        raise TypeError

    try:
        return json.dumps(values, sort_keys=True, default=known)
    except (TypeError, ValueError):
        return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _subject(network: Any) -> _Subject:
    """The network that is meant; one that is named is read once, until its folder changes."""
    if not _is_name(network):
        return _Subject(check_network(network))
    folder = Path(network)
    if not os.path.isdir(folder) and not os.path.isdir(before_of(folder)):
        raise BundleError(f"network {shown(str(folder))} is no folder; name the one of a network or a bundle")
    if (folder / "bundle" / "manifest.json").exists() and not (folder / "manifest.json").exists():
        folder /= "bundle"
    key = (str(folder.resolve()), _state(folder / "manifest.sha256"))

    def read() -> _Subject:
        saved = load_network(folder)
        return _Subject(saved.network, key, folder, saved)

    return _networks.get(key, read)


def _state(path: Path | None) -> tuple[tuple[str, int, int], ...]:
    """What changes with a file, or with what is in a folder and in those in it: names, times and sizes."""
    if path is None or not path.exists():
        return ()
    found = [path]
    if path.is_dir():
        found += sorted(path.iterdir())[:1000]
    stats = [(each.name, each.stat()) for each in found if each.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _images_of(data: Any, subject: _Subject) -> _Images:
    """The images that are meant; those that are named are loaded once, as the network needs them."""
    if isinstance(data, Splits | ImageSet):
        return _Images(data)
    if not _is_name(data) and not isinstance(data, Mapping):
        raise DataError(
            f"data is {shown(data)}; give the name or the folder of images (see rlprune.data.load), a table with data "
            "and other options, or an image set"
        )
    given = dict(data) if isinstance(data, Mapping) else {"data": os.fspath(data)}
    saved = subject.saved
    notes = {} if saved is None else network_notes(saved.metadata)
    source = given.get("data")
    noted = how_read(notes, source) if isinstance(source, str) else {}
    options = read_settings(DataOptions, noted | given)
    key = (subject.key, json.dumps(asdict(options)), _state(path_of(options.data)))

    def load() -> _Images:
        if saved is None:
            return _Images(options.load(), key)
        return _Images(load_fitting(saved.network.image_shape, saved.data, saved.metadata, options), key)

    return _images.get(key, load)


def _cost(cost: Any) -> Any:
    """What is paid for; a table of times is read if one is named."""
    if not _is_name(cost) or cost in KINDS or not os.path.exists(cost):
        return cost
    path = Path(cost)
    return Latency.load(path / "latency.json" if path.is_dir() else path)


def _profiles(codebook: Any, subject: _Subject, action: Any) -> Tensor | None:
    """The profiles that are meant, int64 (K, G); None for what the world takes by itself."""
    if codebook is None:
        return _own_profiles(subject) if action == "profiles" else None
    found = _read_profiles(Path(codebook)) if _is_name(codebook) else _tensor(codebook, "codebook")
    return subject.network.check_codebook(found)


def _own_profiles(subject: _Subject) -> Tensor:
    """The profiles that come with a network, else uniform ones."""
    if subject.folder is not None and kind_of(subject.folder) == "bundle":
        return load_profiles(subject.folder)
    network = subject.network
    return uniform_codebook(network, Cost(network)) if network.codebook is None else network.codebook.cpu()


def _read_profiles(path: Path) -> Tensor:
    """The profiles of a file, a run folder, a policy or a bundle.

    Raises:
        RLPruneError: there are none.
    """
    if path.is_dir():
        inside = (path / name for name in _HOLD_PROFILES)
        found = next((each for each in inside if each.exists()), None)
        if found is None:
            raise RLPruneError(
                f"codebook: {path} has none; give a run folder with codebook.json, a policy, a bundle, a file of JSON, "
                "or lists of levels"
            )
        if found.name == "manifest.json":
            return load_profiles(found.parent)
        path = found
    try:
        profiles = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise RLPruneError(f"codebook: {path} cannot be read ({type(error).__name__}: {error})") from error
    return _tensor(profiles, f"codebook {path}")


def _tensor(profiles: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(profiles)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LevelsError(
            f"{name} is {shown(profiles)}; give one list of whole numbers for each profile, all of one length"
        ) from error
