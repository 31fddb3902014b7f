"""Questions about sizes under facts: residue classes for proofs, small values for refutations."""
from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from itertools import product as cartesian
from math import gcd, isqrt, lcm, prod
from typing import TYPE_CHECKING

from archdsl.dims import poly
from archdsl.dims.poly import Atom, Dim, Mono, NotInteger, Size, Terms, bounds, denominator, evaluate, make, map_atoms, scale, substitute, sym

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts

CLASSES = 4_096  # residue classes looked at in one proof
TRIES = 3_000  # values tried in one search for a counterexample
WORK = 100_000  # symbols substituted in one proof, about 3 microseconds each
LARGEST = 1_000_000  # modulus that a suggestion may be about
Env = dict[str, int]
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
        own = []
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


# ---------------------------------------------------------------- values
def relevant(facts: Facts, names: Iterable[str]) -> set[str]:
    """The unsolved symbols that facts tie to these, themselves included."""
    ties = [e.symbols for e, _, _ in facts.divides] + [p.symbols for p in (*facts.at_leasts, *facts.equals)]
    for mono, value in facts.rules.items():
        ties.append(poly.symbols(value) | names_of(mono))
    found, grown = set(names), True
    while grown:
        grown = False
        for tie in ties:
            if not tie <= found and not found.isdisjoint(tie):
                found |= tie
                grown = True
    return found - {mono[0][0].name for mono in facts.rules if is_symbol(mono)}


def is_symbol(mono: Mono) -> bool:
    return len(mono) == 1 and mono[0][1] == 1 and mono[0][0].kind == "sym"


def constrained(facts: Facts, names: Iterable[str]) -> bool:
    """Whether more is known of these symbols than congruences and lower bounds."""
    own = set(names)
    return bool(own & facts.hi.keys()) or any(not own.isdisjoint(e.symbols) for e, _, _ in facts.divides) \
        or any(not own.isdisjoint(p.symbols) for p in (*facts.at_leasts, *facts.equals)) \
        or any(not own.isdisjoint(names_of(m) if is_symbol(m) else names_of(m) | poly.symbols(v)) for m, v in facts.rules.items())


def names_of(mono: Mono) -> frozenset[str]:
    return frozenset().union(*(atom.symbols for atom, _ in mono))


def complete(facts: Facts, env: Env) -> Env | None:
    """The values with those of the solved symbols; None when they break a fact. Facts about other symbols are not looked at."""
    names = env.keys()
    full = dict(env)
    for name in names:
        v = env[name]
        m, s = facts.congruences.get(name, (1, 0))
        if v < facts.lo.get(name, 1) or v > facts.hi.get(name, v) or (v + s) % m:
            return None
    try:
        for mono, value in facts.rules.items():
            if not poly.symbols(value) <= names:
                continue
            if is_symbol(mono):
                v = evaluate(value, env)
                if v < 1 or full.setdefault(mono[0][0].name, v) != v:
                    return None
            elif all(atom.symbols <= names for atom, _ in mono) and evaluate(make({mono: 1}), env) != evaluate(value, env):
                return None
        for e, k, _ in facts.divides:
            if e.symbols <= names and evaluate(e, env) % k:
                return None
        for p in facts.at_leasts:
            if p.symbols <= names and evaluate(p, env) < 0:
                return None
        for p in facts.equals:
            if p.symbols <= names and evaluate(p, env):
                return None
    except (NotInteger, ZeroDivisionError):
        return None
    return full


def holds(facts: Facts, values: Mapping[str, int]) -> bool:
    solved = {mono[0][0].name for mono in facts.rules if is_symbol(mono)}
    full = complete(facts, {n: v for n, v in values.items() if n not in solved})
    return full is not None and all(full.get(n, v) == v and v >= 1 for n, v in values.items())


def numbers(size: Size, out: set[int]) -> set[int]:
    """The whole numbers written in a size."""
    if isinstance(size, int):
        out.add(abs(size))
        return out
    for mono, c in size.terms.items():
        out.update((abs(c.numerator), c.denominator))
        for atom, _ in mono:
            for a in atom.args:
                numbers(a, out)
    return out


