"""How the two sides of a line go together: which lists and indices they share, and which stand on one side alone."""
from __future__ import annotations

from itertools import combinations

from archdsl.diagnostics.model import Label, error
from archdsl.names.patterns import Choice, Index, Pattern, Star
from archdsl.records import record

Variable = str | int
"""A loop index by name, or a list in braces by its place among the lists of its side."""


@record(frozen=True)
class Pairing:
    """`pairs`: place of a foreign list -> place of the address's list. `own`, `foreign`: what stands on one side alone, in the order of the text."""

    pairs: dict[int, int]
    own: tuple[Variable, ...]
    foreign: tuple[Variable, ...]


def pair(own: Pattern, foreign: Pattern) -> Pairing:
    """Raises A0435 when the lists, indices or wildcards of the two sides cannot be told to belong together."""
    if own.stars != foreign.stars:
        more, less = (own, foreign) if own.stars > foreign.stars else (foreign, own)
        raise error("A0435", "`*` stands for the same text on both sides", more.span, f"{more.stars} here",
                    labels=(Label(less.span, f"{less.stars} here"),), help="write the names out, or use the wildcard on both sides")
    if any(isinstance(p, Star) and p.deep for p in (*own.parts, *foreign.parts)):
        raise error("A0435", "`**` is for names that are ignored", foreign.span, help="`*` stands for one segment")
    pairs = _align(own, foreign)
    alone = _alone(own, foreign.mentioned, set(pairs.values())), _alone(foreign, own.mentioned, set(pairs))
    if all(alone):
        mine, theirs = describe(own, alone[0][0]), describe(foreign, alone[1][0])
        raise error("A0435", f"{mine} and {theirs} do not pair", foreign.span, f"{theirs} here", labels=(Label(own.span, f"{mine} here"),),
                    help="lists pair in order and have the same number of items; an index has one name on both sides")
    for name in sorted(foreign.mentioned - own.mentioned - set(alone[1])):
        raise error("A0435", f"nothing tells what `{name}` is", foreign.span, f"`{name}` stands in an expression only",
                    labels=(Label(own.span, f"no `{{{name}}}` here"),),
                    help=f"bind it in the address, by `{{{name}}}`")
    return Pairing(pairs, *alone)


def _align(own: Pattern, foreign: Pattern) -> dict[int, int]:
    """Pairs all lists of the side that has fewer, in order, with lists of their length; those that read the same rather than others."""
    a, b = foreign.choices, own.choices
    few, many, swap = (a, b, False) if len(a) <= len(b) else (b, a, True)
    fits = [c for c in combinations(range(len(many)), len(few)) if all(len(few[i].items) == len(many[j].items) for i, j in enumerate(c))]
    if not fits:
        shown = max((*a, *b), key=lambda c: len(c.items))
        raise error("A0435", "the lists of the two sides do not pair", foreign.span, _listed(a), labels=(Label(own.span, _listed(b)),),
                    help=("lists pair in order and have the same number of items",
                          f"one like `{shown}` that stands on one side alone is joined by `concat` or `stack`"))
    likeness = [sum(few[i].texts == many[j].texts for i, j in enumerate(c)) for c in fits]
    best = [c for c, n in zip(fits, likeness) if n == max(likeness)]
    if len(best) > 1:
        raise error("A0435", "it cannot be told which lists belong together", foreign.span, _listed(a), labels=(Label(own.span, _listed(b)),),
                    help="write one line for each item of a list")
    return {j: i for i, j in enumerate(best[0])} if swap else dict(enumerate(best[0]))


def _listed(choices: tuple[Choice, ...]) -> str:
    return " and ".join(f"{{{', '.join(c.texts)}}}" for c in choices) or "no list here"


def _alone(side: Pattern, other: frozenset[str], paired: set[int]) -> tuple[Variable, ...]:
    out: list[Variable] = []
    at = 0
    for p in side.parts:
        if isinstance(p, Index) and p.name not in other and p.name not in out:
            out.append(p.name)
        if isinstance(p, Choice):
            if at not in paired:
                out.append(at)
            at += 1
    return tuple(out)


def describe(side: Pattern, variable: Variable) -> str:
    """`{i}` or `{q, k, v}`, in backquotes."""
    return f"`{{{variable}}}`" if isinstance(variable, str) else f"`{side.choices[variable]}`"
