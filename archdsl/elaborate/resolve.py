"""Names, before anything is evaluated: one walk over the trees of a module, dead branches and unapplied blocks included.

What cannot be told without values stays unsaid here: elaboration will speak. So nothing that this walk reports depends on a hyper value.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.elaborate import library, signatures
from archdsl.elaborate.expressions import unknown
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.values import BlockRef, Builtin, FnRef, RecordRef
from archdsl.modules import Module
from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree

TYPES = frozenset("int float bool str block mask init f64 f32 f16 bf16 i64 i32 i8 u8".split())


def resolve(module: Module) -> list[Diagnostic]:
    """Unknown names, misfitting argument lists, names bound twice or too late, missing `return`s and recursion in a module's own text."""
    walk = Walk(module)
    if module.diagnostics:
        walk.told_imports |= _doubtful_names(module)
    for d in module.tree.decls:
        visit = DECLARATIONS.get(type(d))
        if visit is not None:
            walk.begin(d)
            visit(walk, d)
    walk.recursion()
    from archdsl.claims.words import check_text

    for fault in check_text(module, walk.told_imports if module.diagnostics else set()):
        walk.report(fault)
    return walk.found.found


@dataclass
class Walk:
    """`vars`: names that may be bound at this point. `fixed`: header names, which may not be bound again. `records`: parameters of a record type.
    `loop`: the loops around; `branches`: static branches inside the innermost one. `uses`: declaration -> those of this module that it mentions."""

    module: Module
    found: Collector = field(default_factory=Collector)
    vars: dict[str, None] = field(default_factory=dict[str, None])
    fixed: dict[str, Span] = field(default_factory=dict[str, Span])
    records: dict[str, RecordRef] = field(default_factory=dict[str, RecordRef])
    rest: bool = False
    decl: Any = None
    loops: tuple[tree.For, ...] = ()
    branches: int = 0
    returns: bool = False
    told: set[str] = field(default_factory=set[str])
    told_imports: set[str] = field(default_factory=set[str])
    refs: dict[str, Any] = field(default_factory=dict[str, Any])
    uses: dict[str, dict[str, Span]] = field(default_factory=dict[str, dict[str, Span]])
    supplied: dict[int, set[str]] | None = None
    signatures: dict[tuple[int, str], signatures.Callee | None] = field(default_factory=dict[tuple[int, str], "signatures.Callee | None"])

    def begin(self, decl: Any) -> None:
        """Starts a declaration: nothing is bound."""
        self.vars, self.fixed, self.records, self.told = {}, {}, {}, set()
        self.rest, self.decl, self.loops, self.branches, self.returns = False, decl, (), 0, False

    def report(self, fault: ArchError | Diagnostic) -> None:
        self.found.add(fault)

    # ---------------------------------------------------------------- names
    def ref(self, name: str) -> Any:
        """The declaration, import or word of the language of that name, or None."""
        try:
            return self.refs[name]
        except KeyError:
            found = self.module.scope.get(name)
            found = self.refs[name] = library.find(name) if found is None else found
            return found

    def use(self, name: str, span: Span) -> Any:
        """Looks a name up; what it stands for when that is a declaration or a word of the language."""
        if name in self.vars:
            return None
        found = self.ref(name)
        if found is None:
            self.unknown(name, span)
        elif type(found) in (BlockRef, FnRef) and found.module is self.module and self.decl is not None:
            self.uses.setdefault(self.decl.name, {}).setdefault(name, span)
        return found

    def unknown(self, name: str, span: Span) -> None:
        """Reports a name once for each declaration, a forgotten import once for the file."""
        if name in self.told or name in self.told_imports:
            return
        if self.branches and any(name in _assigned(loop.body) for loop in self.loops):
            return  # an earlier pass of the loop may have bound it
        fault = self._too_late(name, span) or unknown(self, name, span)  # type: ignore[arg-type]
        (self.told_imports if library.module_of(name) else self.told).add(name)
        self.report(fault)  # type: ignore[arg-type]

    def _too_late(self, name: str, span: Span) -> ArchError | None:
        for bound, where, loop in _bindings(getattr(self.decl, "body", None) or ()):
            if bound != name:
                continue
            if loop is not None and loop.span.end <= span.start:
                return error("A0201", f"`{name}` ended with its loop", span, "not known here", labels=(Label(where, "first bound inside the loop"),),
                             help=f"give `{name}` a value in front of the loop, then it outlives it")
            return error("A0201", f"`{name}` is read before it has a value", span, "nothing so far", labels=(Label(where, "bound here"),), help="move the binding up")
        return None

    def bind(self, name: str, span: Span) -> None:
        if name in self.fixed:
            self.report(error("A0208", f"`{name}` is already a name of this header", span, "bound again here", labels=(Label(self.fixed[name], "declared here"),),
                              help=f"choose another name, for example `{name}_`"))
        elif name != "_":
            self.vars[name] = None

    # ---------------------------------------------------------------- expressions
    def expr(self, node: Any) -> None:
        EXPRESSIONS[type(node)](self, node)

    def exprs(self, nodes: Any) -> None:
        for n in nodes:
            EXPRESSIONS[type(n)](self, n)

    def maybe(self, node: Any) -> None:
        if node is not None:
            EXPRESSIONS[type(node)](self, node)

    def binary(self, node: tree.Binary) -> None:
        EXPRESSIONS[type(node.left)](self, node.left)
        EXPRESSIONS[type(node.right)](self, node.right)

    def branch(self, nodes: Any) -> None:
        self.branches += 1
        self.exprs(nodes)
        self.branches -= 1

    def call(self, node: tree.Call, piped: int = 0) -> None:
        target = self.callee(node.func)
        if type(target) is Builtin and target.name == "collect":
            return
        for a in node.args:
            if type(a.value) is tree.Rest:
                self.forward(a.value)
            else:
                EXPRESSIONS[type(a.value)](self, a.value)
        if target is None:
            return
        if type(target) is _Completed:
            self.hold(self.inputs(target.ref), node.args, node.span, piped)
            return
        is_block = type(target) is BlockRef
        callee = self.signature(target)
        if callee is not None:
            self.hold(callee, node.args, node.span, 0 if is_block else piped, self.supply(target) if is_block else frozenset())
        if is_block and piped:
            self.hold(self.inputs(target), (), node.span, 1)

    def callee(self, func: tree.Expr) -> Any:
        """What is called, when that is known without values; its names are looked up on the way."""
        kind = type(func)
        if kind is tree.Name:
            return self.use(func.id, func.span)  # type: ignore[attr-defined]
        if kind is tree.Member:
            return self.member(func)  # type: ignore[arg-type]
        self.expr(func)
        inner = func.expr if kind is tree.Named else func  # type: ignore[attr-defined]
        if type(inner) is tree.Call and type(inner.func) is tree.Name and inner.func.id not in self.vars:
            target = self.ref(inner.func.id)
            return _Completed(target) if type(target) is BlockRef else None
        return None

    def signature(self, target: Any) -> signatures.Callee | None:
        key = (id(target), "first")
        if key not in self.signatures:
            self.signatures[key] = signatures.callee(target)
        return self.signatures[key]

    def inputs(self, ref: BlockRef) -> signatures.Callee:
        key = (id(ref), "second")
        if key not in self.signatures:
            self.signatures[key] = signatures.inputs(ref)
        return self.signatures[key]  # type: ignore[return-value]

    def hold(self, callee: signatures.Callee, args: tuple[tree.Arg, ...], span: Span, piped: int, given: frozenset[str] = frozenset()) -> None:
        for fault in signatures.faults(callee, args, span, piped, given):
            self.report(fault)

    def supply(self, ref: BlockRef) -> frozenset[str]:
        """Arguments of a block that some `default` of this file sets: a template closes over those in force."""
        if self.supplied is None:
            self.supplied = {}
            for s in _defaults(self.module.tree.decls):
                block = self.module.scope.get(s.block)
                if isinstance(block, BlockRef):
                    self.supplied.setdefault(id(block.decl), set()).update(a.name for a in s.args if a.name)
        return frozenset(self.supplied.get(id(ref.decl), ()))

    def forward(self, node: tree.Rest) -> None:
        if not self.rest:
            self.report(error("A0202", "`...` forwards what a header with `...` received; this header has none", node.span))

    def pipe(self, item: tree.Expr) -> None:
        """What a value is piped into."""
        if type(item) is tree.Named:
            item = item.expr
        if type(item) is tree.Call:
            self.call(item, 1)
        elif type(item) is tree.Name:
            target = self.use(item.id, item.span)
            if type(target) is BlockRef:
                self.report(error("A0203", f"`{item.id}` needs its arguments", item.span, "a block without its first list", labels=(Label(target.decl.name_span, "declared here"),),
                                  help=f"write `{item.id}(…)`" if target.decl.params else f"write `{item.id}()`"))
        else:
            self.expr(item)

    def member(self, node: tree.Member) -> Any:
        value = node.value
        if type(value) is not tree.Name or value.id in self.vars:
            self.expr(value)
            record = self.records.get(value.id) if type(value) is tree.Name else None
            fields = [f.name for f in record.decl.fields] if record else []
            if record and node.name not in fields:
                self.report(error("A0201", f"the record {record.decl.name} has no field `{node.name}`", node.name_span, "no such field", help=did_you_mean(node.name, fields)))
            return None
        module = self.module.modules.get(value.id)
        if module is None:
            self.use(value.id, value.span)
            return None
        found = module.scope.get(node.name)
        if found is None:
            self.report(error("A0201", f"the module `{value.id}` has no `{node.name}`", node.name_span, "not declared there", help=did_you_mean(node.name, module.scope)))
        return found

    def layout(self, node: tree.LayoutCall) -> None:
        """Dims on the left are bound for this call alone."""
        self.maybe(node.value)
        self.maybe(node.layout)
        for a in node.args:
            if node.word != "reduce" or a.name is not None:
                self.expr(a.value)
        if node.output is None or not node.inputs:
            return
        local = {n for s in node.inputs for axis in s.axes for n in _names(axis)} | {a.name for a in node.args if a.name}
        for shape in (*node.inputs, node.output):
            self.fields(shape)
        for axis in node.output.axes:
            for n in axis_names(axis):
                if n not in local and n not in self.vars:
                    self.report(error("A0308", f"`{node.word}`: `{n}` is on the right only", axis.span, "nothing says what it is", help=did_you_mean(n, local)))

    # ---------------------------------------------------------------- shapes and types
    def fields(self, shape: tree.Shape) -> None:
        """Hyper values inside axes: `widths[0]`."""
        for axis in shape.axes:
            for f in _axis_fields(axis):
                self.expr(f.expr)

    def bind_shape(self, shape: tree.Shape) -> None:
        for axis in shape.axes:
            for n in _names(axis):
                if n != "_":
                    self.vars.setdefault(n)
        self.fields(shape)

    def use_shape(self, shape: tree.Shape) -> None:
        for axis in shape.axes:
            for n in axis_names(axis):
                if n not in self.vars and n != "_":
                    self.unknown(n, _axis_span(axis, n))
        self.fields(shape)

    def type(self, kind: tree.Type | None) -> RecordRef | None:
        """Checks the names in a hyper type; the record that it names."""
        if isinstance(kind, tree.NameType):
            if kind.name in TYPES:
                return None
            first, _, member = kind.name.partition(".")
            scope = self.module.modules[first].scope if member and first in self.module.modules else self.module.scope
            found = scope.get(member or first)
            if found is None:
                self.report(error("A0201", f"the type `{kind.name}` is not known", kind.span, "no such record", help=did_you_mean(kind.name, _type_names(self.module))
                                  or ("types are int, float, bool, str, block, mask, init, shapes and records",)))
            return found if isinstance(found, RecordRef) else None
        if isinstance(kind, tree.OptionalType):
            return self.type(kind.item)
        if isinstance(kind, tree.ListType):
            self.type(kind.item)
            self.maybe(kind.length)
        elif isinstance(kind, (tree.TupleType, tree.UnionType)):
            for k in kind.items if isinstance(kind, tree.TupleType) else kind.options:
                self.type(k)
        return None

    # ---------------------------------------------------------------- bodies
    def body(self, statements: tuple[Any, ...]) -> None:
        for s in statements:
            STATEMENTS[type(s)](self, s)

    def arms(self, bodies: Iterator[tuple[Any, ...]]) -> None:
        """Static branches open no scope: what one of them binds may be bound afterwards."""
        before, after = self.vars, dict(self.vars)
        self.branches += 1
        for b in bodies:
            self.vars = dict(before)
            self.body(b)
            after.update(self.vars)
        self.branches -= 1
        self.vars = after

    # ---------------------------------------------------------------- headers
    def once(self, params: Any, what: str = "this header") -> None:
        """No two parameters of one name."""
        seen: dict[str, Span] = {}
        for p in params:
            if p.name in seen and not p.rest:
                self.report(error("A0208", f"`{p.name}` is declared twice in {what}", p.span, "the second", labels=(Label(seen[p.name], "the first"),), help="give them different names"))
            seen.setdefault(p.name, p.span)

    def hyper(self, p: tree.Param) -> None:
        record = self.type(p.type)
        if record is not None:
            self.records[p.name] = record
        self.maybe(p.default)
        self.domain(p.domain)

    def domain(self, node: Any) -> None:
        if isinstance(node, tree.Each):
            vars, self.vars = self.vars, dict(self.vars)
            if node.name:
                self.vars[node.name] = None
            self.domain(node.domain)
            self.vars = vars
        elif isinstance(node, tree.List):
            for i in node.items:
                self.domain(i)
        else:
            self.maybe(node)

    def results(self, outs: tuple[tree.Out, ...], name_span: Span, name: str, needs_return: bool = True) -> None:
        """The declared results after the body: their sizes are known, and something is returned."""
        for o in outs:
            kind = o.type.item if isinstance(o.type, tree.OptionalType) else o.type
            if not isinstance(kind, tree.TensorType):
                continue
            self.fields(kind.shape)
            for axis in kind.shape.axes:
                for n in axis_names(axis):
                    if n != "_" and n not in self.vars:
                        self.report(error("A0309", f"the size `{n}` occurs only in a result: nothing says what it is", axis.span, "not bound by an input",
                                          help="write `_` for a size that follows from the body"))
        if needs_return and not self.returns:
            self.report(error("A0220", f"`{name}` returns nothing", name_span, "no `return` in its body", help="end the body with `return`"))

    # ---------------------------------------------------------------- recursion
    def recursion(self) -> None:
        """Reports each circle of declarations that mention each other, once."""
        done: set[str] = set()
        for name in self.uses:
            path = self._circle(name, [], done)
            if path:
                done.update(path)
                first, then = path[0], path[1 % len(path)]
                how = "calls" if isinstance(self.module.scope[first], FnRef) else "contains"
                way = f": {' -> '.join(f'`{n}`' for n in [*path, first])}" if len(path) > 1 else ""
                self.report(error("A0226", f"`{first}` {how} itself{way}", self.uses[first][then], "the circle starts here" if way else "here",
                                  help="a loop repeats: `for i in range(n)`. Blocks and functions never recur, so that every spec ends"))

    def _circle(self, name: str, path: list[str], done: set[str]) -> list[str] | None:
        stack: list[tuple[str, Iterator[str]]] = [(name, iter(self.uses.get(name, ())))]
        path = [name]
        while stack:
            then = next(stack[-1][1], None)
            if then is None:
                done.add(stack.pop()[0])
                path.pop()
            elif then in path:
                return path[path.index(then) :]
            elif then not in done:
                path.append(then)
                stack.append((then, iter(self.uses.get(then, ()))))
        return None


