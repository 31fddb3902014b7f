"""Domains: the values that search may give a knob."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from sys import float_info
from typing import Any

from archdsl.diagnostics.distance import distance
from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, error
from archdsl.elaborate import headers
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import nearest
from archdsl.elaborate.values import OpRef, describe, is_hyper_number, is_list, show
from archdsl.graph import Knob
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

LISTED = 10_000


@record(frozen=True)
class Domain:
    """`kind`: int (low, low + step, … up to high), float (low to high; in steps when `step` is given; `log`: by the logarithm), choice (`values`),
    list (`items`: one domain for each item), unreadable (`fault`: why, with the values in force)."""

    kind: str
    low: Any = None
    high: Any = None
    step: Any = None
    values: tuple[Any, ...] = ()
    items: tuple[Domain, ...] = ()
    fault: tuple[Diagnostic, ...] = ()
    log: bool = False

    def contains(self, value: Any) -> bool:
        if self.kind == "unreadable":
            return False
        if self.kind == "choice":
            for v in self.values:  # most values that are asked for were taken from the domain
                if v is value:
                    return True
            return any(same(v, value) for v in self.values)
        if self.kind == "list":
            return is_list(value) and len(value) == len(self.items) and all(d.contains(v) for d, v in zip(self.items, value))
        if not is_hyper_number(value) or not self.low <= value <= self.high:
            return False
        if self.kind == "int" and Fraction(value).denominator != 1:
            return False
        return self.step is None or (Fraction(value) - Fraction(self.low)) % Fraction(self.step) == 0

    @property
    def size(self) -> int | None:
        """How many values it has; None for a continuous range."""
        if self.kind == "unreadable":
            return 0
        if self.kind == "choice":
            return len(self.values)
        if self.kind == "list":
            sizes = [d.size for d in self.items]
            total = 1
            for s in sizes:
                if s is None:
                    return None
                total *= s
            return total
        return None if self.step is None else int((Fraction(self.high) - Fraction(self.low)) // Fraction(self.step)) + 1

    def __iter__(self) -> Iterator[Any]:
        """The values of a choice or a range in steps, ascending."""
        if self.kind == "unreadable":
            raise ArchError(*self.fault)
        if self.kind == "choice":
            yield from self.values
        elif self.step is not None:
            for i in range(self.size or 0):
                value = self.low + i * self.step
                yield int(value) if self.kind == "int" else value
        else:
            raise TypeError("a continuous range or a list of domains has no values to go through")

    def __str__(self) -> str:
        if self.kind == "unreadable":
            return "unreadable"
        if self.kind == "choice":
            return "{" + ", ".join(map(show, self.values)) + "}"
        if self.kind == "list":
            return "[" + ", ".join(map(str, self.items)) + "]"
        step = " step * ..." if self.log else f" step {show(self.step)}" if self.step not in (None, 1) else ""
        return f"{show(self.low)}..{show(self.high)}{step}"


def of_values(values: tuple[Any, ...]) -> Domain:
    return Domain("choice", values=values)


def same(a: Any, b: Any) -> bool:
    """Equality of hyper values: true is not 1, blocks are equal when they are the same text with the same arguments."""
    if isinstance(a, OpRef) or isinstance(b, OpRef):
        return isinstance(a, OpRef) and isinstance(b, OpRef) and a.op is b.op
    if hasattr(a, "key") and hasattr(b, "key"):
        return type(a) is type(b) and a.key == b.key
    if is_hyper_number(a) and is_hyper_number(b):
        return a == b
    if is_list(a) and is_list(b):
        return len(a) == len(b) and all(map(same, a, b))
    return a.__class__ is b.__class__ and a == b


def domain(frame: Frame, p: tree.Param) -> Domain:
    """The domain of a parameter, in a frame where it has its value. Raises A0408 for one that is empty or of another type."""
    assert p.domain is not None
    return _domain(frame, p.domain, p.type, frame.vars.get(p.name), p.name)


def _domain(frame: Frame, node: tree.Expr, kind: tree.Type | None, value: Any, name: str) -> Domain:
    while isinstance(kind, tree.OptionalType):
        kind = kind.item
    if isinstance(node, tree.Each):
        return _each(frame, node, kind, value, name)
    if isinstance(node, tree.Range):
        return _range(frame, node, kind, name)
    values = evaluate(frame, node)
    if not is_list(values):
        raise error(
            "A0408",
            f"the domain of `{name}` is a range or a set of values, not {describe(values)}",
            node.span,
            "no domain",
            help=f"`in {{{node.span.text}}}` for this one value",
        )
    if not values:
        raise error("A0408", f"the domain of `{name}` is empty", node.span, "nothing to choose from")
    return of_values(tuple(_fitting(frame, v, kind, node, name) for v in values))


def _fitting(frame: Frame, value: Any, kind: tree.Type | None, node: tree.Expr, name: str) -> Any:
    """A value of the domain as the parameter's type takes it; `none` stands for an optional's absence."""
    if kind is None or value is None:
        return value
    ok, result = headers.try_convert(frame, value, kind)
    if not ok:
        raise error("A0408", f"`{name}` is of type {kind.span.text}: {describe(value)} cannot be in its domain", node.span, "not of that type")
    return result


def _range(frame: Frame, node: tree.Range, kind: tree.Type | None, name: str) -> Domain:
    ends = [evaluate(frame, e) if e is not None else None for e in (node.start, node.stop, node.step)]
    for v, e in zip(ends, (node.start, node.stop, node.step)):
        if e is not None and not is_hyper_number(v):
            raise error("A0408", f"a range goes from number to number, this is {describe(v)}", e.span)
    low, high, step = ends
    whole = isinstance(kind, tree.NameType) and kind.name == "int" or kind is None and all(isinstance(v, int) for v in (low, high))
    if whole:
        low, high, step = (_fitting(frame, v, kind, node, name) if v is not None else 1 for v in ends)
        if node.inclusive or node.scaled:
            pass
        elif low < high:
            high -= 1
        else:
            raise _empty(node, name, low, high)
    elif not isinstance(kind, tree.NameType) or kind.name != "float":
        raise error(
            "A0408",
            f"`{name}` is of type {kind.span.text if kind is not None else 'unknown'}: it has no range of numbers",
            node.span,
            help="a set: `in {…}`",
        )
    if node.scaled:
        return _scaled(frame, node, low, high, step, whole, name)
    if step is not None and step <= 0:
        raise error("A0408", f"the step of the domain of `{name}` must be positive", node.span)
    assert low is not None and high is not None
    if low > high or low == high and not whole and not node.inclusive:
        raise _empty(node, name, low, high)
    if not whole and not node.inclusive:
        if step is None:
            raise _open(node, name)
        high = low + (-((low - high) // step) - 1) * step  # the last value below it
    return Domain("int" if whole else "float", low, high, step)


def _scaled(frame: Frame, node: tree.Range, low: Any, high: Any, factor: Any, whole: bool, name: str) -> Domain:
    """`low..high step * factor` is a list of values; without a factor, any float between by its logarithm."""
    from archdsl.elaborate.expressions import scaled_range

    factor = None if node.step is None else factor
    if factor is None and not whole:
        if not 0 < low < high:
            raise error("A0408", f"the domain of `{name}` has a scale of logarithms: it goes from a number above 0 to a larger one", node.span)
        if not node.inclusive:
            raise _open(node, name)
        if low < float_info.min or high > float_info.max:
            raise error("A0408", f"the domain of `{name}` has a scale of logarithms: its ends are floats, from about 2.2e-308 to 1.8e308", node.span,
                        "an end is out of the range of floats")
        return Domain("float", low, high, log=True)
    values = scaled_range(frame, node, low, high, factor, "A0408")
    if not values:
        raise _empty(node, name, low, high)
    return of_values(values)


def _empty(node: tree.Range, name: str, low: Any, high: Any) -> ArchError:
    why = f"{show(low)} lies above {show(high)}" if low > high else f"{show(low)} does not lie below {show(high)}, where `..<` ends"
    return error("A0408", f"the domain of `{name}` is empty: {why}", node.span, "nothing to choose from")


def _open(node: tree.Range, name: str) -> ArchError:
    """`0..<1` of any float between: no value is the last one."""
    source, between = node.span.source, node.span.source.text[node.start.span.end : node.stop.span.start]
    at = node.start.span.end + between.index("..<")
    where = Span(source, at, at + 3)
    return error("A0408", f"the domain of `{name}` has any float for a value: it has its end", where, "`..<` leaves out the last of values in steps",
                 fixes=(Fix("write `..`", ((where, ".."),)),))


def _each(frame: Frame, node: tree.Each, kind: tree.Type | None, value: Any, name: str) -> Domain:
    """One domain for all items of a list, one for each, or one computed from each item's value."""
    if not isinstance(kind, tree.ListType) or not is_list(value):
        raise error("A0408", f"`each` is for lists; `{name}` is {kind.span.text if kind is not None else describe(value)}", node.span)
    inner = node.domain
    if node.name is None and isinstance(inner, tree.List):
        if len(inner.items) != len(value):
            raise error(
                "A0408",
                f"`{name}` has {len(value)} items, here are {len(inner.items)} domains",
                inner.span,
                help="`each D` is one domain for all items",
            )
        return Domain("list", items=tuple(_domain(frame, d, kind.item, v, name) for d, v in zip(inner.items, value)))
    items: list[Domain] = []
    for v in value:
        at = frame if node.name is None else frame.child(vars={**frame.vars, node.name: v})
        items.append(_domain(at, inner, kind.item, v, name))
    return Domain("list", items=tuple(items))


