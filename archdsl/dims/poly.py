"""Symbolic sizes: polynomials over symbols, floors, minima and maxima, in a normal form and hash-consed.

A `Size` is a plain int wherever the value is known, else a `Dim`. Two Dims with the same normal form are one object,
so equality is identity. Symbols stand for integers >= 1. Rational coefficients appear only where the whole is an integer
by what is known of the symbols (`H/4` under `H % 4 == 0`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

MAX_TERMS = 2_000  # of one polynomial
MAX_POWER = 64  # the exponent of one `**`
MAX_DEGREE = 4_096  # of one term
MAX_PRODUCT = 200_000  # pairs of terms multiplied at once
MAX_WEIGHT = 20_000  # symbols and operators in one expression, written out
MAX_DEPTH = 64  # floors, minima and maxima within each other
MAX_COEFFICIENT = 1 << 65_536
_CACHE = 1 << 14

_RANK = {"sym": 0, "floor": 1, "min": 2, "max": 3}
_LOCK = Lock()


class NotInteger(ValueError):
    """A size came out as a fraction: the values contradict the facts under which it was exact."""


class Atom:
    """What a polynomial is made of: a symbol, `floordiv(num, den)`, `min(..)` or `max(..)`. Interned, like Dim.

    `kind`: sym | floor | min | max. `name`: the symbol's name, else "". `args`: (num, den) of a floor, the operands of min and max.
    """

    __slots__ = ("__weakref__", "args", "depth", "kind", "name", "order", "symbols", "text", "weight")
    kind: str
    name: str
    args: tuple[Size, ...]
    text: str
    order: tuple[int, str]
    symbols: frozenset[str]
    weight: int
    depth: int

    def __repr__(self) -> str:
        return f"Atom({self.text})"

    def __reduce__(self):
        return _atom, (self.kind, self.name, self.args)

    def __copy__(self) -> Atom:
        return self

    def __deepcopy__(self, memo: Any) -> Atom:
        return self

    @property
    def dim(self) -> Dim:
        """The atom alone as a size."""
        return make({((self, 1),): 1})  # type: ignore[return-value]


Number = int | Fraction
Mono = tuple[tuple[Atom, int], ...]  # atoms with their powers, ordered; () is the constant
Terms = dict[Mono, Number]


class Dim:
    """A size that is not a known number. Immutable and interned; build one with `sym` and arithmetic."""

    __slots__ = ("__weakref__", "_text", "depth", "exact", "symbols", "terms", "weight")
    terms: Terms  # never changed after construction
    symbols: frozenset[str]
    exact: bool  # all coefficients are ints
    weight: int
    depth: int
    _text: str | None

    def __str__(self) -> str:
        if self._text is None:
            from archdsl.dims.text import write

            self._text = write(self.terms)
        return self._text

    def __repr__(self) -> str:
        return f"Dim({self})"

    def __reduce__(self):
        return _restore, (tuple(self.terms.items()),)

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: Any) -> Dim:
        return self

    def __add__(self, other: Size) -> Size:
        return _add(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        if isinstance(other, int):
            return _add(self, -other)
        return _sub(self, other) if isinstance(other, Dim) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return _sub(other, self) if isinstance(other, (int, Dim)) else NotImplemented

    def __mul__(self, other: Size) -> Size:
        return _mul(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return _mul(self, -1)

    def __pos__(self) -> Size:
        return self

    def __pow__(self, power: int) -> Size:
        if not isinstance(power, int):
            return NotImplemented
        if power < 0:
            raise ValueError(f"a size has no power {power}")
        if power > MAX_POWER:
            raise OverflowError(f"the exponent {power} is above {MAX_POWER}")
        return _pow(self, power)

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self) if isinstance(other, int) else NotImplemented

    def __mod__(self, other: Size) -> Size:
        return mod(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self) if isinstance(other, int) else NotImplemented


Size = int | Dim

# ---------------------------------------------------------------- construction
_ATOMS: WeakValueDictionary[tuple, Atom] = WeakValueDictionary()
_DIMS: WeakValueDictionary[frozenset, Dim] = WeakValueDictionary()
_EMPTY: frozenset[str] = frozenset()


def _size_symbols(size: Size) -> frozenset[str]:
    return size.symbols if isinstance(size, Dim) else _EMPTY


def _atom(kind: str, name: str, args: tuple[Size, ...]) -> Atom:
    """The one atom of this description; no simplification."""
    key = (kind, name, args)
    found = _ATOMS.get(key)
    if found is not None:
        return found
    atom = Atom()
    atom.kind, atom.name, atom.args = kind, name, args
    if kind == "sym":
        atom.text, atom.symbols, atom.weight, atom.depth = name, frozenset((name,)), 1, 0
    else:
        from archdsl.dims.text import write_atom

        dims = [a for a in args if isinstance(a, Dim)]
        atom.depth = 1 + max(d.depth for d in dims)
        atom.weight = 1 + len(args) - len(dims) + sum(d.weight for d in dims)
        if atom.depth > MAX_DEPTH or atom.weight > MAX_WEIGHT:
            raise OverflowError(f"a size nests floors, minima or maxima more than {MAX_DEPTH} deep or is longer than {MAX_WEIGHT:,} symbols")
        atom.symbols = _EMPTY.union(*(d.symbols for d in dims))
        atom.text = write_atom(kind, args)
    atom.order = (_RANK[kind], atom.text)
    with _LOCK:
        return _ATOMS.setdefault(key, atom)


def make(terms: Mapping[Mono, Number]) -> Size:
    """The size with these terms: zero terms go, a constant is an int. NotInteger for a constant fraction."""
    clean: Terms = {}
    exact = True
    for mono, c in terms.items():
        if c:
            if type(c) is Fraction:
                if c.denominator == 1:
                    c = c.numerator
                else:
                    exact = False
            clean[mono] = c
    if not clean:
        return 0
    if len(clean) == 1 and () in clean:
        if not exact:
            raise NotInteger(f"{clean[()]} is not an integer")
        return int(clean[()])
    key = frozenset(clean.items())
    found = _DIMS.get(key)
    if found is not None:
        return found
    dim = Dim()
    dim.terms, dim.exact, dim._text = clean, exact, None
    weight, depth = 0, 0
    names: set[str] = set()
    for mono, c in clean.items():
        weight += 1
        if not -MAX_COEFFICIENT < c < MAX_COEFFICIENT:
            raise OverflowError("a coefficient of a size has more than 65,536 bits")
        total = 0
        for atom, p in mono:
            total += p
            weight += atom.weight
            names.update(atom.symbols)
            depth = max(depth, atom.depth)
        if total > MAX_DEGREE:
            raise OverflowError(f"a size has the degree {total}, above {MAX_DEGREE:,}")
    if len(clean) > MAX_TERMS or weight > MAX_WEIGHT:
        raise OverflowError(f"a size has more than {MAX_TERMS:,} terms or {MAX_WEIGHT:,} symbols")
    dim.weight, dim.depth, dim.symbols = weight, depth, frozenset(names)
    with _LOCK:
        return _DIMS.setdefault(key, dim)


def _restore(items: tuple[tuple[Mono, Number], ...]) -> Size:
    return make(dict(items))


def sym(name: str) -> Dim:
    """The symbol of this name, an integer >= 1."""
    return make({((_atom("sym", name, ()), 1),): 1})  # type: ignore[return-value]


def terms_of(size: Size) -> Terms:
    """The terms as a dict; not to be changed."""
    return size.terms if isinstance(size, Dim) else {(): int(size)} if size else {}


# ---------------------------------------------------------------- arithmetic
def _order(pair: tuple[Atom, int]) -> tuple[int, str]:
    return pair[0].order


def mono_mul(x: Mono, y: Mono) -> Mono:
    if not x:
        return y
    if not y:
        return x
    powers = dict(x)
    for atom, p in y:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items(), key=_order))


def add_into(out: Terms, terms: Mapping[Mono, Number], scale: Number = 1) -> None:
    """out += scale * terms"""
    for mono, c in terms.items():
        out[mono] = out.get(mono, 0) + (c if scale == 1 else c * scale)


def mul_terms(a: Mapping[Mono, Number], b: Mapping[Mono, Number]) -> Terms:
    if len(a) * len(b) > MAX_PRODUCT:
        raise OverflowError(f"a product of sizes with {len(a):,} and {len(b):,} terms")
    out: Terms = {}
    for x, c in a.items():
        for y, e in b.items():
            mono = mono_mul(x, y)
            out[mono] = out.get(mono, 0) + c * e
        if len(out) > 2 * MAX_TERMS:
            raise OverflowError(f"a size has more than {MAX_TERMS:,} terms")
    return out


@lru_cache(_CACHE)
def _add(a: Size, b: Size) -> Size:
    out = dict(terms_of(a))
    add_into(out, terms_of(b))
    return make(out)


@lru_cache(_CACHE)
def _sub(a: Size, b: Size) -> Size:
    out = dict(terms_of(a))
    add_into(out, terms_of(b), -1)
    return make(out)


@lru_cache(_CACHE)
def _mul(a: Size, b: Size) -> Size:
    if isinstance(b, int):
        return make({m: c * b for m, c in a.terms.items()}) if isinstance(a, Dim) else a * b
    return make(mul_terms(terms_of(a), b.terms))


@lru_cache(_CACHE)
def _pow(a: Dim, power: int) -> Size:
    if len(a.terms) == 1:
        ((mono, c),) = a.terms.items()
        return make({tuple((atom, p * power) for atom, p in mono): c**power}) if power else 1
    result: Size = 1
    for bit in bin(power)[2:]:
        result = result * result
        if bit == "1":
            result = result * a
    return result


def scale(size: Size, factor: Number) -> Size:
    """size * factor for a rational factor; the caller knows that the result is an integer."""
    return make({m: c * factor for m, c in terms_of(size).items()})


def product(sizes: Iterable[Size]) -> Size:
    """The product; 1 for none."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


