"""What a profile costs: active parameters and multiply-adds, exact, by table look-up."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers import ElasticLayer
from rlprune.elastic.module import ElasticModule
from rlprune.graph.nodes import alive_nodes

KINDS = ("params", "macs")
_MAX_PATTERNS = 10_000


class ComputeCost(NamedTuple):
    """Active parameters and multiply-adds, int64, of one shape."""

    params: Tensor
    macs: Tensor

    def of_kind(self, kind: str) -> Tensor:
        """The figure a cost kind counts: `params` or `macs`."""
        return self.params if kind == "params" else self.macs


class Cost:
    """Look-up tables of an elastic network's cost.

    A layer costs in proportion to its active inputs times its active outputs, each a sum over groups; layers that only
    dropped branches need cost nothing, and what is left of such a branch is a bias.

    Attributes:
        stem: cost of the stem, which each image pays once; scalars.
        dense: cost of the original network; scalars.
    """

    def __init__(self, elastic: ElasticModule) -> None:
        self._elastic_widths = elastic.widths.cpu()
        self._exits = [frozenset(group.exits) for group in elastic.groups]
        self._graph = elastic.body.graph
        self._nodes = [node for node in self._graph.nodes if node.op not in ("placeholder", "output")]
        rates, n_in, n_out = [], [], []
        for node in self._nodes:
            layer = elastic.body.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(layer, ElasticLayer):
                rates.append(tuple(layer.rates(node.meta["shape"])))
                n_in.append(self._counts(layer.in_axis))
                n_out.append(self._counts(layer.out_axis))
            else:
                rates.append((node.meta["macs"], 0, _n_parameters(elastic.body, node)))
                n_in.append(self._counts(Axis(1)))
                n_out.append(self._counts(Axis(1)))
        self._macs_rate, self._params_rate, self._params_per_out = torch.tensor(rates).T
        self._in_fixed, self._in_table = (torch.stack(parts) for parts in zip(*n_in, strict=True))
        self._out_fixed, self._out_table = (torch.stack(parts) for parts in zip(*n_out, strict=True))
        self._known: dict[tuple[bool, ...], tuple[Tensor, Tensor, Tensor]] = {}
        self.stem = ComputeCost(
            torch.tensor(sum(p.numel() for p in elastic.stem.parameters())),
            torch.tensor(sum(node.meta["macs"] for node in elastic.stem.graph.nodes)),
        )
        self.dense = self.of(elastic.full)

    def __deepcopy__(self, memo: dict[int, object]) -> Cost:
        """Itself: nothing changes a table, and the graph behind one is too deep to be copied node by node."""
        return self

    def of(self, levels: Tensor) -> ComputeCost:
        """Cost of one whole run of the network, stem included, as its slice would hold and do.

        Args:
            levels: int64 (B, G) or (G,).

        Returns:
            Parameters and multiply-adds, int64 (B,) or scalars.
        """
        rows = torch.atleast_2d(levels.cpu())
        groups = torch.arange(rows.shape[1])
        n_in, n_out = self._in_fixed.repeat(len(rows), 1), self._out_fixed.repeat(len(rows), 1)  # (B, nodes)
        for group in range(rows.shape[1]):
            n_in += self._in_table[:, group, rows[:, group]].T
            n_out += self._out_table[:, group, rows[:, group]].T
        params, macs = self._total(n_in, n_out, self._elastic_widths[groups, rows] == 0)
        return ComputeCost(params, macs) if levels.ndim == 2 else ComputeCost(params[0], macs[0])

    def of_kept(self, kept: Tensor) -> ComputeCost:
        """The same where so many channels of each group stay, whichever they are, int64 (B, G); int64 (B,)."""
        n_channels = self._elastic_widths[:, -1]
        n_in, n_out = (fixed + kept.cpu() @ (table[:, :, -1] // n_channels).T for fixed, table in self._sides)
        return self._total(n_in, n_out, kept.cpu() == 0)

    def _total(self, n_in: Tensor, n_out: Tensor, dropped: Tensor) -> ComputeCost:
        """Cost by what each node reads and makes, int64 (B, nodes), and which groups are dropped, bool (B, G)."""
        runs, holds, constant = self._survivors(dropped)
        per_node = n_in * n_out * self._params_rate + n_out * self._params_per_out
        params = self.stem.params + (per_node * holds + n_out * constant).sum(1)
        return ComputeCost(params, self.stem.macs + (n_in * n_out * self._macs_rate * runs).sum(1))

    def of_group(self, group: int) -> ComputeCost:
        """What would go with all channels of one group, the rest of the network staying whole; scalars."""
        n_in, n_out = (fixed + table[:, :, -1].sum(1) for fixed, table in self._sides)
        less_in, less_out = (n - table[:, group, -1] for n, (_, table) in zip((n_in, n_out), self._sides, strict=True))
        pairs, outs = n_in * n_out - less_in * less_out, n_out - less_out
        runs, holds, _ = self._survivors(torch.zeros(1, len(self._exits), dtype=torch.bool))
        params = ((pairs * self._params_rate + outs * self._params_per_out) * holds[0]).sum()
        return ComputeCost(params, (pairs * self._macs_rate * runs[0]).sum())

    @property
    def _sides(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return (self._in_fixed, self._in_table), (self._out_fixed, self._out_table)

    def _counts(self, axis: Axis) -> tuple[Tensor, Tensor]:
        """Positions of an axis that always stay, and int64 (G, L) how many each group adds at each level."""
        table = torch.zeros_like(self._elastic_widths)
        for group in axis.groups:
            table[group] = torch.tensor([axis.count(group, int(width)) for width in self._elastic_widths[group]])
        return torch.tensor(axis.n_fixed), table

    def _survivors(self, dropped: Tensor) -> list[Tensor]:
        """For rows of dropped groups, bool (B, G): nodes that run, that hold parameters, that became constants.

        Each is bool (B, nodes). A layer that is called twice holds its parameters once.
        """
        patterns, row = dropped.unique(dim=0, return_inverse=True)
        found = [self._survivors_of(tuple(pattern)) for pattern in patterns.tolist()]
        return [torch.stack(parts)[row] for parts in zip(*found, strict=True)]

    def _survivors_of(self, pattern: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
        if pattern not in self._known:
            if len(self._known) >= _MAX_PATTERNS:
                self._known.clear()
            exits = frozenset[str]().union(*(e for e, gone in zip(self._exits, pattern, strict=True) if gone))
            names = alive_nodes(self._graph, exits)
            runs = [node.name in names and node.name not in exits for node in self._nodes]
            seen: set[object] = set()
            holds = []
            for node, running in zip(self._nodes, runs, strict=True):
                holds.append(running and node.target not in seen)
                seen |= {node.target} if running and node.op in ("call_module", "get_attr") else set()
            constant = [node.name in names and node.name in exits for node in self._nodes]
            self._known[pattern] = (torch.tensor(runs), torch.tensor(holds), torch.tensor(constant))
        return self._known[pattern]


def _n_parameters(body: nn.Module, node: fx.Node) -> int:
    """Parameters of a node that has no elastic layer: another layer's, or a free parameter."""
    if node.op == "call_module":
        return sum(parameter.numel() for parameter in body.get_submodule(str(node.target)).parameters())
    free = dict(body.named_parameters()).get(str(node.target)) if node.op == "get_attr" else None
    return 0 if free is None else free.numel()


def mlp_cost(network: nn.Module) -> ComputeCost:
    """Cost of running linear layers one after another, as a policy is; scalars."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    params = sum(p.numel() for p in network.parameters())
    return ComputeCost(torch.tensor(params), torch.tensor(sum(math.prod(layer.weight.shape) for layer in layers)))
