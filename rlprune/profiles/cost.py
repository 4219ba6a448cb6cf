"""The exact cost of profiles, in active parameters and MACs, by table look-up."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.body import silent_exits
from rlprune.elastic.layers import ElasticLayer, Rates
from rlprune.elastic.module import ElasticModule
from rlprune.graph.nodes import alive_names, inputs_of

KINDS = ("params", "macs")
_MAX_PATTERNS = 10_000


class ComputeCost(NamedTuple):
    """Active parameters and MACs (one multiply-add is 1), int64 tensors of one shape."""

    params: Tensor
    macs: Tensor

    def of_kind(self, kind: str) -> Tensor:
        """One of both, by the name of its kind: `params` or `macs`."""
        return self.params if kind == "params" else self.macs


class Cost:
    """Look-up tables of an elastic network's cost.

    The cost of a layer is proportional to its active inputs times its active outputs, each a sum over groups. Layers
    that only dropped branches need cost nothing; a bias remains of a branch that ends in a layer.

    Args:
        elastic: the network.

    Attributes:
        stem: cost of the stem, which each image pays once; scalars.
        dense: cost of the original network; scalars.
    """

    def __init__(self, elastic: ElasticModule) -> None:
        self._elastic_widths = elastic.widths.cpu()
        self._exits = [frozenset(group.exits) for group in elastic.groups]
        self._silent = frozenset(silent_exits(elastic.body, elastic.groups))
        nodes = [node for node in elastic.body.graph.nodes if node.op not in ("placeholder", "output")]
        self._inputs = inputs_of(elastic.body.graph)
        self._names = [node.name for node in nodes]
        self._weights_of = [str(node.target) if node.op in ("call_module", "get_attr") else None for node in nodes]
        rates = []
        n_in = []
        n_out = []
        for node in nodes:
            rates_of_node, in_axis, out_axis = _rates_and_axes(elastic.body, node)
            rates.append(rates_of_node)
            n_in.append(self._counts(in_axis))
            n_out.append(self._counts(out_axis))
        self._macs_rate = torch.tensor([[at.macs for at in each] for each in rates]).T  # (resolutions, nodes)
        self._params_rate, self._params_per_out = torch.tensor([tuple(each[-1])[1:] for each in rates]).T
        self._resolution = elastic.resolution
        self._in_fixed, self._in_table = (torch.stack(parts) for parts in zip(*n_in, strict=True))
        self._out_fixed, self._out_table = (torch.stack(parts) for parts in zip(*n_out, strict=True))
        self._cached_survivors: dict[tuple[bool, ...], tuple[Tensor, Tensor, Tensor]] = {}
        self.stem = ComputeCost(
            torch.tensor(sum(p.numel() for p in elastic.stem.parameters())),
            torch.tensor(sum(node.meta["macs"] for node in elastic.stem.graph.nodes)),
        )
        self.dense = self.of(elastic.full)

    def __deepcopy__(self, memo: dict[int, object]) -> Cost:
        """The same object: tables never change."""
        return self

    def of(self, levels: Tensor) -> ComputeCost:
        """Cost of running the whole network once, stem included; equal to that of its slice.

        Args:
            levels: int64 (B, G) or (G,).

        Returns:
            Active parameters and MACs, int64 (B,) or scalars.
        """
        rows = torch.atleast_2d(levels.cpu())
        groups = torch.arange(rows.shape[1])
        n_in = self._in_fixed.repeat(len(rows), 1)  # (B, nodes)
        n_out = self._out_fixed.repeat(len(rows), 1)
        for group in range(rows.shape[1]):
            n_in += self._in_table[:, group, rows[:, group]].T
            n_out += self._out_table[:, group, rows[:, group]].T
        widths = self._elastic_widths[groups, rows]
        params, macs = self._total(n_in, n_out, widths == 0, self._rates_at(widths))
        return ComputeCost(params, macs) if levels.ndim == 2 else ComputeCost(params[0], macs[0])

    def of_kept(self, kept: Tensor) -> ComputeCost:
        """Cost where any number of channels of each group is kept, whichever they are.

        Args:
            kept: channels kept of each group, int64 (B, G); of the resolution the rows of one of its levels.

        Returns:
            Active parameters and MACs, int64 (B,).
        """
        n_channels = self._elastic_widths[:, -1]
        n_in, n_out = (fixed + kept.cpu() @ (table[:, :, -1] // n_channels).T for fixed, table in self._sides)
        return self._total(n_in, n_out, kept.cpu() == 0, self._rates_at(kept.cpu()))

    def _rates_at(self, widths: Tensor) -> Tensor:
        """MACs of each node per input and output, at the resolution of each row of widths (B, G): int64 (B, nodes)."""
        if not self._resolution:
            return self._macs_rate.expand(len(widths), -1)
        n_levels = self._elastic_widths.shape[1]
        level = (self._elastic_widths[-1] < widths[:, -1:]).sum(1)
        return self._macs_rate[level - (n_levels - len(self._macs_rate))]

    def _total(self, n_in: Tensor, n_out: Tensor, dropped: Tensor, macs_rate: Tensor) -> ComputeCost:
        """Cost from the inputs and outputs of each node, int64 (B, nodes), and the dropped groups, bool (B, G)."""
        runs, holds, constant = self._survivors(dropped)
        per_node = n_in * n_out * self._params_rate + n_out * self._params_per_out
        params = self.stem.params + (per_node * holds + n_out * constant).sum(1)
        return ComputeCost(params, self.stem.macs + (n_in * n_out * macs_rate * runs).sum(1))

    def of_group(self, group: int) -> ComputeCost:
        """Cost saved by removing all channels of one group from the otherwise whole network; scalars.

        Of the resolution, what its lowest level saves.
        """
        n_in, n_out = (fixed + table[:, :, -1].sum(1) for fixed, table in self._sides)
        less_in, less_out = (n - table[:, group, -1] for n, (_, table) in zip((n_in, n_out), self._sides, strict=True))
        pairs = n_in * n_out - less_in * less_out
        outs = n_out - less_out
        runs, holds, _ = self._survivors(torch.zeros(1, len(self._exits), dtype=torch.bool))
        params = ((pairs * self._params_rate + outs * self._params_per_out) * holds[0]).sum()
        if self._resolution and group == len(self._exits) - 1:
            saved = (self._macs_rate[-1] - self._macs_rate[0]) * n_in * n_out
            return ComputeCost(torch.tensor(0), (saved * runs[0]).sum())
        return ComputeCost(params, (pairs * self._macs_rate[-1] * runs[0]).sum())

    @property
    def _sides(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return (self._in_fixed, self._in_table), (self._out_fixed, self._out_table)

    def _counts(self, axis: Axis) -> tuple[Tensor, Tensor]:
        """Number of positions of an axis that are always kept, and of those that each group adds per level, (G, L)."""
        table = torch.zeros_like(self._elastic_widths)
        for group in axis.groups:
            table[group] = torch.tensor([axis.count(group, int(width)) for width in self._elastic_widths[group]])
        return torch.tensor(axis.n_fixed), table

    def _survivors(self, dropped: Tensor) -> list[Tensor]:
        """Nodes that run, that hold parameters, and that become constants, each bool (B, nodes).

        A layer that is called twice holds its parameters once.

        Args:
            dropped: which groups are dropped, bool (B, G).
        """
        patterns, row = dropped.unique(dim=0, return_inverse=True)
        found = [self._survivors_of(tuple(pattern)) for pattern in patterns.tolist()]
        return [torch.stack(parts)[row] for parts in zip(*found, strict=True)]

    def _survivors_of(self, pattern: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """The same for one set of dropped groups, each bool (nodes,); cached."""
        if pattern not in self._cached_survivors:
            if len(self._cached_survivors) >= _MAX_PATTERNS:
                self._cached_survivors.clear()
            self._cached_survivors[pattern] = self._find_survivors(pattern)
        return self._cached_survivors[pattern]

    def _find_survivors(self, pattern: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
        exits: set[str] = set()
        for of_group, dropped in zip(self._exits, pattern, strict=True):
            if dropped:
                exits |= of_group
        alive = alive_names(self._inputs, exits)
        constants = exits - self._silent
        runs = [name in alive and name not in exits for name in self._names]
        constant = [name in alive and name in constants for name in self._names]
        return torch.tensor(runs), torch.tensor(self._first_uses(runs)), torch.tensor(constant)

    def _first_uses(self, runs: list[bool]) -> list[bool]:
        """Which running nodes are the first to use their layer or free tensor."""
        used: set[str] = set()
        first = []
        for weights, running in zip(self._weights_of, runs, strict=True):
            first.append(running and weights not in used)
            if running and weights is not None:
                used.add(weights)
        return first


def _rates_and_axes(body: nn.Module, node: fx.Node) -> tuple[list[Rates], Axis, Axis]:
    """What a node costs per input and output, at each resolution, the full one last; and its axes.

    These have one position where it has no elastic layer.
    """
    layer = body.get_submodule(str(node.target)) if node.op == "call_module" else None
    seen = [*node.meta.get("also", []), (node.meta["shape"], node.meta["macs"])]
    if isinstance(layer, ElasticLayer):
        return [layer.rates(shape) for shape, _ in seen], layer.in_axis, layer.out_axis
    return [Rates(macs, 0, _n_parameters(body, node)) for _, macs in seen], Axis(1), Axis(1)


def _n_parameters(body: nn.Module, node: fx.Node) -> int:
    """Number of parameters of a node without an elastic layer: those of another layer, or a free parameter."""
    if node.op == "call_module":
        return sum(parameter.numel() for parameter in body.get_submodule(str(node.target)).parameters())
    free = dict(body.named_parameters()).get(str(node.target)) if node.op == "get_attr" else None
    return 0 if free is None else free.numel()


def mlp_cost(network: nn.Module) -> ComputeCost:
    """Cost of running a sequence of linear layers, such as a policy, on one input; scalars."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    params = sum(p.numel() for p in network.parameters())
    macs = sum(math.prod(layer.weight.shape) for layer in layers)
    return ComputeCost(torch.tensor(params), torch.tensor(macs))
