"""Tree-structured Parzen estimators, by Optuna."""
from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import show
from archdsl.records import record
from archdsl.search.model import Candidate, Proposal, Trial
from archdsl.search.registry import strategy
from archdsl.search.strategies import encoding
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.errors import needed
from archdsl.search.strategies.plain import positive


@record()
class Seen:
    """A candidate as Optuna knows it: parameters with their distributions. `scores` None: under way."""

    member: Member
    parameters: dict[str, Any]
    distributions: dict[str, Any]
    scores: tuple[float, ...] | None


@strategy("tpe(first: int = 20, draws: int = 24, joint: bool = false, batch: int = 4)", source="Bergstra et al. 2011; arxiv 2304.11127")
class Tpe(Base):
    """Tree-structured Parzen estimator, Optuna's: models where the better trials lie and where the others do, and proposes what the first model
    finds much likelier. Decisions that are there under a condition alone are modelled from the trials that had them; several objectives are split by
    fronts and hypervolume. A proposal that the space's conditions exclude is repaired: it is taken over decision by decision into a drawn valid
    candidate, and what that could not take is recorded. One that was proposed before is mutated.

    `first`: candidates drawn before there is a model, a quarter of the budget at most. `draws`: how many draws of the first model a decision is
    chosen from. `joint`: one model for decisions that occur together, else one for each. `batch`: proposals in a round; the model counts those under
    way as bad.
    """

    def __init__(self, first: int = 20, draws: int = 24, joint: bool = False, batch: int = 4) -> None:
        self.first, self.draws, self.joint, self.batch = positive("first", first), positive("draws", draws), joint, positive("batch", batch)

    def begin(self) -> None:
        self.optuna = needed("optuna", "optuna", "tpe")
        self.seen: list[Seen] = []
        self.startup = max(1, min(self.first, self.budget // 4))

    # ---------------------------------------------------------------- proposing
    def propose(self, n: int) -> list[Proposal]:
        if sum(s.scores is not None for s in self.seen) >= self.startup:
            self.study = self._study()
        return super().propose(n)

    def next(self) -> Proposal | None:
        modelled = sum(s.scores is not None for s in self.seen) >= self.startup
        proposal = self.new(self.model if modelled else self.sample)
        if proposal is not None:
            self.seen.append(self._as_seen(Member(-1, proposal.candidate, ()), None))
            if modelled:
                self.study.add_trial(self._frozen(self.seen[-1]))
        return proposal

    def model(self) -> Proposal:
        self.study.sampler = self._sampler(self.random.fresh())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental options
            trial = self.study.ask()
            candidate = self._walk(trial)
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)  # what becomes of it is told apart: it may have been repaired
        if self.memory.has(candidate.key):
            return Proposal(self.space.mutate(candidate, self.random.fresh()), origin="mutate")
        return Proposal(candidate, origin="model")

    def _walk(self, trial: Any) -> Candidate:
        """All active decisions of a drawn candidate at once; where that is not valid, or changes which are active, one after the other in their
        order. (A trial suggests the same value again when it is asked again.)"""
        here = self.space.sample(self.random.fresh())
        decisions = self.space.decisions(here)
        wanted = {address: self._value(trial, address, domain, here) for address, domain in decisions.items()}
        try:
            found = self.space.candidate(wanted)
            if list(found) == list(here):
                return found
        except ArchError:
            pass  # the walk finds out which of them, and says so
        decided: dict[str, Any] = {}
        repaired: list[str] = []
        while left := [address for address in here if address not in decided]:
            value = self._value(trial, left[0], self.space.decisions(here)[left[0]], here)
            here = self._with(here, decided, left[0], value, repaired)
            decided = {a: here[a] for a in (*decided, left[0])}
        return Candidate(here, here.key, (*here.repaired, *repaired))

    def _with(self, here: Candidate, decided: Mapping[str, Any], address: str, value: Any, repaired: list[str]) -> Candidate:
        """The candidate with another value: with everything else as it is, else with what is not decided yet at its default, else as it was."""
        if same(here[address], value):
            return here
        fault = None
        for others in (here, decided):
            try:
                return self.space.candidate({**others, address: value})
            except ArchError as told:
                fault = told
        assert fault is not None
        repaired.append(f"{address} stays {show(here[address])}: {fault.diagnostics[0].message}")
        return here

    def _value(self, trial: Any, address: str, domain: Domain, here: Candidate) -> Any:
        value = here[address]
        for slot in encoding.slots({address: domain}):
            value = encoding.written(value, slot.path[1:], self._suggest(trial, slot))
        return value

    def _suggest(self, trial: Any, slot: encoding.Slot) -> Any:
        count = slot.domain.size
        if count is None:
            return trial.suggest_float(slot.name, float(slot.domain.low), float(slot.domain.high), log=slot.domain.log)
        if slot.domain.kind == "choice":
            return slot.domain.values[trial.suggest_categorical(slot.name, range(count))]
        return encoding.value_at(slot.domain, trial.suggest_int(slot.name, 0, count - 1))

    # ---------------------------------------------------------------- what Optuna is told
    def _study(self) -> Any:
        """A study in memory with everything seen so far. It is made anew for each round, so that nothing in it outlives the state."""
        logging = self.optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            study = self.optuna.create_study(directions=["minimize"] * len(self.objectives))
        finally:
            logging.set_verbosity(before)
        study.add_trials([self._frozen(s) for s in self.seen])
        return study

    def _sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=0, n_ei_candidates=self.draws, multivariate=self.joint,
                                                   group=self.joint, constant_liar=True, gamma=lambda n: min(math.ceil(math.sqrt(n)), 25))

    def _frozen(self, seen: Seen) -> Any:
        state = self.optuna.trial.TrialState
        return self.optuna.create_trial(params=seen.parameters, distributions=seen.distributions, values=seen.scores,
                                        state=state.RUNNING if seen.scores is None else state.COMPLETE)

    def _as_seen(self, member: Member, scores: tuple[float, ...] | None) -> Seen:
        kinds = self.optuna.distributions
        parameters: dict[str, Any] = {}
        distributions: dict[str, Any] = {}
        for slot in encoding.slots(self.space.decisions(member.candidate)):
            value, count = encoding.read(member.candidate, slot), slot.domain.size
            if count is None:
                parameters[slot.name] = float(value)
                distributions[slot.name] = kinds.FloatDistribution(float(slot.domain.low), float(slot.domain.high), log=slot.domain.log)
            else:
                categorical = slot.domain.kind == "choice"
                parameters[slot.name] = encoding.position(slot.domain, value)
                distributions[slot.name] = kinds.CategoricalDistribution(range(count)) if categorical else kinds.IntDistribution(0, count - 1)
        return Seen(member, parameters, distributions, scores)

    # ---------------------------------------------------------------- learning, state
    def feedback(self, trials: Sequence[Trial]) -> None:
        back = {t.candidate.key for t in trials}
        self.seen = [s for s in self.seen if s.scores is not None or s.member.candidate.key not in back]
        super().feedback(trials)

    def learn(self, member: Member) -> None:
        at = next((i for i, s in enumerate(self.seen) if s.scores is None), len(self.seen))  # done ones first, as after `load`
        self.seen.insert(at, self._as_seen(member, member.scores))

    def save(self) -> dict[str, Any]:
        return {"startup": self.startup, "done": self.dump([s.member for s in self.seen if s.scores is not None]),
                "open": self.dump([s.member for s in self.seen if s.scores is None])}

    def load(self, state: Mapping[str, Any]) -> None:
        self.startup = state["startup"]
        self.seen = [self._as_seen(m, m.scores) for m in self.members(state["done"])]
        self.seen += [self._as_seen(m, None) for m in self.members(state["open"])]

