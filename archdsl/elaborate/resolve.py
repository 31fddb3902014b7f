"""Names, before anything is evaluated: one walk over the trees of a module, dead branches and unapplied blocks included.

What cannot be told without values stays unsaid here: elaboration will speak. So nothing that this walk reports depends on a hyper value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import Diagnostic, Label, error
from archdsl.elaborate import walk_bodies, walk_expressions  # they fill the tables
from archdsl.elaborate.bindings import assigned_names, bound_names, nested_bodies, tensor_type
from archdsl.elaborate.hints import mend
from archdsl.elaborate.signatures import name_span
from archdsl.elaborate.values import BlockRef, FnRef
from archdsl.elaborate.walk import STATEMENTS, Enough, Walk
from archdsl.elaborate.walk_headers import domain, hyper, hyper_type, once, results
from archdsl.modules import Module, library_exports
from archdsl.source import Source, Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.incremental.kept import Kept


def resolve(module: Module, kept: Kept | None = None) -> list[Diagnostic]:
    """Unknown names, misfitting argument lists, names bound twice or too late, missing `return`s and recursion in a module's own text."""
    walk = Walk(module)
    if module.diagnostics:
        walk.told_imports |= _doubtful_names(module)
    with suppress(Enough):
        _walk(walk, module, kept)
    if kept is not None and walk.found.found:  # what is said of one declaration may depend on what was said before
        return resolve(module)
    guessed = [_lines(f) for f in module.diagnostics if f.code == "A0109"]
    sure = [d for d in walk.found.found if not any(_inside(f, d.span) for f in module.diagnostics)]
    return [d for d in sure if not any(_on(lines, d.span) for lines in guessed)]


def _lines(fault: Diagnostic) -> tuple[Source, int, int]:
    """The lines between a bracket and where its partner was put, which may have been elsewhere: what is read there is a guess."""
    places = [fault.span.absolute, *(label.span.absolute for label in fault.labels)]
    rows = [p.source.position(p.start)[0] for p in places]
    return places[0].source, min(rows), max(rows)


def _on(lines: tuple[Source, int, int], span: Span) -> bool:
    where = span.absolute
    return where.source is lines[0] and lines[1] <= where.source.position(where.start)[0] <= lines[2]


def _inside(fault: Diagnostic, span: Span) -> bool:
    """Whether a text that could not be read lies inside of another one: what is said of that may follow from it."""
    fault_span, span = fault.span.absolute, span.absolute
    return fault_span.source is span.source and span.start <= fault_span.start < span.end


def _walk(walk: Walk, module: Module, kept: Kept | None) -> None:
    for d in module.tree.decls:
        visit = DECLARATIONS.get(type(d))
        if visit is not None:
            known = None if kept is None else kept.resolved(d)
            all_uses, walk.uses = walk.uses, {} if known is None else known
            if known is None:
                walk.begin(d)
                visit(walk, d)
                if kept is not None and not (walk.found.found or walk.told_imports):
                    kept.resolve(d, walk.uses)
            for name, mentioned in walk.uses.items():
                first = all_uses.setdefault(name, {})
                first.update((n, span) for n, span in mentioned.items() if n not in first)
            walk.uses = all_uses
    _recursion(walk)
    if "collect" in module.source.text:
        _collected(walk, module)
    if any(isinstance(d, tree.Claim | tree.Variant | tree.Space) for d in module.tree.decls):
        from archdsl.claims.words import check_text

        for fault in check_text(module, walk.told_imports if module.diagnostics else set()):
            walk.report(fault)


def _doubtful_names(module: Module) -> set[str]:
    """Where the text could not be read in full: every word outside of what was read. It may have bound them, so nothing is said of them."""
    text = list(module.source.text)
    faults = [f.span.absolute for f in module.diagnostics]
    stack: list[Any] = list(module.tree.decls)
    while stack:
        node = stack.pop()
        inside = [s for b in nested_bodies(node) for s in b] if isinstance(node, tree.Statement) else list(getattr(node, "body", None) or ())
        span = node.span.absolute
        broken = any(f.start < span.end and span.start <= f.end and f.source is module.source for f in faults)
        if broken and inside:
            stack += inside
        elif not broken:
            text[span.start : span.end] = " " * (span.end - span.start)
    left = "".join(text)
    used = set(re.findall(r"\buse\s+([\w.]+)", left))
    return {*re.findall(r"\w+", left), *(name for name, where in library_exports().items() if where in used or "std" in used)}