def odd_defaults(knobs: Iterable[Knob]) -> Iterator[Knob]:
    """The knobs whose default lies outside of their domain, but for those whose domain is computed from another one of them."""
    names: set[str] = set()
    for knob in knobs:
        computed = isinstance(knob.domain, tree.Node) and not names.isdisjoint(re.findall(r"\w+", knob.domain.span.text))
        if not computed and (a := knob.allowed) is not None and not a.fault and not a.contains(knob.default):
            names.add(knob.address)
            yield knob


def outside(knob: Knob) -> ArchError:
    """A0407: the default of a knob is none of the values of its domain."""
    d = knob.allowed
    default: Any = knob.default
    parts = enumerate(zip(default, d.items)) if d.kind == "list" and is_list(default) else ()
    items = [(i, v, k) for i, (v, k) in parts if not k.contains(v)]
    what = f"`{knob.address}`" if not items else f"item {items[0][0]} of `{knob.address}`"
    value, allowed = items[0][1:] if items else (default, d)
    text = str(allowed)
    where = _default_span(knob)
    if items:
        from archdsl.elaborate.mending import item_span

        where = item_span(where, [items[0][0]]) or where
    fixes = tuple(Fix(f"replace by `{show(v)}`", ((where, show(v)),)) for v in _nearest(allowed, value)) if where is not knob.span else ()
    return error("A0407", f"the default of {what} lies outside of its own domain: {show(value)}", where,
                 f"the domain is {text}" if len(text) < 120 else "not in the domain",
                 help="the default is the paper's value: if it is right, widen the domain so that search can find it", fixes=fixes)


