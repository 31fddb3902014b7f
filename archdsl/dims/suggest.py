"""The `require` that would make two sizes equal."""
from __future__ import annotations

from math import isqrt, lcm, prod
from typing import TYPE_CHECKING

from archdsl.dims import poly
from archdsl.dims.decide import moduli
from archdsl.dims.floors import bounds
from archdsl.dims.poly import Dim, NotInteger, Size, make, sym
from archdsl.dims.witness import is_symbol

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts


LARGEST = 1_000_000  # modulus that a suggestion may be about


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


def _of_many_sizes(left: Size, right: Size, d: Dim) -> bool:
    """Whether the two are equal at some large multiples of everything that is divided by."""
    step = lcm(1, *moduli(d, {}).values())
    sizes = {n: step * (1009 + 4 * i) for i, n in enumerate(sorted(d.symbols))}
    try:
        return poly.evaluate(left, sizes) == poly.evaluate(right, sizes)
    except (NotInteger, OverflowError, ZeroDivisionError):
        return False


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
    if poly.symbols(left) & poly.symbols(right) and not _of_many_sizes(left, right, d):
        return None  # `T == ceildiv(T, 2)` holds for the first few numbers alone
    return f"{left} == {right}"
