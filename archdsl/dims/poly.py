"""Symbolic sizes: polynomials over symbols, floors, minima and maxima, in a normal form and hash-consed.

A `Size` is a plain int wherever the value is known, else a `Dim`. Two Dims with the same normal form are one object,
so equality is identity. Symbols stand for integers >= 1. Rational coefficients appear only where the whole is an integer
by what is known of the symbols (`H/4` under `H % 4 == 0`).
"""
from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm
from typing import Any
from weakref import WeakValueDictionary

MAX_TERMS = 2_000  # of one polynomial
MAX_POWER = 64  # the exponent of one `**`
MAX_DEGREE = 4_096  # of one term
MAX_PRODUCT = 200_000  # pairs of terms multiplied at once
MAX_WEIGHT = 20_000  # symbols and operators in one expression, written out
MAX_DEPTH = 64  # floors, minima and maxima within each other
MAX_COEFFICIENT = 1 << 4_096
CACHE = 1 << 14

_RANK = {"sym": 0, "floor": 1, "min": 2, "max": 3}
_LOCK = allocate_lock()


class NotInteger(ValueError):
    """A size came out as a fraction: the values contradict the facts under which it was exact."""


class Atom:
    """What a polynomial is made of: a symbol, `floordiv(num, den)`, `min(..)` or `max(..)`. Interned, like Dim.

    `kind`: sym | floor | min | max. `name`: the symbol's name, else "". `args`: (num, den) of a floor, the operands of min and max.
    """

    __slots__ = ("__weakref__", "_dim", "args", "depth", "kind", "name", "order", "symbols", "text", "weight")
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
        return atom_of, (self.kind, self.name, self.args)

    def __copy__(self) -> Atom:
        return self

    def __deepcopy__(self, memo: Any) -> Atom:
        return self

    @property
    def dim(self) -> Dim:
        """The atom alone as a size."""
        try:
            return self._dim
        except AttributeError:
            self._dim: Dim = make({((self, 1),): 1})  # type: ignore[assignment]
            return self._dim


Number = int | Fraction
Mono = tuple[tuple[Atom, int], ...]  # atoms with their powers, ordered; () is the constant
Terms = dict[Mono, Number]


class Dim:
    """A size that is not a known number. Immutable and interned; build one with `sym` and arithmetic."""

    __slots__ = ("__weakref__", "depth", "exact", "symbols", "terms", "weight", "written")
    terms: Terms  # never changed after construction
    symbols: frozenset[str]
    exact: bool  # all coefficients are ints
    weight: int
    depth: int
    written: str | None  # its text, once it was asked for

    def __str__(self) -> str:
        if self.written is None:
            from archdsl.dims.text import write

            self.written = write(self.terms)
        return self.written

    def __repr__(self) -> str:
        return f"Dim({self})"

    def __reduce__(self):
        return _restore, (tuple(self.terms.items()),)

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: Any) -> Dim:
        return self

    def __add__(self, other: Size) -> Size:
        return _add(self, other) if isinstance(other, _SIZES) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        if isinstance(other, int):
            return _add(self, -other)
        return _sub(self, other) if isinstance(other, _SIZES) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return _sub(other, self) if isinstance(other, _SIZES) else NotImplemented

    def __mul__(self, other: Size) -> Size:
        return _mul(self, other) if isinstance(other, _SIZES) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return _mul(self, -1)

    def __pos__(self) -> Size:
        return self

    def __pow__(self, power: Size) -> Size:
        if not isinstance(power, int):
            return NotImplemented
        if power < 0:
            raise ValueError(f"a size has no power {power}")
        if power > MAX_POWER:
            raise TooLarge(f"the exponent {power} is above {MAX_POWER}")
        return power_of(self, power)

    def __floordiv__(self, other: Size) -> Size:
        return _floors.floordiv(self, other) if isinstance(other, _SIZES) else NotImplemented

    def __rfloordiv__(self, other: Size) -> Size:
        return _floors.floordiv(other, self) if isinstance(other, int) else NotImplemented

    def __mod__(self, other: Size) -> Size:
        return _floors.mod(self, other) if isinstance(other, _SIZES) else NotImplemented

    def __rmod__(self, other: Size) -> Size:
        return _floors.mod(other, self) if isinstance(other, int) else NotImplemented


