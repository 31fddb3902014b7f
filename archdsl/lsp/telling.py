"""What is told about a place: hover, shapes beside the text, the outline."""
from __future__ import annotations

from typing import Any

from archdsl.cost.layers import count_params
from archdsl.elaborate.values import show
from archdsl.graph import Value
from archdsl.lsp.document import Document
from archdsl.lsp.names import references, word_at
from archdsl.ops.registry import find as find_op
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

LONG = 60  # characters of a value


# ---------------------------------------------------------------- values
def told(value: Any) -> str | None:
    """A tensor as its type, several as theirs, a hyper value as text; None for blocks and what has no short text."""
    if isinstance(value, Value):
        return str(value.type)
    if isinstance(value, tuple) and value and all(isinstance(v, Value) for v in value):
        return "(" + ", ".join(str(v.type) for v in value) + ")"
    if value is None or isinstance(value, bool | int | float | str | tuple | list) or type(value).__name__ in ("Fraction", "Dim"):
        text = show(value)
        return text if len(text) <= LONG else text[: LONG - 1] + "…"
    return None


def shapes(document: Document, span: Span) -> list[str]:
    """The different types or values that an expression has in the models of the file."""
    return list(dict.fromkeys(t for t in map(told, document.values(span)) if t is not None))


# ---------------------------------------------------------------- hover
def hover(document: Document, offset: int) -> tuple[str, Span] | None:
    """Markdown about the innermost expression at a place, and where that stands."""
    word = word_at(document.text, offset)
    if word is None:
        return None
    span = Span(document.source, word[1], word[2])
    parts: list[str] = []
    named = _named(document, offset, word)
    if named:
        parts.append(named)
    around = document.node_at(offset, (tree.Expr,))
    for n in around[:4]:
        if n.span.absolute.start > word[1] or n.span.absolute.end < word[2]:
            continue
        found = shapes(document, n.span) or (_variable(document, offset, word[0]) if n is around[0] and not isinstance(n, tree.Name) else [])
        if found:
            span = n.span
            first = n.span.text.split("\n")[0]
            parts.append(f"```arch\n{first if len(first) < 80 else first[:79] + '…'}: {' or '.join(found)}\n```")
            break
    else:
        found = _variable(document, offset, word[0])
        if found:
            parts.append(f"```arch\n{word[0]}: {' or '.join(found)}\n```")
    costs = next((c for n in around if (c := _costs(document, n.span))), None)
    if costs:
        parts.append(costs)
    return ("\n\n".join(parts), span) if parts else None


def _variable(document: Document, offset: int, name: str) -> list[str]:
    """What a name is bound to where it is assigned."""
    for n in document.node_at(offset, (tree.Assign,)):
        assert isinstance(n, tree.Assign)
        at = next((i for i, t in enumerate(n.targets) if t.name == name and t.span.absolute.start <= offset <= t.span.absolute.end), None)
        if at is not None:
            return _of_target(document, n, at)
    return []


def _of_target(document: Document, s: tree.Assign, at: int) -> list[str]:
    if len(s.values) == len(s.targets):
        return shapes(document, s.values[at].span)
    values = document.values(s.values[0].span) if len(s.values) == 1 else []
    found = (told(v[at]) for v in values if isinstance(v, tuple) and len(v) == len(s.targets))
    return list(dict.fromkeys(t for t in found if t is not None))


def _costs(document: Document, span: Span) -> str | None:
    """Parameters and multiply-accumulates of an applied block, at the example sizes."""
    calls = document.calls(span)
    if not calls:
        return None
    facts, address, graph = calls[0]
    layer = facts.layers.get(address)
    params = count_params(graph)
    text = f"`{address}`: {params:,} parameters" + (f", {layer.macs:,} MACs" if layer is not None else "")
    return text + (f" (one of {len(calls)})" if len(calls) > 1 else "")


def _named(document: Document, offset: int, word: tuple[str, int, int]) -> str | None:
    """Signature and documentation of what a name stands for."""
    name = word[0]
    around = document.node_at(offset)
    if any(isinstance(n, tree.Arg) and n.name == name and n.name_span and n.name_span.absolute.start == word[1] for n in around[:2]):
        return _argument(document, offset, name)
    found = references(document, offset)
    local = any(u.binds and not isinstance(u.decl, tree.Use) and u.name != getattr(u.decl, "name", None) for u in found)
    target = None if local else getattr(document.module.scope.get(name), "decl", None)
    if target is not None:
        return _page(head(target), getattr(target, "doc", ""))
    rule = None if local or not any(u.span.start == word[1] for u in found) else find_op(name)
    if rule is not None:
        return _page(f"op {rule.signature}", rule.doc)
    param = next((n for u in found if u.binds for n in document.node_at(u.span.start, (tree.Param,)) if getattr(n, "name", "") == name), None)
    return _page(param.span.text, getattr(param, "doc", "")) if param is not None else None


