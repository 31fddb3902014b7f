"""Any typed graph as `.arch` text that elaborates to the same hash: one block per definition, concrete sizes, written addresses."""
from __future__ import annotations

import keyword
import re
from fractions import Fraction
from typing import Any

from archdsl import dims
from archdsl.dims import Dim, Size
from archdsl.elaborate import library
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.ops import is_operand
from archdsl.elaborate.values import RecordValue, is_list
from archdsl.graph import Graph, Guard, InitExpr, Mask, Node, Param, TensorType, Value
from archdsl.ops.registry import find
from archdsl.records import field, record
from archdsl.source import Source

LANGUAGE_WORDS = frozenset("and or not in is as with if else match for true false none".split())


class Unprintable(ValueError):
    """A run-time size (`symbol`) that cannot be written with the axes of the block it stands in."""

    def __init__(self, message: str, symbol: str):
        super().__init__(message)
        self.symbol = symbol


def print_graph(made: Elaborated | Graph, format: bool = True) -> str:
    """The closure of DESIGN §3. An Elaborated keeps input ranges, example sizes and the streaming axis."""
    graph = made.graph if isinstance(made, Elaborated) else made
    names = Names(_definition_names(graph))
    parts = [_print_definition(g, names, None) for g in graph.definitions() if g is not graph]
    externs = dict.fromkeys(_extern(n) for g in graph.definitions() for n in g.nodes if n.op == "extern")
    parts = [*externs, *parts, _print_definition(graph, names, made if isinstance(made, Elaborated) else None, root=True)]
    text = "\n\n".join(parts) + "\n"
    if not format:
        return text
    from archdsl.syntax.fmt import format_module

    return format_module(Source("graph.arch", text))


def _definition_names(graph: Graph) -> dict[int, str]:
    """A unique capitalised name for each definition, after the block or loop label that it came from."""
    taken: set[str] = set()
    out: dict[int, str] = {}
    for g in [graph, *(d for d in graph.definitions() if d is not graph)]:
        base = re.sub(r"\W", "_", g.name) or "Block"
        base = base[0].upper() + base[1:] if base[0].isalpha() else f"B{base}"
        name, k = base, 1
        while name in taken or len(name) == 1:
            k += 1
            name = f"{base}_{k}"
        taken.add(name)
        out[id(g)] = name
    return out


class Names(dict[int, str]):
    """Names of definitions. `sizes`: the run-time sizes that a definition is given as hyper arguments, because no axis of its inputs tells them."""

    def __init__(self, names: dict[int, str]):
        super().__init__(names)
        self.sizes: dict[int, tuple[str, ...]] = {}


