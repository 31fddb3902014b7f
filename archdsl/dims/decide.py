"""Equality of sizes under facts: proofs by residue classes, refutations by small values."""
from __future__ import annotations

from fractions import Fraction
from itertools import product as cartesian
from math import gcd, lcm, prod
from typing import TYPE_CHECKING

from archdsl.dims import floors, poly
from archdsl.dims.floors import bounds, map_atoms, substitute
from archdsl.dims.poly import Atom, Dim, Mono, NotInteger, Size, Terms, denominator, evaluate, make, sym
from archdsl.dims.witness import TRIES, WORK, Env, complete, constrained, points, raw, relevant, search

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts

CLASSES = 4_096  # residue classes looked at in one proof
Verdict = bool | None
Shifts = dict[str, tuple[int, int, int | None]]  # name -> (L, t, most): name = L*y - t for y >= 1 (y <= most)


# ---------------------------------------------------------------- residue classes
def moduli(size: Size, out: dict[str, int], factor: int = 1) -> dict[str, int]:
    """The modulus of each symbol on whose residue alone the floors and fractions in `size` depend."""
    if isinstance(size, int):
        return out
    factor *= denominator(size.terms)
    for mono in size.terms:
        for atom, _ in mono:
            if atom.kind == "sym":
                out[atom.name] = lcm(out.get(atom.name, 1), factor)
            elif atom.kind == "floor" and isinstance(atom.args[1], int):
                moduli(atom.args[0], out, factor * atom.args[1])
            else:
                for a in atom.args:
                    moduli(a, out, factor)
    return out


