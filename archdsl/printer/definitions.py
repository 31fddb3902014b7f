"""Definitions: headers, weights, guards, and the order of all of them."""
from __future__ import annotations

import re
from typing import Any

from archdsl import dims
from archdsl.dims import Size
from archdsl.elaborate.model import Elaborated
from archdsl.graph import Graph, Guard, InitExpr, Node, Param, TensorType, Value
from archdsl.printer.bodies import print_body, read_owner
from archdsl.printer.scope import LANGUAGE_WORDS, Names, Scope, Unprintable, is_word, literal
from archdsl.source import Source


def print_graph(made: Elaborated | Graph, format: bool = True) -> str:
    """The text of a graph and of all that it calls. An Elaborated keeps input ranges, example sizes and the streaming axis."""
    graph = made.graph if isinstance(made, Elaborated) else made
    names = Names(_definition_names(graph))
    parts = [_print_definition(g, names, None) for g in graph.definitions() if g is not graph]
    externs = dict.fromkeys(_extern(n) for g in graph.definitions() for n in g.nodes if n.op == "extern")
    parts = [*externs, *parts, _print_definition(graph, names, made if isinstance(made, Elaborated) else None, root=True)]
    parts[-1:-1] = [text for _, text in names.scans.values()]
    text = "\n\n".join(parts) + "\n"
    if not format:
        return text
    from archdsl.syntax.fmt import format_module

    return format_module(Source("graph.arch", text))


def _definition_names(graph: Graph) -> dict[int, str]:
    """A unique name for each definition, after the block or loop label that it came from; the model keeps its own. Those that are applied are
    capitalised, and longer than a letter: one capital alone is a size."""
    taken: set[str] = set()
    out: dict[int, str] = {}
    for g in [graph, *(d for d in graph.definitions() if d is not graph)]:
        base = re.sub(r"\W", "_", g.name) or "Block"
        if g is not graph or not _plain(g.name):
            base = base[0].upper() + base[1:] if base[0].isalpha() else f"B{base}"
        name, k = base, 1
        while name in taken or len(name) == 1 and g is not graph:
            k += 1
            name = f"{base}_{k}"
        taken.add(name)
        out[id(g)] = name
    return out


def _print_definition(g: Graph, names: Names, made: Elaborated | None, root: bool = False) -> str:
    """The text of one definition; a size that it cannot say becomes an argument."""
    while True:
        try:
            return _definition_text(g, names, made, root)
        except Unprintable as e:
            if root or e.symbol in names.sizes.get(id(g), ()):
                raise
            names.sizes[id(g)] = (*names.sizes.get(id(g), ()), e.symbol)


def _definition_text(g: Graph, names: Names, made: Elaborated | None, root: bool) -> str:
    scope = Scope(g, names)
    for symbol in names.sizes.get(id(g), ()):
        scope.sizes[dims.sym(symbol)] = symbol
    inputs = header(scope, g, made, root)
    _params(scope, g)
    shares = _shared(g)
    for n in g.nodes:
        if n.op == "param" and n.attrs["path"] in {p.path for p in g.params}:
            scope.values[Value(n)] = scope.params[n.attrs["path"]]
    for path in shares:
        name = scope.fresh(path.rsplit(".", 1)[-1], "f")
        scope.lines.append(f"share {name}{'' if path == name else f' as {path}'} = {scope.applied(g.children[path])}")
        shares[path] = name
        for other in _others(g, path):
            again = scope.others[path, other.hash] = scope.fresh(name, "f")
            scope.lines.append(f"share {again} of {name} = {scope.applied(other)}")
    for guard in _own_guards(g):
        scope.lines.append(_guard(scope, guard))
    print_body(scope, g, shares)
    named = zip(g.output_names or (None,) * len(g.outputs), g.outputs)
    outs = ", ".join(f"{n}: {scope.result(o.type)}" if n and _plain(n) else scope.result(o.type) for n, o in named)
    outs = f"({outs})" if len(g.outputs) != 1 else outs
    scope.lines.append("return " + ", ".join(scope.values[o] for o in g.outputs))
    doc = "".join(f"/// {line}\n" for line in g.doc.splitlines() if line.strip())
    stream = f" stream {made.stream}" if made is not None and made.stream and not made.ragged else ""
    body = "\n".join("  " + line for line in scope.lines)
    arguments = ", ".join(f"{symbol}: int" for symbol in names.sizes.get(id(g), ()))
    return f"{doc}{'model' if root else 'block'} {names[id(g)]}({arguments})({inputs}) -> {outs}{stream} {{\n{body}\n}}"


def _plain(name: str) -> bool:
    return name.isidentifier() and name not in LANGUAGE_WORDS and not is_word(name)


