"""Nodes as statements."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.elaborate.ops import is_operand
from archdsl.graph import Graph, Node, Value
from archdsl.ops.registry import find
from archdsl.printer.scope import Scope, literal


def print_body(scope: Scope, g: Graph, shares: dict[str, str]) -> None:
    """Adds the lines of a graph's nodes to its scope, what it emits among them; runs of equal nodes become loops."""
    automatic = {Value(n, i) for n in g.nodes if n.op == "call" for i in range(len(n.attrs["graph"].outputs), len(n.types))}
    emitted: dict[Value, list[str]] = {}
    for address, v in g.emits.items():
        if v not in automatic:
            emitted.setdefault(v, []).append(address)
    called: set[str] = set()
    for v in g.inputs:
        scope.lines += [f"emit {a} = {scope.values[v]}" for a in emitted.get(v, ())]
    nodes = [n for n in g.nodes if n.op != "input"]
    at = 0
    while at < len(nodes):
        n = nodes[at]
        if n.op == "param" and n.attrs["path"] not in scope.params and (owner := read_owner(g, n)) not in called:
            scope.lines.append(f"_ = {shares[owner]}({_zeros(scope, g.children[owner])})")  # weights exist from the first application on
            called.add(owner)
        run = _repeat(scope, nodes, at, shares, g)
        if run == 1 and (line := _node(scope, g, n, shares)):
            scope.lines.append(line)
        called.update(m.attrs["path"] for m in nodes[at:at + run] if m.op == "call")
        at += run
        for v in nodes[at - 1].values:
            scope.lines += [f"emit {a} = {scope.values[v]}" for a in emitted.get(v, ())]
    for path, child in g.children.items():
        if path not in called:
            scope.lines.append(f"_ = {scope.applied(child)}({_zeros(scope, child)}) as {path}")


def read_owner(g: Graph, n: Node) -> str:
    """The path of the child whose weight a `param` node reads."""
    return max((c for c in g.children if n.attrs["path"].startswith(c + ".")), key=len)


def _zeros(scope: Scope, child: Graph) -> str:
    """An application that nothing reads keeps its weights: it is fed zeros of the right type and dropped again."""
    shapes = (', '.join(map(scope.size, v.shape)) for v in child.inputs)
    return ", ".join(f"expand(literal(0, dtype = {literal(v.dtype)}), shape = [{shape}])" for v, shape in zip(child.inputs, shapes))


def _node(scope: Scope, g: Graph, n: Node, shares: dict[str, str]) -> str:
    if n.op == "param":
        if Value(n) not in scope.values:
            owner = read_owner(g, n)
            scope.values[Value(n)] = f"{shares[owner]}.{n.attrs['path'][len(owner) + 1:]}"
        return ""
    right = _right(scope, n, shares)
    outputs = n.attrs["graph"].outputs if n.op == "call" else n.types[:len(n.types) - len(n.attrs["carries"])] if n.op == "scan" else n.types
    if n.op == "update":
        return right
    targets: list[str] = []
    for i in range(len(outputs)):
        name = scope.fresh(_hint(n, i, len(outputs)), "v")
        scope.values[Value(n, i)] = name
        targets.append(name)
    for i in range(len(outputs), len(n.types) if n.op == "call" else 0):
        scope.values[Value(n, i)] = _emitted(scope, n, i)
    return f"{', '.join(targets) or '_'} = {right}"


def _hint(n: Node, i: int, count: int) -> str:
    """The name of one of a node's results. A captured node may have names for all of them, `q, k, v`."""
    if count == 1:
        return n.name
    return n.result_name(i) or (f"{n.name}_{i}" if n.name and ", " not in n.name else "")


def _emitted(scope: Scope, n: Node, i: int) -> str:
    """A value that a call emitted, read in this body: by `collect` of its last segment."""
    full = next(a for a, v in scope.graph.emits.items() if v == Value(n, i))
    last = full.rsplit(".", 1)[-1]
    seen = [a for a in scope.graph.emits if a.rsplit(".", 1)[-1] == last]
    return f"collect({last})[{seen.index(full)}]"


