"""Faults by kind and seed. One that turns out to be another program is drawn again, and counted."""
from __future__ import annotations

import functools
import random
import re
from collections.abc import Container

from archdsl.diagnostics.model import ArchError
from archdsl.source import Source
from archdsl.spec import loads
from archdsl.syntax import tree
from archdsl.syntax.parser import parse

from .names import IMPORTS, NAMES, VARIANTS
from .shapes import SHAPES
from .signs import BRACES, COMMAS
from .text import Fault, Text, plant, replace, texts
from .values import ADDRESSES, COUNTS, DIVISORS, DOMAINS, SWAPS, TYPES

KINDS = {
    "misspelt name": NAMES, "wrong count": COUNTS, "shape mismatch": SHAPES, "missing brace": BRACES, "missing comma": COMMAS, "wrong type": TYPES,
    "broken divisibility": DIVISORS, "unknown variant": VARIANTS, "outside its domain": DOMAINS, "missing import": IMPORTS,
    "two at one address": ADDRESSES, "swapped arguments": SWAPS,
}
DRAWS = 400  # of one style, until a text is found that is a fault and none of those before


@functools.cache
def faults(seed: int, count: int) -> tuple[Fault, ...]:
    """So many different faults, each kind in turn and its styles in turn, each in a spec drawn at random. A style of which all places are taken
    leaves its turn to the next one."""
    kinds = list(KINDS)
    found: dict[str, Fault] = {}
    for i in range(count):
        kind, number = kinds[i % len(kinds)], i // len(kinds)
        made = fault(kind, number, seed, found)
        found[made.text] = made
    return tuple(found.values())


def fault(kind: str, number: int, seed: int, taken: Container[str] = ()) -> Fault:
    """The fault of a number, of a kind."""
    rng = random.Random(f"{seed} {kind} {number}")
    styles = list(KINDS[kind].items())
    drawn = 0
    for turn in range(len(styles)):
        name, style = styles[(number + turn) % len(styles)]
        for _ in range(DRAWS):
            text: Text = rng.choice(texts())
            planting = style(text, rng)
            if planting is None:
                continue
            made = plant(kind, name, text, planting)
            if made.text in taken:
                continue
            drawn += 1
            if not planting.maybe or not is_program(made.text):
                return replace(made, drawn=drawn)
    raise AssertionError(f"all faults of the kind {kind} are taken")


def is_program(text: str) -> bool:
    """Whether the models of a text, with all variants, can be elaborated: the language has a meaning for it, whatever messages would say, and
    whatever its claims, spaces and foreign names say of the sound one."""
    try:
        spec = loads(without(text, (tree.Claim, tree.Space, tree.Names)), "planted.arch")
    except ArchError:
        return False
    return all(s.elaborate(v) for s in spec.models.values() for v in (None, *s.variants))


def without(text: str, kinds: tuple[type, ...]) -> str:
    """The text with blanks for its declarations of some kinds."""
    for d in parse(Source("planted.arch", text)).decls:
        if isinstance(d, kinds):
            text = text[: d.span.start] + re.sub(r"[^\n]", " ", d.span.text) + text[d.span.end :]
    return text
