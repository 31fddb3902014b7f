"""`extern aten.x(args) -> types`: a pure op of torch under its own name. The types are believed: nothing here knows the op."""
from __future__ import annotations

from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.dims import Dim
from archdsl.elaborate import headers
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import mend
from archdsl.elaborate.ops import infer
from archdsl.elaborate.values import describe, has_tensor, is_list
from archdsl.graph import Value
from archdsl.ops.foreign import PURE
from archdsl.ops.registry import find
from archdsl.syntax import tree


def extern_call(frame: Frame, node: tree.ExternCall) -> Any:
    """The results of the op. Raises A0229 for an op that is not on the list of pure ones, A0204 for an argument that is neither tensor nor number."""
    frame.session.step(node.span)
    library, _, name = node.op.partition(".")
    name = name if "." in name else f"{name}.default"
    if library != "aten" or name not in PURE:
        known = [f"aten.{n.removesuffix('.default')}" for n in sorted(PURE)]
        raise error("A0229", f"`{node.op}` is not on the list of pure ops of torch", node.span, "may not be used", **mend(node.op, known, node.span))
    args = tuple(_argument(evaluate(frame, a.value), a) for a in node.args)
    if not has_tensor(args):
        raise error("A0204", f"`{node.op}` is a function of tensors, and is given none", node.span)
    for o in node.outs:
        if not isinstance(o.type, tree.TensorType):
            raise error("A0204", "a result is a tensor", o.span, help="write its element type and shape, for example `int[B, T]`")
    declared = headers.declared_types(frame, node.outs, node.span)
    attrs = {"name": name, "keywords": tuple(a.name for a in node.args if a.name is not None), "dtypes": tuple(t.dtype for t in declared),
             "shapes": tuple(t.shape for t in declared)}
    op = find("aten")
    assert op is not None
    types = infer(frame, op, {"args": args, **attrs}, node.span, {})
    values = frame.builder.add("aten", (args,), attrs, types, node.span).values
    return values[0] if len(values) == 1 else values


def _argument(value: Any, written: tree.Arg) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if is_list(value):
        return tuple(_argument(v, written) for v in value)
    if value is None or isinstance(value, (Value, Dim, int, float)):
        return value
    raise error("A0204", f"an argument of an op of torch is a tensor or a number, this is {describe(value)}", written.span)
