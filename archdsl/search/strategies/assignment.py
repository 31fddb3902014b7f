"""The best option for every layer when scores add over layers, to proven optimality: a multiple-choice knapsack. HiGHS solves its linear relaxation,
what is near that bound is enumerated (knapsack.py); where that is too much, HiGHS solves the whole by branch and bound."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from time import process_time
from typing import Any, TypeAlias

from archdsl.lazy import np
from archdsl.records import record
from archdsl.search.strategies.errors import needed
from archdsl.search.strategies.knapsack import Beyond, Knapsack

Array: TypeAlias = "np.ndarray[Any, Any]"

ROUNDING = 1e-9
"""How far sums of scores may differ by rounding, relative to them."""


@record(frozen=True)
class Assignment:
    """`options`: the position of the chosen option for each layer. `score`: their sum, `costs`: the sum of each cost. `bound`: no assignment within
    the budgets has a lower score; `optimal`: the score reaches it."""

    options: tuple[int, ...]
    score: float
    costs: tuple[float, ...]
    bound: float
    optimal: bool


def assign(scores: Sequence[Sequence[float]], costs: Sequence[Sequence[Sequence[float]]] = (), budgets: Sequence[float] = (), *,
           without: Sequence[Sequence[int]] = (), seconds: float = 60.0) -> Assignment | None:
    """The assignment of the lowest total score within the budgets; None: there is none.

    `scores[layer][option]`: less is better; layers may have different numbers of options. `costs[k][layer][option]` add up to at most `budgets[k]`.
    `without`: assignments that are ruled out. `seconds` of CPU: when to stop with the best one found, `optimal` False then unless the gap is closed.
    Raises TimeoutError where none is found by then.
    """
    started = process_time()
    highspy = needed("highspy", "highspy", "milp")
    sizes = [len(row) for row in scores]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in scores])
    loads = np.array([np.concatenate([np.asarray(row, dtype=np.float64) for row in cost]) for cost in costs]).reshape(len(budgets), len(flat))
    limits = np.asarray(budgets, dtype=np.float64)
    relaxed = _silent(highspy)
    relaxed.passModel(_model(highspy, flat, starts, loads, limits, whole=False))
    relaxed.run()
    if relaxed.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return None

    def total(chosen: Sequence[int], bound: float, optimal: bool = False) -> Assignment:
        columns = starts[:-1] + np.asarray(chosen)
        score = float(flat[columns].sum())
        optimal = optimal or bound >= score - ROUNDING * max(1.0, abs(score))
        return Assignment(tuple(chosen), score, tuple(loads[:, columns].sum(1).tolist()), bound, optimal)

    multipliers = np.maximum(-np.array(relaxed.getSolution().row_dual)[len(sizes):], 0.0)
    near = Knapsack([flat[a:b] for a, b in pairwise(starts.tolist())], [loads[:, a:b] for a, b in pairwise(starts.tolist())], limits, multipliers)
    try:
        found, bound = near.solve(set(map(tuple, without)), lambda: process_time() - started > seconds / 2)
        return None if found is None else total(found, bound)
    except Beyond:
        pass  # too many lie near the bound
    solver = _silent(highspy)
    for option, value in (("time_limit", max(seconds - (process_time() - started), 0.1)), ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0)):
        solver.setOptionValue(option, value)
    solver.passModel(_model(highspy, flat, starts, loads, limits, without))
    solver.run()
    info, status = solver.getInfo(), solver.getModelStatus()
    if status == highspy.HighsModelStatus.kInfeasible:
        return None
    x = np.array(solver.getSolution().col_value)
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        raise TimeoutError(f"no assignment within the budgets was found in {seconds} s, and none is proven not to exist")
    chosen = [int(np.argmax(x[a:b])) for a, b in pairwise(starts.tolist())]
    return total(chosen, float(info.mip_dual_bound), status == highspy.HighsModelStatus.kOptimal)


def _silent(highspy: Any) -> Any:
    """A solver that prints nothing, not even its name, which it does as soon as it gets its callbacks."""

    class Silent(highspy.Highs):
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    solver = Silent()
    for option, value in (("threads", 1), ("random_seed", 0)):  # of all solvers: HiGHS has one pool of threads, of the first one's size
        solver.setOptionValue(option, value)
    return solver


def _model(highspy: Any, flat: Array, starts: Array, loads: Array, limits: Array, without: Sequence[Sequence[int]] = (),
           whole: bool = True) -> Any:
    """One binary (a share, unless `whole`) for each option: one option per layer, costs within budgets, not all options of an assignment that is
    ruled out."""
    layers = len(starts) - 1
    rows: list[tuple[Array, Array, float, float]] = [(np.arange(a, b), np.ones(b - a), 1.0, 1.0) for a, b in pairwise(starts.tolist())]
    rows += [(np.arange(len(flat)), load, -highspy.kHighsInf, limit) for load, limit in zip(loads, limits.tolist())]
    rows += [(starts[:-1] + np.asarray(out), np.ones(layers), -highspy.kHighsInf, layers - 1.0) for out in without]
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(flat), len(rows)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = flat, np.zeros(len(flat)), np.ones(len(flat))
    lp.row_lower_, lp.row_upper_ = np.array([r[2] for r in rows]), np.array([r[3] for r in rows])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.cumsum([0, *(len(r[0]) for r in rows)]).astype(np.int32)
    lp.a_matrix_.index_ = np.concatenate([r[0] for r in rows]).astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate([r[1] for r in rows])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * len(flat) if whole else []
    return lp
