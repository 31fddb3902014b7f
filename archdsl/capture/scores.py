"""Products with a softmax whose scores have masks, biases and views laid over them: attention. No torch here."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.capture import layouts
from archdsl.capture.masks import LOWEST, lowest_of, mask_of
from archdsl.graph import Mask, Node, Value
from archdsl.ops.masks import FULL, kinds
from archdsl.records import field, record

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

NEVER = -1e30  # beside other biases, a bias has to be so low to exclude a pair whatever they are
DEPTH = 16  # layers that are looked through
_THROUGH = frozenset({"add", "where", "maximum", "cast", "rearrange", "mul", "div", "softcap"})


@record(slots=False, eq=False)
class Scores:
    """What softmax is taken of. `kept`: (which pairs stay, what the others become); `biases`: what is added. Both say as well whether they were laid
    over scores whose first axis had been taken apart (`apart`), which `merged` undoes. `floor`: scores that are lower become that."""

    core: Value
    kept: list[tuple[Value, float, bool]] = field(default_factory=list)
    biases: list[tuple[Value, bool]] = field(default_factory=list)
    floor: float = float("-inf")
    merged: Node | None = None
    apart: Node | None = None


def layered_scores(flat: Flat, node: Node) -> Any:
    """softmax(scores, with pairs excluded, biases added, the first axis taken apart in between) v."""
    scores = _scores(flat, node.args[0])
    if scores is None or not (scores.kept or scores.biases or scores.merged):
        return None
    v = node.args[1]
    plain = flat.op("matmul", flat.op("softmax", scores.core), v)
    if plain.node.op != "attention" or plain.node.attrs["mask"] != FULL:
        return None
    over = any(split for *_, split in (*scores.kept, *scores.biases))
    lead = scores.apart.attrs["sizes"][:2] if scores.apart is not None else ()
    rank = len(scores.core.shape)

    def placed(x: Value, split: bool) -> Value:
        """x beside scores whose first axis is taken apart, where it was not."""
        return x if split or not over or len(x.shape) < rank else split_first(flat, x, lead)

    q, k, v, bias, _ = plain.node.args
    parts = [under_bias(flat, placed(b, split)) for b, split in (*scores.biases, *(() if bias is None else ((bias, False),)))]
    terms = [t for some, _ in parts for t in some]
    kept = [(placed(c, split), low) for c, low, split in scores.kept] + [pair for _, pairs in parts for pair in pairs]
    q, k, v = (placed(x, False) for x in (q, k, v))
    y = masked(flat, q, k, v, terms, kept, plain.node.attrs, scores.floor)
    if y is None or not over:
        return y
    return layouts.rearrange(flat, y, list(y.shape), [[i] for i in range(rank + 1)], [[0, 1], *([i] for i in range(2, rank + 1))])


def masked(flat: Flat, q: Value, k: Value, v: Value, terms: list[Value], kept: list[tuple[Value, float]], attrs: dict[str, Any],
           floor: float = float("-inf"), some: bool = False) -> Value | None:
    """Attention to the pairs that all of `kept` keep, with the sum of the terms as bias; terms that only exclude pairs are masks as well.
    `floor`: what scores are at least. None where a finite score excludes pairs that no mask tells, and with `some` where there is no mask."""
    kept = [(c, max(low, floor)) for c, low in kept]
    biases: list[Value] = []
    for t in terms:
        lowest = lowest_of(flat, t) if mask_of(flat, t, q.shape, k.shape) is not None else None
        if lowest is not None and (len(terms) == 1 or lowest <= NEVER):
            kept.append((flat.op("eq", t, 0.0), max(lowest, floor)))
        elif not _is_zero(t):
            biases.append(t)
    if biases and any(low > NEVER for _, low in kept):
        return None
    if floor > float("-inf") and any(not _is_finite(flat, b) for b in biases):
        return None  # a row whose scores all lie at the bound averages
    mask = _mask_of_all(flat, kept, q, k)
    if mask is None and (left := [(c, low) for c, low in kept if _mask_of_all(flat, [(c, low)], q, k) is None]):
        if any(low != float("-inf") for _, low in left):
            return None
        zero, low = flat.op("literal", value=0.0, dtype=q.dtype), flat.op("log", flat.op("literal", value=0.0, dtype=q.dtype))
        biases.append(flat.op("where", _all(flat, [c for c, _ in left]), zero, low))
        mask = _mask_of_all(flat, [pair for pair in kept if pair not in left], q, k)
    if mask is None or some and mask == FULL:
        return None
    bias = None
    for b in biases:
        b = flat.op("cast", b, dtype=q.dtype) if _one_float(flat, b.dtype, q.dtype) else b
        bias = b if bias is None else flat.op("add", bias, b)
    if mask != FULL:
        flat.lifts["mask"] = flat.lifts.get("mask", 0) + 1
    return flat.op("attention", q, k, v, bias, **{**attrs, "mask": mask})


def _mask_of_all(flat: Flat, kept: list[tuple[Value, float]], q: Value, k: Value) -> Mask | None:
    """The mask of the pairs that all conditions keep. Where a row may lose all of them, finite scores of the others average, and a mask gives 0."""
    mask = mask_of(flat, _all(flat, [c for c, _ in kept]), q.shape, k.shape) if kept else FULL
    return None if mask is not None and "keys" in kinds(mask) and any(low != float("-inf") for _, low in kept) else mask


def _all(flat: Flat, conditions: list[Value]) -> Value:
    whole = conditions[0]
    for c in conditions[1:]:
        whole = flat.op("logical_and", whole, c)
    return whole


def _is_zero(v: Value) -> bool:
    return v.node.op == "literal" and v.node.attrs["value"] == 0


def _is_finite(flat: Flat, bias: Value) -> bool:
    """Whether a bias is known to hold no -∞: what is given at run time, what is no weight that is trained, and logarithms may."""
    stack, seen = [bias.node], set[int]()
    while stack:
        n = stack.pop()
        if n.op in ("log", "div", "input") or n.op == "param" and flat.params[n.attrs["path"]].kind == "buffer":
            return False
        if id(n) not in seen:
            seen.add(id(n))
            stack += [x.node for x in n.operands()]
    return True


def under_bias(flat: Flat, bias: Value) -> tuple[list[Value], list[tuple[Value, float]]]:
    """(terms, (which pairs stay, what the others get)) of a bias: sums and exclusions taken apart."""
    if bias.node.op == "add" and all(type(a) is Value for a in bias.node.args):
        (a, kept), (b, more) = (under_bias(flat, x) for x in bias.node.args)
        return [*a, *b], [*kept, *more]
    if bias.node.op == "cast" and _one_float(flat, bias.node.args[0].dtype, bias.dtype):
        return under_bias(flat, bias.node.args[0])
    if bias.node.op == "where":
        keeps, x, y = bias.node.args
        for inner, low, negate in ((x, _lowest(y), False), (y, _lowest(x), True)):
            if type(inner) is Value and low is not None and low <= NEVER:
                terms, kept = under_bias(flat, inner)
                return terms, [*kept, (flat.op("logical_not", keeps) if negate else keeps, low)]
    return [bias], []


def split_first(flat: Flat, x: Value, lead: Any) -> Value:
    """[(a b), …] as [a, b, …]."""
    front = x.shape[0] == 1
    groups = [[i] for i in range(2, len(x.shape) + 1)]
    return layouts.rearrange(flat, x, [*lead, *x.shape[1:]], [[] if front else [0, 1], *groups], [*([[], []] if front else [[0], [1]]), *groups])


# ---------------------------------------------------------------- what was laid over them
def _scores(flat: Flat, x: Any) -> Scores | None:
    """The layers between a product's left side and the product that gives the scores, from outside; None where there is no softmax."""
    found, softmax = Scores(x), False
    for _ in range(DEPTH):
        if type(x) is not Value or x.index:
            return None
        n = x.node
        if n.op == "cast" and _one_float(flat, n.args[0].dtype, x.dtype):
            x = n.args[0]
        elif n.op == "rearrange" and found.merged is None and _merges_first(n):
            found.merged, x = n, n.args[0]
        elif not softmax:
            if n.op not in ("dropout", "softmax") or n.op == "softmax" and n.attrs["axis"] not in (-1, len(x.shape) - 1):
                return None
            x, softmax = n.args[0], n.op == "softmax"
        elif n.op == "rearrange" and found.merged is not None and found.apart is None and _undoes(found.merged, n):
            found.apart, x = n, n.args[0]
        elif (below := _layer(flat, n, found)) is not None:
            x = below
        else:
            found.core = x
            return found if softmax and (found.merged is None) == (found.apart is None) else None
    return None


