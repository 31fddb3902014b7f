"""Tensors of positions as formulas: what ranges, sums, comparisons and indexing say of each element.

An element of an integer tensor is a size expression over its place (`place(k)` is the position on axis k) and the run-time sizes, an element of a
bool tensor a condition. What is decided here holds for all sizes; a tensor that depends on data is a leaf. No torch here.
"""
from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from archdsl.dims import Dim, Facts, Size, floordiv, mod, substitute, sym, symbols
from archdsl.graph import Node, Value
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

TRUE, FALSE = ("true",), ("false",)
Condition = tuple[Any, ...]
"""("true",) ("false",) · ("ge", d): d ≥ 0 · ("eq", d): d = 0 · ("and" | "or", a, b) · ("not", a) · ("read", value, place): an element of a bool
tensor · ("choose", c, x, y): the number x where c holds, else y."""


@record(eq=False)
class Formula:
    """An element of a tensor of this shape: a Size or a Condition over the places of its axes."""

    element: Any
    shape: tuple[Size, ...]


def axis_name(axis: int) -> str:
    return f"place {axis}"


def place(axis: int) -> Dim:
    return sym(axis_name(axis)) - 1  # type: ignore[return-value]  # symbols are at least 1


def _at(element: Any, places: dict[str, Size]) -> Any:
    """The element with other symbols for its places."""
    if isinstance(element, Dim):
        return substitute(element, places)
    if isinstance(element, tuple):
        if element and element[0] == "read":
            return ("read", element[1], tuple(_at(p, places) for p in element[2]))
        return tuple(_at(e, places) for e in element)
    return element


def _moved(formula: Formula, places: list[Size]) -> Any:
    """The element at these places, one for each axis."""
    return _at(formula.element, {axis_name(k): p + 1 for k, p in enumerate(places)})


def _spread(formula: Formula, shape: tuple[Size, ...]) -> Any:
    """The element of the tensor repeated to `shape`."""
    new = len(shape) - len(formula.shape)
    return _moved(formula, [0 if type(n) is int and n == 1 else place(k + new) for k, n in enumerate(formula.shape)])


class Reader:
    """Finds formulas, each value once."""

    def __init__(self, flat: Flat):
        self.flat, self.facts, self.known = flat, flat.facts, {}

    def read(self, v: Any) -> Formula | None:
        if type(v) is not Value:
            return Formula(v, ()) if isinstance(v, (int, float, Dim)) else None
        if v not in self.known:
            self.known[v] = None
            found = self._read(v)
            if found is None and v.dtype == "bool":
                found = Formula(("read", v, tuple(place(k) for k in range(len(v.shape)))), v.shape)
            self.known[v] = found
        return self.known[v]

    def _read(self, v: Value) -> Formula | None:
        node = v.node
        rule = READERS.get(f"aten {node.attrs['name']}" if node.op == "aten" else node.op)
        if rule is None or v.index:
            return None
        operands = _operands(node.args)
        inside = [None if a is None else self.read(a) for a in operands]
        if any(f is None and a is not None for f, a in zip(inside, operands)):
            return None
        element = rule(self, node, inside)
        return None if element is None else Formula(self.decided(element, v.shape), v.shape)

    def decided(self, element: Any, shape: tuple[Size, ...]) -> Any:
        """Conditions that hold everywhere or nowhere on the axes of a tensor."""
        if not isinstance(element, tuple) or element in (TRUE, FALSE):
            return element
        facts = self.facts.copy()
        for k, n in enumerate(shape):
            facts.require_at_least(n, sym(axis_name(k)))
        return settled(element, facts)


def _operands(args: Any) -> list[Any]:
    return [a for arg in args for a in (_operands(arg) if type(arg) is tuple else (arg,))]


