"""What one evaluation holds: the session (modules, memo, budget, diagnostics) and the frame of one body."""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.diagnostics.model import Collector, error
from archdsl.dims import Dim, Size
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.values import POISON, Bound, Defaults, Late, OpRef, Poisoned, RecordValue, show
from archdsl.graph import Graph, InitExpr, Mask, Value
from archdsl.records import field, record
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.modules import Library, Module

Fact = tuple[Size, str, Size, tuple[Size, Size] | None]
"""left, relation, right; for divisibility (dividend, divisor)."""
MAX_STEPS = 400_000
MAX_ITEMS = 200_000
MAX_BITS = 4096


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

    def below(self, segment: str) -> Override | None:
        head = self.segments[0]
        if head == "*" or head == segment or (head.startswith("{") and segment in [s.strip() for s in head[1:-1].split(",")]):
            return Override(self.segments[1:], self.value, self.expr, self.span, self.used, self.home) if len(self.segments) > 1 else None
        return None


def below(overrides: tuple[Override, ...], path: str) -> tuple[Override, ...]:
    """What of these overrides is meant for owners below a path."""
    for segment in path.split("."):
        overrides = tuple(o for o in (o.below(segment) for o in overrides) if o)
    return overrides


class Session:
    """One elaboration: its budget, memo of definitions and interned keys."""

    def __init__(self, library: Library):
        self.library = library
        self.collector = Collector()
        self.steps = 0
        self.memo: dict[Any, Any] = {}
        self.keys: dict[Any, int] = {}
        self.inline_sites: set[int] = set()
        self.depth = 0
        self.known = 0
        self.facts: list[Fact] = []
        self.used_defaults: set[tuple[int, str]] = set()
        self.resolving: list[str] = []
        self.declared_defaults: list[Any] = []
        self.graphs: dict[Any, Graph] = {}
        self.closures: dict[int, Any] = {}  # texts of templates by id, kept so that no other gets the id
        self.free: dict[int, tuple[str, ...]] = {}
        self.plans: dict[int, Any] = {}
        self.lates = 0
        self.proofs: dict[Any, Any] = {}

    def begin(self) -> None:
        """Starts another elaboration of the same module: the memo stays, budgets and bookkeeping start anew."""
        self.steps = self.depth = self.known = 0
        self.inline_sites.clear()
        self.facts.clear()
        self.used_defaults.clear()
        self.declared_defaults.clear()
        self.resolving.clear()

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

    def step(self, span: Span, n: int = 1) -> None:
        self.steps += n
        if self.steps > MAX_STEPS:
            raise error("A0602", f"this spec needs more than {MAX_STEPS:,} elaboration steps", span, "the budget ran out here",
                        help="shorten the loops, or nest fewer blocks that apply their argument several times")

    def same(self, graph: Graph) -> Graph:
        """The first graph of this structure with the same of what the hash leaves out: blocks applied, knobs, written factors of weights."""
        knobs = tuple((k, id(v.domain), self.key(v.default), self.key(v.value), repr(v.allowed)) for k, v in sorted(graph.knobs.items()))
        factors = tuple((p.path, p.factors) for p in graph.params if p.factors)
        below = tuple(id(g) for g in graph.children.values())
        return self.graphs.setdefault((graph.hash, tuple(sorted(graph.applied.items())), knobs, factors, below), graph)

    def intern(self, key: Any) -> int:
        return self.keys.setdefault(key, len(self.keys) + 1)

    def key(self, value: Any) -> Any:
        """A hashable stand-in for a hyper value; templates by content. Types count: 1, 1.0 and true differ."""
        if value is None or isinstance(value, (bool, str)):
            return (type(value).__name__, value)
        if isinstance(value, int):
            return value
        if isinstance(value, (Fraction, float)):
            return (type(value).__name__, value)
        if type(value) is Late:
            return ("late", value.number)
        if isinstance(value, tuple):
            return ("t", self.intern(tuple(self.key(v) for v in value)))
        if isinstance(value, RecordValue):
            return ("r", value.name, self.intern(tuple((k, self.key(v)) for k, v in value.items)))
        if isinstance(value, Value):
            return ("tensor", value.type)
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


@record()
class Frame:
    """One body under evaluation. `prefix`: the owner's address relative to the builder's graph (None: an unlabelled loop, which may own nothing).

    `fixed`: header names and dims, which may not be bound again. `context`: how errors inside reach the application that caused them.
    """

    session: Session
    module: Module
    builder: Builder
    prefix: str = ""
    vars: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Span] = field(default_factory=dict)
    defaults: Defaults = field(default_factory=Defaults)
    overrides: tuple[Override, ...] = ()
    rest: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    decl: Any = None
    dtype: str | None = None
    init: bool = False
    phase: str | None = None
    loop: Span | None = None
    emitted: int = 0
    args: dict[str, Bound] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    anonymous: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()
    result: Any = None
    functions: int = 0
    late: dict[int, Late] | None = None

    def child(self, **changes: Any) -> Frame:
        """A frame over the same variables with some fields changed."""
        values = {name: getattr(self, name) for name in Frame.__slots__}  # type: ignore[attr-defined]
        values.update(changes)
        return Frame(**values)

    def bind(self, name: str, value: Any, span: Span) -> None:
        if name == "_":
            return
        if name in self.fixed:
            raise error("A0208", f"`{name}` is already a name of this header", span, "bound again here", help=f"choose another name, for example `{name}_`")
        self.vars[name] = value


def good(value: Any) -> Any:
    """The value, unless its fault has been reported."""
    if value is POISON:
        raise Poisoned()
    return value


def check_size(session: Session, value: Any, span: Span) -> Any:
    """Refuses values that would exhaust the machine."""
    if isinstance(value, (str, tuple)) and len(value) > MAX_ITEMS:
        raise error("A0602", f"a {'string' if isinstance(value, str) else 'list'} of {len(value):,} items is too large", span, help=f"at most {MAX_ITEMS:,} are allowed")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise error("A0602", f"a number of {value.bit_length():,} bits is too large", span, help=f"at most {MAX_BITS:,} bits are allowed")
    return value


__all__ = ["Frame", "Override", "Session", "below", "check_size", "good", "show"]
