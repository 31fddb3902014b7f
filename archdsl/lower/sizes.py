"""Run-time sizes: how to compute the size expression of an attribute from the axes of tensors at hand. Symbolic, free of torch."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import lcm
from typing import Any

from archdsl.dims import Atom, Dim, Size, atoms, terms
from archdsl.graph import Mask, Node, Value


class Unknown(LookupError):
    """A symbol that no axis at hand determines."""


def dims_of(node: Node) -> Iterable[Dim]:
    """The run-time sizes among a node's operands and attributes."""
    for value in node.args:
        if value.__class__ is not Value:
            yield from _dims(value)
    for name, value in node.attrs.items():
        if value.__class__ is not str and name not in ("graph", "train", "eval"):
            yield from _dims(value)


def _dims(value: Any) -> Iterable[Dim]:
    if isinstance(value, Dim):
        yield value
    elif isinstance(value, Mask):
        yield from _dims(value.args)
    elif isinstance(value, (tuple, list)) and not isinstance(value, Value):
        for v in value:
            yield from _dims(v)


class Axes:
    """The axes at hand. `emit(op, *operands)` makes one arithmetic step and returns its result: with proxies it writes the graph;
    `measure(value, axis)` reads a size. Each expression is computed once."""

    def __init__(self, measure: Callable[[Value, int], Any], emit: Callable[..., Any]):
        self.measure, self.emit = measure, emit
        self.axes: dict[Dim, tuple[Value, int]] = {}
        self.known: dict[Dim, Any] = {}
        self.solving: set[str] = set()
        self.latest: tuple[Size, ...] | None = None

    def add(self, value: Value) -> None:
        shape = value.shape
        if shape == self.latest:  # most layers give what they take
            return
        self.latest = shape
        for axis, size in enumerate(shape):
            if isinstance(size, Dim):
                self.axes.setdefault(size, (value, axis))

    def give(self, dim: Dim, result: Any) -> None:
        """States the size's value, as an input that carries it does."""
        self.known.setdefault(dim, result)

    def __call__(self, size: Size) -> Any:
        """The value of a size. Raises Unknown with a symbol's name."""
        if isinstance(size, int):
            return size
        if size not in self.known:
            self.known[size] = self._read(size) if size in self.axes else self._sum(size)
        return self.known[size]

    def computed(self, dim: Dim) -> Any:
        """The value from other sizes than itself; none where nothing else tells it."""
        try:
            return self._sum(dim)
        except Unknown:
            return None

    def _read(self, dim: Dim) -> Any:
        return self.measure(*self.axes[dim])

    def _sum(self, dim: Dim) -> Any:
        parts = terms(dim)
        if len(parts) == 1 and parts[0][0] == 1 and len(parts[0][1]) == 1 and parts[0][1][0][1] == 1:
            return self._atom(parts[0][1][0][0])
        modulo = _modulo(dim)
        if modulo is not None:
            return self.emit("mod", self(modulo[0]), modulo[1])
        den = lcm(*(Fraction(c).denominator for c, _ in parts))
        total: Any = None
        for c, mono in sorted(parts, key=lambda part: not part[1]):  # the constant last: T + 1 reads better than 1 + T
            value = self._product([self(atom.dim) for atom, p in mono for _ in range(p)], int(c * den))
            if total is None:
                total = value
            elif isinstance(value, int) and value < 0:
                total = self.emit("sub", total, -value)
            else:
                total = self.emit("add", total, value)
        return total if den == 1 else self.emit("floordiv", total, den)

    def _product(self, factors: list[Any], c: int) -> Any:
        if not factors:
            return c
        value = factors[0]
        for f in factors[1:]:
            value = self.emit("mul", value, f)
        return value if c == 1 else self.emit("neg", value) if c == -1 else self.emit("mul", c, value)

    def _atom(self, atom: Atom) -> Any:
        if atom.kind == "sym":
            return self._solve(atom)
        if atom.kind == "floor":
            return self._floor(*atom.args)
        value = self(atom.args[0])
        for a in atom.args[1:]:
            value = self.emit(atom.kind, value, self(a))
        return value

    def _floor(self, num: Size, den: Size) -> Any:
        """floor(num / den); where num itself is out of reach, by a known floor(num / d) with d dividing den."""
        try:
            return self.emit("floordiv", self(num), self(den))
        except Unknown:
            if not isinstance(den, int):
                raise
            for dim in (*self.axes, *self.known):
                found = atoms(dim)
                if len(found) == 1 and found[0].dim is dim and found[0].kind == "floor":
                    other, d = found[0].args
                    if other is num and isinstance(d, int) and den % d == 0:
                        return self.emit("floordiv", self(dim), den // d)
            raise

    def _solve(self, atom: Atom) -> Any:
        """A symbol from an axis that is linear in it: s from c * s * rest + other."""
        name = atom.name
        if name in self.solving:
            raise Unknown(name)
        self.solving.add(name)
        try:
            for dim in sorted((d for d in (*self.known, *self.axes) if name in d.symbols), key=lambda d: d.weight):
                try:
                    return self._isolate(atom, dim)
                except Unknown:
                    continue
            raise Unknown(name)
        finally:
            self.solving.discard(name)

    def _isolate(self, atom: Atom, dim: Dim) -> Any:
        inside = [(c, m) for c, m in terms(dim) if any(atom.name in a.symbols for a, _ in m)]
        if len(inside) != 1 or dict(inside[0][1]).get(atom) != 1 or sum(atom.name in a.symbols for a, _ in inside[0][1]) != 1:
            raise Unknown(atom.name)
        den = lcm(*(Fraction(c).denominator for c, _ in terms(dim)))
        c, mono = int(inside[0][0] * den), inside[0][1]
        rest, term = 1, c
        for a, p in mono:
            term = term * a.dim**p
            rest = rest if a is atom else rest * a.dim**p
        other = den * dim - term
        value = self(dim)
        value = value if den == 1 else self.emit("mul", den, value)
        if isinstance(other, int) and other < 0:
            value = self.emit("add", value, -other)
        elif other != 0:
            value = self.emit("sub", value, self(other))
        value = value if c == 1 else self.emit("floordiv", value, c)
        return value if isinstance(rest, int) else self.emit("floordiv", value, self(rest))


def _modulo(dim: Dim) -> tuple[Size, int] | None:
    """(a, n) where the size is a - n floor(a / n)."""
    for atom in atoms(dim):
        if atom.kind == "floor":
            a, n = atom.args
            if isinstance(n, int) and dim + n * atom.dim == a:
                return a, n
    return None
