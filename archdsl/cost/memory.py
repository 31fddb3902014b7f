"""Where the results of ops lie: which alias an operand, which are new, and with which strides, as torch's CPU kernels have it. Free of torch.

An op without a row in `RULES` gives new contiguous results, or, declared as a view, its first operand as it lies.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from archdsl.cost.strides import (
    Laid,
    Sizes,
    contiguous,
    elementwise,
    expanded,
    is_contiguous,
    is_dense,
    prefers_channels_last,
    suggested,
    unsqueezed,
    viewed,
)
from archdsl.graph import TensorType
from archdsl.ops.linear import einsum_steps
from archdsl.ops.registry import Op
from archdsl.records import record

BYTES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2, "int": 8, "i32": 4, "i8": 1, "u8": 1, "bool": 1}


@record(frozen=True)
class Placed(TensorType):
    """A tensor in memory. `shape`: its sizes, symbolic where a formula is wanted; `extent`: the same as numbers; `strides`: in elements."""

    extent: Sizes
    strides: Sizes

    @property
    def laid(self) -> Laid:
        return self.extent, self.strides


@record(frozen=True)
class Place:
    """A result's strides. `alias`: the operand whose memory it is; else it has its own, of its numbers or of `storage` where it is a part."""

    strides: Sizes
    alias: str | None = None
    storage: TensorType | None = None


Arguments = Mapping[str, Any]
Rule = Callable[[Arguments, tuple[Placed, ...], bool], "list[Place]"]
"""(operands and attributes in numbers, result types with contiguous strides, training?) -> the place of each result."""

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(f: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, f))
        return f

    return register


