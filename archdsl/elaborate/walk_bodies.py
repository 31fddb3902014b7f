"""The walk over statements: what each of them reads, and which names it binds for those after it."""

from __future__ import annotations

import re
from typing import Any

from archdsl.diagnostics.model import Label, error
from archdsl.elaborate import signatures
from archdsl.elaborate.bindings import last_word_span, pattern_names, word_span
from archdsl.elaborate.hints import mend
from archdsl.elaborate.values import BlockRef
from archdsl.elaborate.walk import STATEMENTS, Walk
from archdsl.elaborate.walk_headers import domain, hyper, hyper_type, once
from archdsl.source import Span
from archdsl.syntax import tree

_SHOWN = re.compile(r"\{\s*([^\W\d]\w*)\s*\}")
"""A name in a message, whose value is shown there."""


def _assign(w: Walk, s: tree.Assign) -> None:
    w.exprs(s.values)
    for t in s.targets:
        if t.type is not None:
            w.bind_shape(t.type.shape) if isinstance(t.type, tree.TensorType) else hyper_type(w, t.type)
        w.bind(t.name, t.span)


def _default(w: Walk, s: tree.Default) -> None:
    if s.block in w.vars:
        return
    target = w.ref(s.block)
    if target is None:
        w.unknown(s.block, word_span(s, s.block))
    for a in s.args:
        w.expr(a.value)
    if not isinstance(target, BlockRef):
        return
    if any(a.name is None for a in s.args):
        w.report(error("A0205", "a default names its arguments", s.span, help=f"`default {s.block}(name = value)`"))
    named = tuple(a for a in s.args if a.name is not None)
    callee = signatures.callee(target)
    assert callee is not None
    w.hold(callee, named, s.span, 0, frozenset(n for n, _ in callee.params))


def _require(w: Walk, s: tree.Require) -> None:
    """The condition, and the names that stand alone between braces in the message."""
    w.expr(s.condition)
    behind = s.condition.span.end
    for found in _SHOWN.finditer(s.span.text, behind - s.span.start) if s.message else ():
        w.expr(tree.Name(span=Span(s.span.source, s.span.start + found.start(1), s.span.start + found.end(1)), id=found[1]))


def _share(w: Walk, s: tree.Share) -> None:
    w.maybe(s.of)
    w.expr(s.value)
    w.maybe(s.condition)
    w.bind(s.name, s.name_span)


def _param(w: Walk, s: tree.ParamDecl) -> None:
    w.maybe(s.condition)
    if isinstance(s.type, tree.TensorType):
        w.use_shape(s.type.shape)
    w.expr(s.init)
    w.bind(s.name, s.name_span)


def _named_value(w: Walk, s: Any) -> None:
    """`const` and `draw`."""
    w.expr(s.value)
    if isinstance(s.type, tree.TensorType):
        w.bind_shape(s.type.shape)
    w.bind(s.name, word_span(s, s.name))


def _control(w: Walk, s: tree.Control) -> None:
    hyper_type(w, s.type)
    w.expr(s.default)
    domain(w, s.domain)
    w.bind(s.name, word_span(s, s.name))


def _emit(w: Walk, s: tree.Emit) -> None:
    if s.value is not None:
        w.expr(s.value)
    elif s.name not in w.vars:
        w.use(s.name, word_span(s, s.name))


def _update(w: Walk, s: tree.Update) -> None:
    w.expr(s.value)
    if s.name not in w.vars:
        w.unknown(s.name, word_span(s, s.name))


def _static(w: Walk, s: tree.Static) -> None:
    for n in s.names:
        if n not in w.vars:
            w.unknown(n, word_span(s, n))


def _for(w: Walk, s: tree.For) -> None:
    w.expr(s.iterable)
    before, branches = w.vars, w.branches
    w.vars, w.branches, w.loops = dict(before), 0, (*w.loops, s)
    for name, span in pattern_names(s.pattern):
        w.bind(name, span)
    w.body(s.body)
    w.vars, w.branches, w.loops = before, branches, w.loops[:-1]


def _if(w: Walk, s: tree.If) -> None:
    for condition, _ in s.branches:
        w.expr(condition)
    w.arms(iter([*(body for _, body in s.branches), s.otherwise]))


def _match(w: Walk, s: tree.Match) -> None:
    w.expr(s.subject)
    w.arms(iter([a.body for a in s.arms]))


def _choose(w: Walk, s: tree.Choose) -> None:
    arms: dict[str, tree.ChooseArm] = {}
    for arm in s.arms:
        if arm.name in arms:
            w.report(
                error("A0208", f"`{s.name}` has two arms `{arm.name}`", arm.span, "the second", labels=(Label(arms[arm.name].span, "the first"),))
            )
        arms.setdefault(arm.name, arm)
        once(w, arm.params, f"the arm `{arm.name}`")
        vars, hidden = w.vars, w.hidden
        w.vars, w.hidden = dict(vars), hidden | {p.name for p in arm.params}
        for p in arm.params:
            hyper(w, p)
            w.vars[p.name] = None
        w.expr(arm.value)
        w.vars, w.hidden = vars, hidden
    default = arms.get(s.default)
    if default is None:
        w.report(
            error(
                "A0224",
                f"`{s.name}` has no arm `{s.default}`",
                last_word_span(s, s.default),
                "no such arm",
                **mend(s.default, arms, s.span, f"its arms are {', '.join(arms)}"),
            )
        )
    for a in s.default_args:
        w.expr(a.value)
    if default is not None:
        w.hold(signatures.Callee(f"the arm `{s.default}`", [(p.name, False) for p in default.params]), s.default_args, s.span, 0)
    w.bind(s.name, s.name_span)


def _return(w: Walk, s: tree.Return) -> None:
    w.exprs(s.values)
    w.returns = True
    outs = getattr(w.decl, "outs", None)
    if outs is not None and len(s.values) > 1 and len(s.values) != len(outs):
        where = s.values[0].span.to(s.values[-1].span)
        from archdsl.elaborate.proposals import without

        w.report(error("A0220", f"`{w.decl.name}` declares {len(outs)} result{'s' * (len(outs) != 1)}, this returns {len(s.values)}", where,
                       fixes=without((v.span for v in s.values), len(outs)) if outs else ()))


def _scan(w: Walk, s: tree.Scan) -> None:
    for n in (*s.inputs, s.axis):
        if n not in w.vars:
            w.unknown(n, word_span(s, n))
    for c in s.carries:
        if isinstance(c.type, tree.TensorType):
            w.use_shape(c.type.shape)
        w.expr(c.init)
    w.maybe(s.merge)
    w.maybe(s.identity)
    for c in s.carries:
        w.vars[c.name] = None
    w.body(s.body)
    w.returns = True  # what it yields is the result


STATEMENTS.update(
    {
        tree.Assign: _assign,
        tree.Require: _require,
        tree.Default: _default,
        tree.Share: _share,
        tree.ParamDecl: _param,
        tree.Const: _named_value,
        tree.Draw: _named_value,
        tree.Control: _control,
        tree.Emit: _emit,
        tree.Update: _update,
        tree.Static: _static,
        tree.For: _for,
        tree.If: _if,
        tree.Match: _match,
        tree.Choose: _choose,
        tree.Island: lambda w, s: w.body(s.body),
        tree.Return: _return,
        tree.Scan: _scan,
        tree.Next: lambda w, s: w.expr(s.value),
        tree.Yield: lambda w, s: w.exprs(s.values),
    }
)
