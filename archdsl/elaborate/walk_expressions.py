"""The walk over expressions."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.bindings import pattern_names
from archdsl.elaborate.walk import EXPRESSIONS, Walk
from archdsl.elaborate.walk_headers import domain
from archdsl.syntax import tree


def _name(w: Walk, n: tree.Name) -> None:
    if n.id not in w.vars:
        w.use(n.id, n.span)


def _chain(w: Walk, n: tree.Chain) -> None:
    if n.op != "|>":
        w.exprs(n.items)
        return
    w.expr(n.items[0])
    for item in n.items[1:]:
        w.pipe(item)


def _range(w: Walk, n: tree.Range) -> None:
    w.expr(n.start)
    w.expr(n.stop)
    w.maybe(n.step)


def _slice(w: Walk, n: tree.Slice) -> None:
    w.maybe(n.start)
    w.maybe(n.stop)
    w.maybe(n.step)


def _item(w: Walk, n: tree.Item) -> None:
    w.expr(n.value)
    for i in n.indices:
        if type(i) is not tree.Rest:
            w.expr(i)


def _comprehension(w: Walk, n: tree.Comprehension) -> None:
    w.expr(n.iterable)
    vars, hidden = w.vars, w.hidden
    w.vars, w.hidden = dict(vars), hidden | {name for name, _ in pattern_names(n.pattern)}
    for name, span in pattern_names(n.pattern):
        w.bind(name, span)
    w.maybe(n.condition)
    w.expr(n.item)
    w.vars, w.hidden = vars, hidden


def _if_expr(w: Walk, n: tree.IfExpr) -> None:
    for condition, results in n.branches:
        w.expr(condition)
        w.branch(results)
    w.branch(n.otherwise)


def _match_expr(w: Walk, n: tree.MatchExpr) -> None:
    w.expr(n.subject)
    w.branch(a.body for a in n.arms)


def _phase(w: Walk, n: tree.PhaseExpr) -> None:
    names = [name for name, _ in n.arms]
    odd = next((name for name in names if name not in ("train", "eval")), None)
    if odd is not None:
        w.report(error("A0227", f"a phase is `train` or `eval`, not `{odd}`", n.span))
    elif sorted(names) != ["eval", "train"]:
        w.report(error("A0227", "both phases need an arm: `phase { train => …  eval => … }`", n.span))
    for _, results in n.arms:
        w.exprs(results)


def _literal(w: Walk, n: tree.BlockLiteral) -> None:
    vars, rest, hidden = w.vars, w.rest, w.hidden
    w.vars, w.rest, w.hidden = dict(vars), False, hidden | {name for name, _ in n.params}
    for name, kind in n.params:
        w.vars[name] = None
        if isinstance(kind, tree.TensorType):
            w.bind_shape(kind.shape)
    w.expr(n.body)
    w.vars, w.rest, w.hidden = vars, rest, hidden


def _edited(w: Walk, n: tree.Edited) -> None:
    w.expr(n.expr)


def _nothing(w: Walk, n: Any) -> None:
    pass


EXPRESSIONS.update({
    tree.Name: _name,
    tree.Number: _nothing,
    tree.Str: _nothing,
    tree.Bool: _nothing,
    tree.NoneLit: _nothing,
    tree.Some: _nothing,
    tree.Tuple: lambda w, n: w.exprs(n.items),
    tree.List: lambda w, n: w.exprs(n.items),
    tree.SetLit: lambda w, n: w.exprs(n.items),
    tree.Range: _range,
    tree.Comprehension: _comprehension,
    tree.Each: domain,
    tree.Unary: lambda w, n: w.expr(n.operand),
    tree.Binary: lambda w, n: w.binary(n),
    tree.IsSome: lambda w, n: w.expr(n.operand),
    tree.Chain: _chain,
    tree.Call: lambda w, n: w.call(n),
    tree.Item: _item,
    tree.Slice: _slice,
    tree.Member: lambda w, n: w.member(n),
    tree.Named: lambda w, n: w.expr(n.expr),
    tree.Edited: _edited,
    tree.IfExpr: _if_expr,
    tree.MatchExpr: _match_expr,
    tree.PhaseExpr: _phase,
    tree.BlockLiteral: _literal,
    tree.LayoutCall: Walk.layout,
    tree.ExternCall: lambda w, n: w.exprs(tuple(a.value for a in n.args)),
    tree.Rest: Walk.forward,
})
