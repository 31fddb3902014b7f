"""Floors, minima and maxima in normal form, their bounds, and sizes with their atoms replaced."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import product as cartesian
from math import gcd, lcm

from archdsl.dims.poly import (
    CACHE,
    MAX_POWER,
    MAX_TERMS,
    Atom,
    Dim,
    Mono,
    Number,
    Size,
    Terms,
    TooLarge,
    add_into,
    atom_of,
    degree,
    denominator,
    make,
    mono_div,
    mono_key,
    mul_terms,
    order_of,
    poly_div,
    power_of,
    scale,
    sym,
    terms_of,
)


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


@lru_cache(CACHE)
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
        inner = atom_of("floor", "", (make(rest), n)).dim
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
    for point in cartesian(range(n), repeat=len(inside)):
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


@lru_cache(CACHE)
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
    factor = tuple(sorted((common or {}).items(), key=order_of))
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
    return atom_of("floor", "", (a, b)).dim


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


@lru_cache(CACHE)
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
    return atom_of(kind, "", tuple(kept)).dim


def bounds(size: Size, lo: Mapping[str, int] = _NONE, hi: Mapping[str, int] = _NONE) -> Bounds:
    """Interval arithmetic: (least, most) that the size can be, where symbols are at least lo (default 1) and at most hi."""
    if isinstance(size, int):
        return size, size
    if not lo and not hi:
        return _plain_bounds(size)
    return _bounds(size, lo, hi)


@lru_cache(CACHE)
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


# ---------------------------------------------------------------- replacement
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
                part = mul_terms(part, terms_of(power_of(value, p)))
            else:
                raise TooLarge(f"the exponent {p} is above {MAX_POWER}")
        add_into(out, part)
        if len(out) > 2 * MAX_TERMS:
            raise TooLarge(f"a size has more than {MAX_TERMS:,} terms")
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
