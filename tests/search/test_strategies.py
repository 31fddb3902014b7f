"""Every registered strategy: the contract, the end of a small space, and more than chance on the reference problems."""
from __future__ import annotations

import json
import statistics

import numpy as np
import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.records import replace
from archdsl.search.model import Objective, Proposal
from archdsl.search.reference import PROBLEMS, Branch, Problem, TreeSpace, small, stack, trade, valley, whole
from archdsl.search.registry import STRATEGIES
from archdsl.search.strategies.base import REMEMBERED, Generator
from archdsl.search.strategies.plain import Shuffle
from archdsl.search.testing import CHECKS, compare, ends, evaluated, made, rounds, run

ALL = sorted(STRATEGIES.own())
SERVED = {"grid": ("stack", "trade"), "milp": ("trade", "valley")}
SLOW = {"tpe": (20, 64), "predictor": (40, 120)}
"""Budgets of those that fit models, in smaller problems: for the contract, and against random search."""
LESS = {"stack": lambda: stack(5), "trade": lambda: trade(6), "valley": valley}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", ALL)
def test_contract(name, check, problem):
    if problem not in SERVED.get(name, PROBLEMS):
        with pytest.raises(ArchError, match="cannot serve") as told:
            made(name, PROBLEMS[problem]())
        assert told.value.diagnostics[0].code == "A0812"
        return
    check(name, (LESS if name in SLOW else PROBLEMS)[problem](), SLOW.get(name, (64,))[0])


@pytest.mark.parametrize("name", [n for n in ALL if n != "milp"])
def test_ends_when_nothing_is_left(name):
    ends(name)


@pytest.mark.parametrize(("name", "problem"), [
    pytest.param(n, p, marks=[pytest.mark.proof] if n in SLOW and p != "trade" else [])
    for n in ALL if n not in ("random", "grid", "milp") for p in PROBLEMS])
def test_better_than_random(name, problem):
    ours, theirs = compare(name, (LESS if name in SLOW else PROBLEMS)[problem](), SLOW.get(name, (64, 150))[1])
    assert ours > theirs


