"""How far apart two words are."""
from __future__ import annotations


def distance(a: str, b: str) -> int:
    """How many letters to add, drop, change or swap with a neighbour to make one word of the other."""
    if abs(len(a) - len(b)) > 3:
        return 9
    older: list[int] = []
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, older[j - 2] + 1)
            row.append(best)
    return row[-1]
