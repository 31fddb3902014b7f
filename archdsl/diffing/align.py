"""Two lists of layers side by side: equal ones stay together, what is between them is paired by how alike it is."""
from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

from archdsl.graph import Graph

Item = tuple[str, Graph]
LARGEST = 40_000  # pairs that are looked at; of longer lists those that are equal first
LEAST = 0.2  # from here on two layers are one that was changed


def aligned(xs: list[Item], ys: list[Item], alike: Callable[[Graph, Graph], float]) -> list[tuple[Any, Any]]:
    """(before, after) pairs in order; None on a side that has no counterpart."""
    if len(xs) * len(ys) <= LARGEST:
        return _between(xs, ys, alike)
    out: list[tuple[Any, Any]] = []
    matcher = SequenceMatcher(None, [g.hash for _, g in xs], [g.hash for _, g in ys], autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        out += zip(xs[i:j], ys[k:m]) if kind == "equal" else _between(xs[i:j], ys[k:m], alike)
    return out


def _between(xs: list[Item], ys: list[Item], alike: Callable[[Graph, Graph], float]) -> list[tuple[Any, Any]]:
    """The pairing in order with the greatest sum of likenesses, of several the one that pairs first items."""
    n, m = len(xs), len(ys)
    if not n or not m:
        return [(x, None) for x in xs] + [(None, y) for y in ys]
    if n == m == 1:
        return [(xs[0], ys[0])]
    if n * m > LARGEST:
        short = min(n, m)
        return [*zip(xs, ys), *((x, None) for x in xs[short:]), *((None, y) for y in ys[short:])]
    score = [[s if (s := alike(x, y)) >= LEAST else -1.0 for _, y in ys] for _, x in xs]
    best = [[0.0] * (m + 1) for _ in range(n + 1)]  # of what is left from (i, j) on
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            best[i][j] = max(score[i][j] + best[i + 1][j + 1], best[i + 1][j], best[i][j + 1])
    out: list[tuple[Any, Any]] = []
    i = j = 0
    while i < n and j < m:
        if score[i][j] > 0 and abs(best[i][j] - score[i][j] - best[i + 1][j + 1]) < 1e-9:
            out.append((xs[i], ys[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            out.append((xs[i], None))
            i += 1
        else:
            out.append((None, ys[j]))
            j += 1
    return [*out, *((x, None) for x in xs[i:]), *((None, y) for y in ys[j:])]
