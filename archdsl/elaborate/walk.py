"""The walk that reads names without evaluating: what is known at a point of the text, and expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.elaborate import library, signatures
from archdsl.elaborate.bindings import assigned_names, axis_fields, axis_span, bindings, bound_names, default_statements, header_type
from archdsl.elaborate.hints import mend
from archdsl.elaborate.signatures import Callee
from archdsl.elaborate.unknown import divided_by, unknown
from archdsl.elaborate.values import BlockRef, Builtin, FnRef, RecordRef
from archdsl.modules import Module
from archdsl.records import field, record
from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree

MAX_FOUND = 100  # looking for near names takes a while for each


class Enough(Exception):
    """So much is wrong that the rest waits until this is mended."""


def ends(s: Any) -> bool:
    """Whether a statement returns in any case."""
    if isinstance(s, tree.If):
        return s.has_else and all(any(map(ends, b)) for b in (*(body for _, body in s.branches), s.otherwise))
    if isinstance(s, tree.Match):
        others = any(isinstance(p, tree.Name) and p.id == "_" for a in s.arms for p in a.patterns)
        return others and all(any(map(ends, a.body)) for a in s.arms)
    return isinstance(s, tree.Return)


@record(slots=False)
class Walk:
    """`vars`: names that may be bound at this point. `fixed`: header names, which may not be bound again. `records`: parameters of a record type.
    `loop`: the loops around; `branches`: static branches inside the innermost one; `inside`: all around. `hidden`: names of the header that mean
    something else here. `uses`: declaration -> those of this module that it mentions.
    `ahead`: names in the second list of the block that is being completed."""

    module: Module
    found: Collector = field(default_factory=Collector)
    vars: dict[str, None] = field(default_factory=dict[str, None])
    fixed: dict[str, Span] = field(default_factory=dict[str, Span])
    records: dict[str, RecordRef] = field(default_factory=dict[str, RecordRef])
    rest: bool = False
    decl: Any = None
    loops: tuple[tree.For, ...] = ()
    hidden: frozenset[str] = frozenset()
    branches: int = 0
    inside: int = 0
    returns: bool = False
    told: set[str] = field(default_factory=set[str])
    told_imports: set[str] = field(default_factory=set[str])
    refs: dict[str, Any] = field(default_factory=dict[str, Any])
    uses: dict[str, dict[str, Span]] = field(default_factory=dict[str, dict[str, Span]])
    supplied: dict[int, set[str]] | None = None
    ahead: frozenset[str] = frozenset()
    lists: dict[tuple[int, str], Callee | None] = field(default_factory=dict[tuple[int, str], "Callee | None"])

    def begin(self, decl: Any) -> None:
        """Starts a declaration: nothing is bound."""
        self.vars, self.fixed, self.records, self.told = {}, {}, {}, set()
        self.rest, self.decl, self.loops, self.branches, self.inside, self.returns = False, decl, (), 0, 0, False
        self.hidden = frozenset()

    def report(self, fault: ArchError | Diagnostic) -> None:
        self.found.add(fault)
        if len(self.found.found) >= MAX_FOUND:
            raise Enough

    def all(self, visit: Callable[[Any], None], items: Any) -> list[Diagnostic]:
        """What is found in these items."""
        try:
            for item in items:
                visit(item)
        except Enough:
            pass
        return self.found.found

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
        if found is None and library.installed_op(name):
            self.refs.pop(name, None)
            found = self.ref(name)
        if found is None:
            self.unknown(name, span)
        elif type(found) in (BlockRef, FnRef) and found.module is self.module and self.decl is not None:
            self.uses.setdefault(self.decl.name, {}).setdefault(name, span)
        return found

    def unknown(self, name: str, span: Span) -> None:
        """Reports a name once for each declaration, a forgotten import once for the file; of what follows `//`, one that is like no other name: it
        may be a comment."""
        where = library.module_of(name)
        if name in self.told or name in self.told_imports or (where and {where, "std"} & self.failed_imports()):
            return
        if self.branches and any(name in assigned_names(loop.body) for loop in self.loops):
            return  # an earlier pass of the loop may have bound it
        sign = None if (at := divided_by(span)) is None else f"// {span.source.at(at)}"
        if sign in self.told:
            return
        fault = self._too_late(name, span) or unknown(self, name, span)  # type: ignore[arg-type]
        (self.told_imports if where else self.told).add(name)
        if sign is not None and not fault.diagnostics[0].fixes:
            self.told.add(sign)
        self.report(fault)  # type: ignore[arg-type]

    def broken(self) -> bool:
        """Whether a part of the present declaration could not be read."""
        span, faults = self.decl.span.absolute, [d.span.absolute for d in self.module.diagnostics]
        return any(f.source is span.source and span.start <= f.start <= span.end for f in faults)

    def failed_imports(self) -> set[str]:
        """Modules of which an import failed, perhaps by a misspelling of the very name."""
        if not self.module.diagnostics:
            return set()
        return {
            d.module
            for d in self.module.tree.decls
            if isinstance(d, tree.Use) and any(self.module.scope.get(n.alias or n.name) is POISON for n in d.names)
        }

    def _too_late(self, name: str, span: Span) -> ArchError | None:
        for bound, where, loop in bindings(getattr(self.decl, "body", None) or ()):
            if bound != name:
                continue
            if loop is not None and loop.span.end <= span.start:
                return error(
                    "A0201",
                    f"`{name}` ended with its loop",
                    span,
                    "not known here",
                    labels=(Label(where, "first bound inside the loop"),),
                    help=f"give `{name}` a value in front of the loop, then it outlives it",
                )
            return error(
                "A0201",
                f"`{name}` is read before it has a value",
                span,
                "nothing so far",
                labels=(Label(where, "bound here"),),
                help="move the binding up",
            )
        return None

    def type_of(self, name: str) -> tree.Type | None:
        """The type of a name of the header, where that is known here."""
        return None if name in self.hidden else header_type(self.decl, name, self._gives_tensor)

    def _gives_tensor(self, name: str) -> bool:
        """Is it an op, or one of the body's or the header's own blocks? A function may give anything."""
        return name in self.vars or name not in self.module.scope and library.is_op(name)

    def bind(self, name: str, span: Span) -> None:
        if name in self.fixed:
            self.report(
                error(
                    "A0208",
                    f"`{name}` is already a name of this header",
                    span,
                    "bound again here",
                    labels=(Label(self.fixed[name], "declared here"),),
                    help=f"choose another name, for example `{name}_`",
                )
            )
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
        self.inside += 1
        self.exprs(nodes)
        self.branches -= 1
        self.inside -= 1

    def call(self, node: tree.Call, piped: int = 0) -> None:
        ahead, self.ahead = self.ahead, frozenset(a.name for a in node.args if a.name)
        target = self.callee(node.func)
        self.ahead = frozenset()
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
            self.hold(callee, node.args, node.span, 0 if is_block else piped, self.supply(target) | ahead if is_block else frozenset())
        if is_block and callee is not None and self.inside:
            for fault in signatures.misfits(callee, node.args, self.type_of):
                self.report(fault)
        if is_block and piped:
            self.hold(self.inputs(target), (), node.span, 1)

    def callee(self, func: tree.Expr) -> Any:
        """What is called, when that is known without values; its names are looked up on the way."""
        if isinstance(func, tree.Name):
            return self.use(func.id, func.span)
        if isinstance(func, tree.Member):
            return self.member(func)
        self.expr(func)
        inner = func.expr if isinstance(func, tree.Named) else func
        if isinstance(inner, tree.Call) and isinstance(inner.func, tree.Name) and inner.func.id not in self.vars:
            target = self.ref(inner.func.id)
            return _Completed(target) if type(target) is BlockRef else None
        return None

    def signature(self, target: Any) -> Callee | None:
        key = (id(target), "first")
        if key not in self.lists:
            self.lists[key] = signatures.callee(target)
        return self.lists[key]

    def inputs(self, ref: BlockRef) -> Callee:
        key = (id(ref), "second")
        if key not in self.lists:
            self.lists[key] = signatures.inputs(ref)
        return self.lists[key]  # type: ignore[return-value]

    def hold(self, callee: Callee, args: tuple[tree.Arg, ...], span: Span, piped: int, given: frozenset[str] = frozenset()) -> None:
        for fault in signatures.faults(callee, args, span, piped, given):
            self.report(fault)

    def supply(self, ref: BlockRef) -> frozenset[str]:
        """Arguments of a block that some `default` of this file sets: a template closes over those in force."""
        if self.supplied is None:
            self.supplied = {}
            for s in default_statements(self.module.tree.decls):
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
                self.report(
                    error(
                        "A0203",
                        f"`{item.id}` needs its arguments",
                        item.span,
                        "a block without its first list",
                        labels=(Label(target.decl.name_span, "declared here"),),
                        help=f"write `{item.id}(…)`" if target.decl.params else f"write `{item.id}()`",
                    )
                )
        else:
            self.expr(item)

    def member(self, node: tree.Member) -> Any:
        value = node.value
        if type(value) is not tree.Name or value.id in self.vars:
            self.expr(value)
            record = self.records.get(value.id) if type(value) is tree.Name else None
            fields = [f.name for f in record.decl.fields] if record else []
            if record and node.name not in fields:
                self.report(
                    error(
                        "A0201",
                        f"the record {record.decl.name} has no field `{node.name}`",
                        node.name_span,
                        "no such field",
                        **mend(node.name, fields, node.name_span),
                    )
                )
            return None
        module = self.module.modules.get(value.id)
        if module is None:
            self.use(value.id, value.span)
            return None
        found = module.scope.get(node.name)
        if found is None:
            self.report(
                error(
                    "A0201",
                    f"the module `{value.id}` has no `{node.name}`",
                    node.name_span,
                    "not declared there",
                    **mend(node.name, module.scope, node.name_span),
                )
            )
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
        local = {n for s in node.inputs for axis in s.axes for n in bound_names(axis)} | {a.name for a in node.args if a.name}
        for shape in (*node.inputs, node.output):
            self.fields(shape)
        for axis in node.output.axes:
            for n in axis_names(axis):
                if n not in local and n not in self.vars:
                    self.report(
                        error(
                            "A0308", f"`{node.word}`: `{n}` is on the right only", axis.span, "nothing says what it is", **mend(n, local, axis.span)
                        )
                    )

    # ---------------------------------------------------------------- shapes
    def fields(self, shape: tree.Shape) -> None:
        """Hyper values inside axes: `widths[0]`."""
        for axis in shape.axes:
            for f in axis_fields(axis):
                self.expr(f.expr)

    def bind_shape(self, shape: tree.Shape) -> None:
        for axis in shape.axes:
            for n in bound_names(axis):
                if n != "_":
                    self.vars.setdefault(n)
        self.fields(shape)

    def use_shape(self, shape: tree.Shape) -> None:
        for axis in shape.axes:
            for n in axis_names(axis):
                if n not in self.vars and n != "_":
                    self.unknown(n, axis_span(axis, n))
        self.fields(shape)

    # ---------------------------------------------------------------- bodies
    def body(self, statements: tuple[Any, ...]) -> None:
        for s in statements:
            STATEMENTS[type(s)](self, s)
        end = next((i for i, s in enumerate(statements) if ends(s)), len(statements))
        for s in statements[end + 1 : end + 2]:
            self.report(error("A0230", "nothing is evaluated behind `return`", s.span, "never reached",
                              labels=(Label(statements[end].span, "the body ends here"),), help="remove it, or put it in front of the `return`"))

    def arms(self, bodies: Iterator[tuple[Any, ...]]) -> None:
        """Static branches open no scope: what one of them binds may be bound afterwards."""
        before, after = self.vars, dict(self.vars)
        self.branches += 1
        self.inside += 1
        for b in bodies:
            self.vars = dict(before)
            self.body(b)
            after.update(self.vars)
        self.branches -= 1
        self.inside -= 1
        self.vars = after


@record()
class _Completed:
    """A block with its first list: what is called next is its second one."""

    ref: BlockRef


EXPRESSIONS: dict[type, Callable[[Walk, Any], Any]] = {}
"""Filled by walk_expressions."""
STATEMENTS: dict[type, Callable[[Walk, Any], Any]] = {}
"""Filled by walk_bodies."""
