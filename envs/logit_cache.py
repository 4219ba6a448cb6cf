"""What a network computes of images: logits, when they are first asked for, and what standardises observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.storage.provenance import fingerprint
from rlprune.training.parallel.group import Group, current
from rlprune.utils.finite import finite_logits

_MEMORY_LIMIT = 2**30
_CHUNK = 512
_BLOCK = 32
_SOME = 64
_AT_ONCE = 1024
"""Blocks that several processes compute before they tell each other."""
_MOST_OBSERVERS = 16


class LazyTable:
    """Tables over the same items, computed when they are first asked for: always the same items together.

    What a network computes of an image depends, in the last bits, on the images beside it. Here those are always the
    same, whatever was asked for before, so an interrupted run that begins with an empty table goes on exactly.

    Args:
        n_tables: how many there are.
        n_items: rows of each.
        width: of a row.
        compute: a table's index and items, int64 (B,) -> values, float32 (B, width).
        keep: keep what was computed; False computes it each time, as do tables over 1 GiB.
    """

    def __init__(
        self, n_tables: int, n_items: int, width: int, compute: Callable[[int, Tensor], Tensor], keep: bool
    ) -> None:
        self._n_tables = n_tables
        self._n_items = n_items
        self._width = width
        self._compute = compute
        self._keep = keep and n_tables * n_items * width * 4 <= _MEMORY_LIMIT
        if self._keep:
            self._values = torch.zeros(n_tables, n_items, width)
            self._known = torch.zeros(n_tables, math.ceil(n_items / _BLOCK), dtype=torch.bool)

    @property
    def keeps(self) -> bool:
        """Whether what was computed is kept."""
        return self._keep

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many tables there are, rows of each, and numbers of a row."""
        return self._n_tables, self._n_items, self._width

    def take(self, values: Tensor) -> None:
        """Have all values as they were computed by another table, float32 (n_tables, n_items, width); not copied."""
        assert self._keep and tuple(values.shape) == self.shape
        self._values = values
        self._known.fill_(True)

    def __call__(self, tables: Tensor, items: Tensor) -> Tensor:
        """Values float32 (B, width) of items, int64 (B,), in tables, by index, int64 (B,)."""
        if not self._keep:
            return self._computed(tables, items)
        blocks = items // _BLOCK
        missing = ~self._known[tables, blocks]
        if missing.any():
            for table, block in torch.stack([tables, blocks], 1)[missing].unique(dim=0).tolist():
                self._fill(table, block)
        return self._values[tables, items]

    def fill(self, group: Group) -> None:
        """Compute what is not known yet of all tables, if they are kept: each process some blocks, which all get.

        Args:
            group: the processes, which know the same.
        """
        if not self._keep:
            return
        missing = (~self._known).nonzero().tolist()
        for part in (missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)):
            own = part[group.part(len(part))]
            for table, block in own:
                self._fill(table, block)
            found = [self._values[table, self._items(block)] for table, block in own]
            values = group.gather(torch.cat(found) if found else torch.zeros(0, self._width))
            sizes = [len(self._items(block)) for _, block in part]
            for (table, block), rows in zip(part, values.split(sizes), strict=True):
                self._values[table, self._items(block)] = rows
                self._known[table, block] = True

    def row(self, table: int, item: int) -> NDArray[np.float32]:
        """Values float32 (width,) of one item in one table."""
        if not self._keep:
            computed: NDArray[np.float32] = self._computed(torch.tensor([table]), torch.tensor([item])).numpy()[0]
            return computed
        block = item // _BLOCK
        if not self._known.numpy()[table, block]:
            self._fill(table, block)
        values: NDArray[np.float32] = self._values.numpy()[table, item]
        return values

    def _fill(self, table: int, block: int) -> None:
        """Compute the items of a block."""
        items = self._items(block)
        self._values[table, items] = self._compute(table, items)
        self._known[table, block] = True

    def _items(self, block: int) -> Tensor:
        """The items of a block, int64."""
        return torch.arange(block * _BLOCK, min((block + 1) * _BLOCK, self._n_items))

    def _computed(self, tables: Tensor, items: Tensor) -> Tensor:
        """Table by table, in chunks; nothing is kept."""
        values = torch.zeros(len(items), self._width)
        for table in tables.unique().tolist():
            here = (tables == table).nonzero().flatten()
            for part in here.split(_CHUNK):
                values[part] = self._compute(table, items[part])
        return values


