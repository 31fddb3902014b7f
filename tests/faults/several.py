"""Three faults of different kinds in different declarations of one file."""
from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from archdsl.diagnostics.model import Diagnostic

from .judge import checked, on_place
from .planter import KINDS, fault
from .text import Fault, texts

APART = tuple(k for k in KINDS if k not in ("missing import", "two at one address"))  # what these break stands in several declarations


def triples(seed: int, count: int) -> Iterator[tuple[str, list[Fault]]]:
    """(text, its faults alone). Each pair of faults lies in different declarations, and each alone is told by `check`."""
    rng = random.Random(seed)
    spans = {t.path: [(d.span.start, d.span.end) for d in t.module.decls] for t in texts()}
    pool: dict[str, list[Fault]] = {}
    for _ in range(40 * count):
        f = fault(rng.choice(APART), rng.randrange(10_000), seed)
        if len(checked(f.text, f.path)) != 1:
            continue
        found = pool.setdefault(f.path, [])
        home = _homes(f, spans[f.path])
        if all(f.kind != g.kind and home.isdisjoint(_homes(g, spans[f.path])) for g in found):
            found.append(f)
        if len(found) == 3:
            text = f.before
            for start, end, new in sorted((e for g in found for e in g.edits), reverse=True):
                text = text[:start] + new + text[end:]
            yield text, found
            pool[f.path] = []
            count -= 1
            if not count:
                return


def _homes(f: Fault, spans: list[tuple[int, int]]) -> set[int]:
    return {i for i, (a, b) in enumerate(spans) for start, end, _ in f.edits if a <= end and start <= b}


def _behind(at: int, edits: list[tuple[int, int, str]]) -> int:
    return at + sum(len(new) - (end - start) for start, end, new in edits if end <= at)


def told(text: str, found: list[Fault]) -> tuple[list[bool], list[Diagnostic]]:
    """Of each fault, whether it is told exactly once, where it is told when it is alone; and the diagnostics that tell none of them."""
    every = checked(text, found[0].path)
    hits = []
    for f in found:
        (alone,) = checked(f.text, f.path)
        others = sorted(e for g in found if g is not f for e in g.edits)
        at = _behind(alone.span.start, others)
        places = tuple((_behind(a, others), _behind(b, others)) for a, b in f.places)
        moved = replace(f, text=text, places=places)
        hits.append([d for d in every if d.code == alone.code and (d.span.start == at or on_place(d, moved))])
    return [len(h) == 1 for h in hits], [d for d in every if not any(d in h for h in hits)]
