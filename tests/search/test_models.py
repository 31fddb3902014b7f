"""Strategies that fit or solve something: exact assignment, predictors, flat slots."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import Domain, of_values
from archdsl.search.model import Objective
from archdsl.search.reference import Branch, Problem, TreeSpace, trade, whole
from archdsl.search.registry import STRATEGIES
from archdsl.search.strategies import encoding
from archdsl.search.strategies.assignment import assign
from archdsl.search.strategies.kernels import Regression, table
from archdsl.search.strategies.knapsack import Beyond, Knapsack
from archdsl.search.testing import made, rounds, run


# ---------------------------------------------------------------- assignment
def instance(seed: int, sizes: tuple[int, ...], budgets: int) -> tuple[list, list, list[float]]:
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=n).tolist() for n in sizes]
    costs = [[rng.random(n).tolist() for n in sizes] for _ in range(budgets)]
    return scores, costs, [0.55 * sum(map(max, c)) for c in costs]


def every(scores, costs, budgets) -> list[tuple[float, tuple[int, ...]]]:
    """All assignments within the budgets, the best first."""
    found = []
    for options in itertools.product(*(range(len(row)) for row in scores)):
        if all(sum(row[i] for row, i in zip(cost, options)) <= limit for cost, limit in zip(costs, budgets)):
            found.append((sum(row[i] for row, i in zip(scores, options)), options))
    return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_assign_is_exact(seed):
    scores, costs, budgets = instance(seed, (3, 1, 4, 2, 5, 3)[seed % 3:], seed % 4)
    best = every(scores, costs, budgets)
    found = assign(scores, costs, budgets)
    if not best:
        assert found is None
        return
    assert found is not None and found.optimal and found.options == best[0][1]
    assert found.score == pytest.approx(best[0][0], abs=1e-12) == pytest.approx(found.bound, abs=1e-6)
    assert found.costs == pytest.approx([sum(row[i] for row, i in zip(cost, found.options)) for cost in costs])


def test_assign_gives_the_next_best():
    scores, costs, budgets = instance(9, (3, 4, 3), 2)
    out: list[tuple[int, ...]] = []
    for _, options in every(scores, costs, budgets):
        found = assign(scores, costs, budgets, without=out)
        assert found is not None and found.options == options
        out.append(found.options)
    assert assign(scores, costs, budgets, without=out) is None


def test_assign_within_no_budget():
    assert assign([[1.0, 2.0]], [[[3.0, 4.0]]], [2.0]) is None
    free = assign([[1.0, 0.5], [0.0, -1.0]])
    assert free is not None and free.options == (1, 1)


def _beyond(*_: object) -> None:
    raise Beyond


@pytest.mark.parametrize("kind", ["independent", "in conflict", "equal layers", "nearly no room"])
def test_assign_is_as_good_as_branch_and_bound(kind, monkeypatch):
    """Larger than one can go through: the enumeration near the bound against HiGHS alone."""
    rng = np.random.default_rng(5)
    layers, options, budgets = (6, 4, 2) if kind == "equal layers" else (16, 8, 2)
    costs, scores = rng.random((budgets, layers, options)), rng.random((layers, options))
    if kind == "in conflict":
        costs = np.sort(costs, axis=2)
        scores = -np.sqrt(costs.mean(0)) + 0.05 * scores
    if kind == "equal layers":
        costs, scores = np.round(4 * costs[:, :1].repeat(layers, 1)), np.round(4 * scores[:1].repeat(layers, 0))
    least, most = costs.min(2).sum(1), costs.max(2).sum(1)
    room = (least + (0.02 if kind == "nearly no room" else 0.4) * (most - least)).tolist()
    found = assign(scores.tolist(), costs.tolist(), room)
    monkeypatch.setattr(Knapsack, "solve", _beyond)
    exact = assign(scores.tolist(), costs.tolist(), room)
    if kind == "nearly no room":
        assert found is exact is None, "the relaxation has a solution, and no assignment is one"
        return
    assert found is not None and exact is not None and found.optimal and exact.optimal
    assert found.score == pytest.approx(exact.score, abs=1e-7) and all(c <= b + 1e-9 for c, b in zip(found.costs, room))
    assert found.bound == pytest.approx(found.score, abs=1e-9)


def test_assign_that_is_late_gives_what_it_has():
    scores, costs, budgets = instance(2, (6,) * 12, 2)
    best = assign(scores, costs, budgets)
    late = assign(scores, costs, budgets, seconds=0.0)
    assert best is not None and late is not None and best.optimal and late.bound <= best.score + 1e-9 and late.score >= best.score - 1e-9


def test_assign_prints_nothing(capfd):
    assign(*instance(1, (4, 4, 4), 2))
    assert capfd.readouterr() == ("", "")


def additive(sites: int = 5) -> Problem:
    """Scores and sizes that add over the sites, one of them behind a condition on the whole."""
    rng = np.random.default_rng(3)
    score, size = rng.random((sites, 4)), rng.random((sites, 4))
    branches = [Branch(f"layers.{i}.width", whole(1, 4)) for i in range(sites)]
    total = lambda t, v: float(sum(t[i, v[f"layers.{i}.width"] - 1] for i in range(sites)))
    space = TreeSpace(branches, lambda v: v["layers.0.width"] + v["layers.1.width"] != 4, {"size": lambda v: total(size, v)})
    return Problem("additive", space, (Objective("score", "max"),), lambda c, f: {"score": total(score, c), "size": total(size, c)}, (0.0,))


def everything(problem: Problem) -> list:
    """The candidates but those with a value that is not valid beside the defaults. (There are no branches: as many numbers as assignments.)"""
    every = [c for i in range(problem.space.combinations or 0) if (c := problem.space.at(i)) is not None]
    return [c for c in every if c["layers.0.width"] != 3 != c["layers.1.width"]]


def test_milp_finds_the_best_after_its_table():
    problem = additive()
    trials = run("milp(budgets = [\"size <= 2\"])", problem, budget=40)
    table_size = 1 + sum(t.origin == "table" for t in trials[1:])
    within = [c for c in everything(problem) if problem.space.costs(c, ["size"])["size"] <= 2]
    ordered = sorted((problem.measure(c, 1.0)["score"] for c in within), reverse=True)
    solutions = [t.values["score"] for t in trials[table_size:]]
    tabled = {t.values["score"] for t in trials[:table_size]}
    assert table_size <= 16 and all(t.origin == "solution" for t in trials[table_size:])
    assert solutions[:8] == pytest.approx([s for s in ordered if s not in tabled][:8]), "the best, the next best, …"


def test_milp_finds_the_front():
    problem = additive()
    problem = Problem("two", problem.space, (Objective("score", "max"), Objective("size")), problem.measure, (0.0, 5.0))
    trials = run("milp", problem, budget=60)
    values = {c.key: (-problem.measure(c, 1.0)["score"], problem.measure(c, 1.0)["size"]) for c in everything(problem)}
    best = {k for k, v in values.items() if not any(o[0] <= v[0] and o[1] <= v[1] and o != v for o in values.values())}
    solved = [t.candidate.key for t in trials if t.origin == "solution"]
    assert set(solved) <= best and len(solved) == len(set(solved)) > 2
    assert len(best - {t.candidate.key for t in trials}) <= 1, "limits are drawn: a small gap may be missed"


def test_milp_says_what_it_needs():
    with pytest.raises(ArchError, match="its table takes 14"):
        made("milp", additive(), budget=14)
    rule, options = STRATEGIES.parse("milp(budgets = [\"size < 2\"])")
    with pytest.raises(ArchError, match="is written"):
        rule.body(**options)


# ---------------------------------------------------------------- predictors
def test_a_predictor_ranks_what_it_has_not_seen():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (80, 6)).astype(float)
    y = x @ [3, 1, 0, 0, 2, -1] + 0.1 * rng.normal(size=80)
    model = Regression(x[:60], y[:60])
    expected, deviation = model(x[60:])
    assert np.corrcoef(expected, y[60:])[0, 1] > 0.99 and model.name.startswith("linear")
    assert 0.02 < deviation.mean() < 0.6
    bent = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    model = Regression(x[:60], bent[:60])
    assert np.corrcoef(model(x[60:])[0], bent[60:])[0, 1] > 0.8 and "gaussian" in model.name, "interactions take the kernel"
    assert Regression(x[:10], np.full(10, 7.0))(x[:3])[0] == pytest.approx([7.0] * 3)


@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_errors_are_those_of_leaving_one_out(seed):
    """The closed form, against 12 fits to 11 rows each in the plain equations of kernel ridge regression."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    model = Regression(x, y)
    rows, target = (x - x.mean(0)) / model.scale, (y - y.mean()) / y.std()
    errors = []
    for i in range(12):
        kept = np.arange(12) != i
        gram = model.kernel(rows[kept], rows[kept]) + model.noise * np.eye(11)
        errors.append(target[i] - model.kernel(rows[i:i + 1], rows[kept]) @ np.linalg.solve(gram, target[kept]))
    assert model.error == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=1e-8)
    gram = model.kernel(rows, rows) + model.noise * np.eye(12)
    at = rng.normal(size=(4, 3))
    near = model.kernel((at - x.mean(0)) / model.scale, rows)
    expected, deviation = model(at)
    assert expected == pytest.approx(near @ np.linalg.solve(gram, target) * y.std() + y.mean(), rel=1e-6)
    own = np.diag(model.kernel((at - x.mean(0)) / model.scale, (at - x.mean(0)) / model.scale))
    variance = (own + model.noise - np.diag(near @ np.linalg.solve(gram, near.T))) * (target @ np.linalg.solve(gram, target) / 12)
    assert deviation == pytest.approx(np.sqrt(variance) * y.std(), rel=1e-6)


