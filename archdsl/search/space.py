"""The space that a spec's knobs span: drawing, reading and costing its candidates. Free of torch."""
from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from random import Random
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.hints import mend, mend_address
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.values import show
from archdsl.passes.manager import read_all, transformed
from archdsl.search import vary
from archdsl.search.clocks import Clocks
from archdsl.search.counting import Counted
from archdsl.search.domains import gap, values_of
from archdsl.search.empty import nothing
from archdsl.search.figures import HOLDS, Figure, Limit, figure, read_limits
from archdsl.search.model import Candidate, Remembered
from archdsl.search.plain import from_plain, to_plain
from archdsl.search.selection import Selection, descend
from archdsl.search.sums import Sums
from archdsl.search.tree import Refused, Root, Trials, Values
from archdsl.source import Source, Span
from archdsl.spaces import spaces_of
from archdsl.spec import Spec

MAX_ROOTS = 512
"""So many settings of the header are kept, with what is below them."""
KEPT = 100_000
"""So many figures that need a whole elaboration are kept."""


class Drawn(Candidate):
    """A candidate with the selection that it is."""

    __slots__ = ("selection",)

    def __init__(self, values: Mapping[str, Any], key: str, selection: Selection, repaired: Sequence[str] = ()) -> None:
        super().__init__(values, key, repaired)
        self.selection = selection