# ---------------------------------------------------------------- floors
def floordiv(a: Size, b: Size) -> Size:
    """The floor of a / b. ZeroDivisionError for b = 0."""
    if isinstance(b, int):
        if isinstance(a, int):
            return a // b
        if b <= 0:
            if b == 0:
                raise ZeroDivisionError("a size divided by 0")
            return _floor_int(-a, -b)  # type: ignore[arg-type]
        return a if b == 1 else _floor_int(a, b)
    return _floor_dim(a, b)


def ceildiv(a: Size, b: Size) -> Size:
    """a / b, rounded up."""
    if isinstance(b, int) and b > 0 and isinstance(a, Dim):
        return a if b == 1 else floordiv(a + (b - 1), b) if a.exact else -floordiv(-a, b)
    return -floordiv(-a, b)


def mod(a: Size, b: Size) -> Size:
    """a - b * floordiv(a, b): what Python calls a % b."""
    return a % b if isinstance(a, int) and isinstance(b, int) else a - b * floordiv(a, b)


def denominator(terms: Mapping[Mono, Number]) -> int:
    """The least common denominator of the coefficients."""
    return lcm(*(c.denominator for c in terms.values()))


def degree(mono: Mono) -> int:
    return sum(p for _, p in mono)


def mono_key(mono: Mono) -> tuple:
    """Sorts monomials as they are written: highest degree first, then by name; the constant last."""
    return (-degree(mono), [(atom.order, p) for atom, p in mono])