@dataclass(slots=True)
class _Completed:
    """A block with its first list: what is called next is its second one."""

    ref: BlockRef


def _doubtful_names(module: Module) -> set[str]:
    """Where the text could not be read in full: every word outside of what was read. It may have bound them, so nothing is said of them."""
    text = list(module.source.text)
    stack: list[Any] = list(module.tree.decls)
    while stack:
        node = stack.pop()
        inside = [s for b in _nested(node) for s in b] if isinstance(node, tree.Statement) else list(getattr(node, "body", None) or ())
        broken = any(f.span.start < node.span.end and node.span.start <= f.span.end and f.span.source is module.source for f in module.diagnostics)
        if broken and inside:
            stack += inside
        elif not broken:
            text[node.span.start : node.span.end] = " " * (node.span.end - node.span.start)
    return set(re.findall(r"\w+", "".join(text)))


# ---------------------------------------------------------------- what names a tree binds
def _names(axis: tree.Axis) -> list[str]:
    """The names that matching an axis binds."""
    if isinstance(axis, (tree.AxesVar, tree.Ragged, tree.Bounded)):
        return [axis.id]
    return axis_names(axis)


def _axis_fields(axis: Any) -> Iterator[tree.AxisField]:
    if isinstance(axis, tree.AxisField):
        yield axis
    elif isinstance(axis, (tree.AxisOp, tree.AxisFactors)):
        for a in axis.operands if isinstance(axis, tree.AxisOp) else axis.items:
            yield from _axis_fields(a)