Size = int | Dim
_SIZES: tuple[Any, ...] = (int, Dim)  # what arithmetic takes; Python refuses the rest


class TooLarge(OverflowError):
    """A size beyond the limits above: a sentence in the user's words."""


# ---------------------------------------------------------------- construction
_ATOMS: WeakValueDictionary[tuple[str, str, tuple[Size, ...]], Atom] = WeakValueDictionary()
_DIMS: WeakValueDictionary[frozenset[tuple[Mono, Number]], Dim] = WeakValueDictionary()
NO_NAMES: frozenset[str] = frozenset()


def _size_symbols(size: Size) -> frozenset[str]:
    return size.symbols if isinstance(size, Dim) else NO_NAMES


def atom_of(kind: str, name: str, args: tuple[Size, ...]) -> Atom:
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
            raise TooLarge(f"a size nests floors, minima or maxima more than {MAX_DEPTH} deep or is longer than {MAX_WEIGHT:,} symbols")
        atom.symbols = NO_NAMES.union(*(d.symbols for d in dims))
        atom.text = write_atom(kind, args)
    atom.order = (_RANK[kind], atom.text)
    with _LOCK:
        return _ATOMS.setdefault(key, atom)


def make(terms: Mapping[Mono, Number]) -> Size:
    """The size with these terms: zero terms go, a constant is an int. NotInteger for a constant fraction."""
    exact = True
    for c in terms.values():
        if type(c) is not int or not c:
            terms, exact = _cleaned(terms)
            break
    if len(terms) < 2:
        if not terms:
            return 0
        if () in terms:
            if not exact:
                raise NotInteger(f"{terms[()]} is not an integer")
            return terms[()]  # type: ignore[return-value]
    key = frozenset(terms.items())
    found = _DIMS.get(key)
    if found is not None:
        return found
    dim = Dim()
    clean = dim.terms = dict(terms)
    dim.exact, dim.written = exact, None
    weight, depth = 0, 0
    names: set[str] = set()
    for mono, c in clean.items():
        weight += 1
        if not -MAX_COEFFICIENT < c < MAX_COEFFICIENT:
            raise TooLarge("a coefficient of a size has more than 4,096 bits")
        total = 0
        for atom, p in mono:
            total += p
            weight += atom.weight
            names.update(atom.symbols)
            depth = max(depth, atom.depth)
        if total > MAX_DEGREE:
            raise TooLarge(f"a size has the degree {total}, above {MAX_DEGREE:,}")
    if len(clean) > MAX_TERMS or weight > MAX_WEIGHT:
        raise TooLarge(f"a size has more than {MAX_TERMS:,} terms or {MAX_WEIGHT:,} symbols")
    dim.weight, dim.depth, dim.symbols = weight, depth, frozenset(names)
    with _LOCK:
        return _DIMS.setdefault(key, dim)


def _cleaned(terms: Mapping[Mono, Number]) -> tuple[Terms, bool]:
    """Without zero terms, whole fractions as ints; and whether all are ints."""
    clean: Terms = {m: c.numerator if c.denominator == 1 else c for m, c in terms.items() if c}
    return clean, all(type(c) is int for c in clean.values())


def _restore(items: tuple[tuple[Mono, Number], ...]) -> Size:
    return make(dict(items))


def sym(name: str) -> Dim:
    """The symbol of this name, an integer >= 1."""
    return atom_of("sym", name, ()).dim


def terms_of(size: Size) -> Terms:
    """The terms as a dict; not to be changed."""
    return size.terms if isinstance(size, Dim) else {(): int(size)} if size else {}


# ---------------------------------------------------------------- arithmetic
def order_of(pair: tuple[Atom, int]) -> tuple[int, str]:
    return pair[0].order


def mono_mul(x: Mono, y: Mono) -> Mono:
    if not x:
        return y
    if not y:
        return x
    powers = dict(x)
    for atom, p in y:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items(), key=order_of))


