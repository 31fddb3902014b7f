"""What a definition's text may call things: names, sizes, values, masks."""
from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from archdsl import dims
from archdsl.dims import Dim, Size
from archdsl.elaborate import library
from archdsl.elaborate.values import RecordValue, is_list
from archdsl.graph import Graph, Mask, Node, TensorType, Value
from archdsl.records import field, record

LANGUAGE_WORDS = frozenset("and or not in is as with if else match for true false none".split())


class Unprintable(ValueError):
    """A run-time size (`symbol`) that cannot be written with the axes of the block it stands in."""

    def __init__(self, message: str, symbol: str):
        super().__init__(message)
        self.symbol = symbol


class Names(dict[int, str]):
    """Names of definitions. `scans`: of the blocks that stand for scans, with their texts, by node.
    `sizes`: the run-time sizes that a definition is given as hyper arguments, because no axis of its inputs tells them."""

    def __init__(self, names: dict[int, str]):
        super().__init__(names)
        self.sizes: dict[int, tuple[str, ...]] = {}
        self.scans: dict[int, tuple[str, str]] = {}

    def scan(self, node: Node, make: Callable[[str], str]) -> str:
        """The name of the block that stands for a scan; `make(name)` gives its text when it is first needed."""
        if id(node) not in self.scans:
            k, taken = 1, {*self.values(), *(n for n, _ in self.scans.values())}
            while (name := "Scanned" if k == 1 else f"Scanned_{k}") in taken:
                k += 1
            self.scans[id(node)] = name, ""
            self.scans[id(node)] = name, make(name)
        return self.scans[id(node)][0]


@record(slots=False)
class Scope:
    """Names of one block's text."""

    graph: Graph
    names: Names
    sizes: dict[Size, str] = field(default_factory=dict)
    values: dict[Value, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    others: dict[tuple[str, str], str] = field(default_factory=dict)  # (path, hash) of a further block with the weights of a shared one

    def fresh(self, hint: str, fallback: str = "v") -> str:
        base = re.sub(r"\W", "_", hint) if hint else fallback
        word = keyword.iskeyword(base) or base in LANGUAGE_WORDS or is_word(base)
        if word or not base[0].isalpha() or base[0].isupper() or re.fullmatch(r"a\d+", base):
            base = f"{fallback}_{base.lower()}" if base[0].isalpha() else fallback
        name, k = base, 1
        while name in self.taken or is_word(name):
            k += 1
            name = f"{base}_{k}"
        self.taken.add(name)
        return name

    def applied(self, graph: Graph) -> str:
        """The template of a definition, with the sizes that it is given."""
        given = ", ".join(f"{symbol} = {self.size(dims.sym(symbol))}" for symbol in self.names.sizes.get(id(graph), ()))
        return f"{self.names[id(graph)]}({given})"

    # ---------------------------------------------------------------- sizes
    def size(self, size: Size) -> str:
        """A size in the names of this block's axes. Raises Unprintable."""
        if isinstance(size, int):
            return str(size)
        if size in self.sizes:
            return self.sizes[size]
        return str(self._rewrite(size))

    def _rewrite(self, size: Size) -> Size:
        if isinstance(size, int):
            return size
        if size in self.sizes:
            return dims.sym(self.sizes[size])
        total: Size = 0
        for coefficient, mono in dims.terms(size):
            term: Size = 1
            scale = Fraction(coefficient)
            for atom, power in mono:
                part, factor = self._atom(atom)
                term = term * part ** power
                scale *= factor ** power
            if scale.denominator == 1:
                total = total + int(scale) * term
            else:
                exact = dims.floordiv(term * scale.numerator, scale.denominator)
                total = total + exact
        return total

    def _atom(self, atom: Any) -> tuple[Size, Fraction]:
        """An atom as (size in local names, factor)."""
        for known, name in self.sizes.items():
            ts = dims.terms(known)
            if len(ts) == 1 and len(ts[0][1]) == 1 and ts[0][1][0] == (atom, 1):
                return dims.sym(name), 1 / Fraction(ts[0][0])
        if atom.kind == "sym":
            raise Unprintable(f"the size {atom.name} cannot be read off an input of `{self.graph.name}`", atom.name)
        if atom.kind == "floor":
            num, den = atom.args
            for known, name in self.sizes.items():
                ts = dims.terms(known)
                if len(ts) == 1 and len(ts[0][1]) == 1 and ts[0][0] == 1 and ts[0][1][0][1] == 1:
                    other = ts[0][1][0][0]
                    if other.kind != "floor" or other.args[0] is not num:
                        continue
                    inner = other.args[1]
                    if isinstance(den, int) and isinstance(inner, int) and den % inner == 0:
                        return dims.floordiv(dims.sym(name), den // inner), Fraction(1)
            return dims.floordiv(self._rewrite(num), self._rewrite(den)), Fraction(1)
        pick = dims.minimum if atom.kind == "min" else dims.maximum
        return pick(*(self._rewrite(a) for a in atom.args)), Fraction(1)

    def type(self, t: TensorType) -> str:
        return ("" if t.dtype == "float" else t.dtype) + "[" + ", ".join(self.size(s) for s in t.shape) + "]"

    def result(self, t: TensorType) -> str:
        """The type of a result: a size that follows from the body in a way the inputs' axes cannot say is left to be inferred."""
        def size(s: Size) -> str:
            try:
                return self.size(s)
            except Unprintable:
                return "_"

        return ("" if t.dtype == "float" else t.dtype) + "[" + ", ".join(map(size, t.shape)) + "]"

    # ---------------------------------------------------------------- values
    def value(self, v: Any) -> str:
        """An operand."""
        if isinstance(v, Value):
            return self.values[v]
        if is_list(v):
            return "[" + ", ".join(map(self.value, v)) + "]"
        if isinstance(v, Dim):
            return f"({self.size(v)})"
        return literal(v)

    def attribute(self, v: Any) -> str:
        if isinstance(v, Mask):
            return self.mask(v)
        if isinstance(v, Dim):
            return self.size(v)
        if is_list(v):
            return "[" + ", ".join(map(self.attribute, v)) + "]"
        return literal(v)

    def mask(self, m: Mask) -> str:
        if m.kind in ("and", "or"):
            sign = " & " if m.kind == "and" else " | "
            return sign.join(f"({self.mask(a)})" if a.kind in ("and", "or") else self.mask(a) for a in m.args)
        if not m.args:
            return m.kind
        shown = [self.value(a) for a in m.args]
        if m.kind == "own_block":
            shown[1] = f"previous = {shown[1]}"
        return f"{m.kind}({', '.join(shown)})"


def is_word(name: str) -> bool:
    return library.find(name) is not None


def literal(v: Any) -> str:
    """A number, string, bool or none, exactly."""
    if v is None:
        return "none"
    if isinstance(v, bool):
        return str(v).lower()
    if isinstance(v, str):
        return '"' + v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(v, float):
        return str(int(v)) if v.is_integer() and abs(v) < 1e15 else repr(v)
    if isinstance(v, Fraction):
        return literal(float(v))
    if is_list(v):
        return "[" + ", ".join(map(literal, v)) + "]"
    if isinstance(v, RecordValue):
        return f"{v.name}({', '.join(f'{k} = {literal(x)}' for k, x in v.items)})"
    return str(v)