def _axis_span(axis: Any, name: str) -> Span:
    if isinstance(axis, (tree.AxisOp, tree.AxisFactors)):
        for a in axis.operands if isinstance(axis, tree.AxisOp) else axis.items:
            if name in axis_names(a):
                return _axis_span(a, name)
    return axis.span


def _pattern(p: tree.Pattern) -> list[tuple[str, Span]]:
    return [(p.name, p.span)] if p.name is not None else [n for q in p.items for n in _pattern(q)]


def _nested(s: Any) -> Iterator[tuple[Any, ...]]:
    """The bodies inside a statement."""
    if isinstance(s, (tree.For, tree.Island, tree.Scan)):
        yield s.body
    elif isinstance(s, tree.If):
        yield from (body for _, body in s.branches)
        yield s.otherwise
    elif isinstance(s, tree.Match):
        yield from (a.body for a in s.arms)


def _bindings(body: Any, loop: tree.For | None = None) -> Iterator[tuple[str, Span, tree.For | None]]:
    """Every name that statements bind, where, and the outermost loop around."""
    for s in body:
        if isinstance(s, tree.Assign):
            yield from ((t.name, t.span, loop) for t in s.targets)
        elif isinstance(s, (tree.Share, tree.ParamDecl, tree.Choose)):
            yield s.name, s.name_span, loop
        elif isinstance(s, (tree.Const, tree.Draw)):
            yield s.name, s.span, loop
        inside = s if isinstance(s, tree.For) and loop is None else loop
        if isinstance(s, tree.For):
            yield from ((n, span, inside) for n, span in _pattern(s.pattern))
        for b in _nested(s):
            yield from _bindings(b, inside)


