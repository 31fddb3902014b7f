"""Signs, wholeness and division of sizes under facts."""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from archdsl.dims import floors, poly
from archdsl.dims.decide import CLASSES, Shifts, Verdict, classes, equal, in_class, possible
from archdsl.dims.floors import bounds, substitute
from archdsl.dims.poly import Dim, NotInteger, Size, denominator, make, scale, sym
from archdsl.dims.witness import WORK, raw, search

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts


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
        if den > 1 and facts.normal(floors.floordiv(scale(value, den), den)) is value and all(whole(a.dim) for a in poly.atoms(value)):
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
    floor = facts.normal(floors.floordiv(a, b))
    return floor if isinstance(floor, Dim) and equal(facts, floor * b, a)[0] else None
