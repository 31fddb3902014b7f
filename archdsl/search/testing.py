"""What every strategy is proved by, ours and those of packages.

```
from archdsl.search.testing import check_strategy, compare

check_strategy("mine(population = 20)")           # AssertionError where it breaks the contract of `search.model.Strategy`
ours, theirs = compare("mine()", stack(), budget=200)   # medians over seeds, for the strategy and for random search
```
"""
from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.search.model import Proposal, Strategy, Trial
from archdsl.search.reference import PROBLEMS, Problem, small
from archdsl.search.registry import STRATEGIES


def made(text: str, problem: Problem, seed: int = 0, budget: int = 64) -> Strategy:
    """The strategy that a text names, set up."""
    rule, options = STRATEGIES.parse(text)
    strategy: Strategy = rule.body(**options)
    strategy.setup(problem.space, problem.objectives, seed, budget)
    return strategy


def evaluated(problem: Problem, proposals: Sequence[Proposal], first: int, fails: Callable[[int], bool] = lambda number: False) -> list[Trial]:
    """Trials of these proposals, numbered from `first`."""
    trials: list[Trial] = []
    for number, p in enumerate(proposals, first):
        trial = Trial(number, p.candidate, p.fidelity, p.origin, p.parents)
        if fails(number):
            trials.append(replaced(trial, status="failed", reason="it was told to fail"))
        else:
            trials.append(replaced(trial, status="done", values=problem.measure(p.candidate, p.fidelity)))
    return trials


def replaced(trial: Trial, **changes: Any) -> Trial:
    from archdsl.records import replace

    return replace(trial, **changes)


def rounds(strategy: Strategy, problem: Problem, budget: int, first: int = 0, fails: Callable[[int], bool] = lambda number: False,
           ) -> Iterator[list[Trial]]:
    """Rounds of a search until so many trials are made or nothing is left to try; a round is given out after its feedback."""
    number = first
    while number < budget:
        proposals = strategy.propose(min(strategy.batch, budget - number))
        if not proposals:
            return
        assert len(proposals) <= min(strategy.batch, budget - number), "it proposes more than it was asked for"
        trials = evaluated(problem, proposals, number, fails)
        number += len(trials)
        strategy.feedback(trials)
        yield trials


def run(text: str, problem: Problem, seed: int = 0, budget: int = 64, **how: Any) -> list[Trial]:
    """All trials of a search."""
    return [t for trials in rounds(made(text, problem, seed, budget), problem, budget, **how) for t in trials]


# ---------------------------------------------------------------- the contract
def same_by_seed(text: str, problem: Problem, budget: int = 64) -> None:
    """The same seed proposes the same, another seed something else, unless no chance is in it."""
    first, again, other = (_stream(run(text, problem, seed, budget)) for seed in (3, 3, 4))
    assert first == again, "two runs with one seed differ"
    assert first != other or STRATEGIES.parse(text)[0].name in ("grid", "milp"), "the seed changes nothing"


