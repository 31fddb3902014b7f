"""Channels as places on an axis: where the channels of each group lie, and where those of a narrower model lie in a wider one. Free of torch."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from archdsl.coupling.groups import Group

Places = Sequence[int]


def places(group: Group, chosen: Mapping[Group, Places]) -> Places:
    """The places of the chosen channels on an axis of this group, in their order; of groups that `chosen` does not name, all of them."""
    if group.kind == "whole":
        root = group.root
        return chosen[root] if root in chosen else range(_number(root))
    parts = [places(p, chosen) for p in group.parts]
    return _combined(group.kind, parts, [_number(p) for p in group.parts])


def channels(group: Group, leaf: Group) -> list[int]:
    """For each place on an axis the channel of a whole group that lies there, -1 where none does."""
    if group.kind == "whole":
        return list(range(_number(leaf))) if group.root is leaf.root else [-1] * _number(group)
    parts = [channels(p, leaf) for p in group.parts]
    if group.kind == "joined":
        return [c for part in parts for c in part]
    found = parts[0]
    for part in parts[1:]:
        found = [max(outer, c) for outer in found for c in part]
    return found


def within(wide: Group, narrow: Group) -> Places:
    """Where the channels of a narrower model's axis lie on the same axis of a wider one: the first of each whole group, of the taps of a kernel those
    around the same position, all combinations of a product, each piece in its own piece. Raises ValueError where it is longer."""
    n, m = _number(narrow), _number(wide)
    if n > m:
        raise ValueError(f"an axis of {n} channels does not fit into one of {m}")
    if n == m:
        return range(n)
    if wide.origin is not None and narrow.origin is not None:
        start = min(max(wide.origin - narrow.origin, 0), m - n)
        return range(start, start + n)
    small, large = narrow.parts, wide.parts
    if wide.kind == "whole" or wide.kind != narrow.kind or len(small) != len(large) or any(_number(a) > _number(b) for a, b in zip(small, large)):
        return range(n)
    return _combined(wide.kind, [within(b, a) for a, b in zip(small, large)], [_number(b) for b in large])


def _combined(kind: str, parts: Sequence[Places], sizes: Sequence[int]) -> Places:
    found: list[int] = []
    if kind == "joined":
        start = 0
        for part, size in zip(parts, sizes):
            found += [start + i for i in part]
            start += size
    else:
        found = list(parts[0])
        for part, size in zip(parts[1:], sizes[1:]):
            found = [outer * size + i for outer in found for i in part]
    return range(len(found)) if found == list(range(len(found))) else found


def _number(group: Group) -> int:
    if not isinstance(group.size, int):
        raise TypeError(f"an axis of {group.size} channels has no number of them before the model runs")
    return group.size