def points(facts: Facts, names: set[str], special: set[int]) -> Iterator[Env]:
    """Values to try, small ones first, some near the numbers in `special`; each allowed by congruence and bounds."""
    order = sorted(names)
    if not order:
        yield {}
        return
    many = {1: 400, 2: 48, 3: 13}.get(len(order), 24)
    wanted = sorted({n + e for n in special for e in (-1, 0, 1)} | {2 * n - 1 for n in special})
    own: list[list[int]] = []
    for name in order:
        m, s = facts.congruences.get(name, (1, 0))
        least, most = facts.lo.get(name, 1), facts.hi.get(name)
        least += -(least + s) % m
        values = {least + m * i for i in range(many // 2)} | {max(least, n + -(n + s) % m) for n in wanted[: many // 2]}
        own.append(sorted(v for v in values if most is None or v <= most))
    if prod(map(len, own)) <= TRIES:
        ranks = sorted(cartesian(*(range(len(v)) for v in own)), key=lambda r: (max(r), sum(r)))
        yield from (dict(zip(order, (v[i] for v, i in zip(own, r, strict=True)), strict=True)) for r in ranks)
        return
    dice = random.Random(0)
    for i in range(TRIES):
        width = 1 + i * many // TRIES
        yield {n: v[dice.randrange(min(len(v), width + 1))] for n, v in zip(order, own, strict=True) if v}


def search(facts: Facts, sizes: Iterable[Size], test: Callable[[Env], bool]) -> Env | None:
    """The first values that satisfy the facts and the test."""
    names: set[str] = set()
    special: set[int] = set()
    tries = TRIES
    for s in sizes:
        names |= poly.symbols(s)
        numbers(s, special)
        n = facts.normal(s)
        names |= poly.symbols(n)
        numbers(n, special)
        tries = min(tries, WORK // n.weight) if isinstance(n, Dim) else tries
    for p in facts.at_leasts:
        numbers(p, special)
    for env in islice(points(facts, relevant(facts, names), special), tries):
        full = complete(facts, env)
        if full is None or not names <= full.keys():
            continue
        try:
            if test(full):
                return {n: full[n] for n in sorted(names)}
        except (NotInteger, ZeroDivisionError):
            continue
    return None


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
    found = facts._decided.get(d)
    if found is None:
        found = facts._decided[d] = zero(facts, d)
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


def raw(d: Size, env: Env) -> poly.Number:
    return poly._evaluate(d, env, {})


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
            if raw(value, env):
                return False, env
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
            value = poly.rebuild(atom, args)
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
            return poly.rebuild(atom, args)
        shift = next((c for a in args if isinstance(a, Dim) for c in (a.terms.get((), 0),)), 0)
        shift = shift if isinstance(shift, int) else 0
        moved = tuple(a - shift for a in args)
        if atom.kind == "max" and len(args) == 2:
            return shift + moved[0] + moved[1] - poly.minimum(*moved)
        return shift + poly.rebuild(atom, moved)

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


# ---------------------------------------------------------------- signs and wholeness
def nonnegative(facts: Facts, size: Size) -> Verdict:
    """Whether size >= 0 for all sizes; False with a counterexample in hand."""
    try:
        p = facts.normal(size)
    except NotInteger:
        return False
    if isinstance(p, int):
        return p >= 0
    if proved_nonnegative(facts, p):
        return True
    return None if search(facts, [p], lambda env: raw(p, env) < 0) is None else False


def proved_nonnegative(facts: Facts, p: Size, depth: int = 4) -> bool:
    if isinstance(p, int):
        return p >= 0
    low, _ = bounds(p, facts.lo, facts.hi)
    if low is not None and low >= 0:
        return True
    for known in facts.at_leasts:  # p >= 0 follows from known >= 0 and p - f*known >= 0 for an f >= 0
        for mono, c in known.terms.items():
            f = Fraction(p.terms.get(mono, 0)) / c if mono else Fraction(0)
            if f > 0 and depth:
                try:
                    if proved_nonnegative(facts, scale_sub(p, known, f), depth - 1):
                        return True
                except NotInteger:
                    continue
    if depth and (by_operand := extreme_nonnegative(facts, p, depth - 1)) is not None:
        return by_operand
    found = classes(facts, p, min(256, WORK // p.weight))
    return (found is not None and any(s for s in found) and all(nonnegative_in_class(p, s) for s in found if possible(facts, s))) \
        or (found is not None and nonnegative_in_class(p, {}))


def scale_sub(p: Dim, known: Dim, f: Fraction) -> Size:
    """A positive multiple of p - f * known, in whole coefficients."""
    return scale(p, f.denominator) - scale(known, f.numerator)


def extreme_nonnegative(facts: Facts, p: Dim, depth: int) -> bool | None:
    """Proof by the operands of a minimum or maximum that stands in p by itself; None when there is none."""
    for mono, c in p.terms.items():
        if len(mono) == 1 and mono[0][1] == 1 and mono[0][0].kind in ("min", "max"):
            atom = mono[0][0]
            rest = p - scale(atom.dim, c)
            every = (atom.kind == "min") == (c > 0)
            proofs = (proved_nonnegative(facts, rest + scale(a, c), depth) for a in atom.args)
            return all(proofs) if every else any(proofs)
    return None


def nonnegative_in_class(p: Size, shifts: Shifts) -> bool:
    """Whether all coefficients are >= 0 once every y >= 1 is written as 1 + z, z >= 0."""
    try:
        value = in_class(p, shifts)
        low, _ = bounds(value)
        if low is not None and low >= 0:
            return True
        if isinstance(value, int) or any(atom.kind != "sym" for mono in value.terms for atom, _ in mono):
            return False
        moved = substitute(value, {n: sym(n) + 1 for n in value.symbols})
    except (NotInteger, ZeroDivisionError):
        return False
    return all(c >= 0 for c in poly.terms_of(moved).values())


def whole(size: Size) -> bool:
    """Whether all coefficients are integers, inside minima and maxima too."""
    return isinstance(size, int) or (size.exact and all(
        atom.kind in ("sym", "floor") or all(whole(a) for a in atom.args) for mono in size.terms for atom, _ in mono
    ))


def integer(facts: Facts, size: Size) -> bool:
    """Whether a size is an integer for all sizes of its symbols."""
    try:
        value = facts.normal(size)
    except NotInteger:
        return False
    if isinstance(value, int) or whole(value):
        return True
    den = denominator(value.terms)
    try:
        if den > 1 and facts.normal(poly.floordiv(scale(value, den), den)) is value and all(whole(a.dim) for a in poly.atoms(value)):
            return True
    except NotInteger:
        return False
    found = classes(facts, value, min(CLASSES, WORK // value.weight))
    if found is None:
        return False
    try:
        return all(whole(in_class(value, s)) for s in found if possible(facts, s))
    except NotInteger:
        return False


def divide(facts: Facts, a: Size, b: Size) -> Size | None:
    """a / b where that is an integer for all sizes."""
    a, b = facts.normal(a), facts.normal(b)
    if b == 0:
        return None
    quotient = poly.poly_div(poly.terms_of(a), poly.terms_of(b))
    if quotient is not None:
        try:
            value = make(quotient)
        except NotInteger:
            return None
        return value if integer(facts, value) else None
    floor = facts.normal(poly.floordiv(a, b))
    return floor if isinstance(floor, Dim) and equal(facts, floor * b, a)[0] else None


# ---------------------------------------------------------------- suggestions
def suggest(facts: Facts, a: Size, b: Size) -> str | None:
    """The `require` that makes a == b, tried on a copy of the facts."""
    try:
        d = facts.normal(a - b)
    except NotInteger:
        return None
    if isinstance(d, int):
        return None
    return by_residues(facts, a, b, d) or by_equation(facts, a, b, d)


def by_residues(facts: Facts, a: Size, b: Size, d: Dim) -> str | None:
    """`H % 32 == 0`: the weakest such conditions on the symbols inside floors; for one symbol another residue too."""
    need = {n: lcm(m, facts.congruences.get(n, (1, 0))[0]) for n, m in sorted(moduli(d, {}).items()) if m > 1}

    def works(wanted: dict[str, tuple[int, int]]) -> bool:
        trial = facts.copy()
        if any(trial.require_divides(sym(n) - r, m) is False for n, (m, r) in wanted.items()):
            return False
        try:
            left = trial.normal(d)
        except NotInteger:
            return False
        few = prod(need[n] // m for n, (m, _) in wanted.items()) <= 256
        return left == 0 or (few and isinstance(left, Dim) and trial.equal(left, 0) is True)

    def weakest(wanted: dict[str, tuple[int, int]]) -> str:
        for n in wanted:
            wanted[n] = next((m, 0) for m in divisors(need[n]) if works({**wanted, n: (m, 0)}))
        return " and ".join(f"{n} % {m} == {r}" for n, (m, r) in wanted.items() if m > 1)

    if not need or len(need) > 6 or max(need.values()) > LARGEST:
        return None
    try:
        if works({n: (m, 0) for n, m in need.items()}):
            return weakest({n: (m, 0) for n, m in need.items()}) or None
        if len(need) == 1 and max(need.values()) <= 256:
            ((n, m),) = need.items()
            pairs = ((k, r) for k in divisors(m) for r in range(1, k))
            return next((f"{n} % {k} == {r}" for k, r in pairs if works({n: (k, r)})), None)
    except OverflowError:
        pass
    return None


def divisors(n: int) -> list[int]:
    small = [m for m in range(1, isqrt(n) + 1) if n % m == 0]
    return sorted({*small, *(n // m for m in small)})


def by_equation(facts: Facts, a: Size, b: Size, d: Dim) -> str | None:
    """`T == S + 1`: d without its common factor, a lone symbol or the positive terms to the left."""
    trial = facts.copy()
    if trial.require_equal(a, b) is False:
        return None
    own = poly.primitive(poly.without_symbols(d)).terms
    left, right = make({m: c for m, c in own.items() if c > 0}), make({m: -c for m, c in own.items() if c < 0})
    low, high = bounds(left - right, facts.lo, facts.hi)
    if (low is not None and low > 0) or (high is not None and high < 0):
        return None
    lone = [s for s in (a, b, left, right) if isinstance(s, Dim) and is_symbol(next(iter(s.terms))) and len(s.terms) == 1 and s in (left, right)]
    if lone and lone[0] is right:
        left, right = right, left
    return f"{left} == {right}"