def _assigned(body: Any) -> set[str]:
    return {n for n, _, _ in _bindings(body)}


def _defaults(decls: Any) -> Iterator[tree.Default]:
    for d in decls:
        stack = list(getattr(d, "body", None) or ())
        while stack:
            s = stack.pop()
            if isinstance(s, tree.Default):
                yield s
            elif isinstance(s, tree.Entry):
                stack.extend(s.body)
            for b in _nested(s):
                stack.extend(b)


def _type_names(module: Module) -> list[str]:
    return [*sorted(TYPES), *(n for n, r in module.scope.items() if isinstance(r, RecordRef))]


def _word(s: tree.Statement, name: str) -> Span:
    """Where a name stands in a statement that keeps no span for it: after the statement's own word."""
    text = s.span.text
    at = text.find(name, text.find(" "))
    return Span(s.span.source, s.span.start + at, s.span.start + at + len(name)) if at >= 0 else s.span


# ---------------------------------------------------------------- expressions
def _name(w: Walk, n: tree.Name) -> None:
    if n.id not in w.vars:
        w.use(n.id, n.span)


def _chain(w: Walk, n: tree.Chain) -> None:
    if n.op != "|>":
        w.exprs(n.items)
        return
    w.expr(n.items[0])
    for item in n.items[1:]:
        w.pipe(item)


