"""The assignments of a space as a tree of alternatives and of parts.

A `Part` is the model itself, or an owner below (one pass of a labelled loop, one block) whose decisions reach nothing outside of it: the types of
its results, what it emits, requires and hands on stay the same whatever they are. Then parts beside each other are independent, and equal
parts (those that the elaborator would take from its memo) are one object: a `Part` is elaborated once for each of its own assignments, and numbers
of assignments multiply.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, TypeVar

from archdsl.cost.sizes import model_sizes
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.frame import Owner, Session
from archdsl.elaborate.model import Elaborated, elaborate
from archdsl.graph import Graph, Knob
from archdsl.records import field, record
from archdsl.search.header import Header, every, reads_itself
from archdsl.spaces import reaches
from archdsl.spec import Spec

MAX_PARTS = 4_096
"""So many parts are known to all settings of the header."""
MOST = 400
"""A part with more assignments of its own than these is not counted, and drawn from decision by decision."""
TRIES = 400
"""So many settings are tried to find one with which the rest of a body can be elaborated."""

Values = Mapping[str, Any]
T = TypeVar("T")


@record(frozen=True)
class Outcome:
    """Of one elaboration: the model, or its faults with the knobs that had been met before them."""

    made: Elaborated | None
    faults: tuple[Diagnostic, ...] = ()
    met: Mapping[str, Knob] = field(default_factory=dict)


class Trials:
    """Elaborations of one variant of a spec, in a session of its own that tells which owners there are. `fixed`: what the variant
    sets is no decision."""

    def __init__(self, spec: Spec, variant: str | None, fixed: bool = False) -> None:
        session = Session(spec.module.library)
        session.owners, session.patience = [], 1
        self.spec = Spec(spec.module, spec.decl, spec.path, spec.models, session)
        self.variant = variant
        said = self.spec.settings(variant, {})
        self.stays = said if fixed else ()
        self.header = Header(self.spec, variant, self.searches)
        self.shared = not any("." in s.address for s in said)  # else equal passes may have other settings
        self.parts: dict[Any, Part] = {}  # those that are the same below any setting of the header
        self.fixed = True  # whether figures that are asked for are at the same sizes below each of them
        self.count = 0

    def searches(self, address: str) -> bool:
        """Whether the variant leaves a knob with a domain to the search."""
        return not any(reaches(s.address, address) for s in self.stays)

    def run(self, values: Values) -> Outcome:
        session = self.spec.session
        session.met = {}
        session.owners = []
        self.count += 1
        try:
            return Outcome(elaborate(self.spec.module, self.spec.decl, self.spec.settings(self.variant, values), session))
        except ArchError as fault:
            return Outcome(None, tuple(fault.diagnostics), session.met)
        finally:
            session.met = None


@record(eq=False, slots=False)
class Entry:
    """One assignment of a part's own decisions. `values`: by address relative to the part. `parts`: what is below, by relative path. `made`: a model
    in which the part is so, and all parts below at `base`."""

    values: dict[str, Any]
    parts: tuple[tuple[str, Part], ...]
    graph: Graph
    made: Values
    index: int = 0
    figures: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def count(self) -> int:
        """How many assignments it has with those of the parts below; continuous ranges are not counted."""
        return prod(p.count for _, p in self.parts)


@record(eq=False)
class Choice:
    """The next decision of a part, by its address relative to the part. `then`: what comes behind its values, by their keys, as far as known."""

    address: str
    domain: Domain
    then: dict[Any, Choice | Entry | Refused] = field(default_factory=dict)


@record(frozen=True)
class Refused:
    """Why the decisions of a part cannot be together."""

    faults: tuple[Diagnostic, ...]


class TooMany(Exception):
    """There are more assignments than are gone through: why."""


class Reaches(Exception):
    """Decisions below an owner reach outside of it."""

    def __init__(self, place: Any) -> None:
        super().__init__(place)
        self.place = place


class Part:
    """`around`: the settings of everything outside of it in the model where it was met, `path` its address there; `base`: a setting of what is
    below it (relative addresses) with which that model can be elaborated, `graph` what it is then. `single`: whether it and all around it run once in
    a pass of the model, so that its own graph tells what it adds to a figure; `common`: whether it is the same below all settings of the header."""

    def __init__(self, root: Root, key: Any, path: tuple[str, ...], around: Values, base: Values, place: Any, graph: Graph | None = None,
                 single: bool = True, common: bool = False) -> None:
        self.root, self.key, self.path, self.around, self.base, self.place = root, key, path, around, base, place
        self.graph, self.single, self.common = graph, single, common
        self.prefix = "".join(f"{p}." for p in path)
        self.steps: dict[tuple[Any, ...], Choice | Entry | Refused] = {}
        self.signature: Any = None
        self.many = ""  # why its assignments are not gone through

    # ---------------------------------------------------------------- one assignment
    def first(self) -> Choice | Entry | Refused:
        """The first decision, or what the part is without any."""
        return self.steps.get(()) or self.step({})

    def behind(self, choice: Choice, value: Any, before: Values) -> Choice | Entry | Refused:
        """What comes behind a decision. `before`: the values of those in front of it."""
        key = value if value.__class__ is int or value.__class__ is str else self.root.trials.spec.session.key(value)
        found = choice.then.get(key)
        if found is None:
            found = choice.then[key] = self.step({**before, choice.address: value})
        return found

    def step(self, values: Values) -> Choice | Entry | Refused:
        """Behind some decisions: the next one and its domain, or what they come to, or why they cannot be."""
        key = tuple([(a, self.root.trials.spec.session.key(v)) for a, v in values.items()])
        found = self.steps.get(key)
        if found is None:
            found = self.steps[key] = self._step(dict(values))
        return found

    def _step(self, values: dict[str, Any]) -> Choice | Entry | Refused:
        here = {**self.around, **{self.prefix + a: v for a, v in values.items()}}
        outcome, below = self._settled(here)
        if outcome.made is None:
            undecided = self._undecided({a: k for a, k in outcome.met.items() if a.startswith(self.prefix)}, values)
            return undecided or Refused(outcome.faults)
        owners, graph, owner = self._found(outcome.made)
        parts = {p: o for p, o in owners.items() if o.place not in self.root.open and self._decides(graph.knobs, p)}
        own = {self.prefix + a: k for a, k in graph.knobs.items() if not any(a.startswith(p + ".") for p in parts)}
        undecided = self._undecided(own, values)
        self._confined(graph, owner)
        if undecided is not None:
            return undecided
        for a, v in values.items():
            knob = own.get(self.prefix + a)
            if knob is not None and "." in knob.address and not reads_itself(a.rsplit(".", 1)[-1], knob.domain) and not knob.allowed.contains(v):
                return Refused((Diagnostic("A0803", f"`{self.prefix + a}` lies outside of its domain with these settings", knob.span),))
        made = {**here, **below}
        found = tuple((p, self.root.part(self, p, o, made, outcome.made, graph)) for p, o in parts.items())
        return Entry(values, found, graph, made)

    def _settled(self, here: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
        """The elaboration, with settings of what is below where its own do not do."""
        trials, tries = self.root.trials, 0

        def go(below: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
            nonlocal tries
            tries += 1
            outcome = trials.run({**here, **below})
            if outcome.made is not None or tries > TRIES:
                return outcome, below
            first = outcome
            for address, knob in outcome.met.items():
                if not self._deep(address) or address in here or address in below or knob.allowed is None or knob.allowed.kind == "unreadable" \
                        or not trials.searches(address):
                    continue
                for value in every(knob.allowed) if finite(knob.allowed) else (knob.allowed.low, knob.allowed.high):
                    outcome, found = go({**below, address: value})
                    if outcome.made is not None:
                        return outcome, found
                break
            return first, below

        return go({})

    def _deep(self, address: str) -> bool:
        """Whether an address may be that of a part below."""
        return address.startswith(self.prefix) and "." in address[len(self.prefix):]

    def _undecided(self, knobs: Mapping[str, Knob], values: Values) -> Choice | None:
        for address, knob in knobs.items():
            name = address[len(self.prefix):]
            if knob.allowed is not None and name not in values and (self.path or "." in name or name not in self.root.header_values) \
                    and self.root.trials.searches(address):
                return Choice(name, knob.allowed)
        return None

    def _decides(self, knobs: Mapping[str, Knob], path: str) -> bool:
        """Whether there is something to decide below a path."""
        return any(a.startswith(path + ".") and k.allowed is not None and self.root.trials.searches(self.prefix + a) for a, k in knobs.items())

    def _found(self, made: Elaborated) -> tuple[dict[str, Owner], Graph, Owner | None]:
        """The owners below, the graph, and the owner itself, None for the model. Raises Reaches where it has become none: its body reaches weights
        of others."""
        owners, graph, owner = made.owners, made.graph, None
        for p in self.path:
            owner = owners.get(p)
            if owner is None:
                raise Reaches(self.place)
            owners, graph = owner.inside, graph.children.get(p, owner.graph)
        return owners, graph, owner

    def _confined(self, graph: Graph, owner: Owner | None) -> None:
        """Raises Reaches where what is seen from outside is not as it was for other decisions."""
        if owner is None:
            return
        seen = tuple(o.type for o in graph.outputs), tuple((a, v.type) for a, v in graph.emits.items()), graph.guards, owner.flows
        if self.signature is None:
            self.signature = seen
        elif self.signature != seen:
            raise Reaches(self.place)

    # ---------------------------------------------------------------- all of them
    @cached_property
    def entries(self) -> list[Entry]:
        """All assignments of its own. Raises TooMany, Reaches."""
        if self.many:
            raise TooMany(self.many)
        found: list[Entry] = []
        self.refused: list[Refused] = []

        def go(values: dict[str, Any]) -> None:
            step = self.step(values)
            if isinstance(step, Entry):
                step.index = len(found)
                found.append(step)
            elif isinstance(step, Choice):
                if not finite(step.domain):
                    raise self._too_many(f"has the continuous knob `{self.prefix}{step.address}`")
                for v in every(step.domain):
                    go({**values, step.address: v})
            else:
                self.refused.append(step)
            if len(found) + len(self.refused) > MOST:
                raise self._too_many(f"has more than {MOST} assignments of its own")

        go({})
        return found

    def _too_many(self, why: str) -> TooMany:
        self.many = f"`{self.prefix.removesuffix('.') or self.root.trials.spec.name}` {why}"
        return TooMany(self.many)

    @cached_property
    def count(self) -> int:
        """How many assignments it has. Raises TooMany, Reaches."""
        return sum(e.count for e in self.entries)

    @cached_property
    def steps_of_entries(self) -> list[int]:
        """How many assignments the entries up to each have."""
        return list(accumulate(e.count for e in self.entries))


def finite(domain: Domain) -> bool:
    """Whether its values can be gone through."""
    return all(map(finite, domain.items)) if domain.kind == "list" else domain.size is not None


class Root:
    """The model with the decisions of its header made. `open`: the places of owners that are not parts of their own."""

    def __init__(self, trials: Trials, header_values: dict[str, Any], open: frozenset[Any] = frozenset()) -> None:
        self.trials, self.header_values, self.open = trials, header_values, open
        self.faults = trials.header.read(header_values)[1]
        self.verdicts: dict[Any, Any] = {}  # on conditions that the header decides
        self.opened: dict[Any, Root] = {}
        self.parts: dict[Any, Part] = {}
        self.sizes: Any = None
        self.top = Part(self, "model", (), self.header_values, {}, None)

    def part(self, parent: Part, path: str, owner: Owner, made: Values, model: Elaborated, graph: Graph) -> Part:
        """The part at a path below another, `graph` in a model. Its own alternatives are gone through at once unless they are many. What the
        elaborator would take from its memo is one part, where it runs once even below all settings of the header and other parts. Raises Reaches."""
        full = (*parent.path, path)
        known = owner.key is not None and self.trials.shared
        single = parent.single and sum(n.op == "call" and n.attrs["path"] == path for n in graph.nodes) == 1
        common = known and single and self.trials.fixed and (parent.common or not parent.path)
        key = (parent.key if parent.path and not common else (), owner.key if known else full)
        parts, at = (self.trials.parts, (self.open, self._sizes(model), key)) if common else (self.parts, key)
        found = parts.get(at)
        if found is None:
            prefix = "".join(f"{p}." for p in full)
            around = {a: v for a, v in made.items() if not a.startswith(prefix)}
            base = {a[len(prefix):]: v for a, v in made.items() if a.startswith(prefix)}
            if common and len(parts) >= MAX_PARTS:
                parts.pop(next(iter(parts)))
            found = parts[at] = Part(self, key, full, around, base, owner.place, owner.graph, single, common)
            with suppress(TooMany):  # it is drawn from decision by decision
                _ = found.entries
        return found

    def _sizes(self, model: Elaborated) -> Any:
        """The sizes that its inputs have unless others are given: parts of models that differ in them cost other numbers."""
        if self.sizes is None:
            try:
                self.sizes = tuple(model_sizes(model, {}).items())
            except ArchError:
                self.sizes = id(self)
        return self.sizes

    def settled(self, do: Callable[[Root], T]) -> T:
        """Does something with the parts, again where one has turned out to be none. What comes of it does not depend on what was done before."""
        root = self
        while True:
            try:
                return do(root)
            except Reaches as fault:
                known = root.opened.get(fault.place)
                if known is None:
                    known = root.opened[fault.place] = Root(self.trials, self.header_values, root.open | {fault.place})
                root = known
