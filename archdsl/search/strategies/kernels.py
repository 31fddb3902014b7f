"""Kernel ridge regression that chooses its kernel and its penalty by leave-one-out errors, which have a closed form: milliseconds for some hundred
trials. Rasmussen and Williams 2006, sections 2.2 and 5.4.2."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from archdsl.lazy import np

Array: TypeAlias = "np.ndarray[Any, Any]"
PENALTIES = tuple(10 ** (k / 2) for k in range(-10, 3))
WIDTHS = (0.3, 0.6, 1.2, 2.4)
"""Of Gaussian kernels, in typical distances between candidates."""
FLOOR = 0.2
"""A column counts by its deviation, of which a rare feature has little: no less than this share of its range."""


class Regression:
    """Fitted to rows x [n, features] and values y [n]: of ridge regression (the linear kernel) and Gaussian kernels of several widths, each alone and
    on top of the linear one, with several penalties, the model of the least squared leave-one-out error.

    `groups`: the decision that each column tells of, int [features]: all columns of one count as much together as the only one of another.
    `name`: the kernel, `error`: its leave-one-out error, root mean square over the deviation of y.
    """

    def __init__(self, x: Array, y: Array, groups: Sequence[int] | None = None) -> None:
        low, high = x.min(0), x.max(0)
        self.used = high > low
        self.centre = x.mean(0)[self.used]
        _, group, sizes = np.unique(np.arange(x.shape[1])[self.used] if groups is None else np.asarray(groups)[self.used], return_inverse=True,
                                    return_counts=True)
        self.scale = np.maximum(x.std(0), FLOOR * (high - low))[self.used] * (sizes[group] * max(1, len(sizes))) ** 0.5
        self.x = self._scaled(x)
        self.mean, self.deviation = float(y.mean()), float(y.std()) or 1.0
        target = (y - self.mean) / self.deviation
        self.error = float("inf")
        for name, kernel in self._kernels().items():
            values, vectors = np.linalg.eigh(kernel(self.x, self.x))
            turned = vectors.T @ target
            for penalty in PENALTIES:
                inverse = 1 / (np.maximum(values, 0.0) + penalty)
                left_out = vectors @ (inverse * turned) / (vectors**2 @ inverse)
                error = float(np.sqrt((left_out**2).mean()))
                if error < self.error:
                    self.name, self.kernel, self.error = name, kernel, error
                    self.weights, self.root = vectors @ (inverse * turned), vectors * np.sqrt(inverse)
                    self.noise, self.amount = penalty, float(target @ self.weights) / len(target)

    def _scaled(self, x: Array) -> Array:
        return (x[:, self.used] - self.centre) / self.scale

    def _kernels(self) -> dict[str, Callable[[Array, Array], Array]]:
        typical = float(np.median(_distances(self.x, self.x)[np.triu_indices(len(self.x), 1)])) if len(self.x) > 1 else 1.0
        linear = lambda a, b: a @ b.T
        made: dict[str, Callable[[Array, Array], Array]] = {"linear": linear}
        for width in WIDTHS:
            spread = max(typical, 1e-12) * width**2
            gaussian = lambda a, b, s=spread: np.exp(-_distances(a, b) / (2 * s))
            made[f"gaussian {width}"] = gaussian
            made[f"linear + gaussian {width}"] = lambda a, b, g=gaussian: linear(a, b) + g(a, b)
        return made

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """What is expected for rows, float64 [n], and the deviation of what may come instead, float64 [n]."""
        rows = self._scaled(x)
        near = self.kernel(rows, self.x)
        own = np.array([float(self.kernel(r, r)[0, 0]) for r in rows[:, None, :]])
        spread = np.maximum(own + self.noise - ((near @ self.root) ** 2).sum(1), 0.0)
        return near @ self.weights * self.deviation + self.mean, np.sqrt(spread * max(self.amount, 0.0)) * self.deviation


def _distances(a: Array, b: Array) -> Array:
    """Squared, [n, m]."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)


def table(told: Sequence[Mapping[str, float]], columns: Mapping[str, int]) -> Array:
    """Features of candidates as float64 [candidates, columns]; a feature that no column has is left out."""
    out = np.zeros((len(told), len(columns)))
    for row, named in zip(out, told):
        for name, value in named.items():
            if (at := columns.get(name)) is not None:
                row[at] = value
    return out