def _range(w: Walk, n: tree.Range) -> None:
    w.expr(n.start)
    w.expr(n.stop)
    w.maybe(n.step)


def _slice(w: Walk, n: tree.Slice) -> None:
    w.maybe(n.start)
    w.maybe(n.stop)
    w.maybe(n.step)


def _item(w: Walk, n: tree.Item) -> None:
    w.expr(n.value)
    for i in n.indices:
        if type(i) is not tree.Rest:
            w.expr(i)


def _comprehension(w: Walk, n: tree.Comprehension) -> None:
    w.expr(n.iterable)
    vars, w.vars = w.vars, dict(w.vars)
    for name, span in _pattern(n.pattern):
        w.bind(name, span)
    w.maybe(n.condition)
    w.expr(n.item)
    w.vars = vars


def _if_expr(w: Walk, n: tree.IfExpr) -> None:
    for condition, results in n.branches:
        w.expr(condition)
        w.branch(results)
    w.branch(n.otherwise)


def _match_expr(w: Walk, n: tree.MatchExpr) -> None:
    w.expr(n.subject)
    w.branch(a.body for a in n.arms)


def _phase(w: Walk, n: tree.PhaseExpr) -> None:
    names = [name for name, _ in n.arms]
    odd = next((name for name in names if name not in ("train", "eval")), None)
    if odd is not None:
        w.report(error("A0227", f"a phase is `train` or `eval`, not `{odd}`", n.span))
    elif sorted(names) != ["eval", "train"]:
        w.report(error("A0227", "both phases need an arm: `phase { train => …  eval => … }`", n.span))
    for _, results in n.arms:
        w.exprs(results)