def add_into(out: Terms, terms: Mapping[Mono, Number], scale: Number = 1) -> None:
    """out += scale * terms"""
    for mono, c in terms.items():
        out[mono] = out.get(mono, 0) + (c if scale == 1 else c * scale)


def mul_terms(a: Mapping[Mono, Number], b: Mapping[Mono, Number]) -> Terms:
    if len(a) * len(b) > MAX_PRODUCT:
        raise TooLarge(f"a product of sizes with {len(a):,} and {len(b):,} terms")
    out: Terms = {}
    for x, c in a.items():
        for y, e in b.items():
            mono = mono_mul(x, y)
            out[mono] = out.get(mono, 0) + c * e
        if len(out) > 2 * MAX_TERMS:
            raise TooLarge(f"a size has more than {MAX_TERMS:,} terms")
    return out


@lru_cache(CACHE)
def _add(a: Size, b: Size) -> Size:
    out = dict(terms_of(a))
    add_into(out, terms_of(b))
    return make(out)


@lru_cache(CACHE)
def _sub(a: Size, b: Size) -> Size:
    out = dict(terms_of(a))
    add_into(out, terms_of(b), -1)
    return make(out)


@lru_cache(CACHE)
def _mul(a: Size, b: Size) -> Size:
    if isinstance(b, int):
        return make({m: c * b for m, c in a.terms.items()}) if isinstance(a, Dim) else a * b
    return make(mul_terms(terms_of(a), b.terms))


@lru_cache(CACHE)
def power_of(a: Dim, power: int) -> Size:
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


def denominator(terms: Mapping[Mono, Number]) -> int:
    """The least common denominator of the coefficients."""
    return lcm(*(c.denominator for c in terms.values()))


def degree(mono: Mono) -> int:
    return sum(p for _, p in mono)


def mono_key(mono: Mono) -> tuple[int, list[tuple[tuple[int, str], int]]]:
    """Sorts monomials as they are written: highest degree first, then by name; the constant last."""
    return (-degree(mono), [(atom.order, p) for atom, p in mono])


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
    rest, out = dict(a), Terms()
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


def primitive(d: Dim, inequality: bool = False) -> Dim:
    """The same condition d == 0 (or d >= 0) in whole coefficients without a common factor."""
    den = denominator(d.terms)
    own = {m: int(c * den) for m, c in d.terms.items()}
    g = gcd(*(c for m, c in own.items() if m or not inequality))
    return make({m: c // g for m, c in own.items()})  # type: ignore[return-value]


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


def largest(size: Size) -> int:
    """The largest whole number that a size is made of: 2 ** 70 in `T + 2 ** 70`."""
    if isinstance(size, int):
        return abs(size)
    inside = (largest(a) for mono in size.terms for atom, _ in mono for a in atom.args)
    return max(0, *(max(abs(c.numerator), c.denominator) for c in size.terms.values()), *inside)


def key(size: Size) -> str:
    """A text that is the same for equal sizes in every process."""
    return str(size)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value at these sizes. KeyError with the name of a missing symbol; NotInteger where it is a fraction."""
    if isinstance(size, int):
        return size
    value = value_at(size, values, {})
    if isinstance(value, Fraction):
        if value.denominator != 1:
            raise NotInteger(f"{size} is {value} at {', '.join(f'{n} = {values[n]}' for n in sorted(size.symbols))}")
        return value.numerator
    return value


def value_at(size: Size, values: Mapping[str, int], memo: dict[Atom, Number]) -> Number:
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
                    divisor = value_at(atom.args[1], values, memo)
                    if divisor == 0:
                        raise NotInteger(f"{atom.args[1]}, which divides, is 0 at {', '.join(f'{n} = {v}' for n, v in sorted(values.items()))}")
                    v = value_at(atom.args[0], values, memo) // divisor
                else:
                    v = (min if atom.kind == "min" else max)(value_at(a, values, memo) for a in atom.args)
                memo[atom] = v
            c = c * (v if p == 1 else v**p)
        total += c
    return total


from archdsl.dims import floors as _floors  # noqa: E402  (the operators of Dim need it, it needs Dim)
