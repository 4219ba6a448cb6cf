"""Slices prepared for running: norms folded, in the fastest memory format, and no more of them than memory allows."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import cast

import torch
from torch import Tensor, nn

from rlprune.elastic import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.folding import to_run

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What slices may compute in."""


class Slices:
    """The stem and, for every profile of a codebook, the body that is left.

    As many as there is room for are prepared at once, the cheapest first. When another is needed, those go that were
    not used for longest, and are prepared again when they are needed again. Several threads may ask at once.

    Args:
        elastic: the network, in eval mode.
        codebook: int64 (K, G).
        memory: room for bodies, in parameters of the dense network; the one that is asked for always has room.
        compiled: let `torch.compile` make them faster; each then takes a while when it first runs.
        dtype: what they compute in, such as bfloat16, where the device has it.

    Raises:
        RLPruneError: `memory` is not a number of 0 or more, or nothing can be computed in such a type.

    Attributes:
        stem: normalised images (B, C, H, W), of that type -> features (B, F, H', W').
    """

    def __init__(
        self,
        elastic: ElasticCNN,
        codebook: Tensor,
        *,
        memory: float = 2.0,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not memory >= 0:
            raise RLPruneError(f"memory is {memory}; a number of 0 or more, of times the dense network, is needed")
        if dtype not in DTYPES:
            raise RLPruneError(f"dtype is {dtype}; allowed: {', '.join(map(str, DTYPES))}")
        self._dtype = dtype
        self._elastic, self._codebook, self._compiled = elastic, codebook, compiled
        self._room = memory * sum(p.numel() for p in elastic.slice(elastic.full).parameters())
        self._held: OrderedDict[int, tuple[nn.Module, int]] = OrderedDict()
        self._lock = Lock()
        self.stem, _ = self._prepared("stem", 0)
        for profile in range(len(codebook)):
            body, size = self._prepared("body", profile)
            if self.n_parameters + size > self._room:
                break
            self._held[profile] = body, size

    def __len__(self) -> int:
        """How many profiles there are, K."""
        return len(self._codebook)

    def __getitem__(self, profile: int) -> nn.Module:
        """The body of a profile: features (B, F, H', W') -> logits (B, classes)."""
        with self._lock:
            if profile not in self._held:
                self._held[profile] = self._prepared("body", profile)
            self._held.move_to_end(profile)
            while self.n_parameters > self._room and len(self._held) > 1:
                self._held.popitem(last=False)
            return self._held[profile][0]

    @property
    def n_parameters(self) -> int:
        """Of all bodies that are held at the moment."""
        return sum(size for _, size in self._held.values())

    @torch.inference_mode(False)
    @torch.no_grad()
    def _prepared(self, part: str, profile: int) -> tuple[nn.Module, int]:
        """One part of a profile's slice, and its parameters."""
        prepared = to_run(self._elastic.slice(self._codebook[profile])).get_submodule(part).to(self._dtype)
        size = sum(p.numel() for p in prepared.parameters())
        return cast(nn.Module, torch.compile(prepared, dynamic=True) if self._compiled else prepared), size
