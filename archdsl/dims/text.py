"""Sizes as text of the language: `4096*B*T`, `floordiv(H, 4) + 1`, `(H - 2)/4`. One text per normal form."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from archdsl.dims import poly

if TYPE_CHECKING:
    from archdsl.dims.poly import Mono, Number, Size


def write_atom(kind: str, args: tuple[Size, ...]) -> str:
    if kind != "floor":
        return f"{kind}({', '.join(map(str, args))})"
    num, den = args
    if isinstance(den, int) and poly.terms_of(num).get(()) == den - 1:
        return f"ceildiv({num - (den - 1)}, {den})"
    return f"floordiv({num}, {den})"


def _write_mono(mono: Mono) -> str:
    return "*".join(atom.text if p == 1 else f"{atom.text}**{p}" for atom, p in mono)


def _write_sum(terms: Iterable[tuple[Mono, Number]]) -> str:
    """Terms with a sign between; the first positive one leads."""
    ordered = sorted(terms, key=lambda t: poly.mono_key(t[0]))
    lead = next((t for t in ordered if t[1] > 0), ordered[0])
    text = ""
    for mono, c in (lead, *(t for t in ordered if t is not lead)):
        size = abs(c)
        numerator = size.numerator
        body = str(numerator) if not mono else _write_mono(mono) if numerator == 1 else f"{numerator}*{_write_mono(mono)}"
        if size.denominator != 1:
            body += f"/{size.denominator}"
        text += (f" {'-' if c < 0 else '+'} " if text else "-" if c < 0 else "") + body
    return text


def write(terms: Mapping[Mono, Number]) -> str:
    """The text of a polynomial. Several fractional terms share one division, which is then exact: `(T**2 + T)/2`."""
    parts = [(m, c) for m, c in terms.items() if isinstance(c, Fraction)]
    if len(parts) < 2:
        return _write_sum(terms.items())
    den = poly.denominator(dict(parts))
    fraction = f"({_write_sum((m, c * den) for m, c in parts)})/{den}"
    whole = [(m, c) for m, c in terms.items() if not isinstance(c, Fraction)]
    if not whole:
        return fraction
    rest = _write_sum(whole)
    return f"{fraction} - {rest[1:]}" if rest.startswith("-") else f"{fraction} + {rest}"
