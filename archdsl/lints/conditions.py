"""Conditions that are always the same: branches that are never taken, claims that cannot fail."""
from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from archdsl.claims.words import WORDS
from archdsl.diagnostics.model import Diagnostic, Label
from archdsl.lints.survey import Survey
from archdsl.source import Span
from archdsl.syntax import tree

UNKNOWN = object()
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}
MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def constant(e: Any, params: Mapping[str, tree.Param] = MappingProxyType({})) -> Any:
    """The value of an expression whatever the arguments are, or UNKNOWN. `params`: those whose types tell something."""
    if isinstance(e, tree.Bool | tree.Str | tree.Number):
        return e.value
    if isinstance(e, tree.NoneLit):
        return None
    if isinstance(e, tree.Unary):
        value = constant(e.operand, params)
        if value is UNKNOWN:
            return UNKNOWN
        return not value if e.op == "not" else -value if isinstance(value, int | Fraction) else UNKNOWN
    if isinstance(e, tree.IsSome):
        return _is_some(e, params)
    return _binary(e, params) if isinstance(e, tree.Binary) else UNKNOWN


def _is_some(e: tree.IsSome, params: Mapping[str, tree.Param]) -> Any:
    p = params.get(e.operand.id) if isinstance(e.operand, tree.Name) else None
    if p is None or p.type is None or isinstance(p.type, tree.OptionalType) or isinstance(p.default, tree.NoneLit):
        return UNKNOWN
    return not e.negate


def _binary(e: tree.Binary, params: Mapping[str, tree.Param]) -> Any:
    left, right = constant(e.left, params), constant(e.right, params)
    if e.op in ("and", "or"):
        decides = e.op == "or"
        if left is decides or right is decides:
            return decides
        return UNKNOWN if left is UNKNOWN or right is UNKNOWN else right
    if e.op in COMPARE and left is UNKNOWN and _words(e.left) == _words(e.right) and not _has_call(e.left):
        return e.op in ("==", "<=", ">=")
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    numbers = all(isinstance(v, int | Fraction) and not isinstance(v, bool) for v in (left, right))
    if e.op in ("==", "!=") and (numbers or type(left) is type(right)):
        return COMPARE[e.op](left, right)
    if numbers and e.op in COMPARE:
        return COMPARE[e.op](left, right)
    return ARITHMETIC[e.op](left, right) if numbers and e.op in ARITHMETIC else UNKNOWN


def _has_call(e: tree.Node) -> bool:
    return any(isinstance(n, tree.Call) for n in _all(e))


def _words(e: tree.Node) -> str:
    """The text of an expression without layout."""
    return " ".join(e.span.text.split())


# ---------------------------------------------------------------- branches
def dead_branches(d: tree.Decl, seen: Survey) -> Iterator[Diagnostic]:
    """A0706: branches that no arguments reach, and requirements that always hold."""
    params = {p.name: p for p in getattr(d, "params", ())}
    if not isinstance(d, tree.Block | tree.Model | tree.Fn | tree.OpDecl):
        return
    params = {n: p for n, p in params.items() if n not in seen.assigned}
    for n in seen.branches:
        if isinstance(n, tree.If | tree.IfExpr):
            yield from _if(n, params)
        elif isinstance(n, tree.Match | tree.MatchExpr):
            yield from _match(n, params)
        elif isinstance(n, tree.Require) and constant(n.condition, params) is True:
            yield _dead(n.condition.span, "this requirement always holds", "true for all arguments")


def _all(node: tree.Node) -> Iterator[tree.Node]:
    stack = [node]
    while stack:
        n = stack.pop()
        yield n
        stack += tree.children(n)