@record(slots=False)
class _Scope:
    """Names of one block's text."""

    graph: Graph
    names: Names
    sizes: dict[Size, str] = field(default_factory=dict)
    values: dict[Value, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    def fresh(self, hint: str, fallback: str = "v") -> str:
        base = re.sub(r"\W", "_", hint) if hint else fallback
        word = keyword.iskeyword(base) or base in LANGUAGE_WORDS or _is_word(base)
        if word or not base[0].isalpha() or base[0].isupper() or re.fullmatch(r"a\d+", base):
            base = f"{fallback}_{base.lower()}" if base[0].isalpha() else fallback
        name, k = base, 1
        while name in self.taken or _is_word(name):
            k += 1
            name = f"{base}_{k}"
        self.taken.add(name)
        return name

    def applied(self, graph: Graph) -> str:
        """The template of a definition, with the sizes that it is given."""
        given = ", ".join(f"{symbol} = {self.size(dims.sym(symbol))}" for symbol in self.names.sizes.get(id(graph), ()))
        return f"{self.names[id(graph)]}({given})"

    # ---------------------------------------------------------------- sizes
    def size(self, size: Size) -> str:
        """A size in the names of this block's axes. Raises Unprintable."""
        if isinstance(size, int):
            return str(size)
        if size in self.sizes:
            return self.sizes[size]
        return str(self._rewrite(size))

    def _rewrite(self, size: Size) -> Size:
        if isinstance(size, int):
            return size
        if size in self.sizes:
            return dims.sym(self.sizes[size])
        total: Size = 0
        for coefficient, mono in dims.terms(size):
            term: Size = 1
            scale = Fraction(coefficient)
            for atom, power in mono:
                part, factor = self._atom(atom)
                term = term * part ** power
                scale *= factor ** power
            if scale.denominator == 1:
                total = total + int(scale) * term
            else:
                exact = dims.floordiv(term * scale.numerator, scale.denominator)
                total = total + exact
        return total

    def _atom(self, atom: Any) -> tuple[Size, Fraction]:
        """An atom as (size in local names, factor)."""
        for known, name in self.sizes.items():
            ts = dims.terms(known)
            if len(ts) == 1 and len(ts[0][1]) == 1 and ts[0][1][0] == (atom, 1):
                return dims.sym(name), 1 / Fraction(ts[0][0])
        if atom.kind == "sym":
            raise Unprintable(f"the size {atom.name} cannot be read off an input of `{self.graph.name}`", atom.name)
        if atom.kind == "floor":
            num, den = atom.args
            for known, name in self.sizes.items():
                ts = dims.terms(known)
                if len(ts) == 1 and len(ts[0][1]) == 1 and ts[0][0] == 1 and ts[0][1][0][1] == 1:
                    other = ts[0][1][0][0]
                    if other.kind != "floor" or other.args[0] is not num:
                        continue
                    inner = other.args[1]
                    if isinstance(den, int) and isinstance(inner, int) and den % inner == 0:
                        return dims.floordiv(dims.sym(name), den // inner), Fraction(1)
            return dims.floordiv(self._rewrite(num), self._rewrite(den)), Fraction(1)
        pick = dims.minimum if atom.kind == "min" else dims.maximum
        return pick(*(self._rewrite(a) for a in atom.args)), Fraction(1)

    def type(self, t: TensorType) -> str:
        return ("" if t.dtype == "float" else t.dtype) + "[" + ", ".join(self.size(s) for s in t.shape) + "]"

    def result(self, t: TensorType) -> str:
        """The type of a result: a size that follows from the body in a way the inputs' axes cannot say is left to be inferred."""
        def size(s: Size) -> str:
            try:
                return self.size(s)
            except Unprintable:
                return "_"

        return ("" if t.dtype == "float" else t.dtype) + "[" + ", ".join(map(size, t.shape)) + "]"

    # ---------------------------------------------------------------- values
    def value(self, v: Any) -> str:
        """An operand."""
        if isinstance(v, Value):
            return self.values[v]
        if is_list(v):
            return "[" + ", ".join(map(self.value, v)) + "]"
        if isinstance(v, Dim):
            return f"({self.size(v)})"
        return literal(v)

    def attribute(self, v: Any) -> str:
        if isinstance(v, Mask):
            return self.mask(v)
        if isinstance(v, Dim):
            return self.size(v)
        if is_list(v):
            return "[" + ", ".join(map(self.attribute, v)) + "]"
        return literal(v)

    def mask(self, m: Mask) -> str:
        if m.kind in ("and", "or"):
            sign = " & " if m.kind == "and" else " | "
            return sign.join(f"({self.mask(a)})" if a.kind in ("and", "or") else self.mask(a) for a in m.args)
        if not m.args:
            return m.kind
        shown = [self.value(a) for a in m.args]
        if m.kind == "own_block":
            shown[1] = f"previous = {shown[1]}"
        return f"{m.kind}({', '.join(shown)})"


def _is_word(name: str) -> bool:
    return library.find(name) is not None


def literal(v: Any) -> str:
    """A number, string, bool or none, exactly."""
    if v is None:
        return "none"
    if isinstance(v, bool):
        return str(v).lower()
    if isinstance(v, str):
        return '"' + v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(v, float):
        return str(int(v)) if v.is_integer() and abs(v) < 1e15 else repr(v)
    if isinstance(v, Fraction):
        return literal(float(v))
    if is_list(v):
        return "[" + ", ".join(map(literal, v)) + "]"
    if isinstance(v, RecordValue):
        return f"{v.name}({', '.join(f'{k} = {literal(x)}' for k, x in v.items)})"
    return str(v)


# ---------------------------------------------------------------- definitions
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
    scope = _Scope(g, names)
    for symbol in names.sizes.get(id(g), ()):
        scope.sizes[dims.sym(symbol)] = symbol
    inputs = _header(scope, g, made, root)
    _params(scope, g)
    shares = _shared(g)
    for n in g.nodes:
        if n.op == "param" and n.attrs["path"] in {p.path for p in g.params}:
            scope.values[Value(n)] = scope.params[n.attrs["path"]]
    for path in shares:
        name = scope.fresh(path.rsplit(".", 1)[-1], "f")
        scope.lines.append(f"share {name}{'' if path == name else f' as {path}'} = {scope.applied(g.children[path])}")
        shares[path] = name
    for guard in _own_guards(g):
        scope.lines.append(_guard(scope, guard))
    _body(scope, g, shares)
    named = zip(g.output_names or (None,) * len(g.outputs), g.outputs)
    outs = ", ".join(f"{n}: {scope.result(o.type)}" if n and _plain(n) else scope.result(o.type) for n, o in named)
    outs = f"({outs})" if len(g.outputs) != 1 else outs
    scope.lines.append("return " + ", ".join(scope.values[o] for o in g.outputs))
    doc = "".join(f"/// {line}\n" for line in g.doc.splitlines() if line.strip())
    stream = f" stream {made.stream}" if made is not None and made.stream else ""
    body = "\n".join("  " + line for line in scope.lines)
    arguments = ", ".join(f"{symbol}: int" for symbol in names.sizes.get(id(g), ()))
    return f"{doc}{'model' if root else 'block'} {names[id(g)]}({arguments})({inputs}) -> {outs}{stream} {{\n{body}\n}}"


def _plain(name: str) -> bool:
    return name.isidentifier() and name not in LANGUAGE_WORDS and not _is_word(name)


def _header(scope: _Scope, g: Graph, made: Elaborated | None, root: bool) -> str:
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
            if isinstance(d, int) or d in scope.sizes or root:
                continue
            scope.sizes[d] = next(n for n in pool if n not in symbols and n not in scope.sizes.values())
    shown: list[str] = []
    specs = {i.name: i for i in made.inputs} if made is not None else {}
    for v in g.inputs:
        name = scope.fresh(v.node.attrs["name"], "x")
        scope.values[v] = name
        spec = specs.get(v.node.attrs["name"])
        text = scope.type(v.type)
        if spec is not None and spec.sizes:
            for axis, size in spec.sizes.items():
                text = re.sub(rf"(?<=[\[ ]){axis}(?=[,\]])", f"{axis} = {size}", text, count=1)
        limits = f" in {literal(spec.low)}..{literal(spec.high)}" if spec is not None and spec.low is not None else ""
        shown.append(f"{name}: {text}{limits}")
    return ", ".join(shown)


def _params(scope: _Scope, g: Graph) -> None:
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


def _init(scope: _Scope, g: Graph, e: Any) -> str:
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
            owner = max((c for c in g.children if n.attrs["path"].startswith(c + ".")), key=len)
            out[owner] = ""
    out.update({p: "" for p, k in calls.items() if k > 1})
    return out


def _own_guards(g: Graph) -> list[Guard]:
    inherited = [x for c in g.subgraphs() for x in c.guards]
    return [x for x in g.guards if x not in inherited]


def _guard(scope: _Scope, guard: Guard) -> str:
    return f"require {_condition(scope, guard.left)} {guard.op} {scope.size(guard.right)}, {literal(guard.message)}"


def _condition(scope: _Scope, size: Size) -> str:
    """A remainder as it was written: `H % 32`, not `H - 32*floordiv(H, 32)`."""
    for atom in dims.atoms(size) if not isinstance(size, int) else ():
        if atom.kind == "floor" and isinstance(atom.args[1], int) and dims.mod(atom.args[0], atom.args[1]) is size:
            return f"({scope.size(atom.args[0])}) % {atom.args[1]}"
    return scope.size(size)


# ---------------------------------------------------------------- bodies
def _body(scope: _Scope, g: Graph, shares: dict[str, str]) -> None:
    automatic = {Value(n, i) for n in g.nodes if n.op == "call" for i in range(len(n.attrs["graph"].outputs), len(n.types))}
    emitted: dict[Value, list[str]] = {}
    for address, v in g.emits.items():
        if v not in automatic:
            emitted.setdefault(v, []).append(address)
    called = {n.attrs["path"] for n in g.nodes if n.op == "call"}
    for path, name in shares.items():
        if path not in called:  # only its weights are read: they exist from the first application on
            scope.lines.append(f"_ = {name}({_zeros(scope, g.children[path])})")
    for v in g.inputs:
        scope.lines += [f"emit {a} = {scope.values[v]}" for a in emitted.get(v, ())]
    nodes = [n for n in g.nodes if n.op != "input"]
    at = 0
    while at < len(nodes):
        n = nodes[at]
        run = _repeat(scope, nodes, at, shares, g)
        if run > 1:
            at += run
        else:
            line = _node(scope, g, n, shares)
            if line:
                scope.lines.append(line)
            at += 1
        for v in nodes[at - 1].values:
            scope.lines += [f"emit {a} = {scope.values[v]}" for a in emitted.get(v, ())]
    for path, child in g.children.items():
        if path not in called and path not in shares:
            scope.lines.append(f"_ = {scope.applied(child)}({_zeros(scope, child)}) as {path}")


def _zeros(scope: _Scope, child: Graph) -> str:
    """An application that nothing reads keeps its weights: it is fed zeros of the right type and dropped again."""
    shapes = (', '.join(map(scope.size, v.shape)) for v in child.inputs)
    return ", ".join(f"expand(literal(0, dtype = {literal(v.dtype)}), shape = [{shape}])" for v, shape in zip(child.inputs, shapes))


def _node(scope: _Scope, g: Graph, n: Node, shares: dict[str, str]) -> str:
    if n.op == "param":
        if Value(n) not in scope.values:
            path = n.attrs["path"]
            owner = max((c for c in g.children if path.startswith(c + ".")), key=len)
            scope.values[Value(n)] = f"{shares[owner]}.{path[len(owner) + 1:]}"
        return ""
    right = _right(scope, n, shares)
    outputs = n.attrs["graph"].outputs if n.op == "call" else n.types
    if n.op == "update":
        return right
    targets: list[str] = []
    for i in range(len(outputs)):
        name = scope.fresh(n.name if len(outputs) == 1 else f"{n.name}_{i}" if n.name else "", "v")
        scope.values[Value(n, i)] = name
        targets.append(name)
    for i in range(len(outputs), len(n.types)):
        scope.values[Value(n, i)] = _emitted(scope, n, i)
    return f"{', '.join(targets) or '_'} = {right}"


def _emitted(scope: _Scope, n: Node, i: int) -> str:
    """A value that a call emitted, read in this body: by `collect` of its last segment."""
    full = next(a for a, v in scope.graph.emits.items() if v == Value(n, i))
    last = full.rsplit(".", 1)[-1]
    seen = [a for a in scope.graph.emits if a.rsplit(".", 1)[-1] == last]
    return f"collect({last})[{seen.index(full)}]"


def _call_label(scope: _Scope, n: Node) -> str:
    """` as NAME` where an application of a shared block emits under a name of its own."""
    inner = n.attrs["graph"]
    for address, v in scope.graph.emits.items():
        if v.node is n and v.index >= len(inner.outputs):
            path = address.removesuffix("." + list(inner.emits)[v.index - len(inner.outputs)])
            return "" if path == n.attrs["path"] else f" as {path}"
    return ""


def _right(scope: _Scope, n: Node, shares: dict[str, str]) -> str:
    if n.op == "call":
        path = n.attrs["path"]
        args = ", ".join(map(scope.value, n.args))
        if path in shares:
            return f"{shares[path]}({args}){_call_label(scope, n)}"
        return f"{scope.applied(n.attrs['graph'])}({args}) as {path}"
    if n.op == "phase":
        args = ", ".join(map(scope.value, n.args))
        return "phase { " + "  ".join(f"{k} => {scope.applied(n.attrs[k])}({args}) as _" for k in ("train", "eval")) + " }"
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


def _aten(scope: _Scope, n: Node) -> str:
    (values,), names = n.args, n.attrs["keywords"]
    plain = len(values) - len(names)
    args = [*map(scope.value, values[:plain]), *(f"{k} = {scope.value(v)}" for k, v in zip(names, values[plain:]))]
    types = ", ".join(map(scope.type, n.types))
    return f"extern aten.{n.attrs['name'].removesuffix('.default')}({', '.join(args)}) -> {types if len(n.types) == 1 else f'({types})'}"


def _op(scope: _Scope, n: Node) -> str:
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


def _index(scope: _Scope, item: tuple[Any, ...]) -> str:
    if item[0] == "new":
        return "none"
    if item[0] == "int":
        return scope.size(item[1])
    start, stop, step = ("" if v is None else scope.size(v) for v in item[1:])
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _rearrange(scope: _Scope, n: Node) -> str:
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


def _einsum(scope: _Scope, n: Node) -> str:
    def side(ids: Any) -> str:
        return "[" + ", ".join(f"a{i}" for i in ids) + "]"

    xs = n.args[0]
    return f"einsum({', '.join(map(side, n.attrs['ins']))} -> {side(n.attrs['out'])})({', '.join(map(scope.value, xs))})"


def _repeat(scope: _Scope, nodes: list[Node], at: int, shares: dict[str, str], g: Graph) -> int:
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