# ---------------------------------------------------------------- generator
def test_generator_is_splitmix64():
    """The first numbers for seed 1234567, as published with the reference implementation by Vigna."""
    rng = Generator(1234567)
    assert [rng.getrandbits(64) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_generator_is_fair():
    rng = Generator(5)
    assert abs(statistics.mean(rng.random() for _ in range(4000)) - 0.5) < 0.02
    counts = np.bincount([rng.randrange(7) for _ in range(7000)], minlength=7)
    assert ((counts - 1000) ** 2 / 1000).sum() < 22.5, "χ² of six degrees of freedom at 0.1%"
    assert rng.getrandbits(200) < 2**200 and rng.randrange(10**40) < 10**40


# ---------------------------------------------------------------- grid
def test_grid_is_in_mixed_radix_order():
    space = TreeSpace([Branch("a", whole(1, 2), ((Branch("b", whole(1, 2)),), ())), Branch("c", whole(0, 1))])
    problem = Problem("order", space, (Objective("a"),), lambda c, f: {"a": c["a"]}, (3.0,))
    values = [tuple(t.candidate.values()) for t in run("grid", problem)]
    assert values == [(1, 1, 0), (2, 0), (1, 2, 0), (2, 1), (1, 1, 1), (1, 2, 1)]
    assert [tuple(t.candidate.values()) for t in run("grid(start = 4)", problem)] == [*values[4:], *values[:4]]
    shuffled = [tuple(t.candidate.values()) for t in run("grid(shuffle = true)", problem)]
    assert sorted(shuffled) == sorted(values) and shuffled != values


def test_grid_starts_anywhere_in_a_large_space():
    problem = Problem("large", TreeSpace([Branch(f"d{i}", whole(0, 9)) for i in range(40)]), (Objective("d0"),), lambda c, f: {"d0": c["d0"]}, (9.0,))
    first, second = run(f"grid(start = {10**39 + 7})", problem, budget=2)
    assert [k for k, v in first.candidate.items() if v] == ["d0", "d39"] and second.candidate["d0"] == 8
    (last, again) = run(f"grid(start = {10**40 - 1})", problem, budget=2)
    assert set(last.candidate.values()) == {9} and set(again.candidate.values()) == {0}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_shuffle_is_a_permutation(count):
    assert sorted(map(Shuffle(count, 3), range(count))) == list(range(count))


def test_shuffle_of_many():
    order = Shuffle(13**400, 1)
    seen = [order(i) for i in range(50)]
    assert len(set(seen)) == 50 and max(seen) > 13**400 // 2 and all(0 <= x < 13**400 for x in seen)


def test_grid_says_where_it_finds_nothing(monkeypatch):
    monkeypatch.setattr("archdsl.search.strategies.plain.FRUITLESS", 100)
    space = TreeSpace(stack().space.branches, lambda v: v["layers.11.mixer"] != "attention")
    with pytest.raises(ArchError, match="100 numbers up to 99 are of no valid"):
        run("grid", Problem("sparse", space, (Objective("score"),), lambda c, f: {}, (0.0,)))


# ---------------------------------------------------------------- what is particular to one
def test_random_does_not_repeat_and_covers():
    trials = run("random", small(), budget=100)
    assert len({t.candidate.key for t in trials}) == len(trials) == small().space.size == 24


def test_evolution_forgets_the_oldest():
    strategy = made("evolution(population = 4, batch = 1)", stack(), budget=40)
    numbers = [t.number for trials in rounds(strategy, stack(), 40) for t in trials]
    assert [m.number for m in strategy.alive] == numbers[-4:]  # type: ignore[attr-defined]


def test_local_moves_to_the_better_and_starts_again():
    problem = trade()
    trials = run("local(patience = 5, starts = 2, batch = 1)", problem, budget=80)
    assert [t.origin for t in trials[:3]] == ["sample", "sample", "mutate"]
    assert sum(t.origin == "sample" for t in trials) > 4, "it never starts again"


def test_halving_promotes_the_best_of_a_rung():
    problem = stack()
    trials = run("halving(width = 9, eta = 3, lowest = 0.11)", problem, budget=13)
    assert [round(t.fidelity, 3) for t in trials] == [0.111] * 9 + [0.333] * 3 + [1.0]
    best = sorted(trials[:9], key=lambda t: -t.values["score"])[:3]
    assert {t.candidate.key for t in trials[9:12]} == {t.candidate.key for t in best} and trials[12].origin == "promote"
    assert trials[12].candidate == max(trials[9:12], key=lambda t: t.values["score"]).candidate


def test_hyperband_has_the_brackets_of_algorithm_1():
    """R = 81, eta = 3: table 1 of Li et al. 2018, effort as a share of the full one."""
    rule, options = STRATEGIES.parse(f"hyperband(lowest = {1 / 81})")
    strategy = rule.body(**options)
    table = {0: [81, 27, 9, 3, 1], 1: [34, 11, 3, 1], 2: [15, 5, 1], 3: [8, 2], 4: [5]}
    assert {i: [n for n, _ in strategy.rungs(i)] for i in range(5)} == table
    assert [round(81 * f) for _, f in strategy.rungs(1)] == [3, 9, 27, 81]


def test_tpe_records_what_it_repaired():
    problem = Problem("odd", TreeSpace([Branch(n, whole(0, 9)) for n in "abcd"], lambda v: sum(v.values()) % 2 == 1), (Objective("a"),),
                      lambda c, f: {"a": c["a"] + c["b"]}, (20.0,))
    trials = run("tpe(first = 5, batch = 1)", problem, budget=25)
    repaired = [t for t in trials if t.candidate.repaired]
    assert repaired and all("the condition excludes" in line for t in repaired for line in t.candidate.repaired)
    assert all(sum(t.candidate.values()) % 2 == 1 for t in trials)


def test_options_that_do_not_fit():
    for text in ("random(batch = 0)", "evolution(cross = 1.5)", "halving(eta = 1)", "hyperband(lowest = 0.0)", "grid(start = -1)"):
        rule, options = STRATEGIES.parse(text)
        with pytest.raises(ArchError) as told:
            rule.body(**options)
        assert told.value.diagnostics[0].code == "A0812"
    with pytest.raises(ArchError, match="continuous"):
        made("grid", valley())


def test_state_of_a_long_search_stays_small():
    problem = stack()
    strategy = made("nsga2", problem, budget=3000)
    for _ in rounds(strategy, problem, 3000):
        pass
    state = strategy.state()
    assert len(state["seen"]) <= REMEMBERED and len(state["parents"]) == 50 and len(json.dumps(state)) < 150_000


def test_small_batches_do_as_well():
    """A study that asks for one at a time, as an asynchronous one does, is served too."""
    problem = trade()
    for name in ("nsga2", "hyperband", "evolution"):
        strategy = made(name, problem, budget=60)
        for number in range(60):
            proposals = strategy.propose(1)
            assert len(proposals) == 1
            strategy.feedback(evaluated(problem, proposals, number))


def test_many_may_be_open():
    """Proposals are asked for before the feedback on earlier ones."""
    problem = trade()
    for name in ("nsga3", "halving", "local", "evolution"):
        strategy = made(name, problem, budget=60)
        pending: list[list[Proposal]] = []
        number = 0
        for _ in range(40):
            pending.append(strategy.propose(1))
            assert pending[-1]
            if len(pending) > 5:
                strategy.feedback(evaluated(problem, pending.pop(0), number))
                number += 1


def test_failed_trials_are_no_parents():
    problem = stack()
    strategy = made("nsga2(population = 8)", problem, budget=64)
    failed: set[int] = set()
    for trials in rounds(strategy, problem, 64, fails=lambda number: number % 4 == 0):
        failed |= {t.number for t in trials if t.status == "failed"}
        assert not failed & {p for t in trials for p in t.parents}
    assert failed


def test_a_trial_without_the_objective_is_refused():
    problem = stack()
    strategy = made("evolution", problem)
    (trial, *_) = evaluated(problem, strategy.propose(1), 0)
    with pytest.raises(KeyError, match="score"):
        strategy.feedback([replace(trial, values={"accuracy": 1.0})])
