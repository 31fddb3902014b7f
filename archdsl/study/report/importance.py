"""Which knobs the objectives depend on: the analysis of variance of a random forest, as in Hutter, Hoos and Leyton-Brown, "An Efficient Approach
for Assessing Hyperparameter Importance" (2014), main effects alone.

A tree cuts the space of the knobs into boxes with a constant each. With knobs taken as independent and each of their values as equally likely, the
mean of the tree over all knobs but one is a function of that one; the variance of this function, as a share of the whole variance of the tree, is
the knob's importance. Each forest learns from three quarters of the trials and is tested on the others; the spread over forests is the uncertainty.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from archdsl.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORESTS, TREES = 5, 24
LEAST = 40
"""Fewer trials say nothing of knobs."""
MOST = 2000
"""More trials are not learnt from."""
WEAK = 0.3
"""A forest that explains a smaller share of the variance of trials it has not seen says little."""


@record(frozen=True)
class Importance:
    """Of one objective. `share`: knob -> importance by forest, in [0, 1]; the sum over knobs is at most 1, the rest are their interactions.
    `explained`: R² of each forest on trials that it has not seen. `why`: what there is to say against it; without shares, why there are none."""

    trials: int
    share: dict[str, list[float]]
    explained: list[float]
    why: str = ""


def importance(knobs: dict[str, dict[str, Any]], scores: Sequence[float], seed: int = 0) -> Importance:
    """`knobs`: as `columns` tells them, of trials with these scores. Raises ImportError without scikit-learn."""
    import numpy as np

    names = [n for n, k in knobs.items() if len(set(k["at"])) > 1]
    y = np.asarray(scores, dtype=np.float64)
    if len(y) < LEAST:
        return Importance(len(y), {}, [], f"{len(y)} different trials are too few to tell knobs apart; {LEAST} may do")
    if not names or y.max() == y.min():
        return Importance(len(y), {}, [], "it has the same value in all trials" if names else "all trials have the same knobs")
    x = np.array([knobs[n]["at"] for n in names], dtype=np.float64).T + 1  # 0: absent
    if len(y) > MOST:
        kept = np.linspace(0, len(y) - 1, MOST).astype(int)
        x, y = x[kept], y[kept]
    shares, explained = [], []
    for forest in range(FORESTS):
        share, r2 = _one(x, y, seed + forest)
        shares.append(share)
        explained.append(r2)
    weak = sum(explained) / FORESTS < WEAK
    why = "the forests predict trials that they have not seen badly, so these shares say little" if weak else ""
    return Importance(len(y), {n: [float(s[i]) for s in shares] for i, n in enumerate(names)}, explained, why)


def _one(x: NDArray[Any], y: NDArray[Any], seed: int) -> tuple[NDArray[Any], float]:
    """The importance of each knob by one forest, and its R² on the quarter of the trials that it has not seen."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    order = np.random.default_rng(seed).permutation(len(y))
    learnt, seen = order[len(y) // 4:], order[: len(y) // 4]
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed).fit(x[learnt], y[learnt])
    off = ((y[seen] - y[seen].mean()) ** 2).sum()
    r2 = 1 - float(((y[seen] - forest.predict(x[seen])) ** 2).sum() / off) if off else 0.0
    weights = [_weights(column) for column in x.T]
    found = [s for t in forest.estimators_ if (s := main_effects(t.tree_, weights)) is not None]
    return (np.mean(found, axis=0) if found else np.zeros(x.shape[1])), r2


def _weights(column: NDArray[Any]) -> NDArray[Any]:
    """How likely each place of a knob is, from 0, "absent": that as often as it was; the values that occurred equally."""
    import numpy as np

    count = np.bincount(column.astype(int))
    absent = count[0] / count.sum()
    present = count[1:] > 0
    return np.concatenate([[absent], (1 - absent) * present / max(1, present.sum())])


def main_effects(tree: Any, weights: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """The share of a tree's variance that is due to each knob alone; None for a tree of one leaf. `weights`: by knob, of its places 0, 1, …, on which
    the tree's thresholds lie between."""
    import numpy as np

    low, high, value = leaves(tree, [len(w) for w in weights])
    sums = [np.concatenate([[0.0], np.cumsum(w)]) for w in weights]
    inside = np.stack([s[high[:, i]] - s[low[:, i]] for i, s in enumerate(sums)], axis=1)  # of each leaf's box, by knob
    whole = inside.prod(axis=1)
    mean = float((whole * value).sum())
    variance = float((whole * (value - mean) ** 2).sum())
    if not variance > 0:
        return None
    effects = np.zeros(len(weights))
    for i in np.unique(tree.feature[tree.feature >= 0]):
        others = np.divide(whole * (value - mean), inside[:, i], out=np.zeros_like(whole), where=inside[:, i] > 0)
        steps = np.zeros(len(weights[i]) + 1)
        np.add.at(steps, low[:, i], others)
        np.add.at(steps, high[:, i], -others)
        effects[i] = (weights[i] * np.cumsum(steps[:-1]) ** 2).sum() / variance
    return effects


def leaves(tree: Any, sizes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The boxes of a tree: for each leaf and knob the first place and the one behind the last, and the leaf's value."""
    import numpy as np

    low = np.zeros((tree.node_count, len(sizes)), dtype=int)
    high = np.tile(np.array(sizes), (tree.node_count, 1))
    for node in range(tree.node_count):  # children have higher numbers
        left, right, knob = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            continue
        low[[left, right]], high[[left, right]] = low[node], high[node]
        high[left, knob] = low[right, knob] = int(np.floor(tree.threshold[node])) + 1
    at_end = tree.children_left < 0
    return low[at_end], high[at_end], tree.value[at_end, 0, 0]
