"""A scan as a block: the language has it as the last statement of a body."""
from __future__ import annotations

from archdsl.dims import sym
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.printer.scope import Scope

STEPS = "Steps"
"""What the axis is called that a scan goes along."""


def scan_block(scope: Scope, n: Node) -> str:
    """The name of the block that does what this node does. Its text applies the definition of one position."""
    return scope.names.scan(n, lambda name: _text(scope, n, name))


def _text(outer: Scope, n: Node, name: str) -> str:
    from archdsl.printer.definitions import header

    body, axes, carries = n.attrs["body"], n.attrs["axes"], n.attrs["carries"]
    inputs: list[Value] = []
    for i, (given, inner) in enumerate(zip(n.args, body.inputs)):
        shape = list(given.shape)
        if i < len(axes):
            shape[axes[i]] = sym(STEPS)
        hint = inner.node.attrs["name"] + ("_0" if len(axes) <= i < len(axes) + len(carries) else "")
        inputs.append(Value(Node("input", (), {"name": hint}, (TensorType(given.dtype, tuple(shape)),), n.span, hint)))
    scope = Scope(Graph(name, tuple(inputs), (), ()), outer.names)
    head = header(scope, scope.graph, None, False)
    names = [scope.values[v] for v in inputs]
    scanned, initial, others = names[:len(axes)], names[len(axes):len(axes) + len(carries)], names[len(axes) + len(carries):]
    carried = [scope.fresh(c, "s") for c in carries]
    carry = ", ".join(f"{c}: {scope.type(inputs[len(axes) + i].type)} = {initial[i]}" for i, c in enumerate(carried))
    results = [scope.fresh(f"{c}_next") for c in carried] + [scope.fresh("y") for _ in body.outputs[len(carries):]]
    types = [TensorType(t.dtype, (*t.shape[:axes[0]], sym(STEPS), *t.shape[axes[0] + 1:])) for t in n.types[:len(n.types) - len(carries)]]
    outs = ", ".join(map(scope.result, types))
    lines = [f"block {name}()({head}) -> {outs if len(types) == 1 else f'({outs})'} {{",
             f"  scan ({', '.join(scanned)}) over {STEPS} carry {carry} {{",
             f"    {', '.join(results)} = {scope.applied(body)}({', '.join([*scanned, *carried, *others])})",
             *(f"    next {c} = {v}" for c, v in zip(carried, results)), f"    yield {', '.join(results[len(carries):])}", "  }", "}"]
    return "\n".join(lines)
