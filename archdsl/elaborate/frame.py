"""What one evaluation holds: the session (modules, memo, budget, diagnostics) and the frame of one body."""
from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.diagnostics.model import error
from archdsl.diagnostics.poison import POISON, Poisoned
from archdsl.dims import Dim, Size, symbols
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.extents import Fitting
from archdsl.elaborate.limits import LINE_STEPS, MAX_CALLS, MAX_FAULTS, MAX_STEPS, Ration, checked, limit
from archdsl.elaborate.values import Bound, Defaults, Late, OpRef, RecordValue, Template, is_list, show
from archdsl.graph import Graph, InitExpr, Mask, Node, Value, structure
from archdsl.records import field, record
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.modules import Library, Module

Fact = tuple[Size, str, Size, tuple[Size, Size] | None]
"""left, relation, right; for divisibility (dividend, divisor)."""


@record()
class Override:
    """`--set layers.*.conv = 3`: the segments that are still to be matched, the value (or the expression that gives it).

    `home`: the model's frame, in whose names the expression is read, wherever the knob lies.
    """

    segments: tuple[str, ...]
    value: Any
    expr: tree.Expr | None
    span: Span
    used: list[bool]
    home: Any = None

    @property
    def place(self) -> Span:
        """Where the value is written; the setting where that is not known."""
        return self.expr.span if self.expr is not None else self.span

    def below(self, segment: str) -> Override | None:
        head = self.segments[0]
        if head == "*" or head == segment or (head.startswith("{") and segment in [s.strip() for s in head[1:-1].split(",")]):
            return Override(self.segments[1:], self.value, self.expr, self.span, self.used, self.home) if len(self.segments) > 1 else None
        return None


def below(frame: Frame, path: str, span: Span) -> tuple[Override, ...]:
    """What of a frame's overrides is meant for owners below a path."""
    overrides = frame.overrides
    if overrides:
        frame.session.step(span, len(overrides) >> 2)
        for segment in path.split("."):
            overrides = frame.session.below(overrides, segment)
    return overrides


Overrides = tuple[Override, ...]


def _by_head(overrides: Overrides) -> dict[str, Overrides] | None:
    """What of them is meant for owners below each segment; None where one speaks of several."""
    heads = dict.fromkeys([o.segments[0] for o in overrides])
    if any(head == "*" or head[:1] == "{" for head in heads):
        return None
    found: dict[str, list[Override]] = {}
    for o in overrides:
        if len(o.segments) > 1:
            found.setdefault(o.segments[0], []).append(Override(o.segments[1:], o.value, o.expr, o.span, o.used, o.home))
    return {head: tuple(inside) for head, inside in found.items()}


@record(frozen=True)
class Owner:
    """An application with an address of its own, as those who ask are told: what its graph depends on but for settings below it (None: that cannot
    be told), its graph, what a labelled loop's pass hands on besides tensors, the owners inside, and where it is written."""

    key: Any
    graph: Graph
    flows: Any
    inside: dict[str, Owner]
    place: Any


@record(slots=False)
class Settings:
    """Overrides as a part of a key, and which of them a body uses: one that is taken from the memo has used the same."""

    overrides: tuple[Override, ...]
    used: tuple[bool, ...] = ()

    def key(self, session: Session) -> Any:
        """() without any; None where a value is an expression, which may read what no key tells."""
        if any(o.expr is not None for o in self.overrides):
            return None
        return tuple([(o.segments, session.key(o.value)) for o in self.overrides])

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """Sees which are used inside."""
        before = [o.used[0] for o in self.overrides]
        for o in self.overrides:
            o.used[0] = False
        try:
            yield
        finally:
            self.used = tuple([o.used[0] for o in self.overrides])
            for o, was in zip(self.overrides, before):
                o.used[0] = o.used[0] or was

    def use(self, used: tuple[bool, ...]) -> None:
        for o, now in zip(self.overrides, used):
            o.used[0] = o.used[0] or now


