"""Evaluation of expressions: one function per node kind, chosen by a table."""
from __future__ import annotations

import re
from decimal import Context
from fractions import Fraction
from itertools import pairwise
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix, error
from archdsl.elaborate import apply, calls, foreign, layouts, library
from archdsl.elaborate.closures import closure_key, free_names
from archdsl.elaborate.evaluation import TABLE, evaluate
from archdsl.elaborate.frame import Frame, checked, good
from archdsl.elaborate.hints import OTHERWISE, WORDS, mend, of_torch
from archdsl.elaborate.limits import MAX_ITEMS, limit
from archdsl.elaborate.operations import alike, binary, decided, truth, unary
from archdsl.elaborate.unknown import unknown
from archdsl.elaborate.values import TEMPLATES, Compose, Literal, OpRef, RecordValue, Share, describe, is_list, show
from archdsl.graph import InitExpr, Mask, Value
from archdsl.source import Span
from archdsl.syntax import tree

_ABSENT = object()
NEAR = Fraction(1, 10**14)
"""The share of a value by which powers of a factor miss it that is written down rounded: `3.1622776601683795`, two to a decade."""
_DIGITS = Context(prec=12)


_KEYED = frozenset({int, bool, str, float, Fraction, type(None)})
_KEPT = _KEYED | {InitExpr, OpRef}


def settled(frame: Frame, node: tree.Expr) -> Any:
    """The value of an expression that is met again and again (a header's default, an initialiser): one of numbers and strings is evaluated once
    for the values of its variables."""
    session = frame.session
    names = session.free.get(id(node))
    if names is None:
        names = session.free[id(node)] = tuple(free_names(node))
    key: list[Any] = ["settled", id(node), session.mark(node), frame.init]
    held = frame.vars
    for n in names:
        value = held.get(n, _ABSENT)
        kind = value.__class__
        if kind in _KEYED:
            key += (kind, value)
        elif value is _ABSENT:
            key.append(None)  # a declaration of the file, or a word of the language
        else:
            return evaluate(frame, node)
    known = tuple(key)
    value = session.memo.get(known, _ABSENT)
    if value is _ABSENT:
        value = evaluate(frame, node)
        if type(value) in _KEPT:
            session.memo[known] = value
    return value


def lookup(frame: Frame, name: str, span: Span) -> Any:
    """What a name stands for: a variable of the body, a declaration or import of the file, or a word of the language."""
    if name in frame.vars:
        value = good(frame.vars[name])
        if frame.init and isinstance(value, Value) and value.node.op == "param" and value.node in frame.builder.home.own:
            # a parameter of this body stands for its initial value; one of a body around it is data
            return InitExpr("param", (), (("path", value.node.attrs["path"]),))
        return value
    found = frame.module.find(name, frame.session)
    if found is None:
        found = library.find(name)
    if found is None and library.installed_op(name):
        found = library.find(name)
    if found is None:
        raise unknown(frame, name, span)
    return good(found)


def _name(frame: Frame, node: tree.Name) -> Any:
    value = frame.vars.get(node.id, _ABSENT)
    if value is _ABSENT or frame.init:
        return lookup(frame, node.id, node.span)
    return good(value)


def _tuple(frame: Frame, node: tree.Tuple) -> Any:
    return checked(frame.session, tuple([evaluate(frame, i) for i in node.items]), node.span)


def _list(frame: Frame, node: Any) -> Any:
    out: list[Any] = []
    for i in node.items:
        out += evaluate(frame, i) if isinstance(i, tree.Range) else [evaluate(frame, i)]
    return checked(frame.session, tuple(out), node.span)