def header(scope: Scope, g: Graph, made: Elaborated | None, root: bool) -> str:
    """Inputs with their types; each run-time size that an axis shows gets a local name."""
    pool = iter([*"YXZUVWQPONMLKJIHGFEDC", *(f"S{i}" for i in range(1000))])
    symbols = {s for v in g.inputs for d in v.shape if not isinstance(d, int) for s in dims.symbols(d)} | set(scope.sizes.values())
    for v in g.inputs:
        for d in v.shape:
            if isinstance(d, int) or d in scope.sizes:
                continue
            if str(d) in symbols:
                scope.sizes[d] = str(d)
    for v in g.inputs:
        for d in v.shape:
            if isinstance(d, int) or d in scope.sizes:
                continue
            if root:  # `2 * T` binds T
                scope.sizes.update((dims.sym(s), s) for s in dims.symbols(d))
                continue
            scope.sizes[d] = next(n for n in pool if n not in symbols and n not in scope.sizes.values())
    shown: list[str] = []
    specs = {i.name: i for i in made.inputs} if made is not None else {}
    for v in g.inputs:
        name = scope.fresh(v.node.attrs["name"], "x")
        scope.values[v] = name
        spec = specs.get(v.node.attrs["name"])
        text = scope.type(v.type)
        if spec is not None and made is not None:
            first = made.ragged and f"ragged {made.stream}" not in "".join(shown)
            ragged = made.stream if first and made.stream else ""
            for axis in [*spec.sizes, *([ragged] if ragged and ragged not in spec.sizes else [])]:
                size = f" = {spec.sizes[axis]}" if axis in spec.sizes else ""
                text = re.sub(rf"(?<=[\[ ]){axis}(?=[,\]])", f"{'ragged ' * (axis == ragged)}{axis}{size}", text, count=1)
        limits = f" in {literal(spec.low)}..{literal(spec.high)}" if spec is not None and spec.low is not None else ""
        shown.append(f"{name}: {text}{limits}")
    return ", ".join(shown)


def _params(scope: Scope, g: Graph) -> None:
    for p in g.params:
        name = scope.fresh(p.path.rsplit(".", 1)[-1], "w")
        scope.params[p.path] = name
        kind = {"param": "param", "frozen": "frozen param", "buffer": "buffer", "const": "const"}[p.kind]
        scope.lines.append(f"{kind} {name}{'' if name == p.path else f' as {p.path}'}: {_param_type(p)} = {_init(scope, g, p.init)}")


def _param_type(p: Param) -> str:
    """The shape, with written factors where an axis has several."""
    if not p.factors:
        return str(p.type)
    axes = ["(" + " ".join(str(s) for _, s in f) + ")" if len(f) != 1 else str(f[0][1]) for f in p.factors]
    return ("" if p.type.dtype == "float" else p.type.dtype) + "[" + ", ".join(axes) + "]"


def _init(scope: Scope, g: Graph, e: Any) -> str:
    if not isinstance(e, InitExpr):
        return literal(e)
    if e.op == "param":
        path = dict(e.attrs)["path"]
        return scope.params[path]
    args = [_init(scope, g, a) for a in e.args]
    args += [f"{k} = {literal(v)}" for k, v in e.attrs]
    return f"{e.op}({', '.join(args)})"


def _shared(g: Graph) -> dict[str, str]:
    """Children whose weights are read directly or that are called more than once."""
    calls: dict[str, int] = {}
    out: dict[str, str] = {}
    own = {p.path for p in g.params}
    for n in g.nodes:
        if n.op == "call":
            calls[n.attrs["path"]] = calls.get(n.attrs["path"], 0) + 1
        elif n.op == "param" and n.attrs["path"] not in own:
            out[read_owner(g, n)] = ""
    out.update({p: "" for p, k in calls.items() if k > 1})
    return out


def _others(g: Graph, path: str) -> list[Graph]:
    """The blocks beside the first one that are applied with the weights at `path`."""
    applied = {n.attrs["graph"].hash: n.attrs["graph"] for n in g.nodes if n.op == "call" and n.attrs["path"] == path}
    return [other for other in applied.values() if other.hash != g.children[path].hash]


def _own_guards(g: Graph) -> list[Guard]:
    inherited = [x for c in g.subgraphs() for x in c.guards]
    return [x for x in g.guards if x not in inherited]


def _guard(scope: Scope, guard: Guard) -> str:
    return f"require {_condition(scope, guard.left)} {guard.op} {scope.size(guard.right)}, {literal(guard.message)}"


def _condition(scope: Scope, size: Size) -> str:
    """A remainder as it was written: `H % 32`, not `H - 32*floordiv(H, 32)`."""
    for atom in dims.atoms(size) if not isinstance(size, int) else ():
        if atom.kind == "floor" and isinstance(atom.args[1], int) and dims.mod(atom.args[0], atom.args[1]) is size:
            return f"({scope.size(atom.args[0])}) % {atom.args[1]}"
    return scope.size(size)


def _extern(n: Node) -> str:
    def shape(t: TensorType) -> str:
        return str(t)

    params = ", ".join(f"{k}: {_hyper_type(v)}" for k, v in n.attrs["arguments"])
    inputs = ", ".join(f"x{i}: {shape(v.type)}" for i, v in enumerate(n.args) if v is not None)
    outs = ", ".join(shape(t) for t in n.types)
    return f"extern block {n.attrs['block']}({params})({inputs}) -> {outs if len(n.types) == 1 else f'({outs})'}"


def _hyper_type(v: Any) -> str:
    if isinstance(v, bool):
        return "bool"
    return {int: "int", str: "str"}.get(v.__class__, "float")
