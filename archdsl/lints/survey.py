"""One walk over a declaration: what it reads, and the nodes that lints look at."""
from __future__ import annotations

from typing import Any

from archdsl.elaborate.bindings import pattern_names
from archdsl.records import field, record
from archdsl.syntax import tree

IDENTIFIED = frozenset((tree.Name, tree.AxisName, tree.AxesVar, tree.Ragged, tree.Bounded, tree.AxisSized))
NAMED: dict[type, Any] = {
    tree.NameType: lambda n: (n.name.partition(".")[0],),
    tree.Default: lambda n: (n.block,),
    tree.Emit: lambda n: () if n.value is not None else (n.name,),
    tree.Update: lambda n: (n.name,),
    tree.Next: lambda n: (n.name,),
    tree.Static: lambda n: n.names,
    tree.Scan: lambda n: (*n.inputs, n.axis),
    tree.Param: lambda n: (n.name.partition(".")[0],) if n.rest else (),  # `...Record`
    tree.Model: lambda n: (n.base,),
    tree.Transform: lambda n: n.using,
}
BRANCHES = frozenset((tree.If, tree.IfExpr, tree.Match, tree.MatchExpr, tree.Require))


@record(slots=False)
class Survey:
    """`read`: every name that is mentioned. `counters`: places of loop variables. `several`: places of targets beside others. `assigned`: names
    that statements bind. `loops`: how many loops and comprehensions there are."""

    read: set[str] = field(default_factory=set[str])
    branches: list[Any] = field(default_factory=list[Any])
    counters: set[int] = field(default_factory=set[int])
    several: set[int] = field(default_factory=set[int])
    assigned: set[str] = field(default_factory=set[str])
    loops: int = 0


def survey(node: Any) -> Survey:
    """Takes time in proportion to the size of the tree."""
    s = Survey()
    stack: list[Any] = [node]
    while stack:
        n = stack.pop()
        kind = type(n)
        if kind in IDENTIFIED:
            s.read.add(n.id)
        elif kind in NAMED:
            s.read.update(NAMED[kind](n))
        elif kind in BRANCHES:
            s.branches.append(n)
        elif kind is tree.Assign:
            s.assigned.update(t.name for t in n.targets)
            if len(n.targets) > 1:
                s.several.update(t.span.start for t in n.targets)
        elif kind is tree.For:
            s.counters.update(span.start for _, span in pattern_names(n.pattern))
            s.loops += 1
        elif kind is tree.Comprehension:
            s.loops += 1
        stack += tree.children(n)
    return s


def named(n: Any) -> tuple[str, ...]:
    """The names that a node itself reads, without those below it."""
    kind = type(n)
    return (n.id,) if kind in IDENTIFIED else tuple(NAMED[kind](n)) if kind in NAMED else ()
