"""Slices prepared for inference: norms folded, in the fastest memory format, as many as memory allows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.profiles.cost import Cost
from rlprune.utils.process import ForkLock, keep_freed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Number formats that slices may compute in."""


class Slices:
    """The stem and, for every profile of a codebook, its sliced body.

    As many bodies as there is room for are prepared, the cheapest first. The others run on the shared weights, norms
    unfolded, which takes more time but no memory. A body that is used twice as often as prepared ones replaces them.
    Several threads may use it at once.

    Args:
        elastic: the network, in eval mode.
        codebook: int64 (K, G).
        memory: room for prepared bodies, in multiples of the dense network's parameters, 0 or more; where profiles have
            bodies of their own, of all of these together.
        compiled: speed bodies up with `torch.compile`; the first run of each then takes a while.
        dtype: number format of stem and bodies: float32, bfloat16 or float16.

    Raises:
        RLPruneError: `memory` is not a number of 0 or more, or `dtype` is not supported.

    Attributes:
        stem: normalised images of `dtype`, (B, C, H, W) -> features (B, F, H', W').
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
        if not isinstance(memory, int | float) or not memory >= 0:
            raise RLPruneError(f"memory is {memory}; a number of 0 or more, in dense networks, is needed")
        if dtype not in DTYPES:
            raise RLPruneError(f"dtype is {dtype}; allowed: {', '.join(map(str, DTYPES))}")
        self._elastic = elastic
        self._codebook = codebook
        self._compiled = compiled
        self._dtype = dtype
        cost = Cost(elastic)
        self._sizes = [int(params - cost.stem.params) for params in cost.of(codebook).params]
        self._memory = memory
        own = sum(parameter.numel() for parameter in elastic.own_bodies.parameters())
        self._room = memory * max(own, int(cost.dense.params))
        self._uses = [0] * len(codebook)
        self._lock = ForkLock()
        self._bodies: dict[int, nn.Module] = {}
        self._shared = [_Shared(elastic, profile, self._lock) for profile in codebook]
        self.stem = self._prepared("stem", 0)
        for profile in range(len(codebook)):
            if self.n_parameters + self._sizes[profile] > self._room:
                break
            self._bodies[profile] = self.prepared(profile)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled or copied: the network; bodies are prepared anew where it arrives."""
        return _made_again, (self._elastic, self._codebook, self._memory, self._compiled, self._dtype)

    def __len__(self) -> int:
        """How many profiles there are, K."""
        return len(self._codebook)

    def __getitem__(self, profile: int) -> nn.Module:
        """The body of a profile: features (B, F, H', W') -> logits (B, classes)."""
        with self._lock:
            self._uses[profile] += 1
            replaced = None if profile in self._bodies else self._to_replace(profile)
            if replaced is not None:
                for other in replaced:
                    del self._bodies[other]
                self._bodies[profile] = self.prepared(profile)
            return self._bodies.get(profile, self._shared[profile])

    def at_hand(self, profile: int) -> nn.Module:
        """The body of a profile as it is at the moment; that it is used counts for nothing."""
        return self._bodies.get(profile, self._shared[profile])

    def prepared(self, profile: int) -> nn.Module:
        """The body of a profile in its fastest form, prepared now if it is not in memory."""
        body = self._bodies.get(profile)
        return self._prepared("body", profile) if body is None else body

    @property
    def n_parameters(self) -> int:
        """Parameters of all bodies that are prepared at the moment."""
        return sum(self._sizes[profile] for profile in self._bodies)

    def _to_replace(self, profile: int) -> list[int] | None:
        """Bodies, used less than half as often, that make room for one; None if there are too few of them."""
        missing = self.n_parameters + self._sizes[profile] - self._room
        replaced: list[int] = []
        for other in sorted(self._bodies, key=lambda other: self._uses[other]):
            if missing <= 0 or 2 * self._uses[other] >= self._uses[profile]:
                break
            replaced.append(other)
            missing -= self._sizes[other]
        return replaced if missing <= 0 else None

    @torch.inference_mode(False)
    @torch.no_grad()
    def _prepared(self, part: str, profile: int) -> nn.Module:
        """One part, `stem` or `body`, of a profile's slice."""
        optimized = optimize_for_inference(self._elastic.slice(self._codebook[profile]))
        prepared = optimized.get_submodule(part).to(self._dtype)
        if self._compiled:  # the forward, not the module: torch counts recompilations of all modules together
            prepared.forward = torch.compile(prepared.forward, dynamic=True)
        return prepared


def _made_again(elastic: ElasticModule, codebook: Tensor, memory: float, compiled: bool, dtype: torch.dtype) -> Slices:
    return Slices(elastic, codebook, memory=memory, compiled=compiled, dtype=dtype)


class _Shared(nn.Module):
    """The body of a profile as the elastic network itself runs it: in float32, one caller at a time."""

    def __init__(self, elastic: ElasticModule, profile: Tensor, lock: ForkLock) -> None:
        super().__init__()
        self._run = elastic.run_body
        self._profile = profile
        self._lock = lock

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F, H', W') -> logits (B, classes)."""
        with self._lock, torch.inference_mode(False), torch.no_grad():  # training needs its caches too
            return self._run(features.float(), self._profile)
