"""What one pass of a labelled loop depends on: names, and expressions of numbers that can be evaluated before the body.

A body is elaborated once for each key. `stride = if i > 0 and j == 0 { 2 } else { 1 }` mentions `j`, yet only whether `i > 0 and j == 0` holds
counts; `widths[i]` counts, not `widths` and `i`. So the largest expressions of numbers from outside of the body stand in the key by their
values, and late arguments (late.py) do not stand there at all: a stage of thirty blocks in two variants is elaborated twice.
"""
from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.diagnostics.poison import Poisoned
from archdsl.dims import Dim
from archdsl.elaborate import late, library
from archdsl.elaborate.bodies import assigned
from archdsl.elaborate.evaluation import TABLE, evaluate
from archdsl.elaborate.values import Builtin, FnRef, Late, RecordValue, is_hyper_number, is_list
from archdsl.records import record, replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame

PURE = (
    tree.Name, tree.Number, tree.Str, tree.Bool, tree.NoneLit, tree.Item, tree.Member, tree.Binary, tree.Unary, tree.IsSome, tree.Tuple, tree.List,
    tree.SetLit, tree.Range, tree.Slice, tree.IfExpr, tree.Chain, tree.Call, tree.Arg,
)
PLAIN = frozenset({int, bool, str, float, Fraction, Dim, Late, type(None)})
_WORD = re.compile(r"[^\W\d]\w*")


@record(frozen=True)
class Branches:
    """An `if` whose conditions are evaluated: what counts of the arm that is taken. `arms`: (condition, what counts then)."""

    arms: tuple[tuple[tree.Expr, tuple[Counts, ...]], ...]
    otherwise: tuple[Counts, ...]


Counts = tree.Expr | Branches


@record(frozen=True)
class Plan:
    """How the key of a pass is made. `late`: arguments that are filled in afterwards; `counts`: expressions that count by their values; `names`:
    what the rest of the body mentions or binds; `plain`: names that stand in expressions, and must hold plain values for this; `callees`:
    functions, blocks and ops in and around them, which no variable may hide."""

    late: tuple[tree.Expr, ...]
    counts: tuple[Counts, ...]
    names: tuple[str, ...]
    plain: frozenset[str]
    callees: frozenset[str]


def plan(frame: Frame, s: tree.For) -> Plan | None:
    """The plan of a loop, made when it is met first; None where it does not hold for these variables."""
    plans, key = frame.session.plans, (id(s), frame.session.mark(s))
    found = plans.get(key)
    if found is None:
        found = plans[key] = _plan(frame, s)
    held = frame.vars
    return found if found.callees.isdisjoint(held) and all(n in held and _known_plain(frame, held[n]) for n in found.plain) else None


def without_late(frame: Frame, s: tree.For) -> None:
    """From here on no argument of this loop is late."""
    plans, key = frame.session.plans, (id(s), frame.session.mark(s))
    found = plans[key]
    plans[key] = replace(found, late=(), counts=found.late + found.counts)


def _plan(frame: Frame, s: tree.For) -> Plan:
    from archdsl.elaborate.closures import free_names

    found = _Reader(frame, set(late.binders(s.body)))
    for callee, place, value in late.positions(s.body):
        if callee not in found.inside and callee not in frame.vars and late.accepts(frame.session, frame.module, callee, place) and found.pure(value):
            found.lates[id(value)] = value
            found.callees.add(callee)
    counts = found.read(s.body)
    names = found.names | {n for b in s.body for n in (*assigned(b), *free_names(b, frozenset(found.read_)))}
    plain = {n for e in found.read_.values() for n in free_names(e)} - found.callees
    return Plan(tuple(found.lates.values()), counts, tuple(sorted(names)), frozenset(plain), frozenset(found.callees))