def _call_label(scope: Scope, n: Node) -> str:
    """` as NAME` where an application of a shared block emits under a name of its own."""
    inner = n.attrs["graph"]
    for address, v in scope.graph.emits.items():
        if v.node is n and v.index >= len(inner.outputs):
            path = address.removesuffix("." + list(inner.emits)[v.index - len(inner.outputs)])
            return "" if path == n.attrs["path"] else f" as {path}"
    return ""


def _right(scope: Scope, n: Node, shares: dict[str, str]) -> str:
    if n.op == "call":
        path = n.attrs["path"]
        args = ", ".join(map(scope.value, n.args))
        if path in shares:
            name = scope.others.get((path, n.attrs["graph"].hash), shares[path])
            return f"{name}({args}){_call_label(scope, n)}"
        return f"{scope.applied(n.attrs['graph'])}({args}) as {path}"
    if n.op == "phase":
        args = ", ".join(map(scope.value, n.args))
        return "phase { " + "  ".join(f"{k} => {scope.applied(n.attrs[k])}({args}) as _" for k in ("train", "eval")) + " }"
    if n.op == "scan":
        from archdsl.printer.scans import scan_block

        return f"{scan_block(scope, n)}()({', '.join(map(scope.value, n.args))})"
    if n.op == "update":
        return f"update {scope.params[n.attrs['path']]} = {scope.value(n.args[0])}"
    if n.op == "extern":
        hyper = ", ".join(f"{k} = {literal(v)}" for k, v in n.attrs["arguments"])
        return f"{n.attrs['block']}({hyper})({', '.join(map(scope.value, n.args))}) as {n.attrs['path']}"
    if n.op == "aten":
        return _aten(scope, n)
    if n.op == "rearrange":
        return _rearrange(scope, n)
    if n.op == "slice":
        return f"{scope.value(n.args[0])}[{', '.join(_index(scope, i) for i in n.attrs['items'])}]"
    if n.op == "reduce" and not n.attrs["keep"]:
        rank, gone = len(n.args[0].shape), n.attrs["axes"]
        kept = [f"a{i}" for i in range(rank) if i not in gone]
        return f"reduce({scope.value(n.args[0])}, [{', '.join(f'a{i}' for i in range(rank))}] -> [{', '.join(kept)}], {n.attrs['how']})"
    if n.op == "einsum":
        return _einsum(scope, n)
    return _op(scope, n)


def _aten(scope: Scope, n: Node) -> str:
    (values,), names = n.args, n.attrs["keywords"]
    plain = len(values) - len(names)
    args = [*map(scope.value, values[:plain]), *(f"{k} = {scope.value(v)}" for k, v in zip(names, values[plain:]))]
    types = ", ".join(map(scope.type, n.types))
    return f"extern aten.{n.attrs['name'].removesuffix('.default')}({', '.join(args)}) -> {types if len(n.types) == 1 else f'({types})'}"


def _op(scope: Scope, n: Node) -> str:
    op = find(n.op)
    assert op is not None, n.op
    operands = [p for p in op.decl.params if is_operand(p)]
    args: list[str] = []
    skipped = False
    for p, a in zip(operands, n.args):
        if a is None:
            skipped = True
        else:
            args.append(f"{p.name} = {scope.value(a)}" if skipped or p is not op.decl.params[len(args)] else scope.value(a))
    from archdsl.elaborate.ops import as_attribute, default_of

    for p in op.decl.params:
        if is_operand(p):
            continue
        value = n.attrs.get(p.name)
        if p.default is not None and (own := as_attribute(default_of(op, p))) == value and type(own) is type(value):
            continue
        args.append(f"{p.name} = {scope.attribute(value)}")
    return f"{n.op}({', '.join(args)})"


