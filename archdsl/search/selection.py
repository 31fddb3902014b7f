"""One assignment as entries of parts, and what follows from them without an elaboration: its values, the hash of its graph, sums over parts.

Children of a candidate share what they have in common with it: a selection never changes, so what is known about one is known for all of them.
"""
from __future__ import annotations

from collections.abc import Callable, Set
from hashlib import blake2b
from typing import Any

from archdsl.elaborate.domains import Domain
from archdsl.graph import Graph, structure
from archdsl.search.domains import size_of
from archdsl.search.tree import Choice, Entry, Part, Refused

Chooser = Callable[[str, Domain], Any]
FEW, KEPT = 4, 4096
"""Hashes of an entry with so few parts are kept, so many of them."""


class Selection:
    """An entry of a part, and those of the parts below it, in their order. `path`: where the part stands, "" for the model, else with a dot."""

    __slots__ = ("_called", "_hash", "_values", "below", "entry", "flat", "part", "path")

    def __init__(self, part: Part, path: str, entry: Entry, below: tuple[Selection, ...]) -> None:
        self.part, self.path, self.entry, self.below = part, path, entry, below
        self.flat: list[Selection] | None = None
        self._values: dict[str, Any] | None = None
        self._called: bool | None = None
        self._hash: str | None = None

    def values(self, found: dict[str, Any]) -> dict[str, Any]:
        """Adds the decisions by full address. They are kept the second time: a part that is asked again is one that children share."""
        if self._values:
            found.update(self._values)
            return found
        again, into = self._values is not None, found
        self._values = {}
        if again:
            into = self._values
        path = self.path
        for a, v in self.entry.values.items():
            into[path + a] = v
        for s in self.below:
            s.values(into)
        if again:
            found.update(into)
        return found

    def domains(self, found: dict[str, Domain]) -> dict[str, Domain]:
        """Adds the domains of the decisions by full address."""
        for a, domain in self.own_domains.items():
            found[self.path + a] = domain
        for s in self.below:
            s.domains(found)
        return found

    @property
    def own_domains(self) -> dict[str, Domain]:
        """The domains of its own decisions, each as it was when the decisions before it had been made."""
        known = self.entry.figures.get(Domain)
        if known is None:
            known, own, step = {}, {}, self.part.first()
            for a, v in self.entry.values.items():
                assert isinstance(step, Choice)
                known[a] = step.domain
                step = self.part.behind(step, v, own)
                own[a] = v
            self.entry.figures[Domain] = known
        return known

    @property
    def movable(self) -> list[str]:
        """Its own decisions that have another value, by their addresses relative to the part."""
        found = self.entry.figures.get(size_of)
        if found is None:
            found = self.entry.figures[size_of] = [a for a, d in self.own_domains.items() if size_of(d) != 1]
        return found

    @property
    def all(self) -> list[Selection]:
        """It and those below."""
        if self.flat is None:
            self.flat = [self]
            for s in self.below:
                self.flat += s.all
        return self.flat

    # ---------------------------------------------------------------- the graph's hash
    @property
    def called(self) -> bool:
        """Whether its graph stays a graph of its own: one without weights and emitted values is copied into the body that applies it."""
        if self._called is None:
            self._called = template_of(self.entry).owns or any(s.called for s in self.below)
        return self._called

    def hash(self) -> str | None:
        """The hash of its graph; None where the graph has to be made to know, because a part of it is copied into its body."""
        if self._hash is None:
            self._hash = self._hashed()
        return self._hash

    def _hashed(self) -> str | None:
        if not self.entry.parts:
            return self.entry.graph.hash
        template = template_of(self.entry)
        if not template.whole:
            return None
        inside: list[str] = []
        for s in self.below:
            found = s.hash() if s.called else None
            if found is None:
                return None
            inside.append(found)
        return template.hash(tuple(inside))


class Template:
    """What the hash of an entry's graph is made of, with a hole for the hash of each part below that is called. `pieces`: text and holes (paths) in
    turn; `holes`: positions of holes in it, and of which part each is; `whole`: there is one for every part; `owns`: weights or emitted values
    besides those of the parts."""

    def __init__(self, entry: Entry) -> None:
        graph = entry.graph
        paths = {p for p, _ in entry.parts}
        marks: list[Graph] = []

        def below(g: Graph) -> str:
            marks.append(g)
            return f"\0{len(marks) - 1}\0"

        form = structure(graph, below)
        place: dict[str, str] = {}
        for op, _, attrs, _ in (n for n in form[0] if len(n) == 4):
            if op == "call":
                given = dict(attrs)
                place[given["graph"]] = given["path"]
        place.update({mark: path for path, mark in form[4]})
        self.pieces: list[str] = []
        for i, piece in enumerate(repr(form).split("\\x00")):
            if i % 2 == 0:
                self.pieces.append(piece)
                continue
            path = place.get(f"\0{piece}\0")
            self.pieces.append(path if path in paths else marks[int(piece)].hash)
        index = {p: i for i, (p, _) in enumerate(entry.parts)}
        self.holes = [(i, index[p]) for i, p in enumerate(self.pieces) if i % 2 and p in paths]
        self.whole = len({k for _, k in self.holes}) == len(index)
        self.known: dict[tuple[str, ...], str] = {}
        self.owns = bool(graph.params or graph.emits) or any(n.op == "extern" for n in graph.nodes) or any(
            g.owns_weights for p, g in graph.children.items() if p not in paths)

    def hash(self, inside: tuple[str, ...]) -> str:
        """The hash of the graph with these in the holes, one for each part. What few parts are made of comes again and again."""
        found = self.known.get(inside)
        if found is None:
            pieces = list(self.pieces)
            for i, k in self.holes:
                pieces[i] = inside[k]
            found = blake2b("".join(pieces).encode(), digest_size=16).hexdigest()
            if len(inside) <= FEW and len(self.known) < KEPT:
                self.known[inside] = found
        return found


def template_of(entry: Entry) -> Template:
    found = entry.figures.get(Template)
    if found is None:
        found = entry.figures[Template] = Template(entry)
    return found


# ---------------------------------------------------------------- making one
def descend(part: Part, choose: Chooser, path: str = "", like: Selection | None = None, touched: Set[str] = frozenset()) -> Selection | Refused:
    """Decision by decision, `choose(address, domain)` for each. `like`: what stands in this place in another assignment, which `choose` repeats but
    for what lies below the paths in `touched`; parts that are the same in both are taken over from it as they are."""
    if like is not None and like.part is part and path not in touched:
        return like
    own: dict[str, Any] = {}
    step = part.first()
    while isinstance(step, Choice):
        value = choose(path + step.address, step.domain)
        behind = part.behind(step, value, own)
        own[step.address] = value
        step = behind
    if isinstance(step, Refused):
        return step
    known = {} if like is None else {s.path: s for s in like.below}
    below: list[Selection] = []
    for p, inner in step.parts:
        at = f"{path}{p}."
        found = descend(inner, choose, at, known.get(at), touched)
        if isinstance(found, Refused):
            return found
        below.append(found)
    return Selection(part, path, step, tuple(below))
