"""Late arguments: numbers that end as attributes of random ops, and nowhere else, are filled in after elaboration.

Every layer of a deep network has its own drop rate. Elaborating a layer anew for each rate would cost most of a check, so the body of a
labelled loop is elaborated once with a `Late` in the place of the rate, and copied with the numbers of each pass. What may be late is read
off the text: the expression is an argument of a block's first list, at a parameter whose every mention is in turn in such an argument, alone
or with arithmetic around it, or the attribute of a random op (`dropout`, `drop_path`). So no branch, no size and no other name can depend on the
number.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.elaborate import library
from archdsl.elaborate.operators import filled
from archdsl.elaborate.ops import as_attribute, latest, parameters
from archdsl.elaborate.values import HOLDERS, BlockRef, Late, OpRef, Unfit, is_list, map_tensors
from archdsl.graph import HOLDING, Graph, Node, Value
from archdsl.later import later
from archdsl.ops.registry import Op, OpError, find
from archdsl.records import fields, replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Session
    from archdsl.modules import Module

Place = tuple[str | None, int, bool]
"""Where an argument stands: its name or None, its position, whether a value is piped in front."""


# ---------------------------------------------------------------- what may be late, read off the text
def positions(node: Any) -> Iterator[tuple[str, Place, tree.Expr]]:
    """(callee, place, argument) of every call of a plain name."""
    stack: list[tuple[Any, bool]] = [(node, False)]
    while stack:
        n, piped = stack.pop()
        if isinstance(n, tree.Chain) and n.op == "|>":
            stack += [(item, i > 0) for i, item in enumerate(n.items)]
            continue
        if isinstance(n, tree.Named):
            stack.append((n.expr, piped))
            continue
        if isinstance(n, tree.Call) and isinstance(n.func, tree.Name):
            for i, a in enumerate(n.args):
                if isinstance(a.value, tree.Rest) or a.spread:
                    break
                yield n.func.id, (a.name, i, piped), a.value
        stack += [(child, False) for child in tree.children(n)]


def accepts(session: Session, module: Module, callee: str, place: Place) -> bool:
    """Whether a call's argument there may be late: an attribute of a random op, or a late parameter of a block."""
    name, position, piped = place
    target = module.scope.get(callee)
    if isinstance(target, BlockRef):  # what is piped goes to its second list
        return (name if name is not None else position) in late_parameters(session, target)
    if target is None:
        op = library.find(callee)
        if not isinstance(op, OpRef) or not op.op.random:
            return False
        for i, p in enumerate(parameters(callee)):
            if name == p.name or name is None and i == position + piped:
                return not p.operand
    return False


def late_parameters(session: Session, ref: BlockRef) -> frozenset[int | str]:
    """The parameters of a block that only end as attributes of random ops, by name and by position."""
    key = ("late", id(ref.decl), session.mark(ref.decl))
    known = session.memo.get(key)
    if known is None:
        session.memo[key] = frozenset()  # while it is looked for: a block inside itself has none
        known = session.memo[key] = frozenset(_late_parameters(session, ref))
    return known


def _late_parameters(session: Session, ref: BlockRef) -> Iterator[int | str]:
    decl = ref.decl
    params = [p for p in decl.params if not p.rest]
    if len(params) < len(decl.params) or decl.body is None:
        return
    bound: set[str] | None = None
    for i, p in enumerate(params):
        if p.domain is not None or p.anonymous or not isinstance(p.type, tree.NameType) or p.type.name != "float":
            continue
        if bound is None:
            bound = set(binders(decl))
        passed = {id(n) for callee, at, value in positions(decl.body)
                  for n in summands(value) if n.id == p.name and callee not in bound and accepts(session, ref.module, callee, at)}
        if all(id(n) in passed for n in mentions(decl, p.name) if n is not p):
            yield p.name
            yield i


def summands(node: tree.Expr) -> list[tree.Name]:
    """The names in an argument that is a name, or made of numbers and names by arithmetic; none for any other."""
    stack: list[Any] = [node]
    names: list[tree.Name] = []
    while stack:
        n = stack.pop()
        if isinstance(n, tree.Name):
            names.append(n)
        elif isinstance(n, tree.Binary) and n.op in ("+", "-", "*", "/"):
            stack += (n.left, n.right)
        elif isinstance(n, tree.Unary) and n.op == "-":
            stack.append(n.operand)
        elif not isinstance(n, tree.Number):
            return []
    return names


def binders(node: Any) -> Iterator[str]:
    """Every name that a tree may bind, and some that it does not."""
    stack = [node]
    while stack:
        n = stack.pop()
        name = getattr(n, "name", None)
        if isinstance(name, str) and not isinstance(n, (tree.Arg, tree.Member, tree.Named, tree.NameType)):
            yield name
        if isinstance(n, tree.BlockLiteral):
            yield from (name for name, _ in n.params)
        stack.extend(tree.children(n))


def mentions(node: Any, name: str) -> Iterator[Any]:
    """Every node below that speaks of a name, in whatever way: as a word, as a size, as a text with the word in it."""
    stack = [node]
    while stack:
        n = stack.pop()
        for f in fields(n):
            value = getattr(n, f.name)
            if isinstance(value, str) and not (isinstance(n, tree.Arg) and f.name == "name") and f.name != "doc":
                if value == name or isinstance(n, tree.Require) and name in value:
                    yield n
            elif is_list(value) and any(name == item or type(item) is tuple and name in item for item in value):
                yield n
        stack.extend(tree.children(n))


