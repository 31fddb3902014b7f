"""Equations between sizes: what they can be solved for, and which rewriting ends."""
from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from archdsl.dims.floors import ceildiv, map_atoms, rebuild
from archdsl.dims.poly import Atom, Dim, Mono, Size, make, scale


def hidden(name: str) -> str:
    """A name that no text can hold."""
    return f"%{name}"


def ceiling_kept(size: Size, values: Mapping[str, Size]) -> Size:
    """`substitute`, but what reads as a ceildiv stays one: ceildiv(H/32, 2) becomes ceildiv(H, 64), not floordiv(H + 32, 64)."""

    def new(atom: Atom) -> Size:
        if atom.symbols.isdisjoint(values):
            return atom.dim
        if atom.kind == "sym":
            return values[atom.name]
        if atom.kind == "floor":
            num, den = atom.args
            if isinstance(den, int) and isinstance(num, Dim) and num.terms.get(()) == den - 1:
                return ceildiv(map_atoms(num - (den - 1), new), den)
        return rebuild(atom, tuple(map_atoms(a, new) for a in atom.args))

    return map_atoms(size, new)


def contains(size: Size, atom: Atom) -> bool:
    """Whether the atom occurs, however deep."""
    if isinstance(size, int) or size.depth < atom.depth or not atom.symbols <= size.symbols:
        return False
    return any(x is atom or any(contains(a, atom) for a in x.args) for mono in size.terms for x, _ in mono)


def simpler(value: Size, mono: Mono) -> bool:
    """Whether a product of atoms may be rewritten to this value: it does not come again and the text gets no longer, so rewriting ends."""
    return isinstance(value, int) or (value.weight <= sum(a.weight for a, _ in mono) + 2 and not any(contains(value, a) for a, _ in mono))


def as_remainder(d: Dim) -> tuple[Size, int, int] | None:
    """(q, n, r) where d == 0 says q % n == r: d is a multiple of q - n*floor(q/n) - r."""
    for mono, c in d.terms.items():
        if len(mono) != 1 or mono[0][0].kind != "floor" or not isinstance(n := mono[0][0].args[1], int) or c % n:
            continue
        atom = mono[0][0]
        if mono[0][1] == 1 and isinstance(r := atom.args[0] - n * atom.dim + scale(d, Fraction(n) / c), int):
            return atom.args[0], n, r
    return None


def solvable(d: Dim, sides: list[Size]) -> Atom | None:
    """The atom to solve d == 0 for: it stands linear, alone, and occurs nowhere else. Symbols before others, coefficient 1 before
    others (only symbols may have others), a symbol that is one side of the equation before others, then the largest, the last by name."""
    best: tuple[Any, ...] | None = None
    found: Atom | None = None
    for mono, c in d.terms.items():
        if len(mono) != 1 or mono[0][1] != 1:
            continue
        atom = mono[0][0]
        unit = c in (1, -1)
        if not unit and atom.kind != "sym":
            continue
        rest = make({m: e for m, e in d.terms.items() if m != mono}) if len(d.terms) > 1 else 0
        if contains(rest, atom) or (not unit and isinstance(rest, Dim) and rest.depth) or (atom.kind != "sym" and not simpler(rest, mono)):
            continue
        rank = (atom.kind == "sym", unit, atom.dim in sides, atom.depth, atom.weight, atom.order)
        if best is None or rank > best:
            best, found = rank, atom
    return found
