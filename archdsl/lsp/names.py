"""Where names stand in a text, what they mean there, and renaming."""
from __future__ import annotations

import re
from typing import Any

from archdsl.elaborate.bindings import tensor_type
from archdsl.lsp.document import Document
from archdsl.modules import LIBRARY, library_source
from archdsl.records import record
from archdsl.source import Span
from archdsl.spec import check_text
from archdsl.syntax import tree
from archdsl.syntax.lexer import RESERVED

WORD = re.compile(r"[^\W\d]\w*")
SCOPES = (tree.Block, tree.Model, tree.Fn, tree.OpDecl, tree.Record)
AXES = (tree.AxisName, tree.AxesVar, tree.Ragged, tree.Bounded, tree.AxisSized)


@record(frozen=True)
class Use:
    """A name at a place: `binds` when it gets its meaning there. `decl`: the declaration around."""

    name: str
    span: Span
    binds: bool
    decl: Any


class CannotRename(Exception):
    """With the reason, for the user."""


def word_at(text: str, offset: int) -> tuple[str, int, int] | None:
    """The word that touches a place, with its ends."""
    for m in WORD.finditer(text, max(0, text.rfind("\n", 0, offset) + 1)):
        if m.start() <= offset <= m.end():
            return m[0], m.start(), m.end()
        if m.start() > offset:
            break
    return None


def uses(document: Document) -> list[Use]:
    """Every name of a value, an argument, a size or a declaration in the text; not addresses, names of arguments in calls and fields."""
    out: list[Use] = []
    for d in document.module.tree.decls:
        _uses(d, d, out)
    return sorted({(u.span.start, u.name): u for u in out if u.span.source is document.module.source}.values(), key=lambda u: u.span.start)


def _uses(n: Any, d: Any, out: list[Use]) -> None:
    def add(name: str | None, binds: bool, span: Span | None = None, last: bool = False) -> None:
        if name and WORD.fullmatch(name):
            place = span if span is not None and span.text == name else _find(n.span, name, last)
            if place is not None:
                out.append(Use(name, place.absolute, binds, d))

    if isinstance(n, (tree.Name, *AXES)):
        add(n.id, False, Span(n.span.source, n.span.start, n.span.start + len(n.id)))
    elif isinstance(n, tree.NameType):
        add(n.name.partition(".")[0], False)
    elif isinstance(n, tree.Param):
        add(n.name.partition(".")[0] if n.rest else n.name, not n.rest)
    elif isinstance(n, tree.Target | tree.Pattern):
        add(n.name, True, Span(n.span.source, n.span.start, n.span.start + len(n.name or "")))
    elif isinstance(n, tree.Share | tree.ParamDecl | tree.Choose):
        add(n.name, True, n.name_span)
    elif isinstance(n, tree.Const | tree.Draw | tree.Control):
        add(n.name, True)
    elif isinstance(n, tree.Emit | tree.Update | tree.Next):
        add(n.name, False)
    elif isinstance(n, tree.Default):
        add(n.block, False)
    elif isinstance(n, tree.UseName):
        add(n.alias or n.name, True, last=bool(n.alias))
    elif isinstance(n, tree.Require) and n.message:
        for name in re.findall(r"\{(\w+)\}", n.message):
            _braced(n.span, name, d, out)
    elif isinstance(n, (*SCOPES, tree.Variant, tree.Entry)):
        add(n.name, True, getattr(n, "name_span", None))
        base = getattr(n, "base", None)
        if base:
            add(base, False, _find(n.span, base, after="of"))
    elif isinstance(n, tree.Space):
        add(n.model, False, _find(n.span, n.model, after=n.name))
    elif isinstance(n, tree.Names):
        for model in n.models:
            add(model, False, _find(n.span, model, after=n.name))
    elif isinstance(n, tree.Claim) and n.target:
        add(n.target.partition(".")[0], False)
    if isinstance(n, tree.BlockLiteral):
        for name, _ in n.params:
            add(name, True)
    if isinstance(n, tree.Scan):
        for name in (*n.inputs, n.axis):
            add(name, False)
    for child in tree.children(n):
        _uses(child, d, out)


def _braced(span: Span, name: str, d: Any, out: list[Use]) -> None:
    for m in re.finditer(rf"\{{{re.escape(name)}\}}", span.text):
        start = span.start + m.start() + 1
        out.append(Use(name, Span(span.source, start, start + len(name)).absolute, False, d))