def places(op: Op, arguments: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """The place of each result of an op."""
    found = RULES.get(op.name)
    if found is not None:
        return found(arguments, results, training)
    if op.view:
        x = next(k for k, v in arguments.items() if isinstance(v, Placed))
        return [Place(r.strides, x) for r in results]
    return [Place(r.strides) for r in results]


# ---------------------------------------------------------------- elementwise
def _pointwise(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    operands = [v.laid if isinstance(v, Placed) else ((), ()) for k, v in a.items() if isinstance(v, Placed) or k in ("x", "y") and v is not None]
    return [Place(elementwise(r.extent, operands)) for r in results]


for _name in ("add sub mul div pow mod floordiv neg maximum minimum exp log log1p sqrt rsqrt reciprocal square abs sign floor round sin cos erf "
              "tanh sigmoid relu gelu silu leaky_relu elu softplus hardswish hardsigmoid softcap eq ne lt le gt ge logical_and logical_or "
              "logical_not where straight_through crms_norm l2_norm swiglu").split():
    RULES[_name] = _pointwise


@rule("clamp")
def _clamp(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(elementwise(a["x"].extent, [a["x"].laid]))]


@rule("zeros_like", "ones_like", "flip", "relu6", "sort")
def _like(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(_preserved(a["x"].laid)) for _ in results]


def _preserved(laid: Laid) -> Sizes:
    """Strides of `empty_like(x)`: those of x, or without gaps in the same order of axes."""
    return laid[1] if is_dense(*laid) else elementwise(laid[0], [laid])


@rule("cast", "at_least", "as_type")
def _cast(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    x, (r,) = a["x"], results
    return [Place(x.strides, "x") if x.dtype == r.dtype else Place(_preserved(x.laid))]


@rule("stop", "identity")
def _same(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(a["x"].strides, "x")]


@rule("dropout", "drop_path")
def _dropped(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return _pointwise({"x": a["x"]}, results, training) if training and a["rate"] > 0 else _same(a, results, training)


@rule("layer_norm")
def _layer_norm(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(results[0].strides)] if a.get("count") is None else _pointwise({"x": a["x"]}, results, training)


@rule("rms_norm")
def _rms_norm(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """On the contiguous x, times a number for each row."""
    x, (r,) = a["x"], results
    return [Place(elementwise(r.extent, [x.laid if is_contiguous(*x.laid) else r.laid, ((), ())]))]


@rule("outer")
def _outer(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    x, y = unsqueezed(a["a"].laid, len(a["a"].extent)), unsqueezed(a["b"].laid, len(a["b"].extent) - 1)
    return [Place(elementwise(results[0].extent, [x, y]))]


# ---------------------------------------------------------------- maps
@rule("batch_norm", "group_norm", "max_pool", "resize")
def _map_as_input(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(suggested(results[0].extent, a["x"].laid))]


@rule("conv", "conv_transpose", "avg_pool")
def _map(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """Maps of one axis go through the kernels for two; those for three axes write contiguous results."""
    x, (r,) = a["x"], results
    if len(r.extent) == 5:
        return [Place(r.strides)]
    if len(r.extent) != 3:
        return [Place(suggested(r.extent, x.laid))]
    strides = suggested((*r.extent[:2], 1, r.extent[2]), unsqueezed(x.laid, 2))
    return [Place((*strides[:2], strides[3]))]


@rule("pad", "pad_to")
def _pad(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    x, (r,) = a["x"], results
    cut = all(n <= m for n, m in zip(r.extent, x.extent))
    return [Place(_preserved((r.extent, x.strides)) if cut and a["mode"] == "constant" else suggested(r.extent, x.laid))]


@rule("concat")
def _concat(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    (r,) = results
    return [Place(suggested(r.extent, a["xs"][0].laid) if all(prefers_channels_last(*x.laid) for x in a["xs"]) else r.strides)]


# ---------------------------------------------------------------- views
@rule("rearrange")
def _rearrange(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """The steps of the body: split, drop, permute, add, repeat, merge. A merge copies where the axes do not follow one another."""
    x, sizes, ins, outs = a["x"], a["sizes"], a["ins"], a["outs"]
    atoms: list[tuple[Any, int, int]] = []  # name, size, stride
    for group, n, step in zip(ins, *x.laid):
        split = [sizes[i] for i in group]
        strides = viewed(((n,), (step,)), tuple(split)) if len(group) > 1 else (step,)
        assert strides is not None
        atoms += zip(group or (None,), split or (1,), strides)
    goal = [i for group in outs for i in group]
    have = {i: (n, step) for i, n, step in atoms if i in goal}
    laid: Laid = tuple(zip(*(have[i] for i in goal if i in have))) or ((), ())  # type: ignore[assignment]
    for at, i in enumerate(goal):
        laid = laid if i in have else unsqueezed(laid, at)
    laid = expanded(laid, tuple(sizes[i] for i in goal))
    copied = False
    for axis, group in enumerate(outs):
        if not group:
            laid = unsqueezed(laid, axis)
        elif len(group) > 1:
            merged = (*laid[0][:axis], prod(laid[0][axis:axis + len(group)]), *laid[0][axis + len(group):])
            strides = viewed(laid, merged)
            copied = copied or strides is None
            laid = merged, contiguous(merged) if strides is None else strides
    return [Place(laid[1], None if copied else "x")]


@rule("expand")
def _expand(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(expanded(a["x"].laid, results[0].extent)[1], "x")]


@rule("split")
def _split(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(a["x"].strides, "x") for _ in results]


@rule("last")
def _last(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    strides, axis = a["x"].strides, a["axis"] % len(a["x"].strides)
    return [Place((*strides[:axis], *strides[axis + 1:]), "x")]


@rule("slice")
def _slice(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    laid, axis = a["x"].laid, 0
    for kind, *rest in a["items"]:
        sizes, strides = laid
        if kind == "new":
            laid = unsqueezed(laid, axis)
        elif kind == "int":
            laid, axis = (_without(sizes, axis), _without(strides, axis)), axis - 1
        else:
            first, end, step = slice(*rest).indices(sizes[axis])
            n = max(0, -((first - end) // step))  # `len` of a range takes no more than 63 bits
            laid = (*sizes[:axis], n, *sizes[axis + 1:]), (*strides[:axis], strides[axis] * step, *strides[axis + 1:])
        axis += 1
    return [Place(laid[1], "x")]


def _without(values: Sizes, axis: int) -> Sizes:
    return (*values[:axis], *values[axis + 1:])


@rule("unfold")
def _unfold(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    x: Placed = a["x"]
    windows = _windows(a, len(x.extent), a["size"] if a["stride"] is None else a["stride"])
    storage = None
    sizes, strides = x.laid
    if any(p for *_, p in windows):
        by_axis = {axis: p for axis, _, _, p in windows}
        storage = TensorType(x.dtype, tuple(n + 2 * by_axis.get(i, 0) for i, n in enumerate(x.shape)))
        sizes = tuple(n + 2 * by_axis.get(i, 0) for i, n in enumerate(sizes))
        strides = suggested(sizes, x.laid)
    for axis, _, step, _ in windows:
        strides = (*strides[:axis], strides[axis] * step, *strides[axis + 1:], strides[axis])
    return [Place(strides, None if storage else "x", storage)]


def _windows(a: Arguments, rank: int, stride: Any) -> list[tuple[int, ...]]:
    axes = (a["axes"],) if isinstance(a["axes"], int) else tuple(a["axes"])
    return list(zip((i % rank for i in axes), *((v,) * len(axes) if isinstance(v, int) else v for v in (a["size"], stride, a["pad"]))))


@rule("fold")
def _fold(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """The sum over padded positions, of which the result is the inside."""
    (r,) = results
    axes = (a["axes"],) if isinstance(a["axes"], int) else tuple(a["axes"])
    pads = dict(zip((i % len(r.extent) for i in axes), (a["pad"],) * len(axes) if isinstance(a["pad"], int) else a["pad"]))
    if not any(pads.values()):
        return [Place(r.strides)]
    whole = tuple(n + 2 * pads.get(i, 0) for i, n in enumerate(r.extent))
    return [Place(contiguous(whole), None, TensorType(r.dtype, tuple(n + 2 * pads.get(i, 0) for i, n in enumerate(r.shape))))]


# ---------------------------------------------------------------- products
@rule("attention")
def _attention(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """The fused kernel writes as the queries lie, the plain formula a contiguous result."""
    q, (r,) = a["q"], results
    if not fused(a):
        return [Place(r.strides)]
    lead = len(q.extent) - 3
    sizes, strides = with_one_batch(q.laid)
    out = _preserved(((*sizes[:-1], r.extent[-1]), strides))
    return [Place((*(viewed((sizes[:1], out[:1]), q.extent[:lead]) or ()), *out[1:]))]


@rule("attention_weights")
def _attention_weights(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """With sinks, all columns but the last of a tensor that has one for them."""
    (r,) = results
    if a.get("sink") is None:
        return [Place(r.strides)]
    return [Place(contiguous((*r.extent[:-1], r.extent[-1] + 1)), None, TensorType(r.dtype, (*r.shape[:-1], r.shape[-1] + 1)))]


def with_one_batch(laid: Laid) -> Laid:
    """[B, heads, length, width] with the leading axes merged, as a view or a copy; the kernels take one."""
    sizes, _ = laid
    lead = len(sizes) - 3
    merged = (prod(sizes[:lead]), *sizes[lead:])
    if lead == 1:
        return laid
    found = viewed(laid, merged) if lead else unsqueezed(laid, 0)[1]
    return merged, contiguous(merged) if found is None else found


def fused(a: Arguments) -> bool:
    """Whether torch takes the fused kernel on the CPU. `bias_grad`: the bias gets a gradient."""
    q, k, v = a["q"], a["k"], a["v"]
    if a.get("cap") is not None or a.get("sink") is not None or a.get("bias_grad") or q.extent[-1] != v.extent[-1]:
        return False
    return all(with_one_batch(x.laid)[1][-1] == 1 for x in (q, k, v))


@rule("einsum")
def _einsum(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """Pair by pair. A pair that is summed is a batched matrix product [both, left, right]; else it is an elementwise one."""
    xs, ins, out = a["xs"], a["ins"], a["out"]
    sizes = {n: s for x, names in zip(xs, ins) for n, s in zip(names, x.extent)}
    if len(xs) == 1:
        if set(ins[0]) - set(out):
            return [Place(results[0].strides)]
        return [Place(tuple(xs[0].strides[ins[0].index(n)] for n in out), "xs.0")]
    strides: Sizes = xs[0].strides
    for (left, right, result), y in zip(einsum_steps(ins, out), xs[1:]):
        extent = tuple(sizes[n] for n in result)
        if (set(left) & set(right)) - set(result):
            wide = [n for n in result if sizes[n] != 1]
            both, own = [n for n in wide if n in left and n in right], [n for n in wide if n in left and n not in right]
            order = [*both, *own, *(n for n in result if n not in both and n not in own)]
            packed = dict(zip(order, contiguous([sizes[n] for n in order])))
            strides = tuple(packed[n] for n in result)
        else:
            strides = elementwise(extent, [_placed_by(result, left, sizes, strides), _placed_by(result, right, sizes, y.strides)])
    return [Place(strides)]


def _placed_by(result: Sequence[str], names: Sequence[str], sizes: Mapping[str, int], strides: Sizes) -> Laid:
    """An operand with an axis of size 1 for every name that it lacks."""
    laid: Laid = tuple(sizes[n] for n in result if n in names), tuple(strides[names.index(n)] for n in result if n in names)
    for axis, n in enumerate(result):
        laid = laid if n in names else unsqueezed(laid, axis)
    return laid


# ---------------------------------------------------------------- indexing
@rule("take")
def _take(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    """By one axis of positions: contiguous. By more: as an elementwise result of both operands."""
    x, index, (r,) = a["x"], a["index"], results
    axis, n = a["axis"] % len(x.extent), len(index.extent)
    if n == 0:  # torch reads the number and takes a view
        return [Place(_without(x.strides, axis), "x")]
    if n == 1:
        return [Place(r.strides)]
    after = len(x.extent) - axis - 1
    source = (*x.strides[:axis], *(0,) * n, *x.strides[axis + 1:])
    shape = (*(1,) * axis, *index.extent, *(1,) * after)
    return [Place(elementwise(r.extent, [(r.extent, source), (shape, viewed(index.laid, shape) or contiguous(shape))]))]


@rule("one_hot")
def _one_hot(a: Arguments, results: tuple[Placed, ...], training: bool) -> list[Place]:
    return [Place(elementwise(results[0].extent, [unsqueezed(a["x"].laid, len(a["x"].extent)), ((a["n"],), (1,))]))]