class Session:
    """One elaboration: its budget, memo of definitions and interned keys."""

    def __init__(self, library: Library):
        self.library = library
        self.variants: Any = None  # by name, once they have been read
        self.steps = 0
        self.budget = MAX_STEPS
        self.ration: Ration | None = None  # work that may be given up
        self.marks: Callable[[Any], int] | None = None  # of trees that live longer than what names in them mean
        self.shared = False  # one budget for several elaborations
        self.weights: dict[int, tuple[Any, tuple[int, int]]] = {}
        self.fitting: dict[Any, Fitting] = {}  # by sizes of a run
        self.long: dict[int, tuple[Any, Any]] = {}
        self.plain: dict[int, tuple[Any, bool]] = {}  # lists by id, and whether they hold plain values alone
        self.memo: dict[Any, Any] = {}
        self.applications: dict[Any, Any] = {}  # of ops, by form: which arguments are operands, attributes, result types
        self.keys: dict[Any, int] = {}
        self.inline_sites: set[int] = set()
        self.depth = 0
        self.known = 0
        self.facts: list[Fact] = []
        self.about: dict[tuple[int, frozenset[str]], int] = {}
        self.symbols: dict[int, frozenset[str] | None] = {}  # run-time sizes in the arguments of templates, by their keys
        self.used_defaults: set[tuple[int, int, str]] = set()  # the key of the defaults in force, the block's id, the argument
        self.stated_by: dict[tuple[int, int, str], dict[int, Any]] = {}  # the same -> the statements that said it, by id
        self.resolving: list[str] = []
        self.declared_defaults: list[Any] = []
        self.graphs: dict[Any, Graph] = {}
        self.closures: dict[int, Any] = {}  # texts of templates by id, kept so that no other gets the id
        self.free: dict[int, tuple[str, ...]] = {}
        self.plans: dict[tuple[int, int], Any] = {}  # of loops, by id and mark
        self.layouts: dict[int, tuple[Any, Any]] = {}  # by id, with the node: what was read off it
        self.headers: dict[int, Any] = {}
        self.lates = 0  # how many late numbers are in force: those of the loops around what is being elaborated
        self.waiting: dict[int, tuple[frozenset[int], Graph]] = {}
        self.proofs: dict[Any, Any] = {}
        self.told: list[Any] | None = None  # applications with their arguments, for those who ask
        self.patience = MAX_FAULTS  # a body is left behind so many faults
        self.heads: dict[int, tuple[Overrides, dict[str, Overrides] | None]] = {}  # overrides by id, and what is below each head
        self.met: dict[str, Any] | None = None  # knobs by full address that bodies with faults had declared, for those who ask
        self.owners: list[dict[str, Owner]] | None = None  # the owners in the bodies under evaluation, outermost first, for those who ask

    def begin(self) -> None:
        """Starts another elaboration of the same module: the memo stays, budgets and bookkeeping start anew."""
        if not self.shared:
            self.steps = 0
        self.depth = self.known = self.lates = 0
        self.weights.clear()
        self.long.clear()
        self.plain.clear()
        self.heads.clear()
        self.inline_sites.clear()
        self.facts.clear()
        self.used_defaults.clear()
        self.declared_defaults.clear()
        self.resolving.clear()

    def below(self, overrides: Overrides, segment: str) -> Overrides:
        """What of them is meant for owners below a segment: a candidate of a search sets a knob or three in each of many layers."""
        if not overrides:
            return ()
        known = self.heads.get(id(overrides))
        if known is None or known[0] is not overrides:
            known = self.heads[id(overrides)] = overrides, _by_head(overrides)
        if known[1] is None:
            return tuple([o for o in [o.below(segment) for o in overrides] if o])
        return known[1].get(segment, ())

    def met_in(self, builder: Builder) -> None:
        """A body has a fault: which knobs of its own it had declared by then, for those who ask."""
        if self.met is not None:
            inside = tuple(f"{path}." for path in builder.children)
            self.met.update({builder.base + a: knob for a, knob in builder.knobs.items() if not a.startswith(inside)})

    @contextmanager
    def owners_inside(self) -> Generator[dict[str, Owner], None, None]:
        """The owners that a body has, once it has been run; none unless somebody asks."""
        found: dict[str, Owner] = {}
        if self.owners is None:
            yield found
            return
        self.owners.append(found)
        try:
            yield found
        finally:
            self.owners.pop()

    def enter(self, span: Span) -> None:
        """One body more inside the others; `leave` it in a `finally`."""
        if self.depth >= MAX_CALLS:
            raise limit(f"blocks and functions are nested more than {MAX_CALLS} deep", span)
        self.depth += 1
        self.step(span, 6)

    def leave(self) -> None:
        self.depth -= 1

    def learn(self, fact: Fact) -> bool:
        """A fact about run-time sizes holds from here on: definitions elaborated before it are not reused after it, those that state it state it
        again in another elaboration. False when it contradicts what is known."""
        left, op, right, divides = fact
        known = shapes.facts()
        possible: bool | None = True
        if op == "==" and divides and isinstance(divides[1], int):
            possible = known.require_divides(divides[0], divides[1])
        elif op == "==":
            possible = known.require_equal(left, right)
        elif op in (">=", ">"):
            possible = known.require_at_least(left, right + 1 if op == ">" else right)
        elif op in ("<=", "<"):
            possible = known.require_at_least(right, left + 1 if op == "<" else left)
        self.known = self.intern(("facts", self.known, left, op, right))
        self.facts.append(fact)
        return possible is not False

    def learn_all(self, facts: tuple[Fact, ...]) -> None:
        """What a definition made before requires of run-time sizes."""
        for fact in facts:
            self.learn(fact)

    def known_of(self, template: Template, *values: Any) -> int:
        """A key of the facts that may count for a block with these arguments: those about sizes in them, and about sizes tied to these."""
        if not self.facts:
            return self.known
        names = symbols_in((template, values), self.symbols)
        if names is None:
            return self.known
        found = self.about.get((self.known, names))
        if found is None:
            ties = [(fact, fact_symbols(fact)) for fact in self.facts]
            tied, grown = set(names), True
            while grown:
                new = [own for _, own in ties if not own <= tied and not own.isdisjoint(tied)]
                tied.update(*new)
                grown = bool(new)
            facts = tuple([fact[:3] for fact, own in ties if own <= tied])
            found = self.about[self.known, names] = self.intern(("about", facts)) if facts else 0
        return found

    def step(self, span: Span, n: int = 1) -> None:
        self.steps += n
        if self.ration is not None:
            self.ration.pay(n)
        if self.steps > self.budget:
            raise error("A0602", f"this spec needs more than {self.budget:,} elaboration steps", span, "the budget ran out here",
                        help="shorten the loops, or nest fewer blocks that apply their argument several times")

    def walk(self, nodes: tuple[Node, ...]) -> None:
        """A step for each of these nodes."""
        if self.ration is None and self.steps + len(nodes) <= self.budget:
            self.steps += len(nodes)
            return
        for n in nodes:
            self.step(n.span)

    def _long_key(self, value: tuple[Any, ...]) -> int:
        """The key of a long list, computed once: each pass of a loop asks for it."""
        known = self.long.get(id(value))
        if known is None or known[0] is not value:
            known = self.long[id(value)] = value, self.intern(tuple(self.key(v) for v in value))
        return known[1]

    @contextmanager
    def one_budget(self, lines: int = 0) -> Generator[None, None, None]:
        """All elaborations inside share one budget of steps, that of a file of so many lines."""
        self.steps, self.shared, self.budget = 0, True, MAX_STEPS + LINE_STEPS * lines
        try:
            yield
        finally:
            self.shared, self.budget = False, MAX_STEPS

    def same(self, graph: Graph) -> Graph:
        """The first graph of this structure with the same of what the hash leaves out: blocks applied, knobs, written factors of weights."""
        knobs = tuple((k, id(v.domain), self.key(v.default), self.key(v.value), repr(v.allowed)) for k, v in sorted(graph.knobs.items()))
        factors = tuple((p.path, p.factors) for p in graph.params if p.factors)
        key = (structure(graph, id, typed=True), tuple(sorted(graph.applied.items())), knobs, factors)
        return self.graphs.setdefault(key, graph)

    def mark(self, node: Any) -> int:
        """What tells a tree from itself at a time when names in it meant something else: a part of every key with its id in it."""
        return 0 if self.marks is None else self.marks(node)

    def intern(self, key: Any) -> int:
        return self.keys.setdefault(key, len(self.keys) + 1)

    def key(self, value: Any) -> Any:
        """A hashable stand-in for a hyper value; templates by content. Types count: 1, 1.0 and true differ, and so do 0.0 and -0.0."""
        kind = value.__class__
        if kind is int:
            return value
        if kind is float:
            return ("float", value or repr(value))
        if kind in _SIMPLE:
            return (kind.__name__, value)
        if kind is Value:
            return ("tensor", value.dtype, value.shape)
        if kind is Late:
            return ("late", value.number)
        if is_list(value):
            return ("t", self._long_key(value) if len(value) > 64 else self.intern(tuple([self.key(v) for v in value])))
        if isinstance(value, RecordValue):
            return ("r", value.name, self.intern(tuple([(k, self.key(v)) for k, v in value.items])))
        if isinstance(value, Mask):
            return ("m", value.kind, tuple(self.key(a) for a in value.args))
        if isinstance(value, InitExpr):
            return ("i", value.op, tuple(self.key(a) for a in value.args), tuple((k, self.key(v)) for k, v in value.attrs))
        if isinstance(value, Dim):
            return ("d", value)
        if hasattr(value, "key"):
            return ("b", value.key, value.label, value.hint)
        if isinstance(value, OpRef):
            return ("op", value.op.name)
        return ("o", value)  # the object itself: the id of one that is gone may come back


