"""What is told about a place: hover, shapes beside the text, the outline."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archdsl.cost.layers import count_params
from archdsl.elaborate import library
from archdsl.elaborate.values import Builtin, InitRef, MaskRef, show
from archdsl.graph import Mask, Value
from archdsl.lsp import addresses
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
    address = addresses.hover(document, offset)
    if address is not None and "." in address[1].text:
        return address
    return addresses.claim_word(document, offset) or _of_expression(document, offset) or address


def _of_expression(document: Document, offset: int) -> tuple[str, Span] | None:
    word = word_at(document.text, offset)
    around = document.node_at(offset, (tree.Expr,))
    if word is None:  # an operator or a bracket: the expression around it
        shown = next(((n, found) for n in around[:1] if (found := shapes(document, n.span))), None)
        return (_typed(shown[0].span.text, shown[1]), shown[0].span) if shown else None
    span = Span(document.source, word[1], word[2])
    parts: list[str] = [named] if (named := _named(document, offset, word)) else []
    for n in _about(around):
        if n.span.absolute.start > word[1] or n.span.absolute.end < word[2]:
            continue
        found = shapes(document, n.span) or (_variable(document, offset, word[0]) if n is around[0] and not isinstance(n, tree.Name) else [])
        if found:
            span = n.span
            parts.append(_typed(n.span.text, found))
            parts += _costs(document, list(_applied(n)))
            break
    else:
        found = _variable(document, offset, word[0]) or _read(document, offset)
        if found:
            parts.append(_typed(word[0], found))
    return ("\n\n".join(dict.fromkeys(parts)), span) if parts else None


def _about(around: list[tree.Node]) -> Iterator[tree.Node]:
    """The innermost expression, and those around it whose value it makes: the call of a name, what it is piped through, what has an `as`. Of what an
    argument stands in, something else is to be said."""
    last: tree.Node | None = None
    for n in around:
        whole = (isinstance(n, tree.Call) and n.func is last or isinstance(n, tree.Named) and n.expr is last
                 or isinstance(n, tree.Chain) and any(i is last for i in n.items))
        if last is not None and not whole:
            return
        yield n
        last = n


def _applied(n: tree.Node) -> Iterator[tree.Node]:
    """An expression, and the one in it that is the last to be applied."""
    yield n
    inner = n.expr if isinstance(n, tree.Named) else n.items[-1] if isinstance(n, tree.Chain) else None
    if inner is not None:
        yield from _applied(inner)


def _holds(span: Span, offset: int) -> bool:
    return span.absolute.start <= offset <= span.absolute.end


def _typed(text: str, found: list[str]) -> str:
    first = text.split("\n")[0]
    return f"```arch\n{first if len(first) < 80 else first[:79] + '…'}: {' or '.join(found)}\n```"


def _read(document: Document, offset: int) -> list[str]:
    """What a name stands for that is read where nothing is evaluated: in a message, as a loop's variable."""
    loop = next((n for n in document.node_at(offset, (tree.For, tree.Comprehension))), None)
    if isinstance(loop, tree.For | tree.Comprehension) and loop.pattern.name and _holds(loop.pattern.span, offset):
        return [text for v in document.values(loop.iterable.span) if isinstance(v, tuple) and (text := told(v)) is not None][:1]
    bound = [u for u in references(document, offset) if u.binds and u.span.start <= offset]
    return _variable(document, bound[-1].span.start, bound[-1].name) if bound and bound[-1].span.start != offset else []


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


def _costs(document: Document, nodes: list[tree.Node]) -> list[str]:
    """Parameters and multiply-accumulates of the first of these that is an applied block, at the example sizes."""
    for n in nodes:
        if calls := document.calls(n.span):
            facts, address, graph = calls[0]
            layer = facts.layers.get(address)
            text = f"`{address}`: {count_params(graph):,} parameters" + (f", {layer.macs:,} MACs" if layer is not None else "")
            return [text + (f" (one of {len(calls)})" if len(calls) > 1 else "")]
    return []