def settled(c: Condition, facts: Facts) -> Condition:
    """A condition with all that the facts about sizes decide taken out of it."""
    if c[0] == "ge":
        return TRUE if facts.at_least(c[1], 0) else FALSE if facts.at_least(-c[1] - 1, 0) else c
    if c[0] == "eq":
        return TRUE if facts.equal(c[1], 0) else FALSE if facts.at_least(c[1], 1) or facts.at_least(-c[1], 1) else c
    if c[0] == "not":
        inner = settled(c[1], facts)
        if inner in (TRUE, FALSE):
            return FALSE if inner == TRUE else TRUE
        return ("ge", -inner[1] - 1) if inner[0] == "ge" else inner[1] if inner[0] == "not" else ("not", inner)
    if c[0] in ("and", "or"):
        a, b = settled(c[1], facts), settled(c[2], facts)
        end, rest = (FALSE, TRUE) if c[0] == "and" else (TRUE, FALSE)
        return end if end in (a, b) else b if a in (rest, b) else a if b == rest else (c[0], a, b)
    if c[0] == "choose":
        inner = settled(c[1], facts)
        return c[2] if inner == TRUE else c[3] if inner == FALSE else ("choose", inner, c[2], c[3])
    return c


# ---------------------------------------------------------------- what each op says of an element
Rule = Callable[[Reader, Node, list[Any]], Any]
READERS: dict[str, Rule] = {}


