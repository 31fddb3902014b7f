"""The loop of a search: propose, evaluate, commit, feed back; and how it goes on where it was cut off.

Synchronous: a round is proposed, its trials run in any order on any number of workers, and the strategy hears of all of them at once, in the order
of their numbers. So the archive depends on the plan alone. The round is stored together with the strategy's state behind it in the commit of its
first results, which for quick trials is that of all its results. A search that was cut off finds the last round that has results and that state,
evaluates what has none, and goes on with the same stream.

Asynchronous: a worker that becomes free gets a new proposal at once, and the strategy hears of each trial as it ends. No worker waits, and no run is
like another.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from archdsl.records import replace
from archdsl.search.model import Candidate, Proposal, Remembered, Space, Strategy
from archdsl.study.engine import Engine
from archdsl.study.measure import Job, seed_of
from archdsl.study.store import Entry, Result, trial_of
from archdsl.study.study import Study

HELD = 0.02  # seconds that a result waits for others to be committed with
WAIT = 0.25  # seconds between two signs of life while trials run


class Search:
    """`told` is called after each commit, and a few times a second while nothing ends."""

    def __init__(self, study: Study, space: Space, strategy: Strategy, engine: Engine, told: Callable[[], None] = lambda: None) -> None:
        self.study, self.store, self.space, self.strategy, self.engine, self.told = study, study.store, space, strategy, engine, told
        self._candidates: dict[int, Candidate] = {}
        self._results: dict[int, Entry] = {}
        self._first: dict[tuple[str, float], int] = {}  # of trials that run: who does so for all of the same graph and fidelity
        self._followers: dict[int, list[Entry]] = {}
        self._running: dict[int, Entry] = {}
        self._queue: list[Job] = []

    def run(self) -> None:
        """Until the budget is used up or the strategy proposes nothing more."""
        self.engine.start()
        state = self.store.kept("state")
        if state is not None:
            self.strategy.restore(state)
        pending = self.store.pending()
        if self.study.plan.asynchronous:
            self._asynchronous(pending)
        else:
            self._rounds(pending)

    # ---------------------------------------------------------------- synchronous
    def _rounds(self, pending: list[Entry]) -> None:
        if pending and self._was_cut(len(pending)):
            pending += self._propose(self.strategy.batch - len(pending), (), self.store.stage)
        while True:
            if pending:
                done = self._evaluated(pending)
                if self.store.next >= self.study.plan.budget:
                    return  # the strategy hears of the last round when it goes on
                self._feed(done)
            pending = self._propose(self.strategy.batch, [e.number for e in pending], self.store.stage)
            if not pending:
                return

    def _was_cut(self, size: int) -> bool:
        """Whether a smaller budget ended the last round early: then it goes on before the strategy hears of it, as if it had not been cut."""
        ended = self.store.next < self.study.plan.budget and any(s.get("budget") == self.store.next for s in self.store.sessions())
        return ended and size < self.strategy.batch

    def _evaluated(self, entries: list[Entry]) -> list[Entry]:
        """These trials with their results, in order; all results are committed."""
        self._results = {e.number: e for e in entries if e.status != "waiting"}
        waiting = [e for e in entries if e.status == "waiting"]
        ready = self._take(waiting)
        while len(self._results) < len(entries):
            self._step(ready)
            ready = []
        return [self._results[e.number] for e in entries]

    # ---------------------------------------------------------------- asynchronous
    def _asynchronous(self, pending: list[Entry]) -> None:
        heard = [e for e in pending if e.status != "waiting"]
        self._feed(heard)
        told = [e.number for e in heard]
        self._commit(self._take([e for e in pending if e.status == "waiting"]))
        more = True
        while more or self._running:
            while more and len(self._queue) < self.engine.free and self.store.next < self.study.plan.budget:
                new = self._propose(1, told, self.store.propose)
                more, told = bool(new), [] if new else told
                self._results = {}
                self._commit(self._take(new))
                told += self._results
                self._feed(self._results.values())
            more = more and self.store.next < self.study.plan.budget
            if self._running:
                self._results = {}
                self._step()
                told += self._results
                self._feed(self._results.values())
            elif more:
                self.engine.wait(WAIT)  # no worker is ready yet

    # ---------------------------------------------------------------- both
    def _propose(self, most: int, told: Iterable[int], store: Callable[..., None]) -> list[Entry]:
        """New trials, given to `store`; none when the budget is used up or nothing is left to try."""
        n = min(most, self.study.plan.budget - self.store.next)
        proposals = self.strategy.propose(n) if n > 0 else []
        if not proposals:
            return []
        entries = [self._entry(self.store.next + i, p) for i, p in enumerate(proposals[:n])]
        store(entries, self.strategy.state(), told)
        self._candidates |= {e.number: p.candidate for e, p in zip(entries, proposals)}
        return entries

    def _entry(self, number: int, p: Proposal) -> Entry:
        c = p.candidate
        return Entry(number, c.key, self.space.to_json(c), p.fidelity, p.origin, p.parents, c.repaired)

    def _take(self, entries: list[Entry]) -> list[Result]:
        """Queues trials that wait. Those of a graph that is about to be evaluated take over that result. Gives the results, to be committed, of those
        of a graph that has been."""
        ready: list[Result] = []
        for e in entries:
            self._running[e.number] = e
            first = self._first.get((e.key, e.fidelity))
            known = self.store.known(e.key, e.fidelity) if first is None else None
            if first is not None:
                self._followers.setdefault(first, []).append(e)
            elif known is not None:
                ready.append(_taken_over(e, known))
            else:
                self._first[e.key, e.fidelity] = e.number
                self._queue.append(Job(e.number, e.knobs, e.key, e.fidelity, seed_of(self.study.plan.seed, e.key)))
        return ready

    def _step(self, ready: Iterable[Result] = ()) -> None:
        """Keeps the engine busy until there are results to commit, and commits them with those that are there."""
        arrived: list[Result] = []
        since = 0.0
        while self._first and not (arrived and (time.monotonic() - since > HELD or len(arrived) >= len(self._first))):
            room = self.engine.free
            for job in self._queue[:room]:
                self.engine.submit(job, self._candidates.get(job.number))
            del self._queue[:room]
            new = self.engine.wait(HELD if arrived else WAIT)
            since = since or (time.monotonic() if new else 0.0)
            arrived += new
            if not arrived:
                self.told()
        self._commit([*ready, *arrived])

    def _commit(self, results: list[Result]) -> None:
        """Makes results durable, those of trials that take them over too; then, and not before, they count as finished."""
        if not results:
            return
        every = list(results)
        for r in results:
            followers = self._followers.pop(r.number, [])
            every += [_taken_over(f, self._running[r.number], r) for f in followers]
        every.sort(key=lambda r: r.number)
        entries = [self._running.pop(r.number) for r in every]
        self.store.finish(every, [e.fidelity for e in entries])
        for r, e in zip(every, entries):
            self._first.pop((e.key, e.fidelity), None)
            self._results[r.number] = replace(e, status=r.status, values=r.values or {}, reason=r.reason, seconds=r.seconds, same_as=r.same_as)
        self.told()

    def _feed(self, entries: Iterable[Entry]) -> None:
        """Tells the strategy."""
        done = [trial_of(e, self._candidate(e)) for e in entries]
        if done:
            self.strategy.feedback(done)

    def _candidate(self, e: Entry) -> Candidate:
        """As it was proposed; of one that was proposed before the search was cut off, what the study remembers."""
        found = self._candidates.pop(e.number, None)
        return found if found is not None else Remembered(self.space, e.knobs, e.key, e.repaired)


def _taken_over(e: Entry, known: Entry, result: Result | None = None) -> Result:
    """The result of the first trial of the same graph, for another one."""
    r = result if result is not None else Result(known.number, known.values if known.status == "done" else None, known.reason)
    return Result(e.number, r.values, r.reason, 0.0, known.number if known.same_as is None else known.same_as)