def _range(frame: Frame, node: tree.Range) -> Any:
    start, stop = whole(frame, node.start), whole(frame, node.stop)
    step = whole(frame, node.step) if node.step else 1
    if node.scaled:
        return scaled_range(frame, node, start, stop, None if node.step is None else step)
    if step <= 0:
        raise error("A0221", "the step of a range must be positive", node.span)
    stop += node.inclusive
    count = max(0, -((start - stop) // step))
    if count > MAX_ITEMS:
        raise limit(f"a range of {count:,} items is too long", node.span, help=f"at most {MAX_ITEMS:,} are allowed")
    frame.session.step(node.span, count)
    return tuple(range(start, stop, step))


def scaled_range(frame: Frame, node: tree.Range, start: Any, stop: Any, factor: Any, code: str = "A0221") -> tuple[Any, ...]:
    """`start..stop step * factor`: each the factor times the one before. Raises `code`, and A0602 for numbers that grow too large: they are exact."""
    if factor is None or factor <= 1 or start <= 0:
        why = "needs a factor" if factor is None else f"goes up by a factor above 1, not {show(factor)}" if factor <= 1 else \
            f"begins above 0, not with {show(start)}"
        raise error(code, f"a range with `step *` {why}", node.span, help="`8..512 step * 2` is 8, 16, 32, …, 512")
    out: list[Any] = []
    near = 0 if type(start) is type(stop) is type(factor) is int else Fraction(stop) * NEAR
    while start < stop - near:
        out.append(short_of(start) if near else start)
        if len(out) > MAX_ITEMS:
            raise limit(f"a range of more than {MAX_ITEMS:,} items is too long", node.span, help=f"at most {MAX_ITEMS:,} are allowed")
        start = checked(frame.session, start * factor, node.span)
        frame.session.step(node.span)
    if node.inclusive and start <= stop + near:
        out.append(stop)
    return tuple(out)


def short_of(value: Any) -> Any:
    """The number of at most 12 digits from which a value differs by the rounding of a factor alone; the value itself where there is none."""
    exact = Fraction(value)
    near = Fraction(_DIGITS.divide(exact.numerator, exact.denominator))
    return near if abs(near - exact) <= exact * NEAR else value


def whole(frame: Frame, node: tree.Expr) -> int:
    value = evaluate(frame, node)
    if type(value) is not int:
        raise error("A0204", f"a whole number was expected, this is {describe(value)}", node.span)
    return value


def _comprehension(frame: Frame, node: tree.Comprehension) -> Any:
    from archdsl.elaborate.loops import iterate

    out: list[Any] = []
    inner = frame.inner(node.span)
    for _ in iterate(inner, node.pattern, node.iterable):
        if node.condition is None or truth(inner, node.condition):
            out.append(evaluate(inner, node.item))
    return checked(frame.session, tuple(out), node.span)


def _is_some(frame: Frame, node: tree.IsSome) -> bool:
    return (evaluate(frame, node.operand) is None) == node.negate


def _instead(node: tree.Chain, values: list[Any], odd: Any) -> dict[str, Any]:
    """What may be meant by something that is no block beside `>>`."""
    if isinstance(values[0], Value) and all(isinstance(v, TEMPLATES) for v in values[1:]):
        source = node.span.source
        signs: list[tuple[Span, str]] = []
        for left, right in pairwise(node.items):
            between = source.text[left.span.end : right.span.start]
            at = left.span.end + re.sub("#.*", lambda m: " " * len(m[0]), between).index(">>")
            signs.append((Span(source, at, at + 2), "|>"))
        return {"fixes": (Fix("apply the blocks with `|>`", tuple(signs)),)}
    if isinstance(odd, (int, float, Fraction)) and not isinstance(odd, bool):
        return {"help": "a block that computes with a number is written `block(u) => u * 0.5`"}
    return {}


def _chain(frame: Frame, node: tree.Chain) -> Any:
    last = node.items[-1].expr if isinstance(node.items[-1], tree.Named) else node.items[-1]
    if node.op in ("|>", ">>") and isinstance(last, tree.Name) and isinstance(frame.vars.get(last.id), Value):
        first = evaluate(frame, node.items[0])
        if not isinstance(first, Value):
            raise _tensor_last(node, last)
        if node.op == "|>":
            return _piped(frame, first, node)
    if node.op == "|>":
        return _piped(frame, evaluate(frame, node.items[0]), node)
    if node.op == "??":
        for item in node.items[:-1]:
            value = evaluate(frame, item)
            if value is not None:
                return value
        return evaluate(frame, node.items[-1])
    values = [evaluate(frame, i) for i in node.items]
    if node.op == ">>":
        for v, i in zip(values, node.items):
            if not isinstance(v, TEMPLATES):
                raise error("A0206", f"`>>` joins blocks; this is {describe(v)}", i.span, "no block", **_instead(node, values, v))
        made = Compose(tuple(values), node.span, frame.session.intern(("compose", tuple(frame.session.key(v) for v in values))))
        return checked(frame.session, made, node.span)
    for v, i in zip(values, node.items):
        if not isinstance(v, Mask):
            raise error("A0204", f"`{node.op}` joins masks; this is {describe(v)}", i.span)
    result = values[0]
    for v in values[1:]:
        kind = "and" if node.op == "&" else "or"
        if kind == "and" and "full" in (result.kind, v.kind):
            result = v if result.kind == "full" else result
        else:
            result = checked(frame.session, Mask(kind, (result, v)), node.span)
    return result


def _piped(frame: Frame, value: Any, node: tree.Chain) -> Any:
    for item in node.items[1:]:
        value = calls.pipe(frame, value, item)
    return value


def _tensor_last(node: tree.Chain, tensor: tree.Name) -> ArchError:
    """`Linear(d) >> x`: a chain that starts with the block and ends with what it is to be applied to."""
    *blocks, last = node.items
    texts = [i.span.text for i in blocks]
    sure = True
    if isinstance(last, tree.Named) and not any(isinstance(i, tree.Named) for i in blocks):  # the name goes to the block, not to an op beside it
        owners = [k for k, text in enumerate(texts) if text[:1].isupper() or len(texts) == 1]
        sure = len(owners) == 1
        texts = [f"{text} as {last.name}" if k in owners else text for k, text in enumerate(texts)]
    new = " |> ".join([tensor.id, *texts])
    whole = Span(node.span.source, blocks[0].span.start, last.span.end)  # brackets around the chain stay
    return error("A0206", f"a tensor stands in front of `|>`, and `{tensor.id}` is one", tensor.span, "no block",
                 help="`x |> f` applies f to x; `f >> g` makes one block of two", fixes=(Fix(f"write `{new}`", ((whole, new),)),) if sure else ())


def _item(frame: Frame, node: tree.Item) -> Any:
    value = evaluate(frame, node.value)
    if isinstance(value, Value):
        return layouts.index(frame, value, node)
    if not (is_list(value) or isinstance(value, str)) or len(node.indices) != 1:
        raise error("A0204", f"{describe(value)} cannot be indexed so", node.span)
    i = node.indices[0]
    if isinstance(i, tree.Slice):
        bounds = [whole(frame, e) if e else None for e in (i.start, i.stop, i.step)]
        if bounds[2] == 0:
            raise error("A0221", "the step of a slice cannot be 0", i.span)
        return checked(frame.session, value[slice(*bounds)], node.span)
    k = whole(frame, i)
    if not -len(value) <= k < len(value):
        raise error("A0221", f"index {k} is outside of a list of {len(value)}", i.span,
                    help=f"the last index is {len(value) - 1}" if value else "the list is empty")
    return value[k]


def _member(frame: Frame, node: tree.Member) -> Any:
    if isinstance(node.value, tree.Name) and node.value.id not in frame.vars:
        found = frame.module.member(node.value.id, node.name, frame.session)
        if found is not None:
            return found
    path, base = [node.name], node.value
    while isinstance(base, tree.Member):
        path.insert(0, base.name)
        base = base.value
    if len(path) > 1 and isinstance(base, tree.Name) and isinstance(share := frame.vars.get(base.id), Share):
        return apply.read_parameter(frame, share, ".".join(path), node.name_span)
    value = evaluate(frame, node.value)
    if isinstance(value, RecordValue):
        try:
            return value.get(node.name)
        except KeyError:
            raise error("A0201", f"the record {value.name} has no field `{node.name}`", node.name_span,
                        **mend(node.name, [k for k, _ in value.items], node.name_span)) from None
    if isinstance(value, Share):
        return apply.read_parameter(frame, value, node.name, node.name_span)
    help, fixes = (), ()
    if isinstance(value, Value):
        told = of_torch(node.name)
        help = told[0] if told is not None else ()
        if told is None and library.is_op(node.name):
            fixes = (_as_function(node, node.name),)
        elif told is not None and node.name not in OTHERWISE and library.is_op(here := WORDS[node.name][0]):
            fixes = (_as_function(node, here),)
        elif told is None and node.name[:1].isupper() and len(node.name) < 3 and isinstance(node.value, tree.Name):
            axes = ", ".join("_" * len(value.shape))
            help = (f"a shape beside a name binds sizes: `{node.value.id}: [{axes}] = …`, with `{node.name}` in its place",)
    raise error("A0201", f"{describe(value)} has no `{node.name}`", node.name_span, help=help, fixes=fixes)


def _as_function(node: tree.Member, name: str) -> Fix:
    """`x.mean(axis = 1)` as `mean(x, axis = 1)`, under a name."""
    source, text = node.span.source, node.value.span.text
    behind = re.match(r"\s*(\(\s*\)?)?", source.text[node.span.end :])
    assert behind is not None
    opened = behind[1] or ""
    new = f"{name}({text}" + ("" if opened.endswith(")") else ", " if opened else ")")
    end = node.span.end + (len(behind[0]) - opened.endswith(")") if opened else 0)
    return Fix(f"write `{name}({text}{', …' if opened and not opened.endswith(')') else ''})`", ((Span(source, node.span.start, end), new),))


def _named(frame: Frame, node: tree.Named) -> Any:
    return calls.named(frame, node)


def _if(frame: Frame, node: tree.IfExpr) -> Any:
    for condition, results in node.branches:
        if truth(frame, condition):
            return results_of(frame, results)
    return results_of(frame, node.otherwise)


def results_of(frame: Frame, results: tuple[tree.Expr, ...]) -> Any:
    values = tuple(evaluate(frame, r) for r in results)
    return values[0] if len(values) == 1 else values


def _match(frame: Frame, node: tree.MatchExpr) -> Any:
    return evaluate(frame, select_arm(frame, node).body)


def select_arm(frame: Frame, node: Any) -> tree.MatchArm:
    """The arm of a match that fits its subject, decided at build."""
    subject = evaluate(frame, node.subject)
    frame.session.step(node.subject.span, len(node.arms) >> 3)
    if isinstance(subject, Value):
        raise error("A0222", "`match` is decided when the spec is built; a tensor cannot be matched", node.subject.span)
    for arm in node.arms:
        if any(_fits(p, subject) for p in arm.patterns):
            return arm
    patterns = [p.span.text for a in node.arms for p in a.patterns]
    shown = ", ".join(patterns[:12]) + (f" and {len(patterns) - 12:,} more" if len(patterns) > 12 else "")
    raise error("A0223", f"no arm matches {describe(subject)}", node.subject.span, f"the arms are {shown}", help="add an arm, or `_` for the rest")


def _fits(pattern: tree.Expr, subject: Any) -> bool:
    if isinstance(pattern, tree.Name):
        return pattern.id == "_" or subject == pattern.id
    if isinstance(pattern, tree.NoneLit):
        return subject is None
    if isinstance(pattern, tree.Some):
        return subject is not None
    assert isinstance(pattern, (tree.Number, tree.Str, tree.Bool))
    return alike(subject, pattern.value) and bool(subject == pattern.value)


def _phase(frame: Frame, node: tree.PhaseExpr) -> Any:
    return apply.phase(frame, node)


def _literal(frame: Frame, node: tree.BlockLiteral) -> Any:
    return Literal(node, frame.inner(node.span), closure_key(frame, node))


def _call(frame: Frame, node: tree.Call) -> Any:
    return calls.call(frame, node)


def _edited(frame: Frame, node: tree.Edited) -> Any:
    raise error("A0218", "`T with { … }` is reserved: it is built when a paper needs it", node.span, help="compose the blocks instead")


TABLE.update({
    tree.Name: _name,
    tree.Number: lambda f, n: n.value,
    tree.Str: lambda f, n: n.value,
    tree.Bool: lambda f, n: n.value,
    tree.NoneLit: lambda f, n: None,
    tree.Tuple: _tuple,
    tree.List: _list,
    tree.SetLit: _list,
    tree.Range: _range,
    tree.Comprehension: _comprehension,
    tree.Unary: unary,
    tree.Binary: binary,
    tree.IsSome: _is_some,
    tree.Chain: _chain,
    tree.Call: _call,
    tree.Item: _item,
    tree.Member: _member,
    tree.Named: _named,
    tree.Edited: _edited,
    tree.IfExpr: _if,
    tree.MatchExpr: _match,
    tree.PhaseExpr: _phase,
    tree.BlockLiteral: _literal,
    tree.LayoutCall: lambda f, n: layouts.layout_call(f, n),
    tree.ExternCall: lambda f, n: foreign.extern_call(f, n),
})

__all__ = ["closure_key", "decided", "evaluate", "free_names", "lookup", "results_of", "scaled_range", "select_arm", "settled", "truth", "whole"]
