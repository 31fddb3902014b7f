"""The run-time sizes that costs are asked for: read, checked against the model's interface."""
from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from archdsl.diagnostics.model import ArchError, Label, error
from archdsl.dims import NotInteger, evaluate, sym, symbols
from archdsl.elaborate.extents import check_elements
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.limits import MAX_SIZE
from archdsl.elaborate.model import Elaborated
from archdsl.source import Source, Span

Spans = Mapping[str, Span]
_HOLDS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def parse_sizes(text: str) -> tuple[dict[str, int], dict[str, Span]]:
    """`T=2048,B=1` of the command line: the sizes and where each stands. Raises A0642."""
    source, at = Source("--at", text), 0
    sizes: dict[str, int] = {}
    spans: dict[str, Span] = {}
    for item in text.split(","):
        span = Span(source, at, at + len(item))
        at += len(item) + 1
        name, _, number = (part.strip() for part in item.partition("="))
        if not name or not (number.isascii() and number.replace("_", "").isdecimal()):
            raise error("A0642", f"`{text}` does not give sizes their numbers", span, "not understood" if item.strip() else "nothing stands here",
                        help="write NAME=NUMBER, for example `T=2048,B=1`")
        sizes[name], spans[name] = int(number.replace("_", "")[:40]), span  # so long a number is too large in any case
    return sizes, spans


def model_sizes(made: Elaborated, at: Mapping[str, int], spans: Spans | None = None) -> dict[str, int]:
    """A number for every run-time size: from `at`, else the spec's example, else 1. An example gives way to a condition on that size alone
    (`H == 384` after `side = 384`). Raises A0602, A0641, A0642, A0643."""
    free = sorted({name for i in made.inputs for s in i.type.shape for name in symbols(s)})
    for name, number in at.items():
        span = (spans or {}).get(name) or _span(name, number)
        if name not in free:
            raise _unknown(made, name, free, span)
        if type(number) is not int or number < 1:
            raise error("A0642", f"`{name}` cannot be {number!r}", span, "not a size", help="a size is a whole number from 1 up")
        if number > MAX_SIZE:
            raise error("A0642", f"`{name}` cannot be as large", span, "no tensor has so many elements", help=f"a size is at most {MAX_SIZE:,}")
    sizes = {name: at[name] if name in at else _example(made, name) for name in free}
    for name, number in sizes.items():
        if number > MAX_SIZE:
            raise error("A0642", f"`{name} = {number}` of this model is no size", made.decl.name_span, "no tensor has so many elements",
                        help=f"a size is at most {MAX_SIZE:,}; `--at {name}=1` gives another one")
    require(made, sizes, spans)
    check_elements(made.graph, sizes)
    return sizes


def _example(made: Elaborated, name: str) -> int:
    size = made.sizes.get(name, 1)
    for g in made.graph.guards:
        for op, left, right in ((g.op, g.left, g.right), (_TURNED.get(g.op, g.op), g.right, g.left)):
            if left is sym(name) and isinstance(right, int) and not _HOLDS[op](size, right):
                size = right + {"<": -1, ">": 1}.get(op, 0)
    return max(size, 1)


def require(made: Elaborated, sizes: Mapping[str, int], spans: Spans | None = None) -> None:
    """Raises A0643 where the sizes break a condition of the model."""
    for g in made.graph.guards:
        try:
            left, right = (evaluate(s, sizes) for s in (g.left, g.right))
        except NotInteger as e:
            raise error("A0643", f"these sizes do not fit the model: {e}", _at(sizes, spans), labels=(Label(g.span, "required here"),)) from None
        if not _HOLDS[g.op](left, right):
            raise error("A0643", g.message or f"{g.left} {g.op} {g.right} does not hold", _at(sizes, spans), f"{left} {g.op} {right} is false",
                        labels=(Label(g.span, "required here"),))


def unfit(made: Elaborated, sizes: Mapping[str, int], fault: Exception) -> ArchError:
    """A0643 for sizes that split no axis as the model does, or that an op of it does not take."""
    return error("A0643", f"these sizes do not fit the model: {fault}", _at(sizes, None), labels=(Label(made.decl.name_span, "this model"),))


def _unknown(made: Elaborated, name: str, free: list[str], span: Span) -> ArchError:
    if name in made.knobs:
        help: tuple[str, ...] = (f"`{name}` is fixed when the model is built: `--set {name}=…`, in Python `{name}=…`",)
    else:
        help = did_you_mean(name, free) or (f"it has {', '.join(free)}" if free else "its inputs have fixed sizes",)
    return error("A0641", f"`{made.decl.name}` has no run-time size `{name}`", span, "no such size", help=help)


def _span(name: str, number: Any) -> Span:
    text = f"{name}={number!r}"
    return Span(Source("at", text), 0, len(text))


def _at(sizes: Mapping[str, int], spans: Spans | None) -> Span:
    """All sizes as one text, or the command line's."""
    if spans:
        (first, *_), source = spans.values(), next(iter(spans.values())).source
        return Span(first.source, 0, len(source.text))
    text = ", ".join(f"{n}={s}" for n, s in sizes.items())
    return Span(Source("at", text), 0, len(text))
