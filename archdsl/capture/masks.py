"""Tensors of positions as formulas: what arange, cumsum, comparisons and indexing say of each element, and the mask or index that it amounts to.

An element of an integer tensor is a size expression over its place (`_place(k)` is the position on axis k) and the run-time sizes, an element of a
bool tensor a condition. What is decided here holds for all sizes; a tensor that depends on data is a leaf. No torch here.
"""
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl.capture import layouts
from archdsl.dims import Dim, Facts, Size, floordiv, mod, substitute, sym, symbols
from archdsl.graph import Mask, Node, Value
from archdsl.ops.attention import CAUSAL, FULL, kinds
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

LOWEST = -1e4  # a bias of at most this much excludes a pair where the pair of a position with itself is never excluded
TRUE, FALSE = ("true",), ("false",)
Condition = tuple[Any, ...]
"""("true",) ("false",) · ("ge", d): d ≥ 0 · ("eq", d): d = 0 · ("and" | "or", a, b) · ("not", a) · ("read", value, place): an element of a bool
tensor · ("choose", c, x, y): the number x where c holds, else y."""


@record(eq=False)
class Formula:
    """An element of a tensor of this shape: a Size or a Condition over the places of its axes."""

    element: Any
    shape: tuple[Size, ...]


def _name(axis: int) -> str:
    return f"place {axis}"


def _place(axis: int) -> Dim:
    return sym(_name(axis)) - 1  # type: ignore[return-value]  # symbols are at least 1


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
    return _at(formula.element, {_name(k): p + 1 for k, p in enumerate(places)})


def _spread(formula: Formula, shape: tuple[Size, ...]) -> Any:
    """The element of the tensor repeated to `shape`."""
    new = len(shape) - len(formula.shape)
    return _moved(formula, [0 if type(n) is int and n == 1 else _place(k + new) for k, n in enumerate(formula.shape)])


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
                found = Formula(("read", v, tuple(_place(k) for k in range(len(v.shape)))), v.shape)
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
            facts.require_at_least(n, sym(_name(k)))
        return _decided(element, facts)


def _operands(args: Any) -> list[Any]:
    return [a for arg in args for a in (_operands(arg) if type(arg) is tuple else (arg,))]


def _decided(c: Condition, facts: Facts) -> Condition:
    if c[0] == "ge":
        return TRUE if facts.at_least(c[1], 0) else FALSE if facts.at_least(-c[1] - 1, 0) else c
    if c[0] == "eq":
        return TRUE if facts.equal(c[1], 0) else FALSE if facts.at_least(c[1], 1) or facts.at_least(-c[1], 1) else c
    if c[0] == "not":
        inner = _decided(c[1], facts)
        if inner in (TRUE, FALSE):
            return FALSE if inner == TRUE else TRUE
        return ("ge", -inner[1] - 1) if inner[0] == "ge" else inner[1] if inner[0] == "not" else ("not", inner)
    if c[0] in ("and", "or"):
        a, b = _decided(c[1], facts), _decided(c[2], facts)
        end, rest = (FALSE, TRUE) if c[0] == "and" else (TRUE, FALSE)
        return end if end in (a, b) else b if a in (rest, b) else a if b == rest else (c[0], a, b)
    if c[0] == "choose":
        inner = _decided(c[1], facts)
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
    return _place(0)


@_reads("literal")
def _literal(reader: Reader, node: Node, inside: list[Any]) -> Any:
    return pattern(node.attrs["value"])


