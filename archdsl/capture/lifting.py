"""The table of lifting rules: what common code means in ops of the language. One place per rule, applied to each op as it is added. No torch here."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.capture import layouts
from archdsl.capture.masks import index_of, lowest_of, mask_of
from archdsl.capture.patterns import Binds, Rule
from archdsl.capture.scores import layered_scores, masked, under_bias
from archdsl.graph import Mask, Node, Value
from archdsl.ops.masks import CAUSAL, FULL
from archdsl.ops.registry import OpError
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat


# ---------------------------------------------------------------- conditions
def _row(name: str) -> Callable[[Binds], bool]:
    """`name` is one number for each position of the last axis of x."""
    def holds(b: Binds) -> bool:
        x, w = b["x"], b[name]
        return type(x) is Value and type(w) is Value and len(w.shape) == 1 and shapes.same(w.shape[0], x.shape[-1]) is True and w.dtype == x.dtype
    return holds


def _bias(b: Binds) -> bool:
    w, bias = b["w"], b["b"]
    return type(bias) is Value and len(bias.shape) == 1 and shapes.same(bias.shape[0], w.shape[0]) is True and bias.dtype == w.dtype


def _heads(b: Binds) -> bool:
    """Scores of every head: q, k, v with equal leading axes, and a bias that fits the scores."""
    q, kt, v = b["q"], b["kt"], b["v"]
    if not all(type(x) is Value and len(x.shape) == len(q.shape) >= 3 for x in (q, kt, v)):
        return False
    return all(shapes.same(s, t) is True for x in (kt, v) for s, t in zip(q.shape[:-2], x.shape[:-2])) and ("b" not in b or type(b["b"]) is Value)


def _halves(b: Binds) -> bool:
    """`low` and `high` take the halves of the last axis of x, which are joined again there; an angle for each of its channels."""
    x = b["x"]
    width = x.shape[-1] if type(x) is Value and x.shape else None
    if type(width) is not int or width % 2 or b["axis"] not in (-1, len(x.shape) - 1) or any(type(b[n]) is not Value for n in ("cosine", "sine")):
        return False
    others, half = (("slice", None, None, None),) * (len(x.shape) - 1), width // 2
    return b["low"] == (*others, ("slice", None, half, None)) and b["high"] == (*others, ("slice", half, None, None))


# ---------------------------------------------------------------- written rules
SIMPLER = [
    Rule("x + 0", "x + 0", "x"), Rule("x - 0", "x - 0", "x"), Rule("x * 1", "x * 1", "x"), Rule("x / 1", "x / 1", "x"),
    Rule("no dropout", "dropout(x, rate = 0)", "x"),
    Rule("power", "x ** 1", "x"), Rule("power", "x ** 2", "square(x)"), Rule("power", "x ** 0.5", "sqrt(x)"), Rule("power", "x ** -0.5", "rsqrt(x)"),
    Rule("power", "x ** -1", "reciprocal(x)"), Rule("power", "x * x", "square(x)"),
    Rule("1/√x", "1 / sqrt(x)", "rsqrt(x)"), Rule("1/√x", "reciprocal(sqrt(x))", "rsqrt(x)"), Rule("1/√x", "1 / rsqrt(x)", "sqrt(x)"),
]
_CENTRED = "(x - mean(x, axis = -1, keep = true))"
NORMS = [
    Rule("RMSNorm", "x * rsqrt(mean(square(x), axis = -1, keep = true) + eps)", "rms_norm(x, eps = eps)", ("eps",)),
    Rule("RMSNorm", "x / sqrt(mean(square(x), axis = -1, keep = true) + eps)", "rms_norm(x, eps = eps)", ("eps",)),
    Rule("RMSNorm", "rms_norm(x, eps = eps) * w", "rms_norm(x, w, eps = eps)", ("eps",), _row("w")),
    Rule("RMSNorm", 'cast(rms_norm(at_least(x), eps = eps), dtype = "float")', "rms_norm(x, eps = eps)", ("eps",)),
    Rule("LayerNorm", f"{_CENTRED} * rsqrt(var(x, axis = -1, keep = true) + eps)", "layer_norm(x, eps = eps)", ("eps",)),
    Rule("LayerNorm", f"{_CENTRED} / sqrt(var(x, axis = -1, keep = true) + eps)", "layer_norm(x, eps = eps)", ("eps",)),
    Rule("LayerNorm", f"{_CENTRED} * rsqrt(mean(square({_CENTRED}), axis = -1, keep = true) + eps)", "layer_norm(x, eps = eps)", ("eps",)),
    Rule("LayerNorm", f"{_CENTRED} / sqrt(mean(square({_CENTRED}), axis = -1, keep = true) + eps)", "layer_norm(x, eps = eps)", ("eps",)),
    Rule("LayerNorm", "layer_norm(x, eps = eps) * w", "layer_norm(x, w, eps = eps)", ("eps",), _row("w")),
    Rule("LayerNorm", "layer_norm(x, w, eps = eps) + b", "layer_norm(x, w, b, eps = eps)", ("eps",), _row("b")),
]
ACTIVATIONS = [
    Rule("GELU", "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x ** 3)))", 'gelu(x, approximate = "tanh")'),
    Rule("GELU", "0.5 * (x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x ** 3))))", 'gelu(x, approximate = "tanh")'),
    Rule("GELU", "0.5 * x * (1 + tanh(0.7978845608028654 * x * (1 + 0.044715 * square(x))))", 'gelu(x, approximate = "tanh")'),
    Rule("GELU", "0.5 * x * (1 + tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x)))", 'gelu(x, approximate = "tanh")'),
    Rule("GELU", "0.5 * x * (1 + erf(x / 1.4142135623730951))", "gelu(x)"),
    Rule("GELU", "0.5 * x * (1 + erf(x * 0.7071067811865476))", "gelu(x)"),
    Rule("GELU", "x * (0.5 * (1 + erf(x / 1.4142135623730951)))", "gelu(x)"),
    Rule("GELU", "x * (0.5 * (1 + erf(x * 0.7071067811865476)))", "gelu(x)"),
    Rule("SiLU", "x * sigmoid(x)", "silu(x)"),
    Rule("SiLU", "x / (1 + exp(neg(x)))", "silu(x)"),
    Rule("ReLU6", "clamp(x, low = 0, high = 6)", "relu6(x)"),
    Rule("ReLU", "maximum(x, 0)", "relu(x)"), Rule("ReLU", "clamp(x, low = 0)", "relu(x)"),
    Rule("Hardswish", "x * relu6(x + 3) / 6", "hardswish(x)"),
    Rule("Hardswish", "x * hardsigmoid(x)", "hardswish(x)"),
    Rule("Hardsigmoid", "relu6(x + 3) / 6", "hardsigmoid(x)"),
    Rule("softcap", "tanh(x / c) * c", "softcap(x, cap = c)", ("c",)),
    Rule("softmax", "exp(x - logsumexp(x, axis = axis, keep = true))", "softmax(x, axis = axis)"),
]
POSITIONS = [
    Rule("RoPE", "x * cosine + concat([neg(slice(x, items = high)), slice(x, items = low)], axis = axis) * sine", "rotary(x, cosine, sine)",
         when=_halves),
]
MAPS = [
    Rule("Linear", "linear(x, w) + b", "linear(x, w, b)", (), _bias),
]
_SCORES = {  # what softmax is taken of: scale and bias as code writes them
    "matmul(q, kt)": "scale = 1.0", "matmul(q, kt) * s": "scale = s", "matmul(q * s, kt)": "scale = s", "matmul(q, kt * s)": "scale = s",
    "matmul(q, kt) / s": "scale = 1 / s", "softcap(matmul(q, kt), cap = c)": "scale = 1.0, cap = c",
    "softcap(matmul(q, kt) * s, cap = c)": "scale = s, cap = c",
}


def _attention_rules() -> list[Rule]:
    rules: list[Rule] = []
    for scores, options in _SCORES.items():
        numbers = tuple(n for n in "sc" if f"* {n}" in scores or f"/ {n}" in scores or f"= {n}" in scores)
        for bias in (False, True):
            inside = f"{scores} + b" if bias else scores
            for kept in (f"softmax({inside})", f"dropout(softmax({inside}), rate = drop)"):
                rules.append(Rule("attention", f"matmul({kept}, v)", f"attention(q, swap(kt), v{', b' if bias else ''}, {options})", numbers, _heads))
    return rules


# ---------------------------------------------------------------- rules that look further than a pattern
@record(eq=False)
class Step:
    """A rule as a function: (flat, node) -> the value that takes the node's place, or None."""

    name: str
    root: str
    apply: Callable[[Any, Node], Any]