def _layer(flat: Flat, n: Node, found: Scores) -> Value | None:
    """What lies below a layer of exclusions, a bias or a bound from below, which is noted; None where the node is none of them."""
    split = found.merged is not None and found.apart is None
    if n.op == "where":
        keeps, x, y = n.args
        for scores, low, kept in ((x, _lowest(y), keeps), (y, _lowest(x), None)):
            if low is not None and low <= LOWEST and _holds_product(scores):
                found.kept.append((flat.op("logical_not", keeps) if kept is None else kept, low, split))
                return scores
    if n.op == "maximum":
        for scores, low in (n.args, n.args[::-1]):
            if (least := _lowest(low)) is not None and least <= NEVER and _holds_product(scores):
                found.floor = max(found.floor, least)
                return scores
    if n.op == "add" and all(type(a) is Value for a in n.args):
        inside = [a for a in n.args if _holds_product(a)]
        if len(inside) == 1:
            found.biases.append((n.args[1] if inside[0] is n.args[0] else n.args[0], split))
            return inside[0]
    return None


def _lowest(v: Any) -> float | None:
    """The number that a scalar is."""
    if type(v) is not Value:
        return float(v) if isinstance(v, (int, float)) else None
    if v.node.op == "log" and v.node.args[0].node.op == "literal" and v.node.args[0].node.attrs["value"] == 0:
        return float("-inf")
    value = v.node.attrs["value"] if v.node.op == "literal" else None
    return float(value) if isinstance(value, (int, float)) else None


def _holds_product(v: Any, depth: int = DEPTH) -> bool:
    """Whether a value is a product of matrices, seen through what is laid over scores."""
    if type(v) is not Value or not depth:
        return False
    n = v.node
    return n.op == "matmul" or n.op in _THROUGH and any(_holds_product(a, depth - 1) for a in n.args)


def _one_float(flat: Flat, a: str, b: str) -> bool:
    """Whether two element types are the one of the module's own floats."""
    return a != b and {a, b} == {"float", flat.float_name}


def _merges_first(n: Node) -> bool:
    """[a, b, …] as [(a b), …]"""
    others = tuple((i,) for i in range(1, len(n.attrs["ins"])))
    return n.attrs["ins"] == ((0,), *others) and n.attrs["outs"] == ((0, 1), *others[1:])


def _undoes(merged: Node, apart: Node) -> bool:
    return all(merged.attrs[a] == apart.attrs[b] for a, b in (("ins", "outs"), ("outs", "ins"), ("sizes", "sizes")))
