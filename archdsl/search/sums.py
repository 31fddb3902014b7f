"""Figures of an assignment as sums over its parts: what each entry adds, found once in a whole model. Bytes of the state are a sum but for the
counters of positions, of which a model has each once if any of its parts needs it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.cost import inside, state
from archdsl.cost.memory import BYTES
from archdsl.dims import evaluate
from archdsl.graph import Graph, Value
from archdsl.records import record
from archdsl.search.figures import Figure, Reading
from archdsl.streaming.definition import POSITION, START
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.search.selection import Selection
    from archdsl.search.space import SearchSpace
    from archdsl.search.tree import Entry, Part, Values

COUNTERS = (POSITION, START)


@record(frozen=True)
class Share:
    """Of the bytes of the state: those of an entry's own tensors, the counters that it reads itself, and the bytes that each of these has. `apart`:
    whether that says all; where a part is copied into its body, looks ahead, or decides whether rows begin together, it does not."""

    bytes: int
    needs: frozenset[str]
    each: tuple[int, int]
    apart: bool


class Sums:
    """What entries add to figures."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.references: dict[tuple[Any, ...], Any] = {}

    def total(self, selection: Selection, asked: Figure) -> Any:
        """A figure of an assignment: of the model with its parts at their base, and what each part differs from that."""
        text = asked.text
        try:
            return sum([s.entry.figures[text] for s in selection.all])
        except KeyError:
            return sum([self.own(s.part, s.entry, asked) for s in selection.all])

    def own(self, part: Part, entry: Entry, asked: Figure) -> Any:
        """What an entry adds to the figure of a model whose part is at its base; for the model itself, all."""
        found = entry.figures.get(asked.text)
        if found is None:
            found = self._inside(part, entry, asked)
            if found is None:
                found = self._in_model(part, entry, asked)
            entry.figures[asked.text] = found
        return found

    def _in_model(self, part: Part, entry: Entry, asked: Figure) -> Any:
        """What an entry adds, by whole models."""
        space = self.space
        found = asked.of(space.spec, space.source(entry.made))
        if part.path:
            at = part, asked.text
            if at not in self.references:
                self.references[at] = asked.of(space.spec, space.source(_base(part)))
            found -= self.references[at]
        return found

    def _inside(self, part: Part, entry: Entry, asked: Figure) -> int | None:
        """What an entry adds, by its graph alone; None where that does not tell."""
        name = asked.text.split("(")[0]
        if not part.path or not part.single or part.graph is None or name not in ("macs", "bops"):
            return None
        at = part, "inside", asked.text
        if at not in self.references:
            made = self.space.source(_base(part))
            named = asked.node.args if isinstance(asked.node, tree.Call) else ()
            settled = Reading(self.space.spec, made).settled({a.name: a.value for a in named if a.name is not None})
            self.references[at] = settled, inside(settled[0], part.graph, name, *settled[1:])
        (made, sizes, dtype), base = self.references[at]
        found = None if base is None else inside(made, entry.graph, name, sizes, dtype)
        return None if found is None or base is None else found - base

    # ---------------------------------------------------------------- the state
    def state(self, selection: Selection, asked: Figure) -> int | None:
        """Bytes of the state of an assignment; None where its parts do not tell. Raises ArchError where there is none."""
        shares = [s.entry.figures.get(asked.text) or self.share(s.part, s.entry, asked) for s in selection.all]
        if any(not s.apart for s in shares):
            return None
        needs: frozenset[str] = frozenset().union(*{s.needs for s in shares})
        own = sum([s.bytes for s in shares])
        if not own and not needs:
            needs = frozenset((POSITION,))  # a state is never empty
        return own + sum([n for c, n in zip(COUNTERS, shares[0].each) if c in needs])

    def share(self, part: Part, entry: Entry, asked: Figure) -> Share:
        found = entry.figures.get(asked.text)
        if found is None:
            found = self._share(part, entry, asked, entry.made)
            if part.path:
                at = part, asked.text
                if at not in self.references:
                    self.references[at] = self._share(part, entry, asked, _base(part))
                base = self.references[at]
                found = Share(found.bytes - base.bytes, found.needs, found.each, found.apart and base.each == found.each)
            entry.figures[asked.text] = found
        return found

    def _share(self, part: Part, entry: Entry, asked: Figure, values: Values) -> Share:
        made = self.space.source(values)
        named = asked.node.args if isinstance(asked.node, tree.Call) else ()
        _, sizes, dtype = Reading(self.space.spec, made).settled({a.name: a.value for a in named if a.name is not None})
        streamed, bytes, at = state(made, sizes, dtype)
        graph: Graph | None = streamed.graph
        for p in part.path:
            graph = next((n.attrs["graph"] for n in graph.nodes if n.op == "call" and n.attrs["path"] == p), None) if graph is not None else None
        own = sum(n for slot, n in zip(streamed.slots, bytes) if slot.address not in COUNTERS)
        rows = evaluate(streamed.batch, at) if streamed.batch is not None else 0
        each = BYTES["int"], BYTES["int"] * rows
        if graph is None or streamed.delay or streamed.batch is not None and not streamed.rows:  # what meets a late value is kept, wherever it is
            return Share(own, frozenset(), each, False)
        below = {p for p, _ in entry.parts}
        called = {n.attrs["path"] for n in graph.nodes if n.op == "call"}
        needs = _read(graph, len(entry.graph.inputs), below)
        if not part.path and streamed.longest is not None:
            needs |= {POSITION}
        return Share(own, needs, each, below <= called)


def _base(part: Part) -> Values:
    return {**part.around, **{part.prefix + a: v for a, v in part.base.items()}}


def _read(graph: Graph, given: int, parts: set[str]) -> frozenset[str]:
    """The counters that a graph reads besides the parts below. `given`: how many inputs it had before it had a state."""
    counters = {v: v.node.attrs["name"] for v in graph.inputs[given:] if v.node.attrs["name"] in COUNTERS}
    found: set[str] = set()
    for node in graph.nodes:
        moves_on = node.op == "add" and node.name == POSITION and Value(node) in graph.outputs
        if not moves_on and not (node.op == "call" and node.attrs["path"] in parts):
            found.update(counters[v] for v in node.operands() if v in counters)
    return frozenset(found)