def _if(n: tree.If | tree.IfExpr, params: dict[str, tree.Param]) -> Iterator[Diagnostic]:
    seen: dict[str, tree.Expr] = {}
    for at, (condition, _) in enumerate(n.branches):
        before = seen.setdefault(_words(condition), condition)
        value = constant(condition, params)
        if before is not condition:
            yield _dead(condition.span, "this branch is never taken", "the same condition again", (Label(before.span, "the first"),))
        elif value is False:
            yield _dead(condition.span, "this branch is never taken", "false for all arguments")
        elif value is True:
            rest = at + 1 < len(n.branches) or (n.has_else if isinstance(n, tree.If) else True)
            what = "the branches behind it are never taken" if rest else "this condition always holds"
            yield _dead(condition.span, what, "true for all arguments")
            return


def _match(n: tree.Match | tree.MatchExpr, params: dict[str, tree.Param]) -> Iterator[Diagnostic]:
    p = params.get(n.subject.id) if isinstance(n.subject, tree.Name) else None
    options = _options(p.type) if p is not None else None
    seen: dict[str, tree.Expr] = {}
    for arm in n.arms:
        for pattern in arm.patterns:
            earlier = seen.get(_words(pattern)) or seen.get("_")
            if earlier is not None:
                yield _dead(pattern.span, "this arm is never taken", "an arm before it takes this", (Label(earlier.span, "this one"),))
            elif p is not None and options is not None and _words(pattern) == "_" and options <= {_text(s) for s in seen.values()}:
                yield _dead(pattern.span, "this arm is never taken", f"the arms before it take all that `{p.name}` may be")
            seen.setdefault(_words(pattern), pattern)


def _options(kind: tree.Type | None) -> set[str] | None:
    """The words that an enumeration allows."""
    if isinstance(kind, tree.UnionType) and all(isinstance(o, tree.LiteralType) for o in kind.options):
        return {o.value for o in kind.options if isinstance(o, tree.LiteralType)}
    return None


def _text(pattern: tree.Expr) -> str | None:
    return pattern.value if isinstance(pattern, tree.Str) else pattern.id if isinstance(pattern, tree.Name) else None


def _dead(span: Span, message: str, label: str, labels: tuple[Label, ...] = ()) -> Diagnostic:
    return Diagnostic("A0706", message, span, label, labels, severity="warning")


# ---------------------------------------------------------------- claims
def empty_claims(d: tree.Decl) -> Iterator[Diagnostic]:
    """A0707: claims that every model fulfils, or that are never asked."""
    for c in (d,) if isinstance(d, tree.Claim) else d.claims if isinstance(d, tree.Variant) else ():
        for item in c.items:
            if item.condition is not None and constant(item.condition) is False:
                yield _empty(item.condition.span, "this claim is never checked", "false for all arguments")
            elif constant(item.expr) is True:
                yield _empty(item.expr.span, "this claim cannot fail", "true whatever the model is")
            elif _bounded(item.expr):
                yield _empty(item.expr.span, "this claim cannot fail", "no count is less than 0")


def _bounded(e: tree.Expr) -> bool:
    """Comparisons of counts with 0 or less that always hold."""
    if not isinstance(e, tree.Binary) or e.op not in COMPARE:
        return False
    for op, side, limit in ((e.op, e.left, constant(e.right)), (MIRRORED[e.op], e.right, constant(e.left))):
        if isinstance(limit, int | Fraction) and not isinstance(limit, bool) and _counts(side):
            return (op == ">=" and limit <= 0) or (op in (">", "!=") and limit < 0)
    return False


def _counts(e: tree.Expr) -> bool:
    """Whether an expression is a number that is 0 or more in any model."""
    if isinstance(e, tree.Number):
        return e.value >= 0
    if isinstance(e, tree.Binary) and e.op in ("+", "*", "/"):
        return _counts(e.left) and _counts(e.right)
    name = e.func if isinstance(e, tree.Call) else e
    word = WORDS.get(name.id) if isinstance(name, tree.Name) else None
    return word is not None and word.kind == "number" and word.name != "probe"


def _empty(span: Span, message: str, label: str) -> Diagnostic:
    return Diagnostic("A0707", message, span, label, severity="warning")