def _lone_floor(terms: Mapping[Mono, Number]) -> tuple[Atom, int] | None:
    """The only floor that stands in `terms` with coefficient +1 or -1, and that sign."""
    found = [(mono[0][0], c) for mono, c in terms.items() if c in (1, -1) and len(mono) == 1 and mono[0][1] == 1 and mono[0][0].kind == "floor"]
    return (found[0][0], int(found[0][1])) if len(found) == 1 else None


def _open_floor(terms: Terms, b: Size) -> Size | None:
    """floor((±floor(x / n) + R) / b) as the floor of one quotient, for b >= 1; None when it does not have that form."""
    lone = _lone_floor(terms)
    if lone is None:
        return None
    atom, sign = lone
    num, den = atom.args
    rest = make({m: c for m, c in terms.items() if m != ((atom, 1),)}) if len(terms) > 1 else 0
    if sign == 1:
        return floordiv(num + den * rest, den * b)
    if not (isinstance(den, int) or (bounds(den)[0] is not None and bounds(den)[0] >= 1)):  # type: ignore[operator]
        return None
    return floordiv(den * rest - num + den - 1, den * b)  # -floor(x / n) = floor((n - 1 - x) / n)


@lru_cache(_CACHE)
def _floor_int(a: Dim, n: int) -> Size:
    """floor(a / n) for n >= 1 in normal form: what is a multiple of n leaves, coefficients and n have no common factor."""
    den = 1 if a.exact else denominator(a.terms)
    n *= den
    out: Terms = {}
    rest: Terms = {}
    for mono, c in a.terms.items():
        c = c if den == 1 else int(c * den)
        q = c // n if not mono or c >= 0 else -(-c // n)
        if q:
            out[mono] = q
        if c != q * n:
            rest[mono] = c - q * n
    constant = rest.pop((), 0)
    if not rest:
        return make(out)
    g = gcd(n, *rest.values())  # type: ignore[arg-type]
    if g > 1:
        rest, constant, n = {m: c // g for m, c in rest.items()}, constant // g, n // g  # type: ignore[assignment]
    sign = 1
    if rest[min(rest, key=mono_key)] < 0:  # floor(-x / n) = -floor((x + n - 1) / n)
        sign, rest, constant = -1, {m: -c for m, c in rest.items()}, n - 1 - constant
    if constant:
        rest[()] = constant
    inner = _open_floor(rest, n)
    if inner is None:
        inner = _periodic(rest, n)
    if inner is None:
        inner = _atom("floor", "", (make(rest), n)).dim
    add_into(out, terms_of(inner), sign)
    return make(out)


def _periodic(terms: Terms, n: int) -> Size | None:
    """(p - r) / n when p is r modulo n whatever the atoms are, as T*(T + 1) modulo 2; else None."""
    if all(degree(m) <= 1 for m in terms) or n > 64 or len(terms) > 32:
        return None
    inside = sorted({atom for mono in terms for atom, _ in mono}, key=lambda a: a.order)
    if n ** len(inside) > 1_024:
        return None
    found: int | None = None
    for point in grid(n, len(inside)):
        value = dict(zip(inside, point, strict=True))
        r = 0
        for mono, c in terms.items():
            for atom, p in mono:
                c = c * pow(value[atom], p, n) % n
            r += int(c)
        if found is None:
            found = r % n
        elif found != r % n:
            return None
    out: Terms = {m: Fraction(c, n) for m, c in terms.items()}  # type: ignore[arg-type]
    add_into(out, {(): Fraction(-(found or 0), n)})
    return make(out)


def grid(n: int, width: int) -> Iterable[tuple[int, ...]]:
    from itertools import product as cartesian

    return cartesian(range(n), repeat=width)


@lru_cache(_CACHE)
def _floor_dim(a: Size, b: Dim) -> Size:
    """floor(a / b) for a symbolic b."""
    top, bottom = terms_of(a), b.terms
    den = lcm(denominator(top), denominator(bottom)) if top else 1
    if den > 1:
        top, bottom = {m: int(c * den) for m, c in top.items()}, {m: int(c * den) for m, c in bottom.items()}
    if not top:
        return 0
    quotient = poly_div(top, bottom)
    if quotient is not None:
        den = denominator(quotient)
        if den == 1:
            return make(quotient)
        whole = make({m: c * den for m, c in quotient.items()})
        return floordiv(whole, den)
    out: Terms = {}
    if len(bottom) == 1:
        ((mono, e),) = bottom.items()
        rest: Terms = {}
        for m, c in top.items():
            part = mono_div(m, mono)
            q = 0 if part is None else c // e if c * e >= 0 else -(-c // e)
            if part is not None and q:
                out[part] = q
            if c != q * e:
                rest[m] = c - q * e
        top = rest
    if not top:
        return make(out)
    top, bottom = _cancel(top, bottom)
    add_into(out, terms_of(_floor_rest(top, bottom)))
    return make(out)


def _cancel(top: Mapping[Mono, Number], bottom: Mapping[Mono, Number]) -> tuple[Terms, Terms]:
    """Both without their common integer factor and common symbols (which are not zero)."""
    g = gcd(*top.values(), *bottom.values())  # type: ignore[arg-type]
    common: dict[Atom, int] | None = None
    for mono in (*top, *bottom):
        powers = {atom: p for atom, p in mono if atom.kind == "sym"}
        common = powers if common is None else {atom: min(p, powers[atom]) for atom, p in common.items() if atom in powers}
    factor = tuple(sorted((common or {}).items(), key=_order))
    return ({mono_div(m, factor) or (): c // g for m, c in top.items()}, {mono_div(m, factor) or (): c // g for m, c in bottom.items()})


def _floor_rest(top: Terms, bottom: Terms) -> Size:
    a, b = make(top), make(bottom)
    if isinstance(b, int):
        return floordiv(a, b)
    low, _ = bounds(b)
    if low is not None and low >= 1:
        least, most = bounds(a)
        if least is not None and most is not None:
            if least >= 0 and most < low:
                return 0
            if -low <= least and most < 0:
                return -1
        if isinstance(a, Dim):
            opened = _open_floor(a.terms, b)
            if opened is not None:
                return opened
    return _atom("floor", "", (a, b)).dim


# ---------------------------------------------------------------- polynomial division
def mono_div(x: Mono, y: Mono) -> Mono | None:
    """x / y, or None where y does not divide x."""
    if not y:
        return x
    powers = dict(x)
    for atom, p in y:
        left = powers.get(atom, 0) - p
        if left < 0:
            return None
        if left:
            powers[atom] = left
        else:
            del powers[atom]
    return tuple((atom, powers[atom]) for atom, _ in x if atom in powers)


def poly_div(a: Mapping[Mono, Number], b: Mapping[Mono, Number]) -> Terms | None:
    """a / b with rational coefficients, or None when it leaves a remainder or is too long to try. b is not zero."""
    if len(a) * len(b) > MAX_TERMS:
        return None
    inside = sorted({atom for m in (*a, *b) for atom, _ in m}, key=lambda x: x.order)

    def lex(mono: Mono) -> tuple[int, ...]:
        powers = dict(mono)
        return tuple(powers.get(atom, 0) for atom in inside)

    lead = max(b, key=lex)
    rest, out = dict(a), {}
    for _ in range(MAX_TERMS):
        rest = {m: c for m, c in rest.items() if c}
        if not rest:
            return out
        top = max(rest, key=lex)
        part = mono_div(top, lead)
        if part is None:
            return None
        factor = Fraction(rest[top]) / b[lead]
        out[part] = factor.numerator if factor.denominator == 1 else factor
        add_into(rest, mul_terms(b, {part: out[part]}), -1)
    return None


def without_symbols(d: Dim) -> Dim:
    """d without the symbols that are factors of every term: they are not 0."""
    common: dict[Atom, int] | None = None
    for mono in d.terms:
        powers = {atom: p for atom, p in mono if atom.kind == "sym"}
        common = powers if common is None else {atom: min(p, powers[atom]) for atom, p in common.items() if atom in powers}
        if not common:
            return d
    factor = tuple((common or {}).items())
    return make({mono_div(m, factor) or (): c for m, c in d.terms.items()}) if len(d.terms) > 1 else d  # type: ignore[return-value]


def primitive(d: Dim, signed: bool = False, inequality: bool = False) -> Dim:
    """The same condition d == 0 (or d >= 0) in whole coefficients without a common factor."""
    den = denominator(d.terms)
    own = {m: int(c * den) for m, c in d.terms.items()}
    g = gcd(*(c for m, c in own.items() if m or not inequality))
    return make({m: c // g for m, c in own.items()})  # type: ignore[return-value]


# ---------------------------------------------------------------- minimum, maximum, bounds
Bounds = tuple[Number | None, Number | None]  # inclusive; None: not bounded
_NONE: Mapping[str, int] = {}


def minimum(*sizes: Size) -> Size:
    """The smallest."""
    return _extreme("min", sizes)


def maximum(*sizes: Size) -> Size:
    """The largest."""
    return _extreme("max", sizes)


def _extreme(kind: str, sizes: tuple[Size, ...]) -> Size:
    if not sizes:
        raise ValueError(f"{kind} of nothing")
    if all(isinstance(s, int) for s in sizes):
        return min(sizes) if kind == "min" else max(sizes)  # type: ignore[type-var]
    return _extreme_dim(kind, sizes)


def _flatten(kind: str, sizes: tuple[Size, ...]) -> Iterable[Size]:
    for s in sizes:
        if isinstance(s, Dim) and len(s.terms) == 1:
            ((mono, c),) = s.terms.items()
            if c == 1 and len(mono) == 1 and mono[0][1] == 1 and mono[0][0].kind == kind:
                yield from mono[0][0].args
                continue
        yield s


def undominated(kind: str, sizes: Iterable[Size], lo: Mapping[str, int] = _NONE, hi: Mapping[str, int] = _NONE) -> list[Size]:
    """The operands without those that can never decide the minimum (maximum)."""
    kept: list[Size] = []
    distinct = list(dict.fromkeys(sizes))
    if len(distinct) > 32:
        return distinct
    for s in distinct:
        beaten = False
        for other in list(kept):
            gap = s - other if kind == "min" else other - s
            low, high = bounds(gap, lo, hi)
            if (low is not None and low >= 0) or (low is None and grows(gap)):
                beaten = True
                break
            if (high is not None and high <= 0) or (high is None and grows(-gap)):
                kept.remove(other)
        if not beaten:
            kept.append(s)
    return kept


def grows(size: Size) -> bool:
    """Whether a short polynomial in symbols has no negative coefficient once every symbol is written 1 + z: then it is >= 0."""
    if isinstance(size, int):
        return size >= 0
    if len(size.terms) > 8 or size.depth or all(c < 0 for c in size.terms.values()) or max(map(degree, size.terms)) > 8:
        return False
    return all(c >= 0 for c in terms_of(substitute(size, {n: sym(n) + 1 for n in size.symbols})).values())


@lru_cache(_CACHE)
def _extreme_dim(kind: str, sizes: tuple[Size, ...]) -> Size:
    kept = undominated(kind, _flatten(kind, sizes))
    if len(kept) == 1:
        return kept[0]
    first, *others = (terms_of(s) for s in kept)
    shared = {m: c for m, c in first.items() if m and all(o.get(m) == c for o in others)}
    if shared:
        common = make(shared)
        return common + _extreme(kind, tuple(s - common for s in kept))
    coefficients = [c for t in (first, *others) for c in t.values()]
    g = gcd(*coefficients) if all(isinstance(c, int) for c in coefficients) else 1  # type: ignore[arg-type]
    if g > 1:
        return g * _extreme(kind, tuple(scale(s, Fraction(1, g)) for s in kept))
    kept.sort(key=lambda s: (isinstance(s, int), str(s)))
    return _atom(kind, "", tuple(kept)).dim


def bounds(size: Size, lo: Mapping[str, int] = _NONE, hi: Mapping[str, int] = _NONE) -> Bounds:
    """Interval arithmetic: (least, most) that the size can be, where symbols are at least lo (default 1) and at most hi."""
    if isinstance(size, int):
        return size, size
    if not lo and not hi:
        return _plain_bounds(size)
    return _bounds(size, lo, hi)


@lru_cache(_CACHE)
def _plain_bounds(size: Dim) -> Bounds:
    return _bounds(size, _NONE, _NONE)


def _bounds(size: Dim, lo: Mapping[str, int], hi: Mapping[str, int]) -> Bounds:
    least: Number | None = 0
    most: Number | None = 0
    for mono, c in size.terms.items():
        low, high = _mono_bounds(mono, lo, hi)
        if c < 0:
            low, high = high, low
        least = None if least is None or low is None else least + c * low
        most = None if most is None or high is None else most + c * high
        if least is None and most is None:
            break
    return least, most


def _mono_bounds(mono: Mono, lo: Mapping[str, int], hi: Mapping[str, int]) -> Bounds:
    if len(mono) == 1 and mono[0][1] == 1:
        return _atom_bounds(mono[0][0], lo, hi)
    least: Number | None = 1
    most: Number | None = 1
    for atom, p in mono:
        low, high = _atom_bounds(atom, lo, hi)
        if low is None or low < 0:
            return (None, None)
        least = None if least is None else least * low**p
        most = None if most is None or high is None else most * high**p
    return least, most


def _atom_bounds(atom: Atom, lo: Mapping[str, int], hi: Mapping[str, int]) -> Bounds:
    if atom.kind == "sym":
        return lo.get(atom.name, 1), hi.get(atom.name)
    if atom.kind == "floor":
        (low, high), (small, large) = bounds(atom.args[0], lo, hi), bounds(atom.args[1], lo, hi)
        if small is None or small < 1:
            return None, None
        least = None if low is None else low // small if low < 0 else 0 if large is None else low // large
        most = None if high is None else high // small if high >= 0 else -1 if large is None else high // large
        return least, most
    pairs = [bounds(a, lo, hi) for a in atom.args]
    lows, highs = [p[0] for p in pairs], [p[1] for p in pairs]
    known_low, known_high = [x for x in lows if x is not None], [x for x in highs if x is not None]
    if atom.kind == "min":
        return (None if None in lows else min(known_low)), (min(known_high) if known_high else None)
    return (max(known_low) if known_low else None), (None if None in highs else max(known_high))


# ---------------------------------------------------------------- use
def symbols(size: Size) -> frozenset[str]:
    """The names that occur, inside floors and minima as well."""
    return _size_symbols(size)


def atoms(size: Size) -> list[Atom]:
    """The atoms of the polynomial itself, in order of writing (not those inside floors and minima)."""
    return list(dict.fromkeys(atom for _, mono in terms(size) for atom, _ in mono))


def terms(size: Size) -> list[tuple[Number, Mono]]:
    """(coefficient, ((atom, power), ...)) per term, in order of writing; [] for 0."""
    own = terms_of(size)
    return [(own[m], m) for m in sorted(own, key=mono_key)]


def key(size: Size) -> str:
    """A text that is the same for equal sizes in every process."""
    return str(size)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value at these sizes. KeyError with the name of a missing symbol; NotInteger where it is a fraction."""
    if isinstance(size, int):
        return size
    value = _evaluate(size, values, {})
    if isinstance(value, Fraction):
        if value.denominator != 1:
            raise NotInteger(f"{size} is {value} at {', '.join(f'{n} = {values[n]}' for n in sorted(size.symbols))}")
        return value.numerator
    return value


def _evaluate(size: Size, values: Mapping[str, int], memo: dict[Atom, Number]) -> Number:
    if isinstance(size, int):
        return size
    total: Number = 0
    for mono, c in size.terms.items():
        for atom, p in mono:
            v = memo.get(atom)
            if v is None:
                if atom.kind == "sym":
                    v = values[atom.name]
                elif atom.kind == "floor":
                    v = _evaluate(atom.args[0], values, memo) // _evaluate(atom.args[1], values, memo)
                else:
                    v = (min if atom.kind == "min" else max)(_evaluate(a, values, memo) for a in atom.args)
                memo[atom] = v
            c = c * (v if p == 1 else v**p)
        total += c
    return total


def rebuild(atom: Atom, args: tuple[Size, ...]) -> Size:
    """The atom's operation on other arguments."""
    if atom.kind == "floor":
        return floordiv(*args)
    return _extreme(atom.kind, args)


def map_atoms(size: Size, new: Callable[[Atom], Size]) -> Size:
    """The polynomial with each atom replaced; the same object if none changes."""
    if isinstance(size, int):
        return size
    values: dict[Atom, Size] = {}
    changed = False
    for mono in size.terms:
        for atom, _ in mono:
            if atom not in values:
                values[atom] = value = new(atom)
                changed = changed or value is not atom.dim
    if not changed:
        return size
    out: Terms = {}
    for mono, c in size.terms.items():
        part: Terms = {(): c}
        for atom, p in mono:
            value = values[atom]
            if isinstance(value, int):
                part = {m: e * value**p for m, e in part.items()}
            elif p <= MAX_POWER or len(value.terms) == 1:
                part = mul_terms(part, terms_of(_pow(value, p)))
            else:
                raise OverflowError(f"the exponent {p} is above {MAX_POWER}")
        add_into(out, part)
        if len(out) > 2 * MAX_TERMS:
            raise OverflowError(f"a size has more than {MAX_TERMS:,} terms")
    return make(out)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """The size with symbols replaced, all at once."""
    memo: dict[Atom, Size] = {}
    names = values.keys()

    def new(atom: Atom) -> Size:
        if atom.symbols.isdisjoint(names):
            return atom.dim
        if atom.kind == "sym":
            return values[atom.name]
        value = memo.get(atom)
        if value is None:
            value = memo[atom] = rebuild(atom, tuple(map_atoms(a, new) for a in atom.args))
        return value

    return map_atoms(size, new)