# ---------------------------------------------------------------- emitted values
def _collected(walk: Walk, module: Module) -> None:
    """Reports each `collect` of a name that nothing emits in the module's text, or in what it imports: the list would always be empty. A block that
    is given as an argument may emit anything, and so may what could not be read."""
    if "collect" in module.scope or module.diagnostics:
        return
    asked = [n.args[0].value for d in module.tree.decls
             if "collect" in d.span.text and not _takes_blocks(d) and "collect" not in assigned_names(getattr(d, "body", None) or ())
             for n in tree.below(d) if isinstance(n, tree.Call) and isinstance(n.func, tree.Name) and n.func.id == "collect" and len(n.args) == 1]
    names = [a for a in asked if isinstance(a, tree.Name)]
    emitted = _emitted(module, {}) if names else {}
    for name in names:
        if emitted is not None and name.id not in emitted:
            walk.report(error("A0219", f"nothing emits `{name.id}`", name.span, "there is no such value to collect",
                              **mend(name.id, emitted, name.span, f"`emit {name.id} = value` in a block that is applied above")))


def _takes_blocks(decl: Any) -> bool:
    """Whether an argument of the header may hold a block, which a variant or a caller elsewhere chooses."""
    kinds = [n.name for p in getattr(decl, "params", ()) for n in tree.below(p.type) if isinstance(n, tree.NameType)]
    return any(kind not in ("int", "float", "bool", "str", "mask", "init") for kind in kinds)


def _emitted(module: Module, seen: dict[int, None]) -> dict[str, None] | None:
    """The names of what is emitted in a module and in those whose declarations it reads; None where it may read any of the library (`use std`)."""
    seen[id(module)] = None
    emitting = [d for d in module.tree.decls if "emit" in d.span.text]
    found = {n.name: None for n in tree.below(tuple(emitting)) if isinstance(n, tree.Emit)}
    for other in [*(r.module for r in module.scope.values() if isinstance(r, (BlockRef, FnRef))), *module.modules.values()]:
        if not isinstance(other, Module):
            return None
        if id(other) not in seen:
            more = _emitted(other, seen)
            if more is None:
                return None
            found |= more
    return found


# ---------------------------------------------------------------- recursion
def _recursion(walk: Walk) -> None:
    """Reports each circle of declarations that mention each other, once."""
    done: set[str] = set()
    for name in walk.uses:
        path = _circle(walk, name, done)
        if path:
            done.update(path)
            first, then = path[0], path[1 % len(path)]
            how = "calls" if isinstance(walk.module.scope[first], FnRef) else "contains"
            way = f": {' -> '.join(f'`{n}`' for n in [*path, first])}" if len(path) > 1 else ""
            walk.report(
                error(
                    "A0226",
                    f"`{first}` {how} itself{way}",
                    walk.uses[first][then],
                    "the circle starts here" if way else "here",
                    help="a loop repeats: `for i in range(n)`. Blocks and functions never recur, so that every spec ends",
                )
            )


def _circle(walk: Walk, name: str, done: set[str]) -> list[str] | None:
    """The first circle that starts below a name."""
    stack: list[tuple[str, Iterator[str]]] = [(name, iter(walk.uses.get(name, ())))]
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
            stack.append((then, iter(walk.uses.get(then, ()))))
    return None


# ---------------------------------------------------------------- declarations
def _block(w: Walk, d: tree.Block) -> None:
    """Sizes of the inputs first, then hyper arguments, whose defaults may read them."""
    once(w, (*d.params, *d.inputs))
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
            hyper(w, p)
    if d.body is not None:
        w.body(d.body)
    results(w, d.outs, d.name_span, d.name, d.body is not None)


def _model(w: Walk, d: tree.Model) -> None:
    """Each hyper argument may read those before it."""
    once(w, (*d.params, *(d.inputs or ())))
    later = {q.name: q.span for q in d.params}
    for p in d.params:
        before = len(w.found.found)
        hyper(w, p)
        w.found.found[before:] = [_later(f, later, p.name) for f in w.found.found[before:]]
        if before < len(w.found.found):
            w.told -= later.keys()
        later.pop(p.name, None)
        w.vars[p.name] = None
        w.fixed[p.name] = p.span
    if d.base is not None:
        return
    for p in d.inputs or ():
        _input(w, p)
    _stream(w, d.stream, d.inputs or (), d.name_span)
    entries = [s for s in d.body if isinstance(s, tree.Entry)]
    if d.inputs is None and not entries:  # its body speaks of inputs that are not there
        w.report(error("A0228", f"the model `{d.name}` has neither inputs nor entries", d.name_span, "nothing to run",
                       help=f"`model {d.name}(…)(x: [B, T, d]) -> y: [B, T, d] {{ … }}`"))
        return
    w.body(d.body)
    if d.inputs is not None:
        results(w, d.outs, d.name_span, d.name)
        return
    first: dict[str, tree.Entry] = {}
    for e in entries:
        if first.setdefault(e.name, e) is not e:
            labels = (Label(name_span(first[e.name]), "the first"),)
            w.report(error("A0208", f"two entries are called `{e.name}`", name_span(e), "the second", labels=labels))