def _standard_scale(flat: Flat, node: Node) -> Any:
    """The scale w^-½ is the op's default."""
    q, scale = node.args[0], node.attrs["scale"]
    width = q.shape[-1]
    if scale is None or type(width) is not int or abs(scale - width ** -0.5) > 1e-15:
        return None
    return flat.op("attention", *node.args, **{**node.attrs, "scale": None})


def _scaled_query(flat: Flat, node: Node) -> Any:
    """attention(s · q) with the scale t is attention(q) with s t, also where a view lies between."""
    q, scale = node.args[0], node.attrs["scale"]
    way: list[Node] = []
    while q.node.op in ("rearrange", "slice") and q.index == 0:
        way.append(q.node)
        q = q.node.args[0]
    numbers = [a for a in q.node.args if type(a) in (int, float)] if q.node.op == "mul" else []
    width = node.args[0].shape[-1]
    if not numbers or scale is None and type(width) is not int:
        return None
    inner = next(a for a in q.node.args if type(a) is Value)
    for step in reversed(way):
        inner = flat.op(step.op, inner, **step.attrs) if step.op == "slice" else layouts.rearrange(
            flat, inner, list(step.attrs["sizes"]), [list(g) for g in step.attrs["ins"]], [list(g) for g in step.attrs["outs"]])
    total = numbers[0] * (width ** -0.5 if scale is None else scale)
    return flat.op("attention", inner, *node.args[1:], **{**node.attrs, "scale": total})