def _index(scope: Scope, item: tuple[Any, ...]) -> str:
    if item[0] == "new":
        return "none"
    if item[0] == "int":
        return scope.size(item[1])
    start, stop, step = ("" if v is None else scope.size(v) for v in item[1:])
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _rearrange(scope: Scope, n: Node) -> str:
    """The layout word over fresh atom names; sizes that one side alone cannot show are given."""
    sizes, ins, outs = n.attrs["sizes"], n.attrs["ins"], n.attrs["outs"]
    inside = {i for g in ins for i in g}
    given = {i for g in ins if len(g) > 1 for i in _given(g, sizes)}
    name = {i: f"a{i}" for i in range(len(sizes))}
    for i in range(len(sizes)):
        if i not in inside:
            given.add(i)

    def side(groups: Any) -> str:
        return "[" + ", ".join("1" if not g else name[g[0]] if len(g) == 1 else "(" + " ".join(name[i] for i in g) + ")" for g in groups) + "]"

    extra = "".join(f", {name[i]} = {scope.size(sizes[i])}" for i in sorted(given))
    return f"rearrange({scope.value(n.args[0])}, {side(ins)} -> {side(outs)}{extra})"


def _given(group: tuple[int, ...], sizes: tuple[Size, ...]) -> list[int]:
    """All factors of an axis but one: a run-time factor is the one to be solved."""
    dynamic = [i for i in group if not isinstance(sizes[i], int)]
    free = dynamic[0] if dynamic else group[0]
    return [i for i in group if i != free]


def _einsum(scope: Scope, n: Node) -> str:
    def side(ids: Any) -> str:
        return "[" + ", ".join(f"a{i}" for i in ids) + "]"

    xs = n.args[0]
    return f"einsum({', '.join(map(side, n.attrs['ins']))} -> {side(n.attrs['out'])})({', '.join(map(scope.value, xs))})"


def _repeat(scope: Scope, nodes: list[Node], at: int, shares: dict[str, str], g: Graph) -> int:
    """A chain of equal calls at `label.0`, `label.1`, … is written as a loop; returns how many nodes it covers."""
    first = nodes[at]
    if first.op != "call" or not first.attrs["path"].endswith(".0") or first.attrs["path"].count(".") != 1 or first.attrs["path"] in shares:
        return 1
    label, graph = first.attrs["path"][:-2], first.attrs["graph"]
    if len(graph.outputs) != 1 or graph.emits or graph.knobs or not _natural(graph):
        return 1
    carried: int | None = None
    count = 1
    while at + count < len(nodes):
        n, last = nodes[at + count], nodes[at + count - 1]
        if n.op != "call" or n.attrs["graph"] is not graph or n.attrs["path"] != f"{label}.{count}" or n.attrs["path"] in shares:
            break
        moved = [k for k, (a, b) in enumerate(zip(n.args, last.args)) if a != b]
        if len(moved) != 1 or n.args[moved[0]] != Value(last) or (carried is not None and moved[0] != carried):
            break
        carried = moved[0]
        count += 1
    if carried is None or any(a is None or not isinstance(a, Value) for a in first.args):
        return 1
    inner = {Value(nodes[at + k]) for k in range(count - 1)}
    later = [v for n in nodes[at + count :] for v in n.operands()] + list(g.outputs) + list(g.emits.values())
    if any(v in inner for v in later) or len(set(first.args)) != len(first.args):
        return 1
    name = scope.fresh(first.name or "x", "x")
    args = ", ".join(name if k == carried else scope.value(a) for k, a in enumerate(first.args))
    scope.lines.append(f"{name} = {scope.value(first.args[carried])}")
    scope.lines.append(f"{label}: for i in range({count}) {{ {name} = {scope.applied(graph)}({args}) as _ }}")
    scope.values[Value(nodes[at + count - 1])] = name
    return count


def _natural(graph: Graph) -> bool:
    """Whether the inputs stand in the order of their first use, as they would when a loop's body imports them."""
    order = list(dict.fromkeys(v for n in graph.nodes if n.op != "input" for v in n.operands() if v.node.op == "input"))
    return order == list(graph.inputs)