def _find(span: Span, name: str, last: bool = False, after: str = "") -> Span | None:
    """Where a word stands first (or last) in a span, behind another word if one is given."""
    text = span.text
    begin = 0
    if after:
        m = re.search(rf"\b{re.escape(after)}\b", text)
        begin = m.end() if m else 0
    found = list(re.finditer(rf"\b{re.escape(name)}\b", text[begin:]))
    if not found:
        return None
    m = found[-1 if last else 0]
    return Span(span.source, span.start + begin + m.start(), span.start + begin + m.end())


# ---------------------------------------------------------------- meaning
def references(document: Document, offset: int) -> list[Use]:
    """Every place that means what the name at `offset` means, in this file."""
    all_uses, outer = uses(document), links(document)
    link = next((u for u in outer if u.span.start <= offset <= u.span.end), None)
    at = offset if link is None else next((u.span.start for u in all_uses if u.decl is link.decl and u.name == link.name and u.binds), offset)
    here = next((u for u in all_uses if u.span.start <= at <= u.span.end), None)
    if here is None:
        return []
    found = _inside(all_uses, here)
    if any(p.name == here.name for p in _params(here.decl)) and any(u.binds and u.decl is here.decl and not _declares(u) for u in found):
        found += [u for u in outer if u.decl is here.decl and u.name == here.name]
    return sorted({u.span: u for u in found}.values(), key=lambda u: u.span.start)


def _inside(all_uses: list[Use], here: Use) -> list[Use]:
    """The places where the same is meant, but for arguments named by callers."""
    same = [u for u in all_uses if u.name == here.name]
    local = _locals(same)
    if id(here.decl) in local and not _declares(here):
        return [u for u in same if u.decl is here.decl and not _declares(u)]
    return [u for u in same if id(u.decl) not in local or _declares(u)]


def _params(d: Any) -> tuple[Any, ...]:
    return (*getattr(d, "params", ()), *getattr(d, "fields", ()), *(getattr(d, "inputs", None) or ()))


def links(document: Document) -> list[Use]:
    """Where arguments are named outside of the header that declares them: in calls, `default`s, settings of variants, claims, spaces, foreign names.
    `decl`: the declaration that has the argument."""
    decls = {d.name: d for d in document.module.tree.decls if isinstance(d, SCOPES)}
    variants = {d.name: d for d in document.module.tree.decls if isinstance(d, tree.Variant)}
    out: list[Use] = []
    for d in document.module.tree.decls:
        models = models_of(d, decls, variants)
        stack: list[Any] = [d]
        while stack:
            n = stack.pop()
            stack += tree.children(n)
            if isinstance(n, tree.Call | tree.Default):
                callee = decls.get(n.block if isinstance(n, tree.Default) else _callee(n))
                around = models if callee is None else [callee]
                out += [Use(a.name, a.name_span.absolute, False, one) for a in n.args if a.name and a.name_span for one in around]
            elif isinstance(n, tree.Setting):
                first = n.address.partition(".")[0]
                place = Span(n.span.source, n.address_span.start, n.address_span.start + len(first)).absolute
                out += [Use(first, place, False, model) for model in models]
            elif isinstance(n, tree.Name):
                out += [Use(n.id, n.span.absolute, False, model) for model in models]
    return [u for u in out if any(p.name == u.name for p in _params(u.decl))]


def _callee(n: tree.Call) -> str:
    """The name that a first or a second list is written behind."""
    func = n.func.func if isinstance(n.func, tree.Call) else n.func
    return func.id if isinstance(func, tree.Name) else ""


def models_of(d: Any, decls: dict[str, Any], variants: dict[str, tree.Variant]) -> list[Any]:
    """The models that a variant, claim, space or names block is about: several of names that they share."""
    if isinstance(d, tree.Names):
        return [decls[name] for name in d.models if name in decls]
    if isinstance(d, tree.Space):
        return [decls[d.model]] if d.model in decls else []
    if not isinstance(d, tree.Variant | tree.Claim):
        return []
    base: str | None = d.base if isinstance(d, tree.Variant) else d.target
    for _ in range(len(variants) + 1):
        if base not in variants:
            break
        base = variants[base].base
    model = decls.get((base or "").partition(".")[0]) if base else next((m for m in decls.values() if isinstance(m, tree.Model)), None)
    return [] if model is None else [model]


