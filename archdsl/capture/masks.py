"""What the formula of a tensor of positions (formulas.py) amounts to: a mask of the language, or an index that counts. No torch here."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.capture import layouts
from archdsl.capture.formulas import TRUE, Condition, Reader, axis_name, place, settled
from archdsl.dims import Dim, Size, floordiv, symbols
from archdsl.graph import Mask, Value
from archdsl.ops.masks import CAUSAL, FULL, kinds

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

LOWEST = -1e4  # a bias of at most this much excludes a pair where the pair of a position with itself is never excluded


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
            condition, yes, no = settled(("not", condition), facts), no, yes
        if yes != 0 or no > LOWEST:
            return None
        element, lowest = condition, no
    elif v.dtype != "bool":
        return None
    rank = len(formula.shape)
    mask = _mask(element, place(rank - 2), place(rank - 1), rank)
    if mask is None:
        return None
    same = facts.equal(queries[-2], keys[-2]) is True
    if not same and mask != FULL and mask.kind != "keys":
        return None
    finite = v.dtype != "bool" and lowest != float("-inf")  # where no key is left, it averages all, and -∞ gives nothing
    return None if finite and "keys" in kinds(mask) else mask


def lowest_of(flat: Flat, v: Value) -> float | None:
    """What a bias that only excludes pairs gives to those: a bias of 0 and very negative numbers. None for any other."""
    formula = Reader(flat).read(v)
    element = None if formula is None or v.dtype == "bool" else formula.element
    if not isinstance(element, tuple) or element[0] != "choose":
        return None
    low, high = sorted(element[2:])
    return low if high == 0 and low <= LOWEST else None


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
        if CAUSAL not in found or behind < 0:
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
        value, where = c[1], c[2]
        lead = [place(k) for k in range(rank - 3)][: len(where) - 1]
        if value.shape and where[-1] == j and list(where[:-1]) == lead and len(lead) == len(where) - 1:
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
    used = [k for k in range(rank) if isinstance(element, Dim) and axis_name(k) in symbols(element)]
    if len(used) > 1:
        return None
    if not used:
        scalar = flat.op("literal", value=element, dtype="int") if type(element) is int else None
        return None if scalar is None else layouts.expand(flat, scalar, list(formula.shape))
    k = used[0]
    start = element - place(k)  # type: ignore[operator]
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