def _reads(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        READERS.update(dict.fromkeys(names, rule))
        return rule
    return register


def _whole(x: Any) -> Any:
    """A number as an exact size, or None."""
    if isinstance(x, (int, Dim)):
        return x
    return int(x) if isinstance(x, float) and x.is_integer() and abs(x) < 2**53 else None


def _numbers(node: Node, inside: list[Formula]) -> list[Size] | None:
    out = [_whole(_spread(f, node.types[0].shape)) for f in inside]
    return None if any(x is None for x in out) else [int(x) if isinstance(x, bool) else x for x in out]


@_reads("iota", "index")
def _iota(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return place(0)


@_reads("literal")
def _literal(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return pattern(node.attrs["value"])


def pattern(value: Any) -> Any:
    """What the elements of a table are by their places: one number everywhere, 0, 1, 2, … along the last axis, or one number between two diagonals of
    the last two axes and another outside. `value`: nested tuples; None for any other."""
    if not isinstance(value, tuple):
        return (TRUE if value else FALSE) if isinstance(value, bool) else _whole(value) if _whole(value) is not None else value
    rank, matrices, rows = 0, [(value,)], [value]
    while rows and isinstance(rows[0], tuple):
        rank, matrices, rows = rank + 1, rows, [r for row in rows for r in row]
    if not rows:
        return None
    first = rows[0]
    if all(v == first for v in rows):
        return (TRUE if first else FALSE) if isinstance(first, bool) else _whole(first)
    if all(row == tuple(range(len(row))) for row in matrices):
        return place(rank - 1)
    return _band(value, rank)


def _band(value: Any, rank: int) -> Any:
    """A table whose last two axes hold one number between two diagonals and another outside: matrices that are all equal, of equal diagonals."""
    blocks = [value]
    for _ in range(rank - 2):
        blocks = [b for block in blocks for b in block]
    matrix = blocks[0]
    if rank < 2 or any(b != matrix for b in blocks) or any(row[1:] != above[:-1] for above, row in pairwise(matrix)):
        return None
    lowest = 1 - len(matrix[0])
    by_distance = (*matrix[0][::-1], *(row[0] for row in matrix[1:]))  # of row - column, from `lowest` on
    runs = [(v, len(list(same))) for v, same in groupby(by_distance)]
    if len(runs) > 3 or len({v for v, _ in runs}) != 2:
        return None
    at = 1 if len(runs) == 3 else next((i for i, (v, _) in enumerate(runs) if v is True), 0)  # the run between the others, or either of two
    yes, no = runs[at][0], runs[at - 1][0]
    low = lowest + sum(n for _, n in runs[:at])
    high = low + runs[at][1] - 1
    distance = place(rank - 2) - place(rank - 1)
    parts = [c for c, bounded in ((("ge", distance - low), at > 0), (("ge", high - distance), at < len(runs) - 1)) if bounded]
    inside = parts[0] if len(parts) == 1 else ("and", *parts)
    return (inside if yes else ("not", inside)) if isinstance(yes, bool) else ("choose", inside, yes, no)


def _by_case(node: Node, inside: list[Any], computed: Callable[[Any, Any], Any]) -> Any:
    """An op of two numbers of which one is chosen by a condition: the condition, and what the op makes of both. None where it is not so."""
    a, b = (_spread(f, node.types[0].shape) for f in inside)
    chosen = [v for v in (a, b) if isinstance(v, tuple) and v[0] == "choose"]
    plain = [v for v in (a, b) if not isinstance(v, (tuple, Dim))]
    if len(chosen) != 1 or len(plain) != 1:
        return None
    _, condition, x, y = chosen[0]
    return (condition, *(computed(v, plain[0]) if chosen[0] is a else computed(plain[0], v) for v in (x, y)))


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {n: getattr(operator, n) for n in ("add", "sub", "mul", "eq", "ne", "lt", "le", "gt", "ge")}


@_reads("param")
def _table(reader: Reader, node: Node, inside: list[Any]) -> Any:
    """A buffer whose values are a pattern."""
    return reader.flat.tables.get(node.attrs["path"])


@_reads("add", "sub", "mul", "floordiv", "mod", "maximum", "minimum")
def _arithmetic(reader: Reader, node: Node, inside: list[Any]) -> Any:
    values = _numbers(node, inside)
    if values is None:
        cases = _by_case(node, inside, _OPERATORS[node.op]) if node.op in _OPERATORS else None
        return None if cases is None else ("choose", *cases)
    a, b = values
    if node.op in ("floordiv", "mod"):
        return (floordiv if node.op == "floordiv" else mod)(a, b) if type(b) is int and b > 0 else None
    if node.op in ("maximum", "minimum"):
        least, most = (a, b) if reader.facts.at_least(b, a) else (b, a) if reader.facts.at_least(a, b) else (None, None)
        return most if node.op == "maximum" else least
    return a + b if node.op == "add" else a - b if node.op == "sub" else a * b


@_reads("neg")
def _neg(reader: Reader, node: Node, inside: list[Any]) -> Any:
    values = _numbers(node, inside)
    return None if values is None else -values[0]


@_reads("cast", "at_least", "as_type")
def _cast(reader: Reader, node: Node, inside: list[Any]) -> Any:
    element, to = inside[0].element, node.types[0].dtype
    if to == "bool":
        if isinstance(element, tuple) and element[0] == "choose":
            _, condition, x, y = element
            return (TRUE if x else FALSE) if bool(x) == bool(y) else condition if x else ("not", condition)
        return element if isinstance(element, tuple) else ("not", ("eq", element)) if _whole(element) is not None else None
    if element in (TRUE, FALSE):
        return int(element == TRUE)
    return element if not isinstance(element, tuple) or element[0] == "choose" else None


@_reads("zeros_like")
def _zeros(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return FALSE if node.types[0].dtype == "bool" else 0


@_reads("ones_like")
def _ones(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return TRUE if node.types[0].dtype == "bool" else 1


@_reads("expand", "identity", "stop")
def _same(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return _spread(inside[0], node.types[0].shape)


@_reads("rearrange")
def _rearranged(reader: Reader, node: Node, inside: list[Any]) -> Any:
    sizes, ins, outs = node.attrs["sizes"], node.attrs["ins"], node.attrs["outs"]
    atoms: dict[int, Size] = {}
    for axis, group in enumerate(outs):
        rest: Size = place(axis)
        for a in reversed(group[1:]):
            atoms[a], rest = mod(rest, sizes[a]), floordiv(rest, sizes[a])
        if group:
            atoms[group[0]] = rest
    places: list[Size] = []
    for group in ins:
        whole: Size = 0
        for a in group:
            whole = whole * sizes[a] + atoms.get(a, 0)
        places.append(whole)
    return _moved(inside[0], places)


@_reads("slice")
def _sliced(reader: Reader, node: Node, inside: list[Any]) -> Any:
    shape = inside[0].shape
    places: list[Size] = []
    out = 0
    for kind, *rest in node.attrs["items"]:
        n = shape[len(places)] if len(places) < len(shape) else 0
        if kind == "new":
            out += 1
        elif kind == "int":
            places.append(rest[0] + n if type(rest[0]) is int and rest[0] < 0 else rest[0])
        else:
            start = rest[0] or 0
            start = start + n if type(start) is int and start < 0 else start
            places.append(start + place(out) * (rest[2] or 1))
            out += 1
    while len(places) < len(shape):
        places.append(place(out))
        out += 1
    return _moved(inside[0], places)


@_reads("concat")
def _concat(reader: Reader, node: Node, inside: list[Any]) -> Any:
    """One formula for all parts: the last part's, where it holds for the single positions before it as well."""
    axis = node.attrs["axis"] % len(node.types[0].shape)
    before = sum((f.shape[axis] for f in inside[:-1]), 0)
    here = [place(k) for k in range(len(node.types[0].shape))]
    last = _moved(inside[-1], [p - before if k == axis else p for k, p in enumerate(here)])
    at: Size = 0
    for f in inside[:-1]:
        if not (type(f.shape[axis]) is int and f.shape[axis] == 1) or isinstance(last, tuple):
            return None
        if _moved(f, [0 if k == axis else p for k, p in enumerate(here)]) != _at(last, {axis_name(axis): at + 1}):
            return None
        at = at + 1
    return last


@_reads("cumsum")
def _cumsum(reader: Reader, node: Node, inside: list[Any]) -> Any:
    axis = node.attrs["axis"] % len(node.types[0].shape)
    element = inside[0].element
    element = int(element == TRUE) if element in (TRUE, FALSE) else _whole(element)
    if element is None or isinstance(element, Dim) and axis_name(axis) in symbols(element):
        return None
    return element * (place(axis) + 1)


@_reads("eq", "ne", "lt", "le", "gt", "ge")
def _compared(reader: Reader, node: Node, inside: list[Any]) -> Any:
    values = _numbers(node, inside)
    if values is None:
        cases = _by_case(node, inside, _OPERATORS[node.op])
        if cases is None:
            return None
        condition, yes, no = cases
        return (TRUE if yes else FALSE) if yes == no else condition if yes else ("not", condition)
    d = values[0] - values[1]
    return {"eq": ("eq", d), "ne": ("not", ("eq", d)), "lt": ("ge", -d - 1), "le": ("ge", -d), "gt": ("ge", d - 1), "ge": ("ge", d)}[node.op]


@_reads("logical_and", "logical_or")
def _logical(reader: Reader, node: Node, inside: list[Any]) -> Any:
    a, b = (_spread(f, node.types[0].shape) for f in inside)
    return ("and" if node.op == "logical_and" else "or", a, b)


@_reads("logical_not")
def _not(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return ("not", inside[0].element)


@_reads("where")
def _where(reader: Reader, node: Node, inside: list[Any]) -> Any:
    condition, x, y = (_spread(f, node.types[0].shape) for f in inside)
    if node.types[0].dtype == "bool":
        return ("or", ("and", condition, x), ("and", ("not", condition), y))
    return None if isinstance(x, (tuple, Dim)) or isinstance(y, (tuple, Dim)) else ("choose", condition, x, y)


@_reads("log")
def _log(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return float("-inf") if inside[0].element == 0 and not isinstance(inside[0].element, tuple) else None


@_reads("take")
def _taken(reader: Reader, node: Node, inside: list[Any]) -> Any:
    x, index = inside
    axis, k = node.attrs["axis"] % len(x.shape), len(index.shape)
    chosen = _at(index.element, {axis_name(i): place(axis + i) + 1 for i in range(k)})
    if _whole(chosen) is None:
        return None
    return _moved(x, [place(i) if i < axis else chosen if i == axis else place(i + k - 1) for i in range(len(x.shape))])


@_reads("gather")
def _gathered(reader: Reader, node: Node, inside: list[Any]) -> Any:
    x, index = inside
    axis = node.attrs["axis"] % len(x.shape)
    return _moved(x, [index.element if k == axis else place(k) for k in range(len(x.shape))]) if _whole(index.element) is not None else None


@_reads("aten index.Tensor")
def _indexed(reader: Reader, node: Node, inside: list[Any]) -> Any:
    """x[i, j, …] with index tensors for the leading axes, all of them given."""
    x, *index = inside
    places = [_spread(f, node.types[0].shape) for f in index]
    return _moved(x, places) if len(places) == len(x.shape) and all(_whole(p) is not None for p in places) else None
