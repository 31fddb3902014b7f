"""Multiple-choice knapsacks to proven optimality by enumerating near the bound of the linear relaxation.

With multipliers λ ≥ 0 of the budgets, an assignment scores `bound + Σ r + λ · slack`: r ≥ 0 are the reduced costs of its options, slack what it
leaves of each budget. So one that is better than bound + g has Σ r + λ · slack ≤ g. Layers are cut into two halves; all choices of a half with
Σ r ≤ g are listed, and pairs are found whose costs meet just below the budgets, through a grid of cells g / λ. The best of them is the best of all as
soon as it lies within g itself; else g grows (Horowitz and Sahni 1974, on what reduced costs leave over: Pisinger 1995).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, TypeAlias

from archdsl.lazy import np
from archdsl.records import record

Array: TypeAlias = "np.ndarray[Any, Any]"
LISTED = 4_000_000
"""So many choices of a half are listed."""
MET = 20_000_000
"""So many pairs are looked at for one g."""
GROWTH = 1.6
FIRST = 8
"""The first g leaves about so many layers another option."""
SLACK = 1e-9
"""How far a cost may lie above its budget, relative to it."""
PRIMES = (1_000_003, 998_244_353, 754_974_721, 167_772_161, 469_762_049, 1_004_535_809)


class Beyond(Exception):
    """There are too many choices near the bound, or no time is left."""


@record(eq=False)
class Half:
    """All choices for some layers with Σ r ≤ g, by ascending Σ r: `r` [n], `costs` [n, budgets]. `made`: for each layer in `layers`, of which choice
    before it and with which option each one is made."""

    layers: tuple[int, ...]
    r: Array
    costs: Array
    made: list[tuple[Array, Array]]

    def options(self, at: int) -> dict[int, int]:
        """Layer -> option of one choice."""
        found: dict[int, int] = {}
        for layer, (before, option) in zip(reversed(self.layers), reversed(self.made)):
            found[layer] = int(option[at])
            at = int(before[at])
        return found


class Knapsack:
    """`scores[layer][option]`, `costs[layer]` [budgets, options], `budgets`, `multipliers` ≥ 0 of an optimal solution of the relaxation."""

    def __init__(self, scores: Sequence[Array], costs: Sequence[Array], budgets: Array, multipliers: Array) -> None:
        self.budgets, self.multipliers, self.costs = budgets, multipliers, costs
        values = [s + multipliers @ c for s, c in zip(scores, costs)]
        self.bound = float(sum(v.min() for v in values) - multipliers @ budgets)
        self.r = [v - v.min() for v in values]

    def solve(self, without: set[tuple[int, ...]], late: Callable[[], bool]) -> tuple[tuple[int, ...] | None, float]:
        """The best assignment that is not in `without`, None where there is none, and a bound on the score of all: its own, unless it became `late`
        before that was proven. Raises Beyond where too many lie near the bound, or it became late before one was found."""
        every = np.sort(np.concatenate(self.r))
        g = float(every[min(len(self.r) + FIRST, len(every) - 1)]) or 1e-9 * max(1.0, float(every[-1]))
        while True:
            best, total = self._within(g, without)
            if best is not None and total <= g:
                return best, self.bound + total
            if best is None and self._all_seen(g):
                return None, self.bound
            if late():
                if best is None:
                    raise Beyond
                return best, self.bound + g
            g = min(total * (1 + 1e-12), GROWTH * g)

    def _all_seen(self, g: float) -> bool:
        """Whether no assignment that fits can lie beyond g."""
        room = [self.budgets[k] - sum(c[k].min() for c in self.costs) for k in range(len(self.budgets))]
        return g >= sum(float(r.max()) for r in self.r) + float(self.multipliers @ np.maximum(room, 0.0))

    def _within(self, g: float, without: set[tuple[int, ...]]) -> tuple[tuple[int, ...] | None, float]:
        """The best assignment among those found for g, and how far it lies above the bound."""
        first, second = (self._half(layers, g) for layers in self._halves(g))
        found = [self._met(first, second, g), self._met(second, first, g)]
        totals, left, right = (np.concatenate([a, b]) for a, b in zip(found[0], (found[1][0], found[1][2], found[1][1])))
        for i in np.argsort(totals, kind="stable"):
            chosen = {**first.options(int(left[i])), **second.options(int(right[i]))}
            options = tuple(chosen[k] for k in range(len(self.r)))
            if options not in without:
                return options, float(totals[i])
        return None, float("inf")

    def _halves(self, g: float) -> tuple[list[int], list[int]]:
        """Layers in two lists with about equally many choices, those with the most of them last."""
        weights = [float(np.log(np.exp(-10 * r[r <= g] / g).sum())) for r in self.r]
        halves: tuple[list[int], list[int]] = [], []
        sums = [0.0, 0.0]
        for layer in sorted(range(len(weights)), key=lambda i: -weights[i]):
            at = int(sums[1] < sums[0])
            halves[at].append(layer)
            sums[at] += weights[layer]
        return halves[0][::-1], halves[1][::-1]

    def _half(self, layers: Sequence[int], g: float) -> Half:
        r, costs = np.zeros(1), np.zeros((1, len(self.budgets)))
        made: list[tuple[Array, Array]] = []
        for layer in layers:
            own, mine = self.r[layer], self.costs[layer]
            kept = np.flatnonzero(own <= g)
            counts = [int(np.searchsorted(r, g - own[j], side="right")) for j in kept]
            if sum(counts) > LISTED:
                raise Beyond
            together = np.concatenate([r[:n] + own[j] for j, n in zip(kept, counts)])
            order = np.argsort(together, kind="stable")
            r = together[order]
            costs = np.concatenate([costs[:n] + mine[:, j] for j, n in zip(kept, counts)])[order]
            before = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])[order]
            made.append((before, np.repeat(kept.astype(np.int32), counts)[order]))
        return Half(tuple(layers), r, costs, made)

    def _met(self, few: Half, many: Half, g: float) -> tuple[Array, Array, Array]:
        """Pairs of a choice with Σ r ≤ g / 2 and any of the other half that keep the budgets and lie within g: totals, positions in `few` and in
        `many`. One of a pair within g has at most g / 2, so looking from both sides finds all."""
        taken = int(np.searchsorted(few.r, g / 2, side="right"))
        active = np.flatnonzero(self.multipliers > 0)
        width = g / self.multipliers[active]
        primes = np.array([PRIMES[k % len(PRIMES)] + k for k in range(len(active))], dtype=np.int64)
        cells = (np.floor(many.costs[:, active] / width).astype(np.int64) * primes).sum(1)
        order = np.argsort(cells, kind="stable")  # within a cell by ascending Σ r
        cells = cells[order]
        wanted = self.budgets - few.costs[:taken]
        corner = np.floor(wanted[:, active] / width).astype(np.int64)
        room = SLACK * np.maximum(np.abs(self.budgets), 1.0)
        looked = 0
        out: list[tuple[Array, Array, Array]] = []
        for step in product((0, 1), repeat=len(active)):
            at = ((corner - np.array(step, dtype=np.int64)) * primes).sum(1)
            low, high = np.searchsorted(cells, at, "left"), np.searchsorted(cells, at, "right")
            counts = high - low
            looked += int(counts.sum())
            if looked > MET:
                raise Beyond
            left = np.repeat(np.arange(taken), counts)
            right = order[np.arange(len(left)) + np.repeat(low - np.cumsum(counts) + counts, counts)]
            near = few.r[left] + many.r[right] <= g
            left, right = left[near], right[near]
            slack = wanted[left] - many.costs[right]
            fits = (slack >= -room).all(1)
            left, right = left[fits], right[fits]
            out.append((few.r[left] + many.r[right] + np.maximum(slack[fits], 0.0) @ self.multipliers, left, right))
        totals, lefts, rights = (np.concatenate(parts) for parts in zip(*out))
        return totals, lefts, rights