class SearchSpace:
    """Every candidate of a variant: a value of its domain for each active decision, such that the model can be built and keeps within the limits.
    Made by `spec.space(…)`; `archdsl.search.model.Space` says what the methods do."""

    def __init__(self, spec: Spec, name: str | None = None, variant: str | None = None, limits: Sequence[str] = (),
                 read: Sequence[Limit] | None = None, fixed: bool = False) -> None:
        written = _written(spec, name)
        self.trials = Trials(spec, variant, fixed)
        self.spec, self.variant, self.name, self.given, self.fixed = self.trials.spec, variant, name, tuple(limits), fixed
        self.header = self.trials.header
        self.limits = read_limits(self.spec, tuple(limits), written) if read is None else list(read)
        self.trials.fixed = all(f.fixed for n in self.limits for f in n.figures)
        self.transforms = spec.transforms(variant)
        self.drawn = self.accepted = 0
        self._roots: dict[tuple[Any, ...], Root] = {}
        self._figures: dict[str, Figure] = {}
        self._known: dict[tuple[str, str], Any] = {}
        self._made: dict[tuple[Any, ...], Elaborated] = {}
        self.clocks = Clocks()
        knobs = {a for a, k in self.spec.source(variant).knobs.items() if k.allowed is not None}
        if not any(map(self.trials.searches, knobs)):
            raise error("A0801", f"`{spec.name}` has no knob with a domain{f' that `{variant}` does not set' if knobs else ''}: "
                        "there is nothing to search", spec.decl.name_span, "this model",
                        help="without `--fixed`, knobs that the variant sets are searched as well" if knobs else
                        "`hidden: int = 64 in {64, 128}` gives a knob a domain, `choose` a block")
        self.sums = Sums(self)
        self.counted = Counted(self)

    def limited(self, limits: Sequence[Limit]) -> SearchSpace:
        """The same assignments within other limits. What was elaborated is shared where figures are at the same sizes."""
        found = SearchSpace(self.spec, None, self.variant, read=limits, fixed=self.fixed)
        if found.trials.fixed == self.trials.fixed:
            found.trials, found.spec, found.header = self.trials, self.spec, self.header
        return found

    def __repr__(self) -> str:
        return f"SearchSpace({self.spec.path}:{self.spec.name}, {len(self.limits)} limits)"

    # ---------------------------------------------------------------- how many there are
    @property
    def size(self) -> int | None:
        return self.counted.size

    @property
    def bounds(self) -> tuple[int, int | None, str]:
        """At least and at most so many assignments (None: no end), and why they are not counted; twice the size and "" where they are."""
        return self.counted.bounds

    @property
    def uniform(self) -> bool:
        """Whether each valid assignment is drawn as often as any other."""
        return self.counted.uniform

    @property
    def acceptance(self) -> float | None:
        """The share of what was drawn so far that was valid; None before the first draw."""
        return self.accepted / self.drawn if self.drawn else None

    # ---------------------------------------------------------------- assignments
    def root(self, values: Values) -> Root:
        """The model with these values in its header."""
        key = tuple([self.spec.session.key(values[n]) for n in self.header.names])
        found = self._roots.get(key)
        if found is None:
            if len(self._roots) >= MAX_ROOTS:
                self._roots.pop(next(iter(self._roots)))
            found = self._roots[key] = Root(self.trials, {n: values[n] for n in self.header.names})
        return found

    @property
    def roots(self) -> list[Root]:
        """Those that were looked at last."""
        return list(self._roots.values())

    def select(self, header: Values, choose: Any, like: Selection | None = None, touched: Set[str] = frozenset()) -> Selection | Refused:
        """The assignment with these values in the header, `choose(address, domain)` for each decision below; `like`, `touched`: as for `descend`."""
        root = self.root(header)
        if root.faults:
            return Refused(tuple(root.faults))
        return root.settled(lambda r: descend(r.top, choose, "", like, touched))

    def drawn_as(self, selection: Selection, repaired: Sequence[str] = ()) -> Drawn:
        """The candidate that an assignment is; its limits are known to hold. Raises ArchError where the whole cannot be made."""
        values = selection.values(dict(selection.part.root.header_values))
        key = None if self.transforms else selection.hash()
        return Drawn(values, self.model(values).graph.hash if key is None else key, selection, repaired)

    def finished(self, selection: Selection, repaired: Sequence[str] = ()) -> Drawn | Refused:
        """The candidate that an assignment is, or the limit that it breaks."""
        try:
            found = self.drawn_as(selection, repaired)
        except ArchError as fault:
            return Refused(tuple(fault.diagnostics))
        for limit in self.limits:
            if not self.holds(limit, found):
                return Refused((Diagnostic("A0803", f"`{limit.text}` does not hold", limit.node.span),))
        return found

    def holds(self, limit: Limit, candidate: Drawn) -> bool:
        """Whether a candidate keeps within a limit; one that does not have the figure does not."""
        root = candidate.selection.part.root
        if not limit.figures and not limit.addresses:
            if limit not in root.verdicts:
                root.verdicts[limit] = limit.holds(self.spec, self._base(candidate), {}, candidate)
            return root.verdicts[limit]
        for f in limit.figures:
            if f.is_measured:
                self.clocks.table(f)  # a device that is not there is no reason to refuse a candidate
        try:
            figures = {f.text: self.figure(candidate, f) for f in limit.figures}
        except ArchError:
            return False
        if limit.test is not None:
            if limit not in root.verdicts:
                root.verdicts[limit] = limit.bound(self.spec, self._base(candidate))
            return HOLDS[limit.test[1]](figures[limit.test[0].text], root.verdicts[limit])
        return limit.holds(self.spec, self._base(candidate), figures, candidate)

    def _base(self, candidate: Drawn) -> Elaborated:
        return self.source(candidate.selection.entry.made)

    # ---------------------------------------------------------------- models
    def source(self, values: Values) -> Elaborated:
        """The model with these settings, before transforms. Raises ArchError for those that cannot be built."""
        key = tuple([(a, self.spec.session.key(v)) for a, v in values.items()])
        found = self._made.get(key)
        if found is None:
            outcome = self.trials.run(values)
            if outcome.made is None:
                raise ArchError(*outcome.faults)
            if len(self._made) >= 32:
                self._made.pop(next(iter(self._made)))
            found = self._made[key] = outcome.made
        return found

    def model(self, values: Values) -> Elaborated:
        """The model with these settings, behind the variant's transforms."""
        made = self.source(values)
        if not self.transforms:
            return made
        return transformed(made, read_all(self.spec.module, self.spec.session, made, self.transforms), self.spec.session)

    # ---------------------------------------------------------------- the interface
    def sample(self, seed: int) -> Drawn:
        found = self.counted.find(Random(seed))
        if found is None:
            raise nothing(self)
        return found

    def at(self, number: int) -> Drawn | None:
        left = number

        def digit(domain: Domain) -> Any:
            nonlocal left
            if domain.kind == "list":
                return tuple(map(digit, domain.items))
            if domain.size is None:
                raise ValueError(f"{domain} is continuous")
            values = values_of(domain)
            left, position = divmod(left, len(values))
            return values[position]

        header: dict[str, Any] = {}
        for n in self.header.order:
            header[n] = digit(self.header.domain(n, header))
        selection = self.select(header, lambda _, domain: digit(domain))
        found = selection if isinstance(selection, Refused) or left else self.finished(selection)
        return found if isinstance(found, Drawn) else None

    def mutate(self, candidate: Candidate, seed: int, strength: int = 1) -> Drawn:
        return vary.mutated(self, self.own(candidate), Random(seed), strength)

    def crossover(self, a: Candidate, b: Candidate, seed: int) -> Drawn:
        return vary.crossed(self, self.own(a), self.own(b), Random(seed))

    def own(self, candidate: Candidate) -> Drawn:
        """The candidate with its selection, whoever made it."""
        candidate = candidate.made if isinstance(candidate, Remembered) else candidate
        if isinstance(candidate, Drawn) and candidate.selection.part.root.trials is self.trials:
            return candidate
        return self.candidate(candidate)

    def candidate(self, values: Mapping[str, Any]) -> Drawn:
        if not isinstance(values, Mapping) or not all(isinstance(a, str) for a in values):
            said = type(values).__name__ if not isinstance(values, Mapping) else repr(next(a for a in values if not isinstance(a, str)))
            raise TypeError(f"a candidate maps the addresses of decisions to values, {{'depth': 4}}: this is {said}")
        header: dict[str, Any] = {}
        defaults = {a: k.value for a, k in self.spec.source(self.variant).knobs.items()}
        used: set[str] = set()

        def pick(address: str, domain: Domain, default: Any) -> Any:
            used.add(address)
            value = from_plain(values[address], domain) if address in values else default
            if not domain.contains(value):
                raise _outside(address, value, domain)
            return value

        for n in self.header.order:
            header[n] = pick(n, self.header.domain(n, header), defaults[n])
        selection = self.select(header, lambda a, d: pick(a, d, self._default(a, d, defaults)))
        if isinstance(selection, Refused):
            raise _not_in_space(selection.faults)
        for a, v in values.items():
            if a not in used:
                raise error("A0803", f"`{a}` is no decision of this candidate", _span(a, v), "not active here",
                            help=mend_address(a, sorted(used), _span(a, v))["help"] or "a decision below an arm exists where the arm is chosen")
        found = self.finished(selection)
        if isinstance(found, Refused):
            raise _not_in_space(found.faults)
        return found

    def _default(self, address: str, domain: Domain, defaults: Values) -> Any:
        """The spec's value of a knob of the body; of one that is not there at the defaults, that of another of its kind, else the first that fits."""
        return defaults[address] if address in defaults and domain.contains(defaults[address]) else next(iter(vary.listed_or_drawn(domain)))

    def decisions(self, candidate: Candidate) -> Mapping[str, Domain]:
        drawn = self.own(candidate)
        found = {n: self.header.domain(n, drawn) for n in self.header.names}
        return drawn.selection.domains(found)

    def distance(self, a: Candidate, b: Candidate) -> float:
        if a == b:
            return 0.0
        first = self.decisions(a)
        addresses = dict.fromkeys((*a, *b))
        return sum(gap(first.get(n), a[n], b[n]) if n in a and n in b else 1.0 for n in addresses) / len(addresses)

    def costs(self, candidate: Candidate, names: Sequence[str]) -> dict[str, float]:
        drawn = self.own(candidate)
        found: dict[str, float] = {}
        for name in names:
            if name not in self._figures:
                self._figures[name] = figure(self.spec, name)
            found[name] = self.figure(drawn, self._figures[name])
        return found

    def figure(self, candidate: Drawn, asked: Figure) -> Any:
        """One figure of a candidate: a sum over its parts where it is one, else of the whole model, kept by the key. Raises ArchError where the
        model has none."""
        apart = not self.transforms and (asked.fixed or not self.trials.fixed)
        if apart and asked.additive:
            return self.sums.total(candidate.selection, asked)
        if apart and asked.is_state and (found := self.sums.state(candidate.selection, asked)) is not None:
            return found
        at = candidate.key, asked.text
        if asked.is_measured:
            if at not in self._known:
                self._known[at] = self.clocks.seconds(self.spec, self.model(candidate), asked)
            return self._known[at]
        if asked.counted is not None:
            at = repr(sorted(candidate.items(), key=str)), asked.text
        if at not in self._known:
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            try:
                self._known[at] = asked.of(self.spec, self.model(candidate))
            except ArchError as fault:
                self._known[at] = fault
        found = self._known[at]
        if isinstance(found, ArchError):
            raise found
        return found

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        return dict(candidate.knobs) if isinstance(candidate, Remembered) else {a: to_plain(v) for a, v in candidate.copy().items()}

    def from_json(self, knobs: Mapping[str, Any]) -> Drawn:
        return self.candidate(knobs)


