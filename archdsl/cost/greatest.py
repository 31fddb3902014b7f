"""Which of several polynomials can be the greatest: liveness has many candidates, and most lie below another everywhere."""
from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from archdsl.dims import Atom, Size, terms

Mono = tuple[tuple[Atom, int], ...]


def highest(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Those that may be the greatest where all symbols are at least 1; one number, where all are numbers."""
    found = list(dict.fromkeys(sizes))
    if all(isinstance(s, int) for s in found):
        return (max(found),)  # type: ignore[type-var]
    kept: list[Size] = []
    for s in sorted(found, key=lambda s: -len(terms(s))):
        if not any(never_below(k, s) for k in kept):
            kept = [k for k in kept if not never_below(s, k)] + [s]
    return tuple(kept)


def never_below(a: Size, b: Size) -> bool:
    """Whether a ≥ b is plain to see: each negative term of a - b is covered by positive ones with the same factors and more symbols."""
    parts = terms(a - b)
    left = {mono: Fraction(c) for c, mono in parts if c > 0}
    for c, mono in parts:
        need = Fraction(-c)
        for other in list(left):
            if need <= 0:
                break
            if _covers(other, mono):
                used = min(need, left[other])
                left[other] -= used
                need -= used
        if c < 0 and need > 0:
            return False
    return True


def _covers(big: Mono, small: Mono) -> bool:
    """Whether big ≥ small: it has all its factors, and the further ones are symbols."""
    powers = dict(big)
    for atom, p in small:
        if powers.get(atom, 0) < p:
            return False
        powers[atom] -= p
    return all(atom.kind == "sym" for atom, p in powers.items() if p)