def _named(document: Document, offset: int, word: tuple[str, int, int]) -> str | None:
    """Signature and documentation of what a name stands for."""
    name, around = word[0], document.node_at(offset)
    if any(isinstance(n, tree.Arg) and n.name == name and n.name_span and n.name_span.absolute.start == word[1] for n in around[:2]):
        return _argument(document, offset, name)
    listed = next((t for n in around if (t := _in_list(document, n, offset, name)) is not None), None)
    if listed is not None:
        return listed
    found = references(document, offset)
    local = any(u.binds and not isinstance(u.decl, tree.Use) and u.name != getattr(u.decl, "name", None) for u in found)
    target = None if local else getattr(document.module.scope.get(name), "decl", None)
    if target is not None:
        return _page(head(target), getattr(target, "doc", "")) + _whole(document, target)
    if not local and any(u.span.start == word[1] for u in found):
        return _of_language(name)
    return next((t for u in found if u.binds for n in document.node_at(u.span.start) if (t := _binder(n, name)) is not None), None)


def _of_language(name: str) -> str | None:
    rule = find_op(name)
    if rule is not None:
        return _page(f"op {rule.signature}", rule.doc)
    word = library.find(name)
    if isinstance(word, Builtin):
        return _page(name, word.doc)
    if isinstance(word, Mask | MaskRef):
        return _page(f"{name}: mask", "")
    return _page(f"{name}: init", "") if isinstance(word, InitRef) else None


def _binder(n: tree.Node, name: str) -> str | None:
    """The header's line, or the statement, that gives a name its meaning for good."""
    if isinstance(n, tree.Param) and n.name == name:
        return _page(n.span.text, n.doc)
    return _page(n.span.text, "") if isinstance(n, tree.Share | tree.ParamDecl) and n.name == name else None


def _in_list(document: Document, n: tree.Node, offset: int, name: str) -> str | None:
    """What is told of a word in a variant, in the `of` and `claim` of others, in an import and among sizes."""
    variants = {d.name: d for d in document.module.tree.decls if isinstance(d, tree.Variant)}
    if isinstance(n, tree.Variant | tree.Claim) and name in variants and name in (getattr(n, a, "") for a in ("name", "base", "target")):
        return _page(variants[name].span.text, variants[name].doc)
    if isinstance(n, tree.Setting) and _holds(n.address_span, offset):
        for d in document.module.tree.decls:
            param = next((p for p in d.params if p.name == n.address), None) if isinstance(d, tree.Model) else None
            if param is not None:
                return _page(param.span.text, param.doc)
    if isinstance(n, tree.Use) and name in n.module.split("."):
        module = document.module.library.read.get(n.module)
        own = [] if module is None else [f"`{m}`" for m, r in module.complete().scope.items() if getattr(r, "module", None) is module]
        return f"```arch\nuse {n.module}\n```\n\n" + ", ".join(own) if own else None
    if isinstance(n, tree.AxisSized | tree.AxisName | tree.Ragged) and n.id == name and name[0].isupper():
        size = None if isinstance(n, tree.AxisName) else n.size
        example = f": {size.span.text} in examples" if size is not None else ""
        if isinstance(n, tree.Ragged):
            return f"`{name}`{example}; documents of different lengths lie behind each other along it"
        return f"`{name}`{example}; varies at run time, unless it is `static`"
    return None


def _whole(document: Document, target: Any) -> str:
    """The size of a model as a whole."""
    version = document.now or document.good
    for f in version.facts if isinstance(target, tree.Model) and version is not None else ():
        if f.name == target.name and f.graph is not None:
            layer = f.layers.get("")
            return f"\n\n{count_params(f.graph):,} parameters" + (f", {layer.macs:,} MACs" if layer is not None else "")
    return ""


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
             if not p.rest and p.span.starts_in(d.span)]
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
