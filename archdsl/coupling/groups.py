"""Groups of channels: what is kept, left out and permuted together, taken apart into products and pieces, and made one. Free of torch."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from archdsl.dims import Size


class Group:
    """Channels that are kept, left out and permuted together. `kind`: whole, product or joined (of `parts`). `fixed`: the order of its channels
    means something (positions, classes, pairs of a rotation), so they cannot be permuted. `origin`: of the taps of a kernel the one that reads the
    position whose result it is; None of what is no kernel."""

    __slots__ = ("_fixed", "_into", "_kind", "_origin", "_parts", "size")

    def __init__(self, size: Size):
        self.size = size
        self._into: Group | None = None
        self._kind, self._parts = "whole", ()
        self._fixed = False
        self._origin: int | None = None

    @property
    def root(self) -> Group:
        group = self
        while group._into is not None:
            group = group._into
        return group

    @property
    def kind(self) -> str:
        return self.root._kind

    @property
    def parts(self) -> tuple[Group, ...]:
        """Its parts; one of the same kind is given as its own parts."""
        found: list[Group] = []
        for p in self.root._parts:
            found += p.parts if p.kind == self.kind else (p.root,)
        return tuple(found)

    @property
    def fixed(self) -> bool:
        return self.root._fixed

    @property
    def origin(self) -> int | None:
        return self.root._origin

    def lies_at(self, origin: int) -> None:
        """Says which of the taps reads the position itself; the first op to say so is right."""
        root = self.root
        root._origin = origin if root._origin is None else root._origin

    def fix(self) -> None:
        """Says that the order of its channels means something."""
        root = self.root
        root._fixed = True
        for p in root._parts:
            p.fix()

    def take_apart(self, kind: str, parts: Sequence[Group]) -> None:
        """Says that a whole group is a product, or parts one behind another."""
        root = self.root
        root._kind, root._parts = kind, tuple(parts)
        if root._fixed:
            root.fix()

    def leaves(self) -> Iterator[Group]:
        """The whole groups in it."""
        if self.kind == "whole":
            yield self.root
        for p in self.parts:
            yield from p.leaves()

    def __repr__(self) -> str:
        sign = {"product": " × ", "joined": " + "}.get(self.kind)
        return f"({sign.join(map(repr, self.parts))})" if sign else f"{self.size}{'!' * self.fixed}"


Axes = tuple[Group, ...]


def couple(a: Group, b: Group) -> None:
    """Makes two groups of one size one. Where they cannot be taken apart alike, the channels of both stay where they are."""
    a, b = a.root, b.root
    if a is b or a.size != b.size:
        return
    if a.kind != "whole" and b.kind == "whole":
        a, b = b, a
    if a.kind != "whole" and not _align(a, b):
        a.fix()
        b.fix()
        return
    a._into = b
    if a._fixed:
        b.fix()
    if a._origin is not None:
        b.lies_at(a._origin)


def _align(a: Group, b: Group) -> bool:
    """Takes two composed groups apart in the same way and couples the parts; False where that cannot be done."""
    if a.kind != b.kind:
        product, joined = (a, b) if a.kind == "product" else (b, a)
        first, rest = product.parts[0], product.parts[1:]
        if first.size != len(joined.parts) or len({p.size for p in joined.parts}) != 1:
            return False
        first.fix()
        inner = rest[0] if len(rest) == 1 else composed("product", rest)
        for p in joined.parts:
            couple(p, inner)
        return True
    pairs = _paired(a.kind, list(a.parts), list(b.parts))
    if pairs is None:
        return False
    for p, q in pairs:
        couple(p, q)
    return True


def composed(kind: str, parts: Sequence[Group]) -> Group:
    """A group of parts, its size computed."""
    size: Size = 1 if kind == "product" else 0
    for p in parts:
        size = size * p.size if kind == "product" else size + p.size
    group = Group(size)
    group.take_apart(kind, parts)
    return group


def _paired(kind: str, left: list[Group], right: list[Group]) -> list[tuple[Group, Group]] | None:
    """The parts of two groups of one size in pairs, whole ones taken apart where that makes them fit; None where nothing does."""
    pairs: list[tuple[Group, Group]] = []
    while left and right:
        a, b = left.pop(0), right.pop(0)
        if a.size == b.size:
            pairs.append((a, b))
            continue
        if not (isinstance(a.size, int) and isinstance(b.size, int)):
            return None
        big, small, others = (a, b, left) if a.size > b.size else (b, a, right)
        rest = _rest(kind, big, small)
        if rest is None:
            return None
        first = Group(small.size)
        big.take_apart(kind, (first, rest))
        pairs.append((first, small) if big is a else (small, first))
        others.insert(0, rest)
    return pairs if not left and not right else None


def _rest(kind: str, big: Group, small: Group) -> Group | None:
    """What a whole group is beside a part of it."""
    n, m = big.size, small.size
    if big.kind != "whole" or not (isinstance(n, int) and isinstance(m, int)):
        return None
    if kind == "joined":
        return Group(n - m)
    return Group(n // m) if m and n % m == 0 else None


def in_order(size: Size) -> Group:
    """A group whose channels stay in their order."""
    group = Group(size)
    group.fix()
    return group


def taken_apart(group: Group, kind: str, parts: Sequence[Group]) -> tuple[Group, ...]:
    """The parts of a group that an op takes apart in these sizes, coupled with those that it has."""
    if len(parts) == 1:
        couple(group, parts[0])
        return (group,)
    couple(group, composed(kind, parts))
    return tuple(parts)


def share_heads(queries: Group, keys: Group) -> None:
    """Each key head serves as many query heads, one behind another."""
    if queries.size == keys.size:
        couple(queries, keys)
    elif isinstance(queries.size, int) and isinstance(keys.size, int) and keys.size > 1:
        couple(queries, composed("product", [keys, Group(queries.size // keys.size)]))
