"""Values of the wrong type: where exactly they stand, and what would have been meant. Loaded when something is wrong."""
from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import nearest
from archdsl.elaborate.hyper_types import try_convert
from archdsl.elaborate.values import BlockRef, is_list
from archdsl.source import Source, Span
from archdsl.syntax import tree


def value_span(span: Span) -> Span:
    """Without the `name =` in front of it."""
    named = re.match(r"\w+\s*=\s*(?!=)", span.text)
    return Span(span.source, span.start + named.end(), span.end) if named else span


def item_span(span: Span, path: list[int]) -> Span | None:
    """Where an item of a written list stands; None where the text is no list."""
    for i in path:
        node = _written(span)
        items = node.items if isinstance(node, (tree.List, tree.Tuple)) else ()
        if i >= len(items) or any(isinstance(item, tree.Range) for item in items):
            return None
        inner = items[i].span
        span = Span(span.source, span.start + inner.start, span.start + inner.end)
    return span


def _written(span: Span) -> tree.Expr | None:
    from archdsl.syntax.parser import parse_expression

    try:
        return parse_expression(span.text)
    except ArchError:
        return None


def type_fixes(frame: Frame, value: Any, type: tree.Type, span: Span) -> tuple[Fix, ...]:
    """What to write instead of a value that is not of a type, the likeliest first; nothing where the value is not written at the span."""
    found = [new for new in _instead(frame, value, type, span) if new != span.text and _fits(frame, new, type)]
    return tuple(Fix(f"replace by `{new}`", ((span, new),)) for new in dict.fromkeys(found))[:3]


def _fits(frame: Frame, text: str, type: tree.Type) -> bool:
    """Whether a text gives a value of that type here."""
    from archdsl.elaborate.evaluation import evaluate

    node = _written(Span(Source("<fix>", text), 0, len(text)))
    try:
        return node is not None and try_convert(frame, evaluate(frame.child(vars=dict(frame.vars)), node), type)[0]
    except Exception:  # whatever is wrong with it, it is no proposal
        return False


def _instead(frame: Frame, value: Any, type: tree.Type, span: Span) -> list[str]:
    text, node = span.text, _written(span)
    out: list[str] = []
    options = _options(type)
    if text in options:  # `none` and `true` are words of the language, and of some choices
        out.append(f'"{text}"')
    if isinstance(node, tree.Str):
        out.append(node.value)  # 8 and gelu take no quotes
        out += [f'"{o}"' for o in nearest(node.value, options)]
    elif isinstance(node, tree.Name):
        out.append(f'"{text}"')
        if isinstance(value, BlockRef):
            out.append(f"{text}()")
    elif isinstance(node, tree.Number):
        if text in ("0", "1"):
            out.append("false" if text == "0" else "true")
        if isinstance(value, Fraction):
            out += [str(value.__floor__()), str(value.__ceil__())]
    elif isinstance(node, (tree.List, tree.Tuple)) and not any(isinstance(i, tree.Range) for i in node.items):
        if len(node.items) == 1:
            out.append(node.items[0].span.text)
        length = _length(frame, type)
        if length is not None and 0 < length < len(node.items) and is_list(value):
            out.append(text[: node.items[length - 1].span.end] + text[node.items[-1].span.end :])
    if not isinstance(node, (tree.List, tree.Tuple)):
        out.append(f"[{text}]")
    return out


def _options(type: tree.Type) -> list[str]:
    if isinstance(type, tree.OptionalType):
        return _options(type.item)
    return [o.value for o in type.options if isinstance(o, tree.LiteralType)] if isinstance(type, tree.UnionType) else []


def _length(frame: Frame, type: tree.Type) -> int | None:
    from archdsl.elaborate.hyper_types import list_length

    if isinstance(type, tree.OptionalType):
        return _length(frame, type.item)
    if isinstance(type, tree.TupleType):
        return len(type.items)
    return list_length(frame, type) if isinstance(type, tree.ListType) else None