def _repeats_heads(x: Value) -> Value | None:
    """y where x repeats each head of y several times in a row."""
    n = x.node
    if n.op != "rearrange" or x.index:
        return None
    ins, outs, sizes = n.attrs["ins"], n.attrs["outs"], n.attrs["sizes"]
    inside = {a for g in ins for a in g}
    heads = outs[-3] if len(outs) >= 3 else ()
    new = [a for a in heads if a not in inside]
    others = [a for g in (*outs[:-3], *outs[-2:]) for a in g if a not in inside]
    if len(heads) < 2 or new != [heads[-1]] or others or type(sizes[new[0]]) is not int:
        return None
    return n, tuple(g if g is not heads else heads[:-1] for g in outs), new[0]  # type: ignore[return-value]


def _grouped_queries(flat: Flat, node: Node) -> Any:
    """Keys and values repeated for the heads that share them: attention does that itself."""
    k, v = (_repeats_heads(x) for x in node.args[1:3])
    if k is None or v is None:
        return None
    once = []
    for n, outs, new in (k, v):  # type: ignore[misc]
        sizes, ins = list(n.attrs["sizes"]), [list(g) for g in n.attrs["ins"]]
        once.append(layouts.rearrange(flat, n.args[0], sizes, ins, [[a for a in g if a != new] for g in outs]))
    return flat.op("attention", node.args[0], *once, *node.args[3:], **node.attrs)


def _written_mask(flat: Flat, node: Node) -> Any:
    """A bias or condition computed from positions alone is a mask of the language."""
    bias = node.args[3]
    if bias is None or node.attrs["mask"] != FULL:
        return None
    mask = mask_of(flat, bias, node.args[0].shape, node.args[1].shape)
    if mask is not None:
        return flat.op("attention", *node.args[:3], None, **{**node.attrs, "mask": mask})
    terms, kept = under_bias(flat, bias)
    if not kept and (len(terms) == 1 or all(lowest_of(flat, t) is None for t in terms)):
        return None
    q, k, v = node.args[:3]
    return masked(flat, q, k, v, terms, kept, node.attrs, some=True)


def _leading_axes(flat: Flat, node: Node) -> Any:
    """linear(x as a matrix) is the matrix of linear(x): views around a linear map cancel."""
    x, weight, bias = node.args
    n = x.node
    if n.op != "rearrange" or len(x.shape) != 2 or len(n.args[0].shape) < 3:
        return None
    sizes, ins, outs = (n.attrs[k] for k in ("sizes", "ins", "outs"))
    if len(outs[1]) != 1 or ins[-1] != outs[1] or [a for g in ins for a in g] != [a for g in outs for a in g]:
        return None
    y = flat.op("linear", n.args[0], weight, bias)
    sizes = [*sizes]
    sizes[outs[1][0]] = weight.shape[0]
    return layouts.rearrange(flat, y, sizes, [list(g) for g in ins], [list(g) for g in outs])


def _counted_index(flat: Flat, node: Node) -> Any:
    """Positions that code counts up in roundabout ways."""
    at = 0 if node.op == "embedding" else 1
    index = index_of(flat, node.args[at])
    return None if index is None else flat.op(node.op, *(index if i == at else a for i, a in enumerate(node.args)), **node.attrs)


STEPS = [
    *(Step("positions", op, _counted_index) for op in ("embedding", "take", "gather")),
    Step("mask", "attention", _written_mask), Step("scale", "attention", _standard_scale), Step("scale", "attention", _scaled_query),
    Step("grouped queries", "attention", _grouped_queries), Step("scores", "matmul", layered_scores), Step("Linear", "linear", _leading_axes),
]
RULES: list[Rule | Step] = [*SIMPLER, *NORMS, *ACTIVATIONS, *POSITIONS, *MAPS, *_attention_rules(), *STEPS]
_BY_ROOT: dict[str, list[Rule | Step]] = {}
_QUIET = {r.name for r in SIMPLER} | {"scores"}  # what they lift is counted where it arrives


def lifted(flat: Flat, node: Node) -> Any:
    """What the first rule that fits makes of a node that is about to be added, or None. A rule may not change the type."""
    if not _BY_ROOT:
        for r in RULES:
            _BY_ROOT.setdefault(r.root, []).append(r)
    for rule in _BY_ROOT.get(node.op, ()):
        before, counted = len(flat.nodes), dict(flat.lifts)
        try:
            value = rule.apply(flat, node)
        except OpError:
            value = None
        if type(value) is Value and value.dtype == node.types[0].dtype and _same_shape(value, node):
            if rule.name not in _QUIET:
                flat.lifts[rule.name] = flat.lifts.get(rule.name, 0) + 1
            return value
        del flat.nodes[before:]
        flat.lifts.clear()
        flat.lifts.update(counted)
    return None


def _same_shape(value: Value, node: Node) -> bool:
    shape = node.types[0].shape
    return len(shape) == len(value.shape) and all(shapes.same(a, b) is True for a, b in zip(value.shape, shape))


__all__ = ["CAUSAL", "RULES", "Mask", "Rule", "Step", "lifted"]