_SIMPLE = frozenset({type(None), bool, str, Fraction, float})
_SIZELESS = frozenset({*_SIMPLE, int, Late, OpRef})
_NONE: frozenset[str] = frozenset()


def fact_symbols(fact: Fact) -> frozenset[str]:
    return _NONE.union(*(symbols(s) for s in (fact[0], fact[2], *(fact[3] or ()))))


def symbols_in(value: Any, known: dict[int, frozenset[str] | None]) -> frozenset[str] | None:
    """The run-time sizes in a hyper value, in the arguments of a block and in the defaults that it carries; None where a value may read others."""
    kind = value.__class__
    if kind in _SIZELESS:
        return _NONE
    if kind is Value:
        return _NONE.union(*(s.symbols for s in value.shape if type(s) is Dim))
    if kind is Dim:
        return value.symbols
    if kind is Template:
        if value.key not in known:
            entries = (e.value for e in value.defaults.entries.values())
            known[value.key] = symbols_in((*(b.value for b in value.args.values()), *entries), known)
        return known[value.key]
    if kind is InitExpr:
        value = (value.args, value.attrs)
    elif kind is RecordValue:
        value = value.items
    elif kind is Mask:
        value = value.args
    elif kind is not tuple:
        return None
    found = _NONE
    for v in value:
        inside = symbols_in(v, known)
        if inside is None:
            return None
        found = found | inside if inside else found
    return found


