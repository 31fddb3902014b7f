"""Which axis of which weight is split over the ranks of a tensor-parallel group: read off the typed graph. Free of torch.

Channels that belong together (`archdsl/coupling`) are split together: the hidden channels of an MLP are rows of its first weights and columns of its
last, the heads of attention and of a recurrence rows of q, k, v and columns of the output. So the results of a first map are split, what follows
works on each rank's part, and the last map gives sums over ranks. What reaches beyond a block, the residual stream first of all, is whole everywhere.
"""
from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from archdsl.coupling import groups_of
from archdsl.coupling.groups import Group

if TYPE_CHECKING:
    from archdsl.graph import Graph


def parallel_plan(graph: Graph, ranks: int) -> dict[str, int]:
    """Address of a weight -> the axis that is split into `ranks` equal parts, one behind another; weights that stay whole are left out.

    A group of channels is split where it joins several weights, all within one block, its size is a multiple of `ranks`, and it is the outermost
    factor of every axis it stands on, so that a part of it is one stretch. An axis of several pieces (q, k and v in one weight) stays whole. Raises
    ValueError for less than one rank.
    """
    if ranks < 1:
        raise ValueError(f"a model is split over 1 rank or more, not {ranks}")
    weights = groups_of(graph)
    spread: dict[Group, set[str]] = defaultdict(set)
    inner: set[Group] = set()
    outermost: dict[Group, list[tuple[str, int]]] = defaultdict(list)
    for address, axes in weights.items():
        for axis, group in enumerate(axes):
            for leaf in group.leaves():
                spread[leaf].add(address)
                if len(axes) > 2:  # experts, kernels of convolutions: their axes are not those of a linear map
                    inner.add(leaf)
            if group.kind == "joined":
                continue
            first, *rest = _factors(group)
            inner.update(leaf for factor in rest for leaf in factor.leaves())
            if first.kind == "whole":
                outermost[first].append((address, axis))
    def divides(leaf: Group, places: list[tuple[str, int]]) -> bool:
        several = len({address for address, _ in places}) > 1
        return several and leaf not in inner and isinstance(leaf.size, int) and leaf.size % ranks == 0 and bool(_block(spread[leaf]))

    plan: dict[str, int] = {}
    for leaf, places in sorted(outermost.items(), key=lambda found: -len(found[1])):  # where two groups want one weight, that of more weights
        if ranks > 1 and divides(leaf, places) and not any(address in plan for address, _ in places):
            plan.update(places)
    return {address: plan[address] for address in weights if address in plan}


def _factors(group: Group) -> list[Group]:
    return [p for p in group.parts if p.size != 1] or [group] if group.kind == "product" else [group.root]


def _block(addresses: set[str]) -> str:
    """The innermost block that holds all these weights, "" for the model itself."""
    common: list[str] = []
    for level in zip(*(a.split(".")[:-1] for a in addresses)):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)

