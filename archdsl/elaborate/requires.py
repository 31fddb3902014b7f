"""`require`: what holds of hyper values, and what is learned of run-time sizes."""
from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.diagnostics.poison import Poisoned
from archdsl.dims import Dim
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.limits import MAX_GUARDS, limit
from archdsl.elaborate.operations import decided
from archdsl.elaborate.operators import divisors
from archdsl.elaborate.values import Condition, show
from archdsl.graph import Guard
from archdsl.source import Span
from archdsl.syntax import tree


def require(frame: Frame, s: tree.Require) -> None:
    """`require CONDITION, MESSAGE`. Raises A0310 where it does not hold, A0302 where it contradicts what is required before."""
    value = evaluate(frame, s.condition)
    if value is True:
        return
    if isinstance(value, Condition):
        for part in value.parts:
            _lift(frame, part, s)
        return
    decided(value, s.condition)
    text = _interpolate(frame, s.message) if s.message else f"`{s.condition.span.text}` does not hold"
    names = [n for n in _mentioned(s.condition) if isinstance(frame.vars.get(n), (int, Dim))]
    facts = tuple(f"{n} is {frame.vars[n]}" for n in names[:6])
    labels = tuple(Label(frame.args[n].span, f"`{n}` is {frame.vars[n]}") for n in names if n in frame.args and frame.args[n].origin == "argument")
    part, division = _inexact(frame, s.condition)
    raise error("A0310", text, part.span, "not so here", labels=labels, notes=facts, help=_near(part, division), division=division,
                rivals=tuple(_left_out(label.span) for label in labels))


def _near(part: tree.Expr, division: tuple[int, int] | None) -> tuple[str, ...]:
    """Help for `a % b == 0`: what divides a; where b is a number of the text, its multiples on both sides of a."""
    if division is None or not isinstance(part, tree.Binary) or not isinstance(part.left, tree.Binary):
        return ()
    a, b = division
    if not isinstance(part.right, tree.Number) or part.right.value or a < 1 or b < 1:
        return ()
    if _mentioned(part.left.right):
        return divisors(a, b)[:1]
    near = [m for m in (a // b * b, a // b * b + b) if m]
    return (f"{' and '.join(map(str, near))} {'is a multiple' if len(near) == 1 else 'are multiples'} of {b}",)


def _left_out(span: Span) -> Fix:
    """The argument list without one: its default may be what holds."""
    text = span.source.text
    behind, before = re.match(r"\s*,\s*", text[span.end :]), re.search(r",\s*\Z", text[: span.start])
    start = before.start() if before and not behind else span.start
    return Fix(f"remove `{span.text}`", ((Span(span.source, start, span.end + (behind.end() if behind else 0)), ""),))


def _inexact(frame: Frame, c: tree.Expr) -> tuple[tree.Expr, tuple[int, int] | None]:
    """Of a condition, the part that does not hold; of a `%` in it, its numbers."""
    if isinstance(c, tree.Binary) and c.op == "and" and evaluate(frame, c.left) is True:
        return _inexact(frame, c.right)
    if isinstance(c, tree.Binary) and c.op == "and" and evaluate(frame, c.left) is False:
        return _inexact(frame, c.left)
    if isinstance(c, tree.Binary) and c.op == "==" and isinstance(c.left, tree.Binary) and c.left.op == "%":
        a, b = evaluate(frame, c.left.left), evaluate(frame, c.left.right)
        if type(a) is int and type(b) is int and b:
            return c, (a, b)
    return c, None


def _mentioned(node: Any) -> list[str]:
    out: dict[str, None] = {}
    stack = [node]
    while stack:
        n = stack.pop(0)
        if isinstance(n, tree.Name):
            out[n.id] = None
        stack[:0] = list(tree.children(n))
    return list(out)


def _lift(frame: Frame, part: Any, s: tree.Require) -> None:
    """A condition on run-time sizes becomes a fact from here on, and a guard of the model."""
    left, op, right, divides = part
    if not frame.session.learn(part):
        raise error("A0302", f"`{s.condition.span.text}` contradicts what is required of the sizes before", s.condition.span, "no sizes satisfy both")
    written = f"{divides[0]} % {divides[1]} == 0" if op == "==" and divides else f"{left} {op} {right}"
    message = _interpolate(frame, s.message) if s.message else f"{written} is required"
    frame.session.step(s.span, 8 + len(frame.builder.guards))
    if len(frame.builder.guards) >= MAX_GUARDS:
        raise limit(f"there are more than {MAX_GUARDS} conditions on run-time sizes", s.condition.span)
    frame.builder.require([Guard(left, op, right, message, s.condition.span)])


def _interpolate(frame: Frame, text: str) -> str:
    """`{heads}` and `{d / 2}` inside a message."""
    out: list[str] = []
    at = 0
    text = clipped(text, 4_000)
    while (start := text.find("{", at)) >= 0 and (end := text.find("}", start)) > 0:
        out.append(text[at:start])
        try:
            value = evaluate(frame, _expression(text[start + 1 : end]))
            out.append(clipped(value if isinstance(value, str) else show(value)))
        except (ArchError, Poisoned):
            out.append(text[start : end + 1])
        at = end + 1
    return clipped("".join(out) + text[at:], 4_000)


@lru_cache(1024)
def _expression(text: str) -> tree.Expr:
    """An expression in a message, read once: each variant says the same."""
    from archdsl.syntax.parser import parse_expression

    return parse_expression(text)


def clipped(text: str, most: int = 400) -> str:
    """A text that may stand in a message."""
    return text if len(text) <= most else text[: most - 1] + "…"