def _span(address: str, value: Any) -> Span:
    text = f"{address} = {value if isinstance(value, str) else show(value)}"
    return Span(Source("candidate", text), 0, len(text))


def _outside(address: str, value: Any, domain: Domain) -> ArchError:
    if domain.kind == "unreadable":
        return ArchError(*domain.fault) if domain.fault else error("A0803", f"`{address}` has no values with these settings", _span(address, value))
    return error("A0803", f"`{address}` lies outside of its domain: {show(value)}", _span(address, value), "not in the space",
                 help=f"with these settings its domain is {domain}")


def _not_in_space(faults: Sequence[Diagnostic]) -> ArchError:
    if any(d.code == "A0803" for d in faults):
        return ArchError(*faults)
    first = faults[0]
    return error("A0803", f"these settings do not fit together: {first.message}", first.span, first.label, labels=first.labels, notes=first.notes,
                 help=first.help)


def _written(spec: Spec, name: str | None) -> tuple[Any, ...]:
    if name is None:
        return ()
    known = spaces_of(spec)
    if name not in known:
        span = Span(Source("space", name), 0, len(name))
        said: Any = mend(name, known, span, f"it has {', '.join(known)}") if known else {"help": "the file declares none for it"}
        raise error("A0805", f"`{spec.name}` has no space `{name}`", span, "no such space", **said)
    return known[name].limits


__all__ = ["Drawn", "SearchSpace"]
