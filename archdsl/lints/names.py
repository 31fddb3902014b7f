"""Names that nothing reads, and names that hide others."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.elaborate.bindings import bindings, bound_names, pattern_names, tensor_type
from archdsl.modules import Module
from archdsl.source import Span
from archdsl.syntax import tree


def mentions(node: Any, but: Any = None) -> set[str]:
    """The names that a tree reads, without what stands below `but`."""
    out: set[str] = set()
    stack: list[Any] = [node]
    while stack:
        n = stack.pop()
        if n is but:
            continue
        kind = type(n)
        if kind in IDENTIFIED:
            out.add(n.id)
        elif kind is tree.NameType:
            out.add(n.name.partition(".")[0])
        elif kind in NAMED:
            out.update(NAMED[kind](n))
        stack += tree.children(n)
    return out


IDENTIFIED = frozenset((tree.Name, tree.AxisName, tree.AxesVar, tree.Ragged, tree.Bounded, tree.AxisSized))
NAMED: dict[type, Any] = {
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


# ---------------------------------------------------------------- imports
def unused_imports(module: Module) -> Iterator[Diagnostic]:
    """A0701: imported names that the file never reads."""
    uses = [d for d in module.tree.decls if isinstance(d, tree.Use)]
    if not uses:
        return
    read: set[str] = set()
    for d in module.tree.decls:
        if not isinstance(d, tree.Use):
            read |= mentions(d)
    if any(isinstance(d, tree.Block | tree.Model) and any(p.rest for p in d.params) for d in module.tree.decls):
        read |= _spread_records(module)
    for d in uses:
        if not d.names:
            name = d.module.rpartition(".")[2]
            if name not in read:
                yield _unused_import(d, name, d.span, _remove(d.span))
            continue
        idle = [n for n in d.names if (n.alias or n.name) not in read]
        for n in idle:
            yield _unused_import(d, n.alias or n.name, n.span, _remove(d.span) if len(idle) == len(d.names) else _remove_name(d, n))


def _spread_records(module: Module) -> set[str]:
    """The records that headers spread: after linking only their fields are left in the tree, so the text of the headers tells."""
    return {name for name in module.scope if f"...{name}" in module.source.text} | {m for m in module.modules if f"...{m}." in module.source.text}


def _unused_import(d: tree.Use, name: str, span: Span, edit: tuple[Span, str]) -> Diagnostic:
    fixes = () if "#" in edit[0].text else (Fix("remove the import", (edit,)),)
    return Diagnostic("A0701", f"`{name}` is imported and never used", span, "not used in this file", fixes=fixes, severity="warning")


def _remove(span: Span) -> tuple[Span, str]:
    """Takes a declaration out, with its line when nothing else stands on it."""
    text = span.source.text
    start = text.rfind("\n", 0, span.start) + 1
    end = text.find("\n", span.end)
    end = len(text) if end < 0 else end + 1
    alone = not text[start : span.start].strip() and not text[span.end : end].strip()
    return (Span(span.source, start, end) if alone else span), ""


def _remove_name(d: tree.Use, n: tree.UseName) -> tuple[Span, str]:
    at = next(i for i, other in enumerate(d.names) if other is n)
    if at:
        return Span(n.span.source, d.names[at - 1].span.end, n.span.end), ""
    return Span(n.span.source, n.span.start, d.names[1].span.start), ""


# ---------------------------------------------------------------- values, arguments, knobs
def unused_names(d: Any, module: Module) -> Iterator[Diagnostic]:
    """A0702 to A0705 of one declaration."""
    if not isinstance(d, tree.Block | tree.Model | tree.Fn | tree.OpDecl | tree.Entry) or d.body is None:
        return
    read = mentions(d)
    params = () if isinstance(d, tree.Entry) else d.params
    if not isinstance(d, tree.Model) or d.base is None:
        yield from _params(d, params, read)
        yield from _inputs(d, read)
    yield from _values(d, read)
    yield from _shadows(d, params, module)
    for e in d.body if isinstance(d, tree.Model) else ():
        if isinstance(e, tree.Entry):
            yield from unused_names(e, module)


def _params(d: Any, params: tuple[tree.Param, ...], read: set[str]) -> Iterator[Diagnostic]:
    for p in params:
        if p.rest or p.name in read or p.name.startswith("_") or not _inside(p.span, d.span):
            continue
        where = _name_of(p)
        if isinstance(d, tree.Model):
            yield _warning("A0704", f"the knob `{p.name}` is never used", where, "changes nothing")
        else:
            yield _warning("A0703", f"the argument `{p.name}` of `{d.name}` is never used", where, "changes nothing")


def _inputs(d: Any, read: set[str]) -> Iterator[Diagnostic]:
    """Inputs of which nothing is read: neither the values, nor a size that no other input has."""
    idle = [(p, kind) for p in getattr(d, "inputs", None) or () if (kind := tensor_type(p)) and not p.rest and p.name not in read]
    if not idle:
        return
    sizes = mentions((getattr(d, "params", ()), d.outs, d.body))
    bound = Counter(n for p in d.inputs if (kind := tensor_type(p)) for n in {n for axis in kind.shape.axes for n in bound_names(axis)})
    for p, kind in idle:
        own = (n for axis in kind.shape.axes for n in bound_names(axis))
        if not p.name.startswith("_") and not any(n in sizes and bound[n] == 1 for n in own):
            yield _warning("A0703", f"the input `{p.name}` of `{d.name}` is never used", _name_of(p), "its values are not read")


def _values(d: Any, read: set[str]) -> Iterator[Diagnostic]:
    counters, several = set(_loop_spans(d.body)), set(_among_others(d.body))
    said: set[str] = set()
    for name, span, _ in bindings(d.body):
        if name in read or name in said or name.startswith("_") or (span.start, span.end) in counters:
            continue
        said.add(name)
        where = span if span.text == name else _word(span, name)
        yield _warning("A0702", f"`{name}` is never read", where, "a value for nothing",
                       help=("`_` takes a result that is not needed", ) if (span.start, span.end) in several else ())


def _loop_spans(body: Any) -> Iterator[tuple[int, int]]:
    """Loop variables: `for i in range(n)` repeats, whether `i` is read or not."""
    stack = list(body)
    while stack:
        s = stack.pop()
        if isinstance(s, tree.For):
            yield from ((span.start, span.end) for _, span in pattern_names(s.pattern))
        stack += tree.children(s)


def _among_others(body: Any) -> Iterator[tuple[int, int]]:
    """Targets beside others: `y, state = f(x)`."""
    stack = list(body)
    while stack:
        s = stack.pop()
        if isinstance(s, tree.Assign) and len(s.targets) > 1:
            yield from ((t.span.start, t.span.end) for t in s.targets)
        stack += tree.children(s)


# ---------------------------------------------------------------- names that hide others
def _shadows(d: Any, params: tuple[tree.Param, ...], module: Module) -> Iterator[Diagnostic]:
    """A0705: values with the name of a declaration or an import, and loops that take the name of a loop around them."""
    said: set[str] = set()
    own = [(p.name, _name_of(p)) for p in (*params, *(getattr(d, "inputs", None) or ())) if not p.rest and _inside(p.span, d.span)]
    for name, span in (*own, *((n, s) for n, s, _ in bindings(d.body))):
        if name in module.spans and name not in said:
            said.add(name)
            where = span if span.text == name else _word(span, name)
            labels = (Label(_word(module.spans[name], name), "this one cannot be reached here"),)
            yield _warning("A0705", f"`{name}` hides a declaration of this file", where, "the same name", labels=labels)
    yield from _loops(d.body, {})


def _loops(node: Any, around: dict[str, Span]) -> Iterator[Diagnostic]:
    for n in tree.children(node) if isinstance(node, tree.Node) else node:
        inner = around
        if isinstance(n, tree.For | tree.Comprehension):
            own = pattern_names(n.pattern)
            for name, span in own:
                if name in around and name != "_":
                    labels = (Label(around[name], "the loop around"),)
                    yield _warning("A0705", f"`{name}` hides the variable of the loop around", span, "the same name", labels=labels)
            inner = {**around, **dict(own)}
        yield from _loops(n, inner)


def _inside(span: Span, of: Span) -> bool:
    return span.source is of.source and of.start <= span.start and span.end <= of.end


def _name_of(p: tree.Param) -> Span:
    return _word(p.span, p.name)


def _word(span: Span, name: str) -> Span:
    """Where a name stands first in a span."""
    if span.text.startswith(name):
        return Span(span.source, span.start, span.start + len(name))
    match = re.search(rf"\b{re.escape(name)}\b", span.text)
    return Span(span.source, span.start + match.start(), span.start + match.end()) if match else span


def _warning(code: str, message: str, span: Span, label: str, labels: tuple[Label, ...] = (), help: tuple[str, ...] = ()) -> Diagnostic:
    return Diagnostic(code, message, span, label, labels, help=help, severity="warning")
