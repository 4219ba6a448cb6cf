"""The logits of a network on images, computed when they are first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.utils.finite import finite_logits

_MEMORY_LIMIT = 2**30
_CHUNK = 512
_SOME = 64


class LazyTable:
    """A table whose rows are computed when they are first asked for.

    Args:
        n_rows: of the table.
        width: of a row.
        compute: rows int64 (B,) -> values float32 (B, width).
        keep: keep what was computed; False computes it each time, as does a table over 1 GiB.
    """

    def __init__(self, n_rows: int, width: int, compute: Callable[[Tensor], Tensor], keep: bool) -> None:
        self._compute = compute
        self._keep = keep and n_rows * width * 4 <= _MEMORY_LIMIT
        if self._keep:
            self._table = torch.zeros(n_rows, width)
            self._known = torch.zeros(n_rows, dtype=torch.bool)

    def __call__(self, rows: Tensor) -> Tensor:
        """Values of some rows, float32 (B, width)."""
        if not self._keep:
            return self._in_chunks(rows)
        missing = rows[~self._known[rows]].unique()
        if len(missing):
            self._table[missing] = self._in_chunks(missing)
            self._known[missing] = True
        return self._table[rows]

    def _in_chunks(self, rows: Tensor) -> Tensor:
        return torch.cat([self._compute(part) for part in rows.split(_CHUNK)])


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
        self._of_profiles = LazyTable(len(data) * self.n_profiles, n_classes, self._compute, keep=True)
        self._of_whole = LazyTable(len(data), n_classes, self._compute_whole, keep=True)

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

    def of_profiles(self, images: Tensor, profiles: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), under profiles of the codebook, int64 (B,)."""
        return self._of_profiles(images * self.n_profiles + profiles)

    def of_whole(self, images: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), at full width and depth."""
        if self._index_of_whole is None:
            return self._of_whole(images)
        return self.of_profiles(images, torch.full_like(images, self._index_of_whole))

    @torch.no_grad()
    def under(self, images: Tensor, levels: Tensor) -> Tensor:
        """Logits float32 (B, classes) of images, by index, int64 (B,), under levels (B, G) or (G,); computed anew.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        parts = []
        for here in torch.arange(len(images)).split(_CHUNK):
            pixels = self.data.normalised(images[here]).to(self.network.widths.device)
            logits = self.network(pixels, levels if levels.ndim == 1 else levels[here])
            parts.append(finite_logits(logits.float().cpu()))
        return torch.cat(parts)

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

    def _compute(self, rows: Tensor) -> Tensor:
        """Profile by profile, which takes only the work that each keeps."""
        assert self.codebook is not None
        images = rows // self.n_profiles
        profiles = rows % self.n_profiles
        logits = torch.zeros(len(rows), len(self.data.classes))
        for profile in profiles.unique().tolist():
            here = profiles == profile
            logits[here] = self.under(images[here], self.codebook[profile])
        return logits

    def _compute_whole(self, images: Tensor) -> Tensor:
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
