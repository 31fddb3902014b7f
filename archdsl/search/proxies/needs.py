"""What proxies ask of a model, read off its typed graph: None, or why a proxy says nothing about it. Free of torch."""
from __future__ import annotations

from typing import Any

from archdsl.elaborate.model import Elaborated
from archdsl.graph import STRUCTURE, Value
from archdsl.ops.registry import find
from archdsl.passes.flat import Flat

RECTIFIERS = ("leaky_relu", "relu", "relu6")
"""Ops that are linear on both sides of 0, where the sign of the result is that of what they were given."""
LOOKUPS = ("embedding", "embedding_bag")


def maps(made: Elaborated) -> str | None:
    """Weights that multiply activations."""
    return None if map_weights(made) else "it has no weights of linear maps or convolutions"


def scores(made: Elaborated) -> str | None:
    """A first output from which a loss can be made: floats, two or more along the last axis."""
    t = made.graph.outputs[0].type
    if not t.is_float or not t.shape:
        return f"a loss needs scores, and its first output is {t}"
    return "a loss needs two scores or more along the last axis" if t.shape[-1] == 1 else None


def labelled(made: Elaborated) -> str | None:
    """One label for each example: scores [B, classes]."""
    t = made.graph.outputs[0].type
    single = len(t.shape) == 2 and isinstance(t.shape[-1], int)
    return scores(made) or (None if single else f"it needs one class for each example, scores [B, classes]: the first output is {t}")


def rectified(made: Elaborated) -> str | None:
    """Units that are on or off."""
    ops = _ops(made)
    if ops & {*RECTIFIERS}:
        return None
    smooth = sorted(ops & {"elu", "gelu", "hardswish", "silu", "softplus", "tanh"})
    has = f"; smooth ones, like {', '.join(smooth)}, have no such regions" if smooth else ""
    return f"it counts the linear regions that {', '.join(RECTIFIERS)} make, and the model has none of them{has}"


def differentiable(made: Elaborated) -> str | None:
    """Inputs that one can differentiate by: floats, or whole numbers that are looked up in a table."""
    if any(i.type.is_float for i in made.inputs) or _ops(made) & {*LOOKUPS}:
        return None
    return "it differentiates by the inputs, which are whole numbers and are not looked up in a table"


def normalised(made: Elaborated) -> str | None:
    """Batch norms, whose scales take part, and maps [B, c, H, W] that are pooled in the end."""
    if "batch_norm" not in _ops(made):
        return "it multiplies the scales of batch norms, and the model has none"
    return None if pooled(made) is not None else "it looks at the last feature maps [B, c, H, W] before their mean, and the model takes none"


def pooled(made: Elaborated) -> str | None:
    """The op that takes the last mean over maps."""
    for node in reversed(Flat(made.graph).nodes):
        if node.op in ("mean", "avg_pool") and len(node.args[0].type.shape) == 4:
            return node.op
    return None


def map_weights(made: Elaborated) -> list[str]:
    """The addresses of trained weights with two axes or more that multiply activations: operands of ops that sum along an axis, what makes them out
    of weights alone included. Tables that are only looked up, or added, are none."""
    found: dict[str, None] = {}
    parts: dict[Value, frozenset[str] | None] = {}  # weights that a value is made of; None: it depends on the inputs
    for node in Flat(made.graph).nodes:
        of = [parts.get(v) for v in node.operands()]
        if node.op == "param":
            own: frozenset[str] | None = frozenset((node.attrs["path"],))
        elif node.op == "input" or None in of:
            own = None
        else:
            own = frozenset().union(*of)  # type: ignore[arg-type]
        parts.update(dict.fromkeys(node.values, own))
        if own is None and _multiplies(node.op):
            for addresses in of:
                found |= dict.fromkeys(sorted(addresses or ()))
    trained = {a for a, p in made.graph.parameters() if p.kind == "param" and p.type.is_float and len(p.type.shape) >= 2}
    return [a for a, _ in made.graph.parameters() if a in found and a in trained]


def map_biases(made: Elaborated) -> list[str]:
    """The addresses of weights that linear maps and convolutions add."""
    biases = [n.args[2].node for n in Flat(made.graph).nodes if n.op in ("conv", "conv_transpose", "linear") and n.args[2] is not None]
    return [b.attrs["path"] for b in biases if b.op == "param"]


def _multiplies(op: str) -> bool:
    if op in ("phase", "scan"):
        return True
    rule: Any = None if op in STRUCTURE else find(op)
    return op in ("einsum", "aten") or rule is not None and op not in LOOKUPS and "contract" in rule.roles.values()


def _ops(made: Elaborated) -> set[str]:
    return {n.op for g in made.graph.definitions() for n in g.nodes}