def _argument(document: Document, offset: int, name: str) -> str | None:
    call = next((n for n in document.node_at(offset, (tree.Call,))), None)
    if not isinstance(call, tree.Call) or not isinstance(call.func, tree.Name):
        return None
    target = getattr(document.module.scope.get(call.func.id), "decl", None)
    rule = find_op(call.func.id) if target is None else None
    params = getattr(target if rule is None else rule.decl, "params", ())
    param = next((p for p in params if p.name == name), None)
    return _page(param.span.text, getattr(param, "doc", "")) if param is not None else None


def _page(code: str, doc: str) -> str:
    return f"```arch\n{code}\n```" + (f"\n\n{doc}" if doc else "")


def head(decl: Any) -> str:
    """A declaration without its body."""
    body = getattr(decl, "body", None)
    at = getattr(body, "span", None)
    text = decl.span.text
    return (text[: at.start - decl.span.start] if at is not None else text).rstrip(" {\n")


# ---------------------------------------------------------------- hints
def inlay_hints(document: Document, start: int, end: int) -> list[tuple[int, str]]:
    """Shapes behind the names that statements bind, in a stretch of the text: (place, text)."""
    out: list[tuple[int, str]] = []
    stack: list[Any] = list(document.module.tree.decls)
    while stack:
        n = stack.pop()
        span = n.span.absolute
        if span.source is not document.module.source or span.end < start or span.start > end:
            continue
        if isinstance(n, tree.Assign):
            for at, t in enumerate(n.targets):
                found = _of_target(document, n, at)
                if found and t.type is None and "[" in found[0]:
                    out.append((t.span.absolute.end, f": {found[0]}" + (" …" if len(found) > 1 else "")))
        elif isinstance(n, tree.Return) and n.values:
            found = shapes(document, n.values[0].span)
            if found and len(n.values) == 1 and "[" in found[0]:
                out.append((span.start + len("return"), f" {found[0]}" + (" …" if len(found) > 1 else "")))
        stack += tree.children(n)
    return sorted(out)


# ---------------------------------------------------------------- outline
@record(frozen=True)
class Symbol:
    """`kind`: block, model, function, op, record, variant, claim, space, names, entry, argument, weight."""

    name: str
    kind: str
    span: Span
    name_span: Span
    detail: str = ""
    below: tuple[Symbol, ...] = ()


KINDS: dict[type, str] = {
    tree.Block: "block", tree.Model: "model", tree.Fn: "function", tree.OpDecl: "op", tree.Record: "record", tree.Variant: "variant",
    tree.Claim: "claim", tree.Space: "space", tree.Names: "names", tree.Entry: "entry",
}


def symbols(document: Document) -> list[Symbol]:
    """The declarations of the text, with the arguments and shared weights of each."""
    return [s for d in document.module.tree.decls if (s := _symbol(d)) is not None]


def _symbol(d: Any) -> Symbol | None:
    kind = KINDS.get(type(d))
    if kind is None:
        return None
    name = f"claim {d.target or ''}".strip() if isinstance(d, tree.Claim) else d.name
    at = d.span.text.find(name)
    name_span = getattr(d, "name_span", None) or Span(d.span.source, d.span.start + max(at, 0), d.span.start + max(at, 0) + len(name))
    below = [Symbol(p.name, "argument", p.span, p.span, _type(p)) for p in getattr(d, "params", getattr(d, "fields", ()))
             if not p.rest and p.span.source is d.span.source and d.span.start <= p.span.start < d.span.end]
    below += [Symbol(s.name, "weight", s.span, s.name_span) for s in _bodies(d) if isinstance(s, tree.Share | tree.ParamDecl)]
    below += [s for e in getattr(d, "body", None) or () if isinstance(e, tree.Entry) and (s := _symbol(e)) is not None]
    detail = f"of {d.base}" if isinstance(d, tree.Variant) and d.base else ""
    return Symbol(name, kind, d.span, name_span, detail, tuple(below))


def _type(p: tree.Param) -> str:
    return p.type.span.text if p.type is not None else ""


def _bodies(d: Any) -> list[tree.Node]:
    out: list[tree.Node] = []
    stack: list[Any] = [s for s in getattr(d, "body", None) or () if not isinstance(s, tree.Entry)]
    while stack:
        n = stack.pop()
        out.append(n)
        stack += tree.children(n)
    return sorted(out, key=lambda n: n.span.start)