class LogitCache:
    """The logits of an elastic network on images: of the profiles of a codebook, of all of it, or under any levels.

    All but the last are kept. Worlds of the same network and images may share a cache: for policies at several
    penalties the network then runs once.

    Args:
        network: the network, whose weights no longer change; put into eval mode.
        data: the images.
        codebook: int64 (K, G); None if there are no profiles.
    """

    def __init__(self, network: ElasticModule, data: ImageSet, codebook: Tensor | None = None) -> None:
        self.network = network.eval()
        self.data = data
        self.codebook = codebook
        self.n_profiles = 0 if codebook is None else len(codebook)
        n_classes = len(data.classes)
        whole = [] if codebook is None else (codebook == network.full.cpu()).all(1).nonzero().flatten().tolist()
        self._index_of_whole = next(iter(whole), None)
        self._of_profiles = LazyTable(self.n_profiles, len(data), n_classes, self._compute, keep=True)
        self._of_whole = LazyTable(1, len(data), n_classes, self._compute_whole, keep=True)

    def check(self, network: ElasticModule, data: ImageSet, codebook: Tensor | None) -> None:
        """Make sure that the cache is for this very network, these very images and this codebook.

        Raises:
            RLPruneError: it is for others.
        """
        same = codebook is None if self.codebook is None else codebook is not None and self.codebook.equal(codebook)
        if self.network is not network or self.data is not data or not same:
            raise RLPruneError(
                "the logit cache is for another network, other images or another codebook; make a new one"
            )

    @property
    def tables(self) -> dict[str, LazyTable]:
        """Tables that are kept, and so can be shared: of the profiles, and of the whole network, where none is it."""
        used = {"profiles": self._of_profiles} if self.n_profiles else {}
        used |= {"whole": self._of_whole} if self._index_of_whole is None else {}
        return {name: table for name, table in used.items() if table.keeps}

    def of_profiles(self, images: Tensor, profiles: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), under profiles of the codebook, int64 (B,)."""
        return self._of_profiles(profiles, images)

    def of_whole(self, images: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), at full width and depth."""
        if self._index_of_whole is None:
            return self._of_whole(torch.zeros_like(images), images)
        return self.of_profiles(images, torch.full_like(images, self._index_of_whole))

    def of_one(self, image: int, profile: int | None) -> NDArray[np.float32]:
        """Logits float32 (classes,) of one image, under a profile of the codebook, or at full width and depth if None.

        They are not to be changed.
        """
        profile = self._index_of_whole if profile is None else profile
        return self._of_whole.row(0, image) if profile is None else self._of_profiles.row(profile, image)

    @torch.no_grad()
    def under(self, images: Tensor, levels: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), under levels (B, G) or (G,); computed anew.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        parts = []
        chunks = torch.arange(len(images)).split(_CHUNK)
        for here, pixels in zip(chunks, self.data.pixels_at(images.split(_CHUNK)), strict=True):
            pixels = self.data.normalise(pixels).to(self.network.widths.device)
            logits = self.network(pixels, levels if levels.ndim == 1 else levels[here])
            parts.append(finite_logits(logits.float().cpu()))
        return torch.cat(parts)

    def fill(self) -> None:
        """Compute the logits of all images under all profiles, where they are kept; several processes share the images.

        Raises:
            ClusterError: a process was lost.
            NotFiniteError: a logit is NaN or infinite.
        """
        self._of_profiles.fill(current())

    def check_logits(self) -> None:
        """Run some images through the network, before anything is trained on it; what is computed is kept.

        Raises:
            NotFiniteError: a logit is NaN or infinite.
        """
        some = torch.arange(min(len(self.data), _SOME))
        for profile in range(self.n_profiles):
            self.of_profiles(some, torch.full_like(some, profile))
        if self.codebook is None:
            self.of_whole(some)

    def _compute(self, profile: int, images: Tensor) -> Tensor:
        assert self.codebook is not None
        return self.under(images, self.codebook[profile])

    def _compute_whole(self, _: int, images: Tensor) -> Tensor:
        return self.under(images, self.network.full)


class LatestLogitCache:
    """Logit caches for some sets of images, kept for the latest network.

    Args:
        sets: the images.
    """

    def __init__(self, *sets: ImageSet) -> None:
        self._sets = sets
        self._caches: tuple[LogitCache, ...] = ()

    def of(self, network: ElasticModule, codebook: Tensor | None) -> tuple[LogitCache, ...]:
        """The caches of a network whose weights no longer change, one for each set."""
        if not self._caches or self._caches[0].network is not network:
            self._caches = tuple(LogitCache(network, images, codebook) for images in self._sets)
        return self._caches


_observers: WeakKeyDictionary[ImageSet, dict[Hashable, Observer]] = WeakKeyDictionary()


def fitted_observer(network: ElasticModule, images: ImageSet, **settings: Any) -> Observer:
    """`rlprune.policies.observations.Observer.fit`, which runs once for the same stem, images and settings.

    Args:
        network: whose stem is read.
        images: those that train the policy.
        settings: the other arguments.
    """
    if not all(isinstance(value, int | float | PenaltyRange | None) for value in settings.values()):
        return Observer.fit(network, images, **settings)
    try:
        stem = fingerprint(*network.stem.state_dict().values())
        key = (stem, getattr(images.images, "_version", 0), images.mean, images.std, *sorted(settings.items()))
    except (RuntimeError, TypeError):  # of tensors that count no changes, or have no counterpart in NumPy
        return Observer.fit(network, images, **settings)
    known = _observers.setdefault(images, {})
    if key not in known:
        if len(known) >= _MOST_OBSERVERS:
            known.clear()
        known[key] = Observer.fit(network, images, **settings)
    return known[key]