def _literal(w: Walk, n: tree.BlockLiteral) -> None:
    vars, rest = w.vars, w.rest
    w.vars, w.rest = dict(vars), False
    for name, kind in n.params:
        w.vars[name] = None
        if isinstance(kind, tree.TensorType):
            w.bind_shape(kind.shape)
    w.expr(n.body)
    w.vars, w.rest = vars, rest


def _edited(w: Walk, n: tree.Edited) -> None:
    w.expr(n.expr)


def _nothing(w: Walk, n: Any) -> None:
    pass


EXPRESSIONS: dict[type, Callable[[Walk, Any], Any]] = {
    tree.Name: _name, tree.Number: _nothing, tree.Str: _nothing, tree.Bool: _nothing, tree.NoneLit: _nothing, tree.Some: _nothing,
    tree.Tuple: lambda w, n: w.exprs(n.items), tree.List: lambda w, n: w.exprs(n.items), tree.SetLit: lambda w, n: w.exprs(n.items),
    tree.Range: _range, tree.Comprehension: _comprehension, tree.Each: Walk.domain, tree.Unary: lambda w, n: w.expr(n.operand), tree.Binary: lambda w, n: w.binary(n),
    tree.IsSome: lambda w, n: w.expr(n.operand), tree.Chain: _chain, tree.Call: lambda w, n: w.call(n), tree.Item: _item, tree.Slice: _slice, tree.Member: lambda w, n: w.member(n),
    tree.Named: lambda w, n: w.expr(n.expr), tree.Edited: _edited, tree.IfExpr: _if_expr, tree.MatchExpr: _match_expr, tree.PhaseExpr: _phase,
    tree.BlockLiteral: _literal, tree.LayoutCall: Walk.layout, tree.Rest: Walk.forward,
}


# ---------------------------------------------------------------- statements
def _assign(w: Walk, s: tree.Assign) -> None:
    w.exprs(s.values)
    for t in s.targets:
        if t.type is not None:
            w.bind_shape(t.type.shape) if isinstance(t.type, tree.TensorType) else w.type(t.type)
        w.bind(t.name, t.span)


def _default(w: Walk, s: tree.Default) -> None:
    if s.block in w.vars:
        return
    target = w.ref(s.block)
    if target is None:
        w.unknown(s.block, _word(s, s.block))
    for a in s.args:
        w.expr(a.value)
    if not isinstance(target, BlockRef):
        return
    if any(a.name is None for a in s.args):
        w.report(error("A0205", "a default names its arguments", s.span, help=f"`default {s.block}(name = value)`"))
    named = tuple(a for a in s.args if a.name is not None)
    callee = signatures.callee(target)
    assert callee is not None
    w.hold(callee, named, s.span, 0, frozenset(n for n, _ in callee.params))


def _share(w: Walk, s: tree.Share) -> None:
    w.expr(s.value)
    w.maybe(s.condition)
    w.bind(s.name, s.name_span)


def _param(w: Walk, s: tree.ParamDecl) -> None:
    w.maybe(s.condition)
    if isinstance(s.type, tree.TensorType):
        w.use_shape(s.type.shape)
    w.expr(s.init)
    w.bind(s.name, s.name_span)


def _named_value(w: Walk, s: Any) -> None:
    """`const` and `draw`."""
    w.expr(s.value)
    if isinstance(s.type, tree.TensorType):
        w.bind_shape(s.type.shape)
    w.bind(s.name, _word(s, s.name))


def _control(w: Walk, s: tree.Control) -> None:
    w.type(s.type)
    w.expr(s.default)
    w.domain(s.domain)
    w.bind(s.name, _word(s, s.name))


def _emit(w: Walk, s: tree.Emit) -> None:
    if s.value is not None:
        w.expr(s.value)
    elif s.name not in w.vars:
        w.use(s.name, _word(s, s.name))


def _update(w: Walk, s: tree.Update) -> None:
    w.expr(s.value)
    if s.name not in w.vars:
        w.unknown(s.name, _word(s, s.name))


def _static(w: Walk, s: tree.Static) -> None:
    for n in s.names:
        if n not in w.vars:
            w.unknown(n, _word(s, n))


def _for(w: Walk, s: tree.For) -> None:
    w.expr(s.iterable)
    before, branches = w.vars, w.branches
    w.vars, w.branches, w.loops = dict(before), 0, (*w.loops, s)
    for name, span in _pattern(s.pattern):
        w.bind(name, span)
    w.body(s.body)
    w.vars, w.branches, w.loops = before, branches, w.loops[:-1]