def classes(facts: Facts, size: Size, limit: int = CLASSES) -> list[Shifts] | None:
    """Substitutions that together cover all sizes allowed by congruences and bounds; None when there are more than `limit`."""
    choices: list[list[tuple[str, tuple[int, int, int | None]]]] = []
    count = 1
    for name, need in sorted(moduli(size, {}).items()):
        m, s = facts.congruences.get(name, (1, 0))
        least, most = facts.lo.get(name, 1), facts.hi.get(name)
        if need == 1 and least == 1 and most is None:
            continue
        both = lcm(need, m) if need > 1 else m
        count *= both // m
        if count > limit:
            return None
        own: list[tuple[str, tuple[int, int, int | None]]] = []
        for t in range(s, both, m):
            skip = -(-(least + t) // both) - 1  # y counts from the least value allowed
            top = None if most is None else (most + t) // both - skip
            if top is None or top >= 1:
                own.append((name, (both, t - both * skip, top)))
        choices.append(own)
    return [dict(choice) for choice in cartesian(*choices)]


def in_class(size: Size, shifts: Shifts) -> Size:
    return substitute(size, {n: step * sym(n) - t for n, (step, t, _) in shifts.items()})


def back(env: Env, shifts: Shifts) -> Env:
    """The values of the symbols from the values of the y's."""
    return {n: shifts[n][0] * v - shifts[n][1] if n in shifts else v for n, v in env.items()}


# ---------------------------------------------------------------- zero or not
def equal(facts: Facts, a: Size, b: Size) -> tuple[Verdict, Env | None]:
    """Whether a == b always, and values of their difference's symbols that tell them apart if some were met."""
    try:
        d = facts.normal(a - b)
    except NotInteger:
        return False, None
    if isinstance(d, int):
        return d == 0, None
    if any(e.symbols <= d.symbols and poly.poly_div(d.terms, e.terms) is not None for e in facts.equals):
        return True, None
    found = facts.decided.get(d)
    if found is None:
        found = facts.decided[d] = zero(facts, d)
    return found


def zero(facts: Facts, d: Size, work: list[int] | None = None) -> tuple[Verdict, Env | None]:
    """Whether d is 0 for all sizes. `work` holds what may still be spent on residue classes."""
    work = [WORK] if work is None else work
    if isinstance(d, int):
        return d == 0, {}
    d = uniform_extremes(d)
    if isinstance(d, int):
        return d == 0, {}
    free = not constrained(facts, d.symbols)
    parts = split(d)
    if len(parts) > 1 or () not in parts:
        verdicts = [zero(facts, c, work) for c in parts.values()]
        if all(v for v, _ in verdicts):
            return True, None
        if free:
            for verdict, witness in verdicts:
                if verdict is False:
                    return False, spread(facts, d, witness)
    elif (verdict := zero_by_class(facts, d, free, work)) is not None:
        return verdict
    return by_values(facts, d)


def split(d: Dim) -> dict[Mono, Size]:
    """d by the products of those symbols that occur in no floor and no minimum: for each its coefficient."""
    bound: set[str] = set()
    for mono in d.terms:
        for atom, _ in mono:
            if atom.kind != "sym":
                bound |= atom.symbols
    out: dict[Mono, Terms] = {}
    for mono, c in d.terms.items():
        outer = tuple((atom, p) for atom, p in mono if atom.kind == "sym" and atom.name not in bound)
        inner = tuple((atom, p) for atom, p in mono if not (atom.kind == "sym" and atom.name not in bound))
        out.setdefault(outer, {})[inner] = c
    # a coefficient may be a fraction that only the whole makes an integer: scaled, it is zero just the same
    return {outer: make({m: c * denominator(t) for m, c in t.items()}) for outer, t in out.items()}


def spread(facts: Facts, d: Dim, witness: Env | None) -> Env | None:
    """The witness for one coefficient, with values of the other symbols at which d is not 0."""
    fixed = witness or {}
    part = [n for n in sorted(d.symbols) if n not in fixed]
    powers = max((p for mono in d.terms for _, p in mono), default=1)
    if (powers + 1) ** len(part) > TRIES:
        return None
    for steps in sorted(cartesian(range(powers + 1), repeat=len(part)), key=lambda r: (max(r, default=0), sum(r))):
        env = dict(fixed)
        for n, i in zip(part, steps, strict=True):
            m, s = facts.congruences.get(n, (1, 0))
            least = facts.lo.get(n, 1)
            env[n] = least + -(least + s) % m + m * i
        if raw(d, env):
            return env
    return None


def zero_by_class(facts: Facts, d: Dim, free: bool, work: list[int]) -> tuple[Verdict, Env | None] | None:
    """The verdict by residue classes; None when they leave it open."""
    found = classes(facts, d, min(CLASSES, work[0] // d.weight))
    if found is None:
        return None
    work[0] -= len(found) * d.weight
    open_ = False
    for shifts in found:
        if not possible(facts, shifts):
            continue
        try:
            value = in_class(d, shifts)
        except NotInteger:
            open_ = True
            continue
        except ZeroDivisionError:  # d has no value there
            continue
        if value == 0:
            continue
        verdict, env = (False, dict.fromkeys(d.symbols, 1)) if isinstance(value, int) else zero_in_class(value, shifts)
        if verdict is True:
            continue
        if verdict is False and free and env is not None:
            return False, back({n: env.get(n, 1) for n in d.symbols}, shifts)
        open_ = True
    return None if open_ else (True, None)


def residues_of_zero(facts: Facts, d: Dim) -> dict[str, tuple[int, int]] | None:
    """name -> (m, r) where d == 0 just says name % m == r for each; {} where it never holds; None where it says something else."""
    need = {n: m for n, m in sorted(moduli(d, {}).items()) if m > 1}
    found = classes(facts, d, min(512, WORK // d.weight)) if need and not constrained(facts, d.symbols) else None
    if not found or any(n in facts.lo or n in facts.congruences for n in need):
        return None
    hits: list[tuple[int, ...]] = []
    for shifts in found:
        try:
            value = in_class(d, shifts)
        except (NotInteger, ZeroDivisionError):
            continue
        if value == 0:
            hits.append(tuple(-shifts[n][1] % m for n, m in need.items()))
            continue
        low, high = bounds(value)
        if not ((low is not None and low > 0) or (high is not None and high < 0)):
            return None
    if not hits:
        return {}
    out = {n: (gcd(m, *(h[i] - hits[0][i] for h in hits)), hits[0][i]) for i, (n, m) in enumerate(need.items())}
    if prod(need[n] // m for n, (m, _) in out.items()) != len(hits):
        return None
    return {n: (m, r % m) for n, (m, r) in out.items()}


def possible(facts: Facts, shifts: Shifts) -> bool:
    """Whether the remembered divisibilities allow this class."""
    for e, k, _ in facts.divides:
        if e.symbols.isdisjoint(shifts):
            continue
        try:
            left = in_class(e, shifts)
        except ZeroDivisionError:
            return False
        terms = poly.terms_of(left)
        if left == 0 or not all(isinstance(c, int) for c in terms.values()):
            continue
        g = gcd(k, *(int(c) for m, c in terms.items() if m))
        if int(terms.get((), 0)) % g:
            return False
    return True


def zero_in_class(value: Dim, shifts: Shifts) -> tuple[Verdict, Env | None]:
    """Whether a polynomial, perhaps with minima, is 0 for all y >= 1 (the upper ends of the class are not looked at for False)."""
    names = sorted(value.symbols)
    tops = [shifts[n][2] if n in shifts else None for n in names]
    if all(t is not None for t in tops) and prod(t for t in tops if t is not None) <= CLASSES:
        for y in cartesian(*(range(1, (t or 0) + 1) for t in tops)):
            env = dict(zip(names, y, strict=True))
            try:
                if raw(value, env):
                    return False, env
            except NotInteger:  # something in it divides by what is 0 there
                return None, None
        return True, None
    if all(atom.kind == "sym" for mono in value.terms for atom, _ in mono):
        powers = max(p for mono in value.terms for _, p in mono)
        if (powers + 1) ** len(names) > CLASSES:
            return False, None
        for y in sorted(cartesian(range(1, powers + 2), repeat=len(names)), key=lambda r: (max(r), sum(r))):
            env = dict(zip(names, y, strict=True))
            if raw(value, env):
                return False, env
        raise AssertionError(f"{value} is zero on a grid")
    if len(names) != 1:
        return None, None
    return zero_eventually(value, names[0])


def zero_eventually(value: Dim, name: str) -> tuple[Verdict, Env | None]:
    """For one symbol: beyond some value every minimum is decided; up to there all values are tried."""
    tail = eventual(value, name)
    if tail is None:
        return None, None
    end, start = tail
    if start > CLASSES:
        return None, None
    for y in range(1, start + 1):
        if raw(value, {name: y}):
            return False, {name: y}
    if end == 0:
        return True, None
    powers = max((p for mono in poly.terms_of(end) for _, p in mono), default=0)
    return False, next({name: y} for y in range(start, start + powers + 2) if raw(end, {name: y}))


def eventual(size: Size, name: str) -> tuple[Size, int] | None:
    """(p, start): size equals the polynomial p for all values >= start of its one symbol. None where that is not found."""
    start = 1

    def new(atom: Atom) -> Size:
        nonlocal start
        if atom.kind == "sym":
            return atom.dim
        args = tuple(map_atoms(a, new) for a in atom.args)
        if atom.kind == "floor":
            value = floors.rebuild(atom, args)
            if any(x.kind != "sym" for x in poly.atoms(value)):
                raise LookupError
            return value
        best = args[0]
        for other in args[1:]:
            gap = poly.terms_of(other - best)
            if not gap:
                continue
            lead = max(gap, key=poly.degree)
            start = max(start, 2 + int(max(abs(Fraction(c)) for c in gap.values()) / abs(gap[lead])))  # Cauchy: no root beyond
            if (gap[lead] < 0) == (atom.kind == "min"):
                best = other
        return best

    try:
        return map_atoms(size, new), start
    except (LookupError, NotInteger):
        return None


def uniform_extremes(d: Size) -> Size:
    """Every minimum written so that shifted ones are alike (min(T + 1, 9) as min(T, 8) + 1), two-fold maxima as minima."""

    def new(atom: Atom) -> Size:
        if atom.kind == "sym":
            return atom.dim
        args = tuple(map_atoms(a, new) for a in atom.args)
        if atom.kind == "floor":
            return floors.rebuild(atom, args)
        shift = next((c for a in args if isinstance(a, Dim) for c in (a.terms.get((), 0),)), 0)
        shift = shift if isinstance(shift, int) else 0
        moved = tuple(a - shift for a in args)
        if atom.kind == "max" and len(args) == 2:
            return shift + moved[0] + moved[1] - floors.minimum(*moved)
        return shift + floors.rebuild(atom, moved)

    return map_atoms(d, new)


def by_values(facts: Facts, d: Dim) -> tuple[Verdict, Env | None]:
    env = search(facts, [d], lambda values: raw(d, values) != 0)
    return (None, None) if env is None else (False, env)


def counterexample(facts: Facts, a: Size, b: Size) -> Env | None:
    """Values of all symbols of a and b; if there are such, ones at which both are at least 1."""
    verdict, witness = equal(facts, a, b)
    if verdict is True:
        return None

    def apart(env: Env) -> bool:
        return raw(a, env) != raw(b, env)

    names = poly.symbols(a) | poly.symbols(b)
    found = search(facts, [a, b], lambda env: apart(env) and evaluate(a, env) >= 1 and evaluate(b, env) >= 1)
    found = found or search(facts, [a, b], apart)
    if found is None and witness is not None:
        rest = relevant(facts, names | witness.keys()) - witness.keys()
        tries = (complete(facts, {**env, **witness}) for env in points(facts, rest, set()))
        found = next((full for full in tries if full is not None and names <= full.keys() and apart(full)), None)
    return None if found is None else {n: found[n] for n in sorted(names)}