def test_features_follow_the_tree():
    told = encoding.features({"depth": 2, "layers.0.mixer": "conv", "layers.1.mixer": "conv", "layers.1.conv.kernel": 5, "widths": (8, 16),
                              "bias": True})
    assert told["layers.0.mixer=\"conv\""] == 1.0 and told["layers.*.mixer=\"conv\""] == 2.0
    assert told["layers.1.conv.kernel"] == 5.0 == told["layers.*.conv.kernel"] and "layers.0.conv.kernel" not in told
    assert told["widths[1]"] == 16.0 and told["widths"] == 24.0 and told["bias=true"] == 1.0
    assert table([told, {"depth": 3.0, "new": 1.0}], {"depth": 0, "bias=true": 1}).tolist() == [[2.0, 1.0], [3.0, 0.0]]


def test_predictor_computes_what_the_space_knows():
    problem = trade(5)
    strategy = made("predictor(evolve = 100)", problem, budget=40)
    for _ in rounds(strategy, problem, 20):
        pass
    assert strategy.known == [False, True]  # type: ignore[attr-defined]
    measure = lambda c, f: {**problem.measure(c, f), "size": 2 * problem.measure(c, f)["size"]}
    twice = Problem("other", problem.space, problem.objectives, measure, (0.0, 9.0))
    strategy = made("predictor(evolve = 100)", twice, budget=40)
    for _ in rounds(strategy, twice, 20):
        pass
    assert strategy.known == [False, False], "the evaluator's size is another one than the space's"  # type: ignore[attr-defined]


# ---------------------------------------------------------------- slots
@pytest.mark.parametrize("domain", [of_values(("a", "b", None)), of_values((3, True, (1, 2))), whole(4, 20, 4), Domain("float", 0.5, 2.0, 0.25)])
def test_positions(domain):
    assert [encoding.position(domain, encoding.value_at(domain, i)) for i in range(domain.size)] == list(range(domain.size))
    assert [encoding.value_at(domain, i) for i in range(domain.size)] == list(domain)


def test_slots_of_lists():
    lists = Domain("list", items=(whole(1, 3), Domain("list", items=(of_values((5, 6)),))))
    found = encoding.slots({"a": whole(0, 1), "b": lists})
    assert [s.path for s in found] == [("a",), ("b", 0), ("b", 1, 0)]
    values = {"a": 0, "b": (2, (5,))}
    assert [encoding.read(values, s) for s in found] == [0, 2, 5]
    assert encoding.written(values["b"], [1, 0], 6) == (2, (6,))