def _if(w: Walk, s: tree.If) -> None:
    for condition, _ in s.branches:
        w.expr(condition)
    w.arms(iter([*(body for _, body in s.branches), s.otherwise]))


def _match(w: Walk, s: tree.Match) -> None:
    w.expr(s.subject)
    w.arms(iter([a.body for a in s.arms]))


def _choose(w: Walk, s: tree.Choose) -> None:
    arms: dict[str, tree.ChooseArm] = {}
    for arm in s.arms:
        if arm.name in arms:
            w.report(error("A0208", f"`{s.name}` has two arms `{arm.name}`", arm.span, "the second", labels=(Label(arms[arm.name].span, "the first"),)))
        arms.setdefault(arm.name, arm)
        w.once(arm.params, f"the arm `{arm.name}`")
        vars, w.vars = w.vars, dict(w.vars)
        for p in arm.params:
            w.hyper(p)
            w.vars[p.name] = None
        w.expr(arm.value)
        w.vars = vars
    default = arms.get(s.default)
    if default is None:
        w.report(error("A0224", f"`{s.name}` has no arm `{s.default}`", _last_word(s, s.default), "no such arm", help=did_you_mean(s.default, arms) or (f"its arms are {', '.join(arms)}",)))
    for a in s.default_args:
        w.expr(a.value)
    if default is not None:
        w.hold(signatures.Callee(f"the arm `{s.default}`", [(p.name, False) for p in default.params]), s.default_args, s.span, 0)
    w.bind(s.name, s.name_span)


def _last_word(s: tree.Statement, name: str) -> Span:
    at = s.span.text.rfind(name)
    return Span(s.span.source, s.span.start + at, s.span.start + at + len(name)) if at >= 0 else s.span


def _return(w: Walk, s: tree.Return) -> None:
    w.exprs(s.values)
    w.returns = True
    outs = getattr(w.decl, "outs", None)
    if outs is not None and len(s.values) > 1 and len(s.values) != len(outs):
        where = s.values[0].span.to(s.values[-1].span)
        w.report(error("A0220", f"`{w.decl.name}` declares {len(outs)} result{'s' * (len(outs) != 1)}, this returns {len(s.values)}", where))


def _scan(w: Walk, s: tree.Scan) -> None:
    for n in (*s.inputs, s.axis):
        if n not in w.vars:
            w.unknown(n, _word(s, n))
    for c in s.carries:
        if isinstance(c.type, tree.TensorType):
            w.use_shape(c.type.shape)
        w.expr(c.init)
    w.maybe(s.merge)
    w.maybe(s.identity)
    for c in s.carries:
        w.vars[c.name] = None
    w.body(s.body)
    w.returns = True  # what it yields is the result


def _entry(w: Walk, s: tree.Entry) -> None:
    vars, fixed, returns, decl = dict(w.vars), dict(w.fixed), w.returns, w.decl
    w.once(s.inputs)
    for p in s.inputs:
        _input(w, p)
    _stream(w, s.stream, s.inputs, s.span)
    w.decl, w.returns = s, False
    w.body(s.body)
    w.results(s.outs, signatures._head(s), s.name)
    w.vars, w.fixed, w.returns, w.decl = vars, fixed, returns, decl


STATEMENTS: dict[type, Callable[[Walk, Any], Any]] = {
    tree.Assign: _assign, tree.Require: lambda w, s: w.expr(s.condition), tree.Default: _default, tree.Share: _share, tree.ParamDecl: _param,
    tree.Const: _named_value, tree.Draw: _named_value, tree.Control: _control, tree.Emit: _emit, tree.Update: _update, tree.Static: _static, tree.For: _for,
    tree.If: _if, tree.Match: _match, tree.Choose: _choose, tree.Island: lambda w, s: w.body(s.body), tree.Return: _return, tree.Scan: _scan,
    tree.Next: lambda w, s: w.expr(s.value), tree.Yield: lambda w, s: w.exprs(s.values), tree.Entry: _entry,
}


# ---------------------------------------------------------------- declarations
def tensor_type(p: tree.Param) -> tree.TensorType | None:
    """The shape of a header's parameter (or of the items of a list); None for a hyper argument."""
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    if isinstance(kind, tree.ListType):
        kind = kind.item
    return kind if isinstance(kind, tree.TensorType) else None