class _Reader:
    """Reads off a body what counts. `read_`: the expressions that are evaluated, by id; `names`: those in messages."""

    def __init__(self, frame: Frame, inside: set[str]):
        self.frame, self.inside = frame, inside
        self.lates: dict[int, tree.Expr] = {}
        self.callees: set[str] = set()
        self.names: set[str] = set()
        self.read_: dict[int, tree.Expr] = {}

    def read(self, node: Any) -> tuple[Counts, ...]:
        out: list[Counts] = []
        stack: list[Any] = list(reversed(node)) if is_list(node) else [node]
        while stack:
            n = stack.pop()
            if id(n) in self.lates:
                self.read_[id(n)] = n
            elif type(n) in TABLE and not isinstance(n, tree.Name) and self.pure(n):  # a slice has no value of its own, its bounds have
                self.read_[id(n)] = n
                out.append(n)
            elif isinstance(n, (tree.If, tree.IfExpr)) and all(self.pure(condition) for condition, _ in n.branches):
                self.read_.update((id(condition), condition) for condition, _ in n.branches)
                out.append(Branches(tuple((condition, self.read(arm)) for condition, arm in n.branches), self.read(n.otherwise)))
            else:
                if isinstance(n, tree.Require) and n.message:
                    self.names.update(_WORD.findall(n.message))
                stack.extend(reversed(tree.children(n)))
        return tuple(out)

    def pure(self, node: tree.Expr) -> bool:
        """Whether it is an expression of plain values from outside of the body, with a variable in it."""
        functions = _pure(self.frame, node, self.inside)
        self.callees |= functions or set()
        return functions is not None


def _pure(frame: Frame, node: tree.Expr, inside: set[str]) -> set[str] | None:
    """The functions in an expression of plain values from outside of the body; None for any other, and for one without a variable."""
    stack: list[Any] = [node]
    functions: set[str] = set()
    variables = False
    while stack:
        n = stack.pop()
        if not isinstance(n, PURE) or isinstance(n, tree.Chain) and n.op != "??":
            return None
        if isinstance(n, tree.Call):
            if not isinstance(n.func, tree.Name) or n.func.id in inside or n.func.id in frame.vars or not _is_function(frame, n.func.id):
                return None
            functions.add(n.func.id)
            stack.extend(n.args)
            continue
        if isinstance(n, tree.Name):
            if n.id in inside or n.id not in frame.vars or not is_plain(frame.vars[n.id]):
                return None
            variables = True
        stack.extend(tree.children(n))
    return functions if variables else None


def _is_function(frame: Frame, name: str) -> bool:
    found = frame.module.scope.get(name)
    return isinstance(found, FnRef) or found is None and isinstance(library.find(name), Builtin) and name in library.FUNCTIONS


def _known_plain(frame: Frame, value: Any) -> bool:
    """`is_plain`, asked once for a list: each pass of a loop asks."""
    kind = value.__class__
    if kind is not tuple:
        return kind in PLAIN or is_plain(value)
    known = frame.session.plain
    if id(value) not in known:
        known[id(value)] = value, is_plain(value)  # kept with it: its id is not free for another one
    return known[id(value)][1]


def is_plain(value: Any) -> bool:
    """Numbers, strings, sizes, none, and lists and records of them: what holds no tensor and no block."""
    kind = value.__class__
    if kind in PLAIN:
        return True
    if is_list(value):
        return all(map(is_plain, value))
    return kind is RecordValue and all(is_plain(v) for _, v in value.items)


def numbers(frame: Frame, found: Plan) -> tuple[Any, ...] | None:
    """The late arguments of this pass; None when one is no number, or has a fault that the body may never meet."""
    try:
        waiting = frame.late or {}  # in a loop around this one
        values = tuple([waiting[id(n)] if id(n) in waiting else evaluate(frame, n) for n in found.late])
    except (ArchError, Poisoned):
        return None
    return values if all(is_hyper_number(v) or type(v) is Late for v in values) else None


def key(frame: Frame, found: Plan) -> tuple[Any, ...] | None:
    """The values that count, by their keys; None when one cannot be evaluated in front of the body."""
    out: list[Any] = []
    try:
        _values(frame, found.counts, out)
    except (ArchError, Poisoned):
        return None
    return tuple(out)


def _values(frame: Frame, counts: tuple[Counts, ...], out: list[Any]) -> None:
    from archdsl.elaborate.operations import truth

    for c in counts:
        if isinstance(c, Branches):
            taken = next((i for i, (condition, _) in enumerate(c.arms) if truth(frame, condition)), -1)
            out.append(taken)
            _values(frame, c.arms[taken][1] if taken >= 0 else c.otherwise, out)
        else:
            out.append(frame.session.key(evaluate(frame, c)))