def _locals(same: list[Use]) -> set[int]:
    """The declarations that bind a name inside, sizes of inputs among them."""
    found = {id(u.decl) for u in same if u.binds and not _declares(u)}
    return found | {id(u.decl) for u in same if isinstance(u.decl, SCOPES) and _binds_size(u.decl, u.name)}


def _binds_size(d: Any, name: str) -> bool:
    kinds = [tensor_type(p) for p in (*(getattr(d, "inputs", None) or ()), *getattr(d, "params", ()))]
    return any(isinstance(a, AXES) and a.id == name for k in kinds if k is not None for a in k.shape.axes)


def _declares(u: Use) -> bool:
    """Whether a use is the name of the declaration itself, or an import."""
    return u.binds and (isinstance(u.decl, tree.Use) or (u.name == getattr(u.decl, "name", None) and u.span == _own_span(u.decl)))


def _own_span(d: Any) -> Span | None:
    found = getattr(d, "name_span", None) or _find(d.span, d.name)
    return None if found is None else found.absolute


def definition(document: Document, offset: int) -> Span | None:
    """Where the name at a place gets its meaning: in this file, beside it, or in the library."""
    found = references(document, offset)
    word = word_at(document.text, offset)
    if word is None:
        return None
    bound = [u for u in found if u.binds]
    if not bound:
        sizes = [u for u in found if isinstance(u.decl, SCOPES)]
        return sizes[0].span if sizes else _argument(document, offset, word[0])
    declared = next((u for u in bound if isinstance(u.decl, tree.Use)), None)
    if declared is not None:
        target = document.module.scope.get(declared.name)
        decl = getattr(target, "decl", None)
        return _own_span(decl) if decl is not None else declared.span
    before = [u for u in bound if u.span.start <= offset]
    return (before or bound)[-1 if before and before[-1].span.start != before[0].span.start else 0].span


def _argument(document: Document, offset: int, name: str) -> Span | None:
    """The parameter that an argument's name in a call means."""
    call = next((n for n in document.node_at(offset, (tree.Call,)) if isinstance(n, tree.Call)), None)
    target = document.module.scope.get(call.func.id) if call is not None and isinstance(call.func, tree.Name) else None
    decl = getattr(target, "decl", None)
    return next((p.span.absolute for p in getattr(decl, "params", ()) if p.name == name), None)


def file_of(span: Span) -> str:
    """The path of the file a span is in: of the library, its installed file."""
    if span.source.module.startswith("std.") and library_source(span.source.module) is span.source:
        return LIBRARY + "/" + "/".join(span.source.module.split(".")[1:]) + ".arch"
    return span.source.path


# ---------------------------------------------------------------- renaming
def rename(document: Document, offset: int, new: str) -> list[Span]:
    """The places to change. Raises CannotRename where that would change more than names."""
    found = references(document, offset)
    if not found:
        raise CannotRename("there is no name here that can be changed")
    old = found[0].name
    if not WORD.fullmatch(new) or new in RESERVED:
        raise CannotRename(f"`{new}` is no name")
    reason = _bound_outside(document, found)
    if reason:
        raise CannotRename(reason)
    around = {id(u.decl) for u in found}
    if any(u.name == new and (id(u.decl) in around or not isinstance(found[0].decl, SCOPES)) for u in uses(document)) or new in document.module.scope:
        raise CannotRename(f"`{new}` is taken here")
    text = document.text
    for u in sorted(found, key=lambda u: u.span.start, reverse=True):
        text = text[: u.span.start] + new + text[u.span.end :]
    if not document.broken and any(d.severity == "error" for d in check_text(text, document.path, trials=False)):
        raise CannotRename(f"`{old}` is used in a way that renaming does not follow")
    return [u.span for u in found]


def _bound_outside(document: Document, found: list[Use]) -> str:
    """Why a name is more than a name of this file."""
    for u in found:
        if isinstance(u.decl, tree.Use):
            return f"`{u.name}` is imported: `{u.name} as OTHER` in its `use` gives it another name"
    for u in found:
        for n in document.node_at(u.span.start):
            if isinstance(n, tree.Share | tree.ParamDecl | tree.Choose) and n.name == u.name and n.name_span.absolute == u.span:
                return f"`{u.name}` is an address, by which weights and knobs are found"
            if isinstance(n, tree.Const | tree.Emit | tree.Control) and n.name == u.name:
                return f"`{u.name}` is an address, by which values are found"
    if not any(u.binds for u in found):
        return f"`{found[0].name}` is a size of a header, or not of this file"
    return ""

