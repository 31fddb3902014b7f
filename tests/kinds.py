"""Graphs alike but for their numbers: what runs for one of them need not run for each."""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from archdsl.graph import Graph, Mask


def kind_of(graph: Graph) -> frozenset[Any]:
    """Of each definition its weights and its ops, each kind of them once: names, words, switches, ranks, element types, how many operands. Sizes,
    rates, depths and which layer it is are left out."""
    return frozenset((tuple(dict.fromkeys((_word(p.path), p.kind, len(p.type.shape), p.type.dtype) for p in g.params)), tuple(dict.fromkeys(_ops(g))))
                     for g in graph.definitions())


def _ops(graph: Graph) -> Iterator[Any]:
    for n in graph.nodes:
        yield n.op, tuple(map(_word, n.args)), tuple((t.dtype, len(t.shape)) for t in n.types), tuple(_word(v) for _, v in sorted(n.attrs.items()))


def _word(value: Any) -> Any:
    if isinstance(value, Mask):
        return value.kind, *map(_word, value.args)
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(map(_word, value)))
    if isinstance(value, str):
        return re.sub(r"\d+", "#", value)
    return value if isinstance(value, bool) or value is None else value.name if isinstance(value, Graph) else type(value).__name__