def _block(w: Walk, d: tree.Block) -> None:
    """Sizes of the inputs first, then hyper arguments, whose defaults may read them."""
    w.once((*d.params, *d.inputs))
    w.rest = any(p.rest for p in d.inputs)
    for p in (*d.params, *d.inputs):
        kind = tensor_type(p)
        if not p.rest:
            w.vars[p.name] = None
            if kind is None:
                w.fixed[p.name] = p.span
    for p in d.inputs:
        kind = tensor_type(p)
        if kind is not None:
            w.bind_shape(kind.shape)
    for p in (*d.params, *d.inputs):
        if not p.rest:
            w.hyper(p)
    if d.body is not None:
        w.body(d.body)
    w.results(d.outs, d.name_span, d.name, d.body is not None)


def _model(w: Walk, d: tree.Model) -> None:
    """Each hyper argument may read those before it."""
    w.once((*d.params, *(d.inputs or ())))
    for i, p in enumerate(d.params):
        later = {q.name: q.span for q in d.params[i:]}
        before = len(w.found.found)
        w.hyper(p)
        w.found.found[before:] = [_later(f, later, p.name) for f in w.found.found[before:]]
        w.told -= later.keys()
        w.vars[p.name] = None
        w.fixed[p.name] = p.span
    if d.base is not None:
        return
    for p in d.inputs or ():
        _input(w, p)
    _stream(w, d.stream, d.inputs or (), d.name_span)
    w.body(d.body)
    if d.inputs is not None:
        w.results(d.outs, d.name_span, d.name)


def _later(fault: Diagnostic, later: dict[str, Span], own: str) -> Diagnostic:
    """An unknown name in a header default that is declared further on."""
    name = fault.span.text
    if fault.code != "A0201" or name not in later:
        return fault
    what = "itself" if name == own else f"`{name}`, which is declared after it"
    return error("A0201", f"the default of `{own}` reads {what}", fault.span, "no value so far", labels=(Label(later[name], "declared here"),),
                 help="a default reads the arguments before it").diagnostics[0]


def _input(w: Walk, p: tree.Param) -> None:
    kind = tensor_type(p)
    if kind is not None:
        for axis in kind.shape.axes:
            for n in _names(axis):
                if n in w.vars or n == "_":
                    continue
                if not n[0].isupper():
                    w.report(error("A0309", f"nothing binds the size `{n}`", axis.span, "a lower-case size is fixed when the model is built",
                                   help=f"make it a hyper argument (`{n}: int = …`), or write it in upper case when it varies at run time"))
                w.vars[n] = None
                w.fixed[n] = axis.span
        w.fields(kind.shape)
    w.vars[p.name] = None
    w.maybe(p.default)
    w.domain(p.domain)


def _stream(w: Walk, axis: str | None, inputs: tuple[tree.Param, ...], span: Span) -> None:
    kinds = [k for k in map(tensor_type, inputs) if k is not None]
    axes = [n for k in kinds for a in k.shape.axes for n in _names(a)]
    if axis is not None and axis not in axes and kinds:
        w.report(error("A0309", f"`stream {axis}`: no input has an axis `{axis}`", span, help=did_you_mean(axis, axes) or (f"the axes are {', '.join(dict.fromkeys(axes))}",)))


def _fn(w: Walk, d: tree.Fn) -> None:
    w.once(d.params)
    for p in d.params:
        w.hyper(p)
        w.vars[p.name] = None
        w.fixed[p.name] = p.span
    w.fixed.clear()  # a function may give its arguments other values
    w.type(d.result)
    w.body(d.body)
    w.results((), signatures._head(d), d.name)


def _op(w: Walk, d: tree.OpDecl) -> None:
    w.once(d.params)
    for p in d.params:
        w.vars[p.name] = None
        kind = tensor_type(p)
        if kind is not None:
            w.bind_shape(kind.shape)
    for p in d.params:
        if not p.rest:
            w.hyper(p)
    if d.body is not None:
        w.body(d.body)
    w.results(d.outs, signatures._head(d), d.name, d.body is not None)


def _record(w: Walk, d: tree.Record) -> None:
    w.once(d.fields, f"the record {d.name}")
    for p in d.fields:
        w.hyper(p)
        w.vars[p.name] = None


DECLARATIONS: dict[type, Callable[[Walk, Any], None]] = {
    tree.Block: _block, tree.Model: _model, tree.Fn: _fn, tree.OpDecl: _op, tree.Record: _record, tree.Entry: _entry,
}