def resumes(text: str, problem: Problem, budget: int = 64) -> None:
    """A state after any round, taken through JSON into a fresh strategy, continues the same stream; so does one taken in the middle of a round."""
    whole = list(rounds(made(text, problem, 1, budget), problem, budget))
    for stop in sorted({1, len(whole) // 2, len(whole) - 1}):
        strategy = made(text, problem, 1, budget)
        begun = list(islice(rounds(strategy, problem, budget), stop))
        number = sum(map(len, begun))
        strategy = _revived(text, problem, budget, strategy)
        pending = strategy.propose(min(strategy.batch, budget - number))
        strategy = _revived(text, problem, budget, strategy)  # proposed, and not evaluated yet
        trials = evaluated(problem, pending, number)
        strategy.feedback(trials)
        number += len(trials)
        rest = [trials, *rounds(strategy, problem, budget, number)] if trials else []
        assert _stream(chain(*begun, *rest)) == _stream(chain(*whole)), f"after {stop} rounds it continues otherwise"


def proposes_valid(text: str, problem: Problem, budget: int = 64) -> None:
    """Every proposal is a candidate of the space, at a fidelity above 0, from trials that were."""
    for t in run(text, problem, 5, budget):
        try:
            again = problem.space.candidate(dict(t.candidate))
        except ArchError as fault:
            raise AssertionError(f"trial {t.number} is not valid: {fault}") from fault
        assert again.key == t.candidate.key, f"trial {t.number} has a key of another candidate"
        assert 0 < t.fidelity <= 1 and all(0 <= p < t.number for p in t.parents)


def bears_failures(text: str, problem: Problem, budget: int = 64) -> None:
    """It goes on where a third of the trials fail, and where all of them do."""
    third = run(text, problem, 6, budget, fails=lambda number: number % 3 == 1)
    assert len(third) > budget // 3, "it gives up when some trials fail"
    run(text, problem, 7, budget, fails=lambda number: True)


def bears_duplicates(text: str, problem: Problem, budget: int = 64) -> None:
    """Feedback about trials that it did not propose, some of them twice, does not disturb it."""
    strategy = made(text, problem, 8, budget)
    others = [Proposal(problem.space.sample(i // 2)) for i in range(8)]
    strategy.feedback(evaluated(problem, others, 0))
    assert sum(map(len, rounds(strategy, problem, budget, 8))) > budget // 3


def ends(text: str) -> None:
    """In a space of 24 candidates it ends, and evaluates none of them twice at one fidelity."""
    problem = small()
    trials = run(text, problem, 9, 1_000)
    tried = [(t.candidate.key, t.fidelity) for t in trials]
    assert len(trials) < 1_000, "it goes on when nothing is left"
    assert len(set(tried)) == len(tried), "it tries a candidate twice"
    best = min(t.values["score"] for t in trials if t.fidelity == 1)
    assert best == 1, f"the best of 24 candidates is 1, it found {best}"


CHECKS: tuple[Callable[[str, Problem], None], ...] = (same_by_seed, resumes, proposes_valid, bears_failures, bears_duplicates)


def check_strategy(text: str) -> None:
    """All of it, on all reference problems that the strategy serves. Raises AssertionError."""
    for problem in [make() for make in PROBLEMS.values()]:
        try:
            made(text, problem)
        except ArchError as fault:
            if fault.diagnostics[0].code != "A0812":
                raise
            continue
        for check in CHECKS:
            check(text, problem)
    ends(text)


def _stream(trials: Iterable[Trial]) -> list[Any]:
    return [(t.number, t.candidate.key, t.fidelity, t.origin, t.parents) for t in trials]


def _revived(text: str, problem: Problem, budget: int, strategy: Strategy) -> Strategy:
    told = json.dumps(strategy.state())
    fresh = made(text, problem, 1, budget)
    fresh.restore(json.loads(told))
    assert json.dumps(fresh.state()) == told, "a restored strategy has another state"
    return fresh


# ---------------------------------------------------------------- quality
def quality(problem: Problem, trials: Sequence[Trial]) -> float:
    """What is larger for a better search: the hypervolume of the trials at full fidelity, which for one objective is what the best is better than the
    reference by."""
    from archdsl.search.strategies.fronts import volume

    done = [t.scores(problem.objectives) for t in trials if t.status == "done" and t.fidelity == 1]
    return volume(done, problem.reference)


def compare(text: str, problem: Problem, budget: int, seeds: int = 5) -> tuple[float, float]:
    """Medians over seeds of the quality, for the strategy and for random search with as much effort. A trial counts as much as its fidelity."""
    ours, theirs = [], []
    for seed in range(seeds):
        strategy, trials, spent = made(text, problem, seed, budget), [], 0.0
        while spent < budget and (proposals := strategy.propose(strategy.batch)):
            done = evaluated(problem, proposals, len(trials))
            while done and spent + sum(t.fidelity for t in done) > budget + 1e-9:
                done.pop()
            if not done:
                break
            spent += sum(t.fidelity for t in done)
            trials += done
            strategy.feedback(done)
        ours.append(quality(problem, trials))
        theirs.append(quality(problem, run("random", problem, seed, budget)))
    return statistics.median(ours), statistics.median(theirs)
