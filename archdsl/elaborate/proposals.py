"""Edits that mend faults of shapes, addresses and argument lists. Loaded when something is wrong."""
from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import Any

from archdsl.diagnostics.model import Fix, Label
from archdsl.elaborate.hints import segments
from archdsl.graph import Value
from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree

MOST = 3  # proposals of one fault


# ---------------------------------------------------------------- layouts
def with_axis(shape: tree.Shape, name: str, behind: int) -> tuple[Fix, ...]:
    """The shape with one more axis: behind the axis of that index (-1: in front), then elsewhere, from the right."""
    order = [behind, *(i for i in range(len(shape.axes) - 1, -2, -1) if i != behind)]
    return tuple(Fix(f"write `{_inserted(shape, name, i)}`", ((shape.span, _inserted(shape, name, i)),)) for i in order)[:MOST]


def _inserted(shape: tree.Shape, name: str, behind: int) -> str:
    axes = [a.span.text for a in shape.axes]
    return "[" + ", ".join([*axes[: behind + 1], name, *axes[behind + 1 :]]) + "]"


def lost_axis(source: tree.Shape, target: tree.Shape, name: str) -> tuple[Fix, ...]:
    """An axis of the left side that the right one lacks: behind its neighbour on the left."""
    order = [n for a in source.axes for n in axis_names(a)]
    before = order[: order.index(name)] if name in order else []
    places = [i for i, a in enumerate(target.axes) if before and before[-1] in axis_names(a)]
    return with_axis(target, name, places[0] if places else len(target.axes) - 1)


def lacking_axis(source: tree.Shape, target: tree.Shape, rank: int) -> tuple[Fix, ...]:
    """The left side has one axis less than the tensor, the right side one name more; or it is one that is reduced, which has no other name."""
    known = {n for a in source.axes for n in axis_names(a)}
    new = [n for a in target.axes for n in axis_names(a) if n not in known]
    if len(new) > 1 or len(source.axes) + 1 != rank or any(isinstance(a, (tree.AnyAxes, tree.AxesVar)) for a in source.axes):
        return ()
    kept = {n for a in target.axes for n in axis_names(a)}
    gone = [i for i, a in enumerate(source.axes) if kept.isdisjoint(axis_names(a))]
    if new or not gone:
        return with_axis(source, new[0], len(source.axes) - 1) if new else ()
    name = next(n for n in ("Y", "X", *(f"n{i}" for i in range(rank + 1))) if n not in known)
    return with_axis(source, name, gone[0] - 1 if name == "Y" else gone[0])


# ---------------------------------------------------------------- results
def declared_shape(kind: tree.TensorType, value: Value, vars: dict[str, Any], agree: Callable[[tree.Axis, Any], bool]) -> tuple[Fix, ...]:
    """The declared result with the sizes that the returned tensor has, by their names where they have one."""
    axes = kind.shape.axes
    if len(axes) != len(value.shape) or any(isinstance(a, (tree.AnyAxes, tree.AxesVar)) for a in axes):
        return ()
    sizes = {n: v for n, v in vars.items() if not isinstance(v, (bool, Value)) and n.isidentifier()}
    texts: list[str] = []
    for axis, size in zip(axes, value.shape):
        names = [n for n, v in sizes.items() if type(v) is type(size) and v == size and n not in texts]
        texts.append(axis.span.text if agree(axis, size) else next((n for n in names if not (n[0].isupper() and isinstance(size, int))), str(size)))
    text = f"[{', '.join(texts)}]"
    others = [(axis.span, new) for axis, new in zip(axes, texts) if axis.span.text != new]
    edit = others[0] if len(others) == 1 else (kind.shape.span, text)
    return (Fix(f"declare `{text}`", (edit,)),) if others else ()


# ---------------------------------------------------------------- axes of ops
def nearby_axes(axis: Any, rank: int, fits: Callable[[int], bool], span: Span | None) -> tuple[Fix, ...]:
    """Other axes with which an op takes its operands, the nearest first."""
    if type(axis) is not int or span is None:
        return ()
    from archdsl.elaborate.mending import value_span

    where = value_span(span)
    near = sorted((k for k in range(rank) if fits(k)), key=lambda k: min(abs(k - axis), abs(k - rank - axis)))
    return tuple(Fix(f"replace by `{k}`", ((where, str(k)),)) for k in near)[:MOST]