def pattern(value: Any) -> Any:
    """What the elements of a table are by their places: one number everywhere, 0, 1, 2, … along the last axis, or one number up to the diagonal of
    the last two axes and another above it. `value`: nested tuples; None for any other."""
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
        return _place(rank - 1)
    n = len(matrices[0])
    if rank >= 2 and all(row == (first,) * (k % n + 1) + (rows[n - 1],) * (n - 1 - k % n) for k, row in enumerate(matrices)):
        below = ("ge", _place(rank - 2) - _place(rank - 1))
        yes, no = first, rows[n - 1]
        return (below if yes else ("not", below)) if isinstance(yes, bool) else ("choose", below, yes, no)
    return None


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
        rest: Size = _place(axis)
        for a in reversed(group[1:]):
            atoms[a], rest = mod(rest, sizes[a]), floordiv(rest, sizes[a])
        if group:
            atoms[group[0]] = rest
    places: list[Size] = []
    for group in ins:
        place: Size = 0
        for a in group:
            place = place * sizes[a] + atoms.get(a, 0)
        places.append(place)
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
            places.append(start + _place(out) * (rest[2] or 1))
            out += 1
    while len(places) < len(shape):
        places.append(_place(out))
        out += 1
    return _moved(inside[0], places)


@_reads("concat")
def _concat(reader: Reader, node: Node, inside: list[Any]) -> Any:
    """One formula for all parts: the last part's, where it holds for the single positions before it as well."""
    axis = node.attrs["axis"] % len(node.types[0].shape)
    before = sum((f.shape[axis] for f in inside[:-1]), 0)
    here = [_place(k) for k in range(len(node.types[0].shape))]
    last = _moved(inside[-1], [p - before if k == axis else p for k, p in enumerate(here)])
    at: Size = 0
    for f in inside[:-1]:
        if not (type(f.shape[axis]) is int and f.shape[axis] == 1) or isinstance(last, tuple):
            return None
        if _moved(f, [0 if k == axis else p for k, p in enumerate(here)]) != _at(last, {_name(axis): at + 1}):
            return None
        at = at + 1
    return last


@_reads("cumsum")
def _cumsum(reader: Reader, node: Node, inside: list[Any]) -> Any:
    axis = node.attrs["axis"] % len(node.types[0].shape)
    element = inside[0].element
    element = int(element == TRUE) if element in (TRUE, FALSE) else _whole(element)
    if element is None or isinstance(element, Dim) and _name(axis) in symbols(element):
        return None
    return element * (_place(axis) + 1)


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
    place = _at(index.element, {_name(i): _place(axis + i) + 1 for i in range(k)})
    if _whole(place) is None:
        return None
    return _moved(x, [_place(i) if i < axis else place if i == axis else _place(i + k - 1) for i in range(len(x.shape))])


@_reads("gather")
def _gathered(reader: Reader, node: Node, inside: list[Any]) -> Any:
    x, index = inside
    axis = node.attrs["axis"] % len(x.shape)
    return _moved(x, [index.element if k == axis else _place(k) for k in range(len(x.shape))]) if _whole(index.element) is not None else None


@_reads("aten index.Tensor")
def _indexed(reader: Reader, node: Node, inside: list[Any]) -> Any:
    """x[i, j, …] with index tensors for the leading axes, all of them given."""
    x, *index = inside
    places = [_spread(f, node.types[0].shape) for f in index]
    return _moved(x, places) if len(places) == len(x.shape) and all(_whole(p) is not None for p in places) else None


# ---------------------------------------------------------------- masks
def mask_of(flat: Flat, v: Value, queries: tuple[Size, ...], keys: tuple[Size, ...]) -> Mask | None:
    """The mask of the language that a bool tensor, or a bias of 0 and very negative numbers, amounts to, or None."""
    facts = flat.facts
    formula = Reader(flat).read(v)
    if formula is None or len(formula.shape) < 2:
        return None
    element = formula.element
    lowest = float("-inf")
    if isinstance(element, (int, float)) and not isinstance(element, bool):
        return FULL if element == 0 else None
    if not isinstance(element, tuple):
        return None
    if element[0] == "choose":
        _, condition, yes, no = element
        if yes != 0:
            condition, yes, no = _decided(("not", condition), facts), no, yes
        if yes != 0 or no > LOWEST:
            return None
        element, lowest = condition, no
    elif v.dtype != "bool":
        return None
    rank = len(formula.shape)
    mask = _mask(element, _place(rank - 2), _place(rank - 1), rank)
    if mask is None:
        return None
    same = facts.equal(queries[-2], keys[-2]) is True
    if not same and mask != FULL and mask.kind != "keys":
        return None
    finite = v.dtype != "bool" and lowest != float("-inf")  # where no key is left, it averages all, and -∞ gives nothing
    return None if finite and "keys" in kinds(mask) else mask