# ---------------------------------------------------------------- filling in
def places(session: Session, arguments: tuple[tree.Expr, ...], numbers: tuple[Any, ...]) -> dict[int, Late]:
    """What stands for the numbers while the body is elaborated, by the id of the argument. They are counted from those in force: so they differ from
    all that the body can see, and a block that is given nothing but such a number is the same block in every pass, loop and version of a text."""
    return {id(node): Late(session.lates + i, value) for i, (node, value) in enumerate(zip(arguments, numbers), 1)}


def only_tensors(value: Any) -> bool:
    return isinstance(value, Value) or is_list(value) and all(map(only_tensors, value))


def fill(session: Session, graph: Graph, numbers: dict[int, Any]) -> Graph:
    """The graph with these numbers in place of its `Late`s: a copy, one for the same numbers. Raises Unfit when an op refuses one."""
    here = lates(session, graph)
    if here.isdisjoint(numbers):
        return graph
    key = ("filled", id(graph), tuple([(i, session.key(numbers[i])) for i in sorted(here) if i in numbers]))
    known = session.memo.get(key)
    if known is None:
        known = session.memo[key] = _filled(session, graph, numbers)
    return known


def kept(session: Session, graph: Graph, waiting: bool = False) -> Graph:
    """The first graph that is the same; one that waits for numbers (`waiting`: of its own, too) is the first until they are there."""
    return graph if (waiting or session.lates) and lates(session, graph) else session.same(graph)


def lates(session: Session, graph: Graph) -> frozenset[int]:
    """The numbers that a graph waits for. Kept with the graph: its id is not free for another one."""
    known = session.waiting.get(id(graph))
    if known is None:
        here = {i for n in graph.nodes for a in n.attrs.values() if type(a) is Late for i in _waits_for(a)}
        known = session.waiting[id(graph)] = (frozenset(here.union(*(lates(session, g) for g in graph.subgraphs()))), graph)
    return known[0]


def _waits_for(value: Any) -> Iterator[int]:
    if type(value) is Late:
        if value.parts is None:
            yield value.number
        else:
            yield from _waits_for(value.parts[1])
            yield from _waits_for(value.parts[2])


def _filled(session: Session, graph: Graph, numbers: dict[int, Any]) -> Graph:
    """The copy, its ops asked whether they take the numbers; its nodes are made when somebody looks at them."""
    session.walk(graph.nodes)
    places, below = _sites(session, graph)
    given: dict[int, dict[str, Any]] = {}  # attributes that are filled in, by the id of the node
    left: set[int] = set()
    for n, names in places:
        values = given[id(n)] = {k: as_attribute(filled(n.attrs[k], numbers)) for k in names}
        for value in values.values():
            left.update(_waits_for(value) if type(value) is Late else ())
        _fits(Node(n.op, n.args, {**n.attrs, **values}, n.types, n.span, n.name))
    inside = {id(g): fill(session, g, numbers) for g in below}
    children = {path: inside.get(id(g), g) for path, g in graph.children.items()}
    known = {k: getattr(graph, k) for k in _SAME}
    if not graph.emits:
        known["emits"] = {}
    made = later(lambda: _copied(graph, given, inside, children), **known, children=children, types_of=graph.__dict__.get("types_of", graph))
    session.waiting[id(made)] = frozenset(left.union(*(lates(session, g) for g in inside.values()))), made
    return made


def _sites(session: Session, graph: Graph) -> tuple[list[tuple[Node, list[str]]], list[Graph]]:
    """The nodes of a graph that wait for numbers, with the attributes that do, and the graphs in it that do."""
    key = ("sites", id(graph))
    known = session.memo.get(key)
    if known is None:
        places = [(n, names) for n in graph.nodes if (names := [k for k, a in n.attrs.items() if type(a) is Late])]
        below = {id(g): g for g in graph.subgraphs() if lates(session, g)}
        known = session.memo[key] = places, list(below.values())
    return known


def _copied(graph: Graph, given: dict[int, dict[str, Any]], inside: dict[int, Graph], children: dict[str, Graph]) -> Graph:
    """The graph with these attributes of its nodes and these graphs inside."""
    copies: dict[int, Node] = {}

    def moved(v: Value) -> Value:
        return Value(copies[id(v.node)], v.index)

    for n in graph.nodes:
        attrs = {k: inside.get(id(a), a) if n.op in HOLDING and isinstance(a, Graph) else map_tensors(a, moved) if type(a) in HOLDERS else a
                 for k, a in n.attrs.items()}
        copies[id(n)] = Node(n.op, map_tensors(n.args, moved), {**attrs, **given.get(id(n), {})}, n.types, n.span, n.name)
    return replace(graph, nodes=tuple(copies.values()), inputs=tuple(map(moved, graph.inputs)), outputs=tuple(map(moved, graph.outputs)),
                   emits={k: moved(v) for k, v in graph.emits.items()}, children=children)


_SAME = ("name", "output_names", "params", "guards", "knobs", "doc", "span", "applied", "owns_weights", "weight_count", "node_count",
         "has_effect", "result_types")
"""What is known of a graph and does not hang on the numbers."""


def _fits(node: Node) -> None:
    """The op's own rule, once more with the numbers. Raises Unfit."""
    op = find(node.op)
    assert op is not None
    operands = iter(node.args)
    given = {p.name: _type(next(operands)) if p.operand else latest(node.attrs[p.name]) for p in parameters(op.name)}
    try:
        types = _infer(op, given)
    except OpError:
        raise Unfit from None
    if types != node.types:
        raise Unfit


def _infer(op: Op, given: dict[str, Any]) -> tuple[Any, ...]:
    types: Any = op.infer(**given) if op.infer else shapes.infer_by_signature(op, given)
    return types if is_list(types) else (types,)


def _type(value: Any) -> Any:
    return value.type if isinstance(value, Value) else value
