"""What a pass is given: the graph laid open, what its selector chose, its decisions, and the ways to end."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Label, error
from archdsl.graph import STRUCTURE, Graph, Node, Value
from archdsl.passes.contract import Contract, Phase
from archdsl.passes.flat import Flat, known
from archdsl.records import field, record
from archdsl.source import NOWHERE, Span
from archdsl.weightmap import Entry, WeightMap
from archdsl.weightmap import Step as MapStep

if TYPE_CHECKING:
    from archdsl.passes.step import Step


@record()
class Rewrite:
    """What a step makes of a graph. `values`: address -> the expression of the old graph's weights that this new weight holds; `names`: where the
    weights come from that are old ones, moved about; one that stands in neither is the old one of its address. `undecided`: the step, where it was
    taken without the decisions that fill its weights."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    names: WeightMap = field(default_factory=WeightMap)
    notes: tuple[str, ...] = ()
    contract: Contract | None = None
    undecided: Step | None = None


class Edit(Flat):
    """A `Flat` under one step. `chosen`: ids of the nodes that the selector found; `decisions`: address -> JSON value; `notes`: what the user is
    told of the result; `values`: new weights and the expressions that they hold; `phases`: those in which the rewrite holds (a body narrows them)."""

    def __init__(self, graph: Graph, step: Step, facts: Any = None, decisions: dict[str, Any] | None = None, tables: dict[str, Any] | None = None):
        super().__init__(graph, facts)
        self.step, self.decisions, self.tables = step, decisions or {}, tables or {}
        self.notes: list[str] = []
        self.values: dict[str, Value] = {}
        self.phases: tuple[Phase, ...] = ("train", "eval")
        self._stages: dict[int, tuple[Node, int]] = {}  # the node too, so that no other gets its id
        self.moves: list[Entry] = []
        self.chosen: frozenset[int] | None = None
        if step.selector is not None:
            from archdsl.passes.selectors import select

            self.chosen = frozenset(id(n) for n in select(self, step.selector, step.span, self.tables))

    def selected(self, op: str | None = None) -> list[Node]:
        """The nodes that the step is about, in order of evaluation: all without a selector; those of one op where it is given. Raises ValueError
        for the name of no op."""
        if op is not None and op not in STRUCTURE:
            known(op)
        return [n for n in self.nodes if (self.chosen is None or id(n) in self.chosen) and (op is None or n.op == op)]

    def stage(self, value: Value) -> int:
        """Of what a value is made: CLOSED, WEIGHT or DATA (expressions.py)."""
        from archdsl.passes.expressions import DATA, WEIGHT, own_stage

        known = self._stages
        stack = [value.node]
        while stack:
            n = stack[-1]
            waiting = [v.node for v in n.operands() if id(v.node) not in known]
            if waiting and id(n) not in known:
                stack += waiting
                continue
            stack.pop()
            before = max((known[id(v.node)][1] for v in n.operands()), default=0)
            known.setdefault(id(n), (n, WEIGHT if n.op == "param" else DATA if before == DATA else max(before, own_stage(n))))
        return known[id(value.node)][1]

    def note(self, text: str) -> None:
        """Says something about the result that the user will want to know."""
        self.notes.append(text)

    def refuse(self, reason: str, node: Node | None = None, label: str = "", *, labels: Iterable[tuple[Node, str]] = (),
               help: tuple[str, ...] | str = (), notes: tuple[str, ...] = ()) -> ArchError:
        """A0564: the graph does not fit. `node` is what stands in the way; its source line is shown. Without a help of its own, the message tells how
        to go on without the step, or with it on a part."""
        where = self.written(node) if node is not None else self.source.span
        at = f" (at `{self.address(node)}`)" if node is not None and self.address(node) else ""
        marks = tuple(Label(self.written(n), text) for n, text in labels if self.written(n) != where)
        if node is not None and node.span != where:
            marks = (*marks, Label(node.span, f"this `{node.op}`"))
        if self.step.span.source is not NOWHERE.source:
            marks = (*marks, Label(self.step.span, "the step"))
        message = f"`{self.step.name}` does not fit this model: {reason}{at}"
        part = f"`{self.step.name} on SELECTOR` limits the step to a part of the model, for example `on layers[:4]`"
        usual = "there is nothing here for this step: leave it out" if node is None else part
        return error("A0564", message, where, label or "in the way", labels=marks, notes=notes, help=help or usual)

    def bake(self, values: Iterable[Value]) -> None:
        """Leaves weights in place of these expressions of weights; they hold what the expressions give."""
        from archdsl.passes.expressions import leave_weights

        made = leave_weights(self, list(values))
        self.values.update(made)
        self._tell_untied(made)

    def _tell_untied(self, made: dict[str, Value]) -> None:
        """Notes of new matrices that were one weight with others, as a head with its embedding: the model has more numbers than before."""
        from archdsl.passes.expressions import leaves

        shape = {a: v.type.shape for a, v in made.items() if len(v.type.shape) > 1}
        was = {a: [b for b in leaves(made[a]) if b != a and self.params[b].type.shape == s] for a, s in shape.items()}
        left = {n.attrs["path"] for n in self.live() if n.op == "param"} if any(was.values()) else set()
        for address, others in was.items():
            if tied := [b for b in others if b in left]:
                self.note(f"`{address}` is no longer tied to `{tied[0]}`: they hold different numbers now")

    def move(self, source: tuple[str, ...], target: tuple[str, ...], *steps: MapStep) -> None:
        """Says that new weights (declared with `own`) are old ones, renamed, sliced, transposed or joined: an entry of the names' map."""
        self.moves.append(Entry(source, target, steps))

    def written(self, node: Node) -> Span:
        """Where the user wrote what a node is of: the application in their own text that led to it, for a node inside a library block."""
        spans = [node.span, *(s.call.span for s in self.scope(node).chain() if s.call is not None)]
        return next((s for s in spans if s.source.text and not s.source.path.startswith("std/")), node.span)

    def place(self, node: Node) -> str:
        """`net.arch:12, at layers.0.mlp`, for notes."""
        span, address = self.written(node), self.address(node)
        line = f"{span.source.path}:{span.source.position(span.start)[0]}" if span.source.text else ""
        return ", at ".join(t for t in (line, f"`{address}`" if address else "") if t)

    def places(self, nodes: Iterable[Node | None]) -> str:
        """` (net.arch:12, at layers.0.mlp; …)`: the places of some nodes, behind a word; of many the first three."""
        at = [self.place(n) for n in nodes if n is not None]
        return f" ({'; '.join(at[:3])}{f'; and {len(at) - 3} more' if len(at) > 3 else ''})" if at else ""

    def note_blocked(self, blocked: Iterable[tuple[Node, str]], one: str, more: str) -> None:
        """A note for each reason why nodes stay as they are: `one` begins it for a single node, `more` for several, behind their number."""
        alike: dict[str, list[Node]] = {}
        for n, reason in blocked:
            alike.setdefault(reason, []).append(n)
        for reason, nodes in alike.items():
            self.note(f"{one if len(nodes) == 1 else f'{len(nodes)} {more}'}{self.places(nodes)}: {reason}")

    def finish(self) -> Rewrite:
        """What was made, the graph folded when it is looked at: no edit may follow."""
        from archdsl.passes.folding import folded

        return Rewrite(folded(self), dict(self.values), WeightMap(tuple(self.moves)), tuple(self.notes))