def _mask(c: Condition, i: Dim, j: Dim, rank: int) -> Mask | None:
    parts = _parts(c, "and")
    found: list[Mask] = []
    behind: int | None = None
    for p in parts:
        one = _part(p, i, j, rank)
        if one is None and p[0] == "ge" and type(p[1] - (j - i)) is int:  # i - j ≤ c, a window when the future is excluded too
            behind = p[1] - (j - i)
            continue
        if one is None:
            return None
        found.append(one)
    if behind is not None:
        if CAUSAL not in found:
            return None
        found.append(Mask("window", (behind + 1,)))
    return _joined(found) if found else FULL


_ORDER = ("causal", "window", "causal_by", "own_block", "keys")


def _joined(masks: list[Mask]) -> Mask:
    """a & b & c, in pairs from the left as the text is read."""
    first, *rest = sorted(dict.fromkeys(masks), key=lambda m: _ORDER.index(m.kind))
    for m in rest:
        first = Mask("and", (first, m))
    return first


def _parts(c: Condition, word: str) -> list[Condition]:
    return [*_parts(c[1], word), *_parts(c[2], word)] if c[0] == word else [] if c == TRUE and word == "and" else [c]


def _part(c: Condition, i: Dim, j: Dim, rank: int) -> Mask | None:
    if c[0] == "ge":
        if c[1] == i - j:
            return CAUSAL
        return next((Mask("causal_by", (m,)) for m in _blocks(c[1]) if c[1] == floordiv(i, m) - floordiv(j, m)), None)
    if c[0] == "eq":
        return next((Mask("own_block", (m, 0)) for m in _blocks(c[1]) if (floordiv(i, m) - floordiv(j, m)) in (c[1], -c[1])), None)
    if c[0] == "read":
        value, place = c[1], c[2]
        lead = [_place(k) for k in range(rank - 3)][: len(place) - 1]
        if value.shape and place[-1] == j and list(place[:-1]) == lead and len(lead) == len(place) - 1:
            return Mask("keys", (value,))
    return None


def _blocks(d: Size) -> list[int]:
    """The divisors of the floors in a size."""
    if not isinstance(d, Dim):
        return []
    return sorted({a.args[1] for mono in d.terms for a, _ in mono if a.kind == "floor" and type(a.args[1]) is int})


# ---------------------------------------------------------------- indices
PLAIN = frozenset({"iota", "rearrange", "add", "input", "param"})


def index_of(flat: Flat, v: Value) -> Value | None:
    """An index tensor that counts along one axis, or is one number, written as that; None where it is so already or depends on data."""
    if _is_plain(v):
        return None
    formula = Reader(flat).read(v)
    element = None if formula is None else formula.element
    if formula is None or isinstance(element, (tuple, bool, float)):
        return None
    rank = len(formula.shape)
    used = [k for k in range(rank) if isinstance(element, Dim) and _name(k) in symbols(element)]
    if len(used) > 1:
        return None
    if not used:
        scalar = flat.op("literal", value=element, dtype="int") if type(element) is int else None
        return None if scalar is None else layouts.expand(flat, scalar, list(formula.shape))
    k = used[0]
    start = element - _place(k)  # type: ignore[operator]
    if type(start) is not int:
        return None
    places = flat.op("add", flat.op("iota", n=formula.shape[k]), start)
    row = layouts.rearrange(flat, places, [formula.shape[k]], [[0]], [[0] if i == k else [] for i in range(rank)])
    return layouts.expand(flat, row, list(formula.shape))


def _is_plain(v: Value) -> bool:
    stack, seen = [v.node], set[int]()
    while stack:
        n = stack.pop()
        if n.op not in PLAIN and not (n.op == "literal" and not isinstance(n.attrs["value"], tuple)):
            return False
        if id(n) not in seen:
            seen.add(id(n))
            stack += [x.node for x in n.operands()]
    return True