def _later(fault: Diagnostic, later: dict[str, Span], own: str) -> Diagnostic:
    """An unknown name in a header default that is declared further on."""
    name = fault.span.text
    if fault.code != "A0201" or name not in later:
        return fault
    what = "itself" if name == own else f"`{name}`, which is declared after it"
    return error(
        "A0201",
        f"the default of `{own}` reads {what}",
        fault.span,
        "no value so far",
        labels=(Label(later[name], "declared here"),),
        help="a default reads the arguments before it",
    ).diagnostics[0]


def _input(w: Walk, p: tree.Param) -> None:
    kind = tensor_type(p)
    if kind is not None:
        for axis in kind.shape.axes:
            for n in bound_names(axis):
                if n in w.vars or n == "_":
                    continue
                if not n[0].isupper():
                    w.report(
                        error(
                            "A0309",
                            f"nothing binds the size `{n}`",
                            axis.span,
                            "a lower-case size is fixed when the model is built",
                            help=f"make it a hyper argument (`{n}: int = …`), or write it in upper case when it varies at run time",
                        )
                    )
                w.vars[n] = None
                w.fixed[n] = axis.span
        w.fields(kind.shape)
    w.vars[p.name] = None
    w.maybe(p.default)
    domain(w, p.domain)


def _stream(w: Walk, axis: str | None, inputs: tuple[tree.Param, ...], span: Span) -> None:
    kinds = [k for k in map(tensor_type, inputs) if k is not None]
    axes = [n for k in kinds for a in k.shape.axes for n in bound_names(a)]
    if axis is not None and axis not in axes and kinds:
        w.report(
            error(
                "A0309",
                f"`stream {axis}`: no input has an axis `{axis}`",
                span,
                **mend(axis, axes, span, f"the axes are {', '.join(dict.fromkeys(axes))}"),
            )
        )


def _entry(w: Walk, s: tree.Entry) -> None:
    if not isinstance(w.decl, tree.Model) or w.decl.inputs is not None or not any(s is other for other in w.decl.body):
        help = "`model NAME(…) { entry encode(…) -> … { … } entry decode(…) -> … { … } }`"
        w.report(error("A0228", f"the entry `{s.name}` is not one of a model", name_span(s), "out of place", help=help))
        return
    vars, fixed, returns, decl = dict(w.vars), dict(w.fixed), w.returns, w.decl
    once(w, s.inputs)
    for p in s.inputs:
        _input(w, p)
    _stream(w, s.stream, s.inputs, s.span)
    w.decl, w.returns = s, False
    w.body(s.body)
    results(w, s.outs, name_span(s), s.name)
    w.vars, w.fixed, w.returns, w.decl = vars, fixed, returns, decl


def _fn(w: Walk, d: tree.Fn) -> None:
    once(w, d.params)
    for p in d.params:
        hyper(w, p)
        w.vars[p.name] = None
        w.fixed[p.name] = p.span
    w.fixed.clear()  # a function may give its arguments other values
    hyper_type(w, d.result)
    w.body(d.body)
    results(w, (), name_span(d), d.name)


def _op(w: Walk, d: tree.OpDecl) -> None:
    once(w, d.params)
    for p in d.params:
        w.vars[p.name] = None
        kind = tensor_type(p)
        if kind is not None:
            w.bind_shape(kind.shape)
    for p in d.params:
        if not p.rest:
            hyper(w, p)
    if d.body is not None:
        w.body(d.body)
    results(w, d.outs, name_span(d), d.name, d.body is not None)


def _record(w: Walk, d: tree.Record) -> None:
    once(w, d.fields, f"the record {d.name}")
    for p in d.fields:
        hyper(w, p)
        w.vars[p.name] = None


DECLARATIONS: dict[type, Callable[[Walk, Any], None]] = {
    tree.Block: _block,
    tree.Model: _model,
    tree.Fn: _fn,
    tree.OpDecl: _op,
    tree.Record: _record,
    tree.Entry: _entry,
}
STATEMENTS[tree.Entry] = _entry
_filled = walk_bodies, walk_expressions
