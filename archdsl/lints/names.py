"""Names that nothing reads, and names that hide others."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.elaborate.bindings import bindings, bound_names, nested_bodies, pattern_names, tensor_type
from archdsl.lints.survey import Survey, survey
from archdsl.modules import Module
from archdsl.source import Span
from archdsl.syntax import tree


# ---------------------------------------------------------------- imports
def unused_imports(module: Module, read: set[str]) -> Iterator[Diagnostic]:
    """A0701: imported names that the file never reads."""
    uses = [d for d in module.tree.decls if isinstance(d, tree.Use)]
    if not uses:
        return
    read = read | _spread_records(module)
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
    return {first for first in re.findall(r"\.\.\.([^\W\d]\w*)", module.source.text) if first in module.scope or first in module.modules}


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
def unused_names(d: Any, module: Module, seen: Survey) -> Iterator[Diagnostic]:
    """A0702 to A0705 of one declaration."""
    if not isinstance(d, tree.Block | tree.Model | tree.Fn | tree.OpDecl | tree.Entry) or d.body is None:
        return
    params = () if isinstance(d, tree.Entry) else d.params
    if not isinstance(d, tree.Model) or d.base is None:
        yield from _params(d, params, seen.read)
        yield from _inputs(d, seen.read)
    yield from _values(d, seen)
    yield from _choices(d.body, seen.read)
    yield from _shadows(d, params, module)
    if seen.loops > 1:
        yield from _loops(d.body, {})
    for e in d.body if isinstance(d, tree.Model) else ():
        if isinstance(e, tree.Entry):
            yield from unused_names(e, module, survey(e))


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
    sizes = survey((getattr(d, "params", ()), d.outs, d.body)).read
    bound = Counter(n for p in d.inputs if (kind := tensor_type(p)) for n in {n for axis in kind.shape.axes for n in bound_names(axis)})
    for p, kind in idle:
        own = (n for axis in kind.shape.axes for n in bound_names(axis))
        if not p.name.startswith("_") and not any(n in sizes and bound[n] == 1 for n in own):
            yield _warning("A0703", f"the input `{p.name}` of `{d.name}` is never used", _name_of(p), "its values are not read")


def _values(d: Any, seen: Survey) -> Iterator[Diagnostic]:
    said = {s.name for s in _chooses(d.body)}
    for name, span, _ in bindings(d.body):
        if name in seen.read or name in said or name.startswith("_") or span.start in seen.counters:
            continue
        said.add(name)
        where = span if span.text == name else _word(span, name)
        yield _warning("A0702", f"`{name}` is never read", where, "a value for nothing",
                       help=("`_` takes a result that is not needed", ) if span.start in seen.several else ())


def _chooses(body: Any) -> Iterator[tree.Choose]:
    for s in body:
        if isinstance(s, tree.Choose):
            yield s
        for b in nested_bodies(s):
            yield from _chooses(b)


def _choices(body: Any, read: set[str]) -> Iterator[Diagnostic]:
    """A0704: choices that nothing applies, arms that are like an earlier one, knobs of arms that nothing reads."""
    for s in _chooses(body):
        if s.name not in read and not s.name.startswith("_"):
            yield _warning("A0704", f"the choice `{s.name}` is never applied", s.name_span, "changes nothing")
        first: dict[str, tree.ChooseArm] = {}
        for arm in s.arms:
            same = first.setdefault(" ".join(arm.value.span.text.split()), arm) if not arm.params else arm
            if same is not arm:
                yield _warning("A0704", f"the arm `{arm.name}` of `{s.name}` is the same as `{same.name}`", arm.value.span, "the same network again",
                               (Label(same.value.span, "this one"),))
            used = survey((arm.value, arm.params)).read
            for p in arm.params:
                if not p.rest and p.name not in used and not p.name.startswith("_"):
                    yield _warning("A0704", f"the knob `{p.name}` of the arm `{arm.name}` is never used", _name_of(p), "changes nothing")


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
