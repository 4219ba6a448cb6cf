"""Slices prepared for running: norms folded, in the fastest memory format, and no more of them than memory allows."""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor, nn

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.profiles.cost import Cost
from rlprune.utils.malloc import keep_freed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What slices may compute in."""


class Slices:
    """The stem and, for every profile of a codebook, the body that is left.

    As many bodies as there is room for are prepared, at first the cheapest. The others run on the weights that all
    share, norms unfolded, which takes longer but no memory. One that is used twice as often as others that are prepared
    takes their place. Several threads may ask at once.

    Args:
        elastic: the network, in eval mode.
        codebook: int64 (K, G).
        memory: room for prepared bodies, in parameters of the dense network.
        compiled: let `torch.compile` make them faster; each then takes a while when it first runs.
        dtype: what they compute in, such as bfloat16, where the device has it.

    Raises:
        RLPruneError: `memory` is not a number of 0 or more, or nothing can be computed in such a type.

    Attributes:
        stem: normalised images (B, C, H, W), of that type -> features (B, F, H', W').
    """

    def __init__(
        self,
        elastic: ElasticModule,
        codebook: Tensor,
        *,
        memory: float = 2.0,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        keep_freed()
        if not memory >= 0:
            raise RLPruneError(f"memory is {memory}; a number of 0 or more, of times the dense network, is needed")
        if dtype not in DTYPES:
            raise RLPruneError(f"dtype is {dtype}; allowed: {', '.join(map(str, DTYPES))}")
        self._elastic, self._codebook, self._compiled, self._dtype = elastic, codebook, compiled, dtype
        cost = Cost(elastic)
        self._sizes = [int(params - cost.stem.params) for params in cost.of(codebook).params]
        self._room = memory * int(cost.dense.params)
        self._uses, self._lock = [0] * len(codebook), Lock()
        self._held: dict[int, nn.Module] = {}
        self._shared = [_Shared(elastic, profile, self._lock) for profile in codebook]
        self.stem = self._prepared("stem", 0)
        for profile in range(len(codebook)):
            if self.n_parameters + self._sizes[profile] > self._room:
                break
            self._held[profile] = self.prepared(profile)

    def __len__(self) -> int:
        """How many profiles there are, K."""
        return len(self._codebook)

    def __getitem__(self, profile: int) -> nn.Module:
        """The body of a profile: features (B, F, H', W') -> logits (B, classes)."""
        with self._lock:
            self._uses[profile] += 1
            if profile not in self._held and (leaving := self._to_leave(profile)) is not None:
                for other in leaving:
                    del self._held[other]
                self._held[profile] = self.prepared(profile)
            return self._held.get(profile, self._shared[profile])

    def prepared(self, profile: int) -> nn.Module:
        """The body of a profile as it runs fastest, for whoever keeps it."""
        held = self._held.get(profile)
        return self._prepared("body", profile) if held is None else held

    @property
    def n_parameters(self) -> int:
        """Of all bodies that are prepared at the moment."""
        return sum(self._sizes[profile] for profile in self._held)

    def _to_leave(self, profile: int) -> list[int] | None:
        """Which bodies, used less than half as often, have to go for one; None if that does not make room for it."""
        missing = self.n_parameters + self._sizes[profile] - self._room
        leaving: list[int] = []
        for other in sorted(self._held, key=lambda other: self._uses[other]):
            if missing <= 0 or 2 * self._uses[other] >= self._uses[profile]:
                break
            leaving.append(other)
            missing -= self._sizes[other]
        return leaving if missing <= 0 else None

    @torch.inference_mode(False)
    @torch.no_grad()
    def _prepared(self, part: str, profile: int) -> nn.Module:
        """One part of a profile's slice."""
        prepared = (
            optimize_for_inference(self._elastic.slice(self._codebook[profile])).get_submodule(part).to(self._dtype)
        )
        if self._compiled:  # its forward, not the module: those of all modules count together as one that is recompiled
            prepared.forward = torch.compile(prepared.forward, dynamic=True)
        return prepared


class _Shared(nn.Module):
    """The body of a profile as the elastic network itself runs it: in float32, one caller at a time."""

    def __init__(self, elastic: ElasticModule, profile: Tensor, lock: Lock) -> None:
        super().__init__()
        self._run, self._profile, self._lock = elastic.run_body, profile, lock

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F, H', W') -> logits (B, classes)."""
        with self._lock, torch.inference_mode(False), torch.no_grad():  # what it remembers, training needs too
            return self._run(features.float(), self._profile)
