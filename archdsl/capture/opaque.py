"""Aten ops without a counterpart: executable opaque nodes where they are pure functions of tensors and numbers, a refusal otherwise."""
from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from archdsl.capture.rules import IGNORED
from archdsl.graph import TensorType, Value
from archdsl.lazy import torch
from archdsl.ops.foreign import PURE

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


def short_name(target: Any) -> str:
    """`linear.default` for torch.ops.aten.linear.default; ops of other libraries keep their library's name."""
    space, _, name = target._schema.name.partition("::")
    return f"{'' if space == 'aten' else space + '::'}{name}.{target._overloadname}"


def by_name(target: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the op's schema."""
    names = [a.name for a in target._schema.arguments]
    return {**dict(zip(names, args)), **kwargs}


def for_rule(rule: Any, target: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What a rule takes of them. Raises OpError for an argument that it does not know and that is not at its default."""
    from archdsl.ops.registry import OpError

    signature = inspect.signature(rule).parameters
    if any(p.kind is p.VAR_KEYWORD for p in signature.values()):
        return {k: v for k, v in given.items() if k not in IGNORED or k in signature}
    defaults = {a.name: a.default_value for a in target._schema.arguments if a.has_default_value()}
    out: dict[str, Any] = {}
    for name, value in given.items():
        if name in signature:
            out[name] = value
        elif name not in IGNORED and (name not in defaults or value != defaults[name]):
            raise OpError(f"its argument `{name} = {value}` has no counterpart")
    return out


def node(t: Translation, target: Any, given: dict[str, Any]) -> Any:
    """The op itself as a node. Raises ArchError A0552 for one that is not on the list of pure ops."""
    name = short_name(target)
    if name not in PURE:
        what = f"aten.{name} has no counterpart, and is not on the list of pure ops" if "::" not in name else f"{name} is no op of torch itself"
        raise t.refused(what, code="A0552", help="write this part with other functions of torch, or bind the module as an `extern block`")
    kept = {k: _operand(t, v) for k, v in given.items() if k not in IGNORED}
    order = [a.name for a in target._schema.arguments]
    first = next((i for i, k in enumerate(kept) if k != order[i] or i < len(order) and target._schema.arguments[i].kwarg_only), len(kept))
    names = tuple(kept)[first:]
    made = t.node.meta["val"]
    types = tuple(TensorType(t.dtype(x.dtype), tuple(t.size(s) for s in x.shape)) for x in (made if isinstance(made, (tuple, list)) else (made,)))
    attrs = {"name": name, "keywords": names, "dtypes": tuple(x.dtype for x in types), "shapes": tuple(x.shape for x in types)}
    found = t.flat.put("aten", (tuple(kept.values()),), attrs, types)
    return Value(found) if len(types) == 1 else found.values


def _operand(t: Translation, v: Any) -> Any:
    if isinstance(v, (list, tuple)):
        return tuple(_operand(t, w) for w in v)
    if isinstance(v, (str, torch.dtype)):
        raise t.refused(f"an argument `{v}` of an opaque op is no number")
    return v