@record(slots=False)
class Frame:
    """One body under evaluation. `prefix`: the owner's address relative to the builder's graph (None: an unlabelled loop, which may own nothing).

    `fixed`: header names and dims, which may not be bound again. `rest`: what a header with `...` received. `args`: the arguments in force.
    `late`: numbers by argument that are filled in later. `scanning`: the state of the `scan` around.
    """

    session: Session
    module: Module
    builder: Builder
    prefix: str = ""
    vars: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Span] = field(default_factory=dict)
    defaults: Defaults = field(default_factory=Defaults)
    overrides: tuple[Override, ...] = ()
    rest: tuple[tuple[Any, ...], dict[str, Any], dict[Any, Span]] | None = None
    decl: Any = None
    dtype: str | None = None
    init: bool = False
    phase: str | None = None
    loop: Span | None = None
    emitted: int = 0
    args: dict[str, Bound] = field(default_factory=dict)
    anonymous: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()
    result: Any = None
    late: dict[int, Late] | None = None
    scanning: Any = None

    def child(self, **changes: Any) -> Frame:
        """A frame over the same variables with some fields changed."""
        other = Frame.__new__(Frame)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(changes)
        return other

    def inner(self, span: Span, **changes: Any) -> Frame:
        """The same over a copy of the variables, which costs steps when they are many."""
        self.session.step(span, 1 + (len(self.vars) >> 3))
        return self.child(vars=dict(self.vars), **changes)

    def bind(self, name: str, value: Any, span: Span) -> None:
        if name == "_":
            return
        if name in self.fixed:
            raise error("A0208", f"`{name}` is already a name of this header", span, "bound again here",
                        help=f"choose another name, for example `{name}_`")
        self.vars[name] = value


def good(value: Any) -> Any:
    """The value, unless its fault has been reported."""
    if value is POISON:
        raise Poisoned()
    return value


__all__ = ["Frame", "Override", "Session", "below", "checked", "good", "show"]
