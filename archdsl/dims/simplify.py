"""Sizes simplified by facts: solved symbols replaced, floors that the facts make exact turned into quotients."""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from archdsl.dims import signs
from archdsl.dims.floors import floordiv, map_atoms, rebuild, substitute, undominated
from archdsl.dims.poly import Atom, Dim, Size, Terms, add_into, degree, make, mono_div, mul_terms, scale, sym, terms_of
from archdsl.dims.solving import ceiling_kept, hidden

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts

_ROUNDS = 64  # of replacing products by what they are


def rewrite(facts: Facts, size: Size) -> Size:
    """Applies the rules, the remembered divisibilities and the bounds, innermost first."""
    memo: dict[Atom, Size] = {}

    def new(atom: Atom) -> Size:
        value = memo.get(atom)
        if value is None:
            rule = facts.rules.get(((atom, 1),))
            if rule is not None:
                value = rule
            elif atom.kind == "sym":
                value = atom.dim
            else:
                value = _rewritten_atom(facts, atom, tuple(_products(facts, map_atoms(a, new)) for a in atom.args))
            memo[atom] = value
        return value

    return _products(facts, map_atoms(size, new))


def _rewritten_atom(facts: Facts, atom: Atom, args: tuple[Size, ...]) -> Size:
    if atom.kind != "floor":
        kept = undominated(atom.kind, args, facts.lo, facts.hi)
        if facts.at_leasts and 1 < len(kept) <= 4:
            kept = _extremes_left(facts, atom.kind, kept)
        return kept[0] if len(kept) == 1 else rebuild(atom, tuple(kept))
    value = rebuild(atom, args)
    if not facts.divides or not isinstance(value, Dim):
        return value
    return map_atoms(value, lambda inner: _divided(facts, inner) if inner.kind == "floor" else inner.dim)


def _extremes_left(facts: Facts, kind: str, kept: list[Size]) -> list[Size]:
    """The operands that no other is known to beat."""
    for s in list(kept):
        if any(o is not s and signs.proved_nonnegative(facts, s - o if kind == "min" else o - s, 1) for o in kept):
            kept = [o for o in kept if o is not s]
    return kept


def _divided(facts: Facts, atom: Atom) -> Size:
    """floor(q / n) with the multiples of n taken out of q that remembered divisibilities show."""
    q, n = atom.args
    if not isinstance(n, int) or not isinstance(q, Dim):
        return atom.dim
    for e, k, lead in facts.divides:
        c = q.terms.get(lead, 0) if lead is not None else 0
        if c and c * k % n == 0:
            return scale(e, Fraction(c) / n) + floordiv(q - scale(e, c), n)
    return atom.dim


def _products(facts: Facts, size: Size) -> Size:
    """Replaces the products of atoms that have a rule."""
    rules = [(m, terms_of(v)) for m, v in facts.rules.items() if degree(m) > 1]
    if not rules or isinstance(size, int):
        return size
    for _ in range(_ROUNDS):
        out: Terms = {}
        changed = False
        for mono, c in terms_of(size).items():
            for lead, value in rules:
                part = mono_div(mono, lead)
                if part is not None:
                    add_into(out, mul_terms(value, {part: c}))
                    changed = True
                    break
            else:
                out[mono] = out.get(mono, 0) + c
        size = make(out)
        if not changed:
            break
    return size


def by_congruence(facts: Facts, size: Size) -> Size:
    """Normalises floors with x = m*y - s for every x with a congruence, y >= 1, then writes y as (x + s)/m again."""
    if isinstance(size, int) or all(atom.kind == "sym" for mono in size.terms for atom, _ in mono):
        return size
    known = {n: facts.congruences[n] for n in size.symbols if n in facts.congruences}
    if not known:
        return size
    inside = {n: m * sym(hidden(n)) - s for n, (m, s) in known.items()}
    outside = {hidden(n): scale(sym(n) + s, Fraction(1, m)) for n, (m, s) in known.items()}

    def new(atom: Atom) -> Size:
        if atom.kind == "sym" or atom.symbols.isdisjoint(known):
            return atom.dim
        if atom.kind != "floor":
            return rebuild(atom, tuple(map_atoms(a, new) for a in atom.args))
        value = ceiling_kept(substitute(atom.dim, inside), outside)
        # what stays a floor is taken only where it is no longer: ceildiv(H, 28) rather than H/32 + ceildiv(H, 224)
        return value if isinstance(value, int) or not value.depth or value.weight <= atom.weight + 1 else atom.dim

    return map_atoms(size, new)