# ---------------------------------------------------------------- addresses
_CALL = re.compile(r"\bparams\(([\w.*{}, ]+)\)")


def spoken_of(module: tree.Module) -> list[list[str]]:
    """The names that foreign names, claims, variants and spaces speak of, those with the same address in front of them together."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for d in module.decls:
        for address in _addresses(d):
            place: tuple[str, ...] = ()
            for segment in segments(address):
                words = re.findall(r"[A-Za-z_]\w*", segment) if "{" not in segment or "," in segment else []  # `{i}` stands for a number
                found.setdefault(place, {}).update(dict.fromkeys(words))
                place = (*place, segment if words else "*")
    return [list(names) for names in found.values()]


def _addresses(d: tree.Decl) -> list[str]:
    if isinstance(d, tree.Names):
        return [line.address for line in d.lines if line.address]
    if isinstance(d, tree.Claim):
        return [address.strip() for arguments in _CALL.findall(d.span.text) for address in arguments.split(",")]
    return [s.address for s in d.settings if "." in s.address] if isinstance(d, tree.Variant) else []


def other_name(span: Span, own: str, taken: Container[str], spoken: list[list[str]]) -> tuple[tuple[Fix, ...], tuple[Fix, ...]]:
    """Other names for an application whose address is taken, and further ones that are less likely: those that addresses speak of beside names that
    are there, and which nothing has; its own, or that with a number. `taken`: names beside it."""
    own = next(n for n in (own, *(f"{own}_{i}" for i in range(2, 100))) if n not in taken)
    likely = sorted((g for g in spoken if any(n in taken for n in g)), key=lambda g: -sum(n in taken for n in g))
    free = list(dict.fromkeys(n for g in likely for n in g if n not in taken))
    names: list[str] = list(dict.fromkeys([*([own] if own in free else []), *free[: MOST - 1], own, *free]))
    fixes = [fix for name in names for fix in _named(span, name)]
    return tuple(fixes[:MOST]), tuple(fixes[MOST:])


def _named(span: Span, name: str) -> tuple[Fix, ...]:
    named = re.match(r"\s*as\s+(\w+)", span.source.text[span.end :])
    if named is None:
        where, new = Span(span.source, span.end, span.end), f" as {name}"
    else:
        where, new = Span(span.source, span.end + named.start(1), span.end + named.end(1)), name
    return (Fix(f"name it `as {name}`", ((where, new),)),)


# ---------------------------------------------------------------- argument lists
def without(items: Iterable[Span], keep: int) -> tuple[Fix, ...]:
    """The list without the items behind the first few."""
    spans = list(items)
    if not 0 <= keep < len(spans):
        return ()
    gone = Span(spans[0].source, spans[keep - 1].end if keep else spans[0].start, spans[-1].end)
    text = " ".join(gone.text.lstrip(", ").split())
    return (Fix(f"remove `{text}`" if len(text) <= 40 else "remove what is too much", ((gone, ""),)),)


def one_size(decl: tree.Block, index: int, spans: list[Span]) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """Of a number in the place behind the size of a block's result: the size of the input, which torch wants in front, was written as well."""
    names = {n for o in decl.outs if isinstance(o.type, tree.TensorType) for a in o.type.shape.axes for n in axis_names(a)}
    if not 0 < index < len(spans) or index >= len(decl.params) or decl.params[index - 1].name not in names:
        return (), ()
    first, second = spans[index - 1], spans[index]
    return (f"the size of the input follows from the tensor: `{decl.name}({second.text})`",), (
        Fix(f"remove `{first.text}`", ((Span(first.source, first.start, second.start), ""),)),)


def swapped(spans: dict[Any, Span], wrong: Any, fits: Callable[[Any], bool], others: Iterable[Any]) -> tuple[tuple[Label, ...], tuple[Fix, ...]]:
    """Of an argument of the wrong type: another one with which it may have been exchanged, and the edit that does so."""
    from archdsl.elaborate.mending import value_span

    for other in others:
        if other in spans and wrong in spans and fits(other):
            a, b = value_span(spans[wrong]), value_span(spans[other])
            if a.source is b.source and (a.end <= b.start or b.end <= a.start):
                return (Label(b, "exchanged with this?"),), (Fix("exchange the two", ((a, b.text), (b, a.text))),)
    return (), ()
