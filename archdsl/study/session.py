"""A search from its settings: the plan, a new or a resumed study, the strategy, the engine, the loop."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from archdsl.records import record
from archdsl.search.evaluators.texts import canonical, read_evaluator
from archdsl.search.registry import STRATEGIES
from archdsl.search.unfit import unfit
from archdsl.specfiles import digest, spec_files
from archdsl.study.engine import Engine, InProcess, Limits
from archdsl.study.errors import wrong_number
from archdsl.study.measure import Meter, Workplace
from archdsl.study.plan import Plan, open_space, open_spec, read_objectives, read_plan
from archdsl.study.run import Search
from archdsl.study.study import LOGS, Study, created, emptied, resumed
from archdsl.version import VERSION

if TYPE_CHECKING:
    from archdsl.search.model import Space, Strategy
    from archdsl.search.space import SearchSpace
    from archdsl.spec import Spec

BUDGET = 100
SPACE = "archdsl.study.session:space_in"
UNFIT = "unfit"  # under which a study keeps what is said of arms that stand in no candidate
COUNTED = "counted"  # under which a study keeps the number of candidates; resuming one proves that its space is the same


@record(frozen=True)
class Asked:
    """What the user said of a search; None: nothing, so that a default applies, or what the study began with when it is resumed."""

    objectives: Sequence[str] | None = None
    limits: Sequence[str] | None = None
    evaluator: str | None = None
    strategy: str | None = None
    budget: int | None = None
    seed: int | None = None
    space: str | None = None
    asynchronous: bool | None = None
    fixed: bool | None = None


@record(frozen=True)
class Hands:
    """Who evaluates. `workers`: processes; 0: this one; None: this one where evaluating is light and nothing limits a trial, else one process."""

    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    limits: Limits = Limits()


def planned(spec: Spec, variant: str | None, source: str, asked: Asked, old: Plan | None = None) -> Plan:
    """The plan that the user means. Raises A0811 to A0814, A0826, A0834 for texts that cannot be read."""
    from archdsl.store import stdlib_hash

    def of(name: str, default: Any) -> Any:
        given = getattr(asked, name)
        return given if given is not None else getattr(old, name) if old is not None else default

    objectives = old.objectives if asked.objectives is None and old is not None else read_objectives(asked.objectives or ())
    strategy = of("strategy", "nsga2" if len(objectives) > 1 else "evolution")
    STRATEGIES.parse(strategy)
    evaluator = canonical(of("evaluator", "cost"))
    read_evaluator(evaluator)
    budget = of("budget", BUDGET)
    if budget < 1:
        raise wrong_number(f"a budget of {budget} trials is none", str(budget))
    texts = spec_files(spec)
    return Plan(
        spec=next(iter(texts)), source=source, model=spec.name, variant=variant, files={n: digest(t) for n, t in texts.items()},
        objectives=objectives, strategy=strategy, evaluator=evaluator, seed=of("seed", 0), budget=budget, space=of("space", None),
        limits=tuple(of("limits", ())), asynchronous=bool(of("asynchronous", False)), fixed=bool(of("fixed", False)), library=stdlib_hash())


def search(source: str, out: str, asked: Asked, hands: Hands = Hands(), resume: bool = False,  # noqa: B008  frozen
           watch: Callable[[Study], Callable[[], None]] = lambda study: lambda: None) -> Study:
    """Runs a search and gives its study, open for reading. `watch` is told of the study and returns what is called as it grows. Raises ArchError."""
    from archdsl.spec import resolve_source

    spec, variant = resolve_source(source)
    plan = planned(spec, variant, source, asked, read_plan(out) if resume else None)
    space = open_space(spec, plan)
    with _opened(out, plan, spec_files(spec), space, resume) as (study, strategy):
        search_in(study, space, strategy, hands, SPACE, watch(study))
        before = study.store.kept(UNFIT)  # a search that goes on sees fewer settings of the header: what fits below none of these may fit elsewhere
        study.store.keep(UNFIT, [told for told in map(str, unfit(space)) if before is None or told in before])
    found = Study(out)
    found.space = space
    return found


@contextmanager
def _opened(out: str, plan: Plan, texts: dict[str, str], space: SearchSpace, resume: bool) -> Generator[tuple[Study, Strategy], None, None]:
    """The study and its strategy. What cannot begin leaves no folder behind. How many candidates the space has is counted once for a study."""
    strategy = None if resume else made_strategy(plan, space)
    new = not os.path.exists(out)
    with (resumed(out, plan) if resume else created(out, plan, texts)) as study:
        try:
            known = study.store.kept(COUNTED)
            if known is not None:
                space.counted.load(known)
            strategy = strategy or made_strategy(plan, space)
            if known is None and (counted := space.counted.save()) is not None:
                study.store.keep(COUNTED, counted)
            yield study, strategy
        except Exception:
            if study.store.next == 0 and not resume:
                study.store.close()
                emptied(out, new)
            raise


def made_strategy(plan: Plan, space: Space) -> Strategy:
    """The strategy of a plan, set up. Raises ArchError for a space that it cannot serve."""
    rule, options = STRATEGIES.parse(plan.strategy)
    strategy: Strategy = rule.body(**options)
    strategy.setup(space, plan.objectives, plan.seed, plan.budget)
    return strategy


def search_in(study: Study, space: Space, strategy: Strategy, hands: Hands, space_from: str = SPACE, told: Callable[[], None] = lambda: None) -> None:
    """The search in an open, locked study; `space_from` is `module:function`, which makes the same space in another process of the study's folder."""
    store, plan = study.store, study.plan
    if store.next >= plan.budget and store.finished == store.next:
        return
    engine = _engine(study, space, hands, space_from)
    try:
        store.begin_session({"archdsl": VERSION, "python": sys.version.split()[0], "host": os.uname().nodename, "engine": hands.engine,
                             "workers": hands.workers, "budget": plan.budget, "seconds": hands.limits.seconds, "memory": hands.limits.memory})
        Search(study, space, strategy, engine, told).run()
    finally:
        engine.close()


def _engine(study: Study, space: Space, hands: Hands, space_from: str) -> Engine:
    plan = study.plan
    rule, options = read_evaluator(plan.evaluator)
    limited = hands.limits.seconds is not None or hands.limits.memory is not None
    workers = hands.workers
    if workers is None:
        here = getattr(rule.body, "light", False) and not limited and not plan.asynchronous and hands.engine == "local"
        workers = 0 if here else 1
    if workers == 0:
        if limited or plan.asynchronous or hands.engine != "local":
            what = "limits of a trial are kept" if limited else "an asynchronous search runs" if plan.asynchronous else "Ray runs trials"
            raise wrong_number(f"{what} by workers, and there are none", "--workers 0", "give it one: `--workers 1`")
        return InProcess(Meter(space, rule.body(**options), plan.objectives, os.path.abspath(study.folder)))
    place = Workplace(space_from, os.path.abspath(study.folder), plan.evaluator, tuple(map(str, plan.objectives)), os.getcwd(),
                      tuple(os.path.abspath(p) for p in sys.path if p))
    if hands.engine == "ray":
        from archdsl.study.cluster import Cluster

        return Cluster(place, workers, hands.limits)
    from archdsl.study.pool import Pool

    return Pool(place, workers, hands.limits, os.path.join(study.folder, LOGS))


def space_in(folder: str) -> Space:
    """The space of the study in a folder."""
    plan = read_plan(folder)
    return open_space(open_spec(folder, plan), plan)