def _default_span(knob: Knob) -> Span:
    """Where the default of a knob is written, in the text of its parameter; the whole of that where it cannot be told."""
    if knob.domain is None:
        return knob.span
    start = knob.span.start
    head = re.match(r"(.*?[^=!<>]=)(?!=)(\s*)(.*?)\s+in\s*$", knob.span.source.text[start : knob.domain.span.start], re.DOTALL)
    return Span(knob.span.source, start + head.start(3), start + head.end(3)) if head else knob.span


def _nearest(domain: Domain, value: Any) -> list[Any]:
    """The values of a domain that may have been meant by one outside: those of a slip of the fingers, then its neighbours."""
    if domain.kind in ("int", "float") and is_hyper_number(value):
        step = domain.step if domain.step is not None else 1 if domain.kind == "int" else None
        low, high = domain.low, domain.high
        if step is not None:
            high = low + (high - low) // step * step
        below = low if value < low else high if value > high else low + (value - low) // step * step if step else value
        found = [below] + ([below + step] if step and low <= value < high else [])
    elif domain.kind == "choice":
        found = [v for v in domain.values if is_hyper_number(v)] if is_hyper_number(value) else nearest(value, domain.values) \
            if isinstance(value, str) and all(isinstance(v, str) for v in domain.values) else []
    else:
        return []
    if is_hyper_number(value):  # of a few written values, the one that looks like it
        def far(v: Any) -> tuple[int, Any, Any]:
            return distance(show(v), show(value)) if domain.kind == "choice" else 0, abs(v - value), v

        found.sort(key=far)
        if domain.kind == "int" and isinstance(value, int):
            found = [*_slips(value), *found]
    return [v for v in dict.fromkeys(found) if domain.contains(v)][:3]


def _slips(value: int) -> list[int]:
    """The numbers that are this one with a digit less, or with two neighbours exchanged."""
    text = str(value)
    less = [text[:i] + text[i + 1 :] for i in range(len(text) - 1, 0, -1)]
    turned = [text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1)]
    return [int(t) for t in dict.fromkeys([*less, *turned]) if t != text] if value > 9 else []
