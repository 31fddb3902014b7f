"""Matrix products."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import broadcast, equal, floats, need_equal, need_float, need_rank, same_dtype, volume


def _linear(x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
    dtype = same_dtype(x=x, weight=weight, bias=bias)
    need_rank(weight, (2,), "weight")
    if not x.shape:
        raise OpError("a tensor with at least one axis is needed", "x")
    need_equal(x.shape[-1], weight.shape[1], "the last axis of `x` and the second of `weight`", "weight")
    if bias is not None:
        need_rank(bias, (1,), "bias")
        need_equal(bias.shape[0], weight.shape[0], "the length of `bias` and the first axis of `weight`", "bias")
    return TensorType(dtype, (*x.shape[:-1], weight.shape[0]))


@op("linear(x: [..., i], weight: [o, i], bias: [o]? = none) -> [..., o]", infer=_linear, roles={"i": "contract"},
    macs=lambda x, weight, bias=None: x.numel * weight.shape[0], saves={"x": ("weight",), "weight": ("x",)},
    samples=lambda: [{"x": floats(2, 3, 5), "weight": floats(7, 5), "bias": floats(7)}, {"x": floats(1, 4), "weight": floats(3, 4)},
                     {"x": floats(1, 1, 1), "weight": floats(1, 1), "bias": floats(1)}])
def linear(x, weight, bias=None):
    """y = x Wᵀ + b over the last axis."""
    return F.linear(x, weight, bias)


def _matmul(a: TensorType, b: TensorType) -> TensorType:
    dtype = same_dtype(a=a, b=b)
    if not a.shape or not b.shape:
        raise OpError("a matrix product needs operands with at least one axis", "a" if not a.shape else "b")
    if len(a.shape) == 1 or len(b.shape) == 1:
        need_equal(a.shape[-1], b.shape[-2 if len(b.shape) > 1 else -1], "the contracted sizes of `a` and `b`", "b")
        return TensorType(dtype, (*a.shape[:-1], *b.shape[:-2], *(b.shape[-1:] if len(b.shape) > 1 else ())))
    what = "the last axis of `a` and the last but one of `b`"
    if equal(a.shape[-1], b.shape[-2]) is not True and equal(a.shape[-1], b.shape[-1]) is True:
        raise OpError(f"{what} differ: {a.shape[-1]} and {b.shape[-2]}", "b",
                      "`k |> rearrange([..., T, d] -> [..., d, T])` exchanges the last two axes of a tensor `k`")
    need_equal(a.shape[-1], b.shape[-2], what, "b")
    return TensorType(dtype, (*broadcast(a.shape[:-2], b.shape[:-2], about="b"), a.shape[-2], b.shape[-1]))


def _matmul_saves(a: TensorType, b: TensorType) -> Any:
    """Batches that must be repeated are copied; a single matrix on either side is not."""
    if min(len(a.shape), len(b.shape)) <= 2:
        return {"a": ("b",), "b": ("a",)}
    batch = broadcast(a.shape[:-2], b.shape[:-2])

    def copy(x: TensorType, name: str) -> str | TensorType:
        stretched = [i for i in range(len(batch)) if equal(dict(enumerate(reversed(x.shape[:-2]))).get(len(batch) - 1 - i, 1), batch[i]) is not True]
        return TensorType(x.dtype, (*batch, *x.shape[-2:])) if stretched and len(stretched) < len(batch) else name

    return {"a": (copy(b, "b"),), "b": (copy(a, "a"),)}


@op("matmul(a: [*s, i, k], b: [*t, k, j]) -> [*u, i, j]", infer=_matmul, own=("a", "b"), roles={"k": "contract"}, saves=_matmul_saves,
    macs=lambda a, b: _matmul(a, b).numel * a.shape[-1],
    samples=lambda: [{"a": floats(2, 3, 5, 7), "b": floats(2, 3, 7, 4)}, {"a": floats(2, 3, 5, 7), "b": floats(3, 7, 4)},
                     {"a": floats(4, 5, 7), "b": floats(7, 3)},
                     {"a": floats(1, 1, 3), "b": floats(1, 3, 1)}, {"a": floats(5, 7), "b": floats(7)}])
def matmul(a, b):
    """Σₖ a[…, i, k] b[…, k, j]; leading axes broadcast. With one axis, `b` is a vector."""
    return torch.matmul(a, b)


def _square(x: TensorType) -> TensorType:
    need_float(x)
    if len(x.shape) < 2:
        raise OpError("a square matrix is needed", "x")
    need_equal(x.shape[-2], x.shape[-1], "the last two axes of `x`", "x")
    return x


@op("matrix_exp(x: [..., n, n]) -> [..., n, n]", infer=_square, own=("x",), roles={"n": "contract"}, saves=("x",),
    samples=lambda: [{"x": floats(3, 3)}, {"x": floats(2, 1, 1)}, {"x": floats(2, 3, 4, 4)}])
def matrix_exp(x):
    """1 + x + x²/2 + x³/6 + …, the exponential of square matrices."""
    return torch.linalg.matrix_exp(x)


@op("outer(a: [..., i], b: [..., j]) -> [..., i, j]", saves={"a": ("b",), "b": ("a",)},
    samples=lambda: [{"a": floats(2, 3, 5), "b": floats(2, 3, 4)}, {"a": floats(1), "b": floats(3)}])
def outer(a, b):
    """a[…, i] b[…, j]."""
    return a[..., :, None] * b[..., None, :]


@op("dot(a: [..., i], b: [..., i]) -> [...]", roles={"i": "contract"}, saves={"a": ("b",), "b": ("a",)},
    samples=lambda: [{"a": floats(2, 3, 5), "b": floats(2, 3, 5)}, {"a": floats(1), "b": floats(1)}])
def dot(a, b):
    """Σᵢ a[…, i] b[…, i]."""
    return (a * b).sum(-1)


# ---------------------------------------------------------------- einsum
def _sizes(xs: tuple[TensorType, ...], ins: tuple[tuple[str, ...], ...]) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    for x, names in zip(xs, ins):
        if len(x.shape) != len(names):
            raise OpError(f"[{', '.join(names)}] names {len(names)} axes of {x}", "xs")
        for name, size in zip(names, x.shape):
            need_equal(sizes.setdefault(name, size), size, f"two sizes of `{name}`", "xs")
    return sizes


def _einsum(xs: tuple[TensorType, ...], ins: tuple[tuple[str, ...], ...], out: tuple[str, ...]) -> TensorType:
    sizes = _sizes(xs, ins)
    if unknown := [n for n in out if n not in sizes]:
        raise OpError(f"no operand has an axis `{unknown[0]}`", "out")
    if len(set(out)) < len(out) or any(len(set(names)) < len(names) for names in ins):
        raise OpError("an axis is named twice in one shape", "ins")
    return TensorType(same_dtype(**{f"operand {i + 1}": x for i, x in enumerate(xs)}), tuple(sizes[n] for n in out))


def einsum_steps(ins: tuple[tuple[str, ...], ...], out: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """The products of pairs, left to right: the names of both sides and of the result, the last one in the order of `out`."""
    steps, left = [], ins[0]
    for i, right in enumerate(ins[1:], 1):
        last = i == len(ins) - 1
        later = {*out, *(n for names in ins[i + 1:] for n in names)}
        result = out if last else tuple(n for n in dict.fromkeys(left + right) if n in later)
        steps.append((left, right, result))
        left = result
    return steps


def _einsum_macs(xs: tuple[TensorType, ...], ins: tuple[tuple[str, ...], ...], out: tuple[str, ...]) -> Size:
    """A pair is one batched matrix product when it sums over a shared axis, else an elementwise product, which is not counted."""
    sizes, total = _sizes(xs, ins), 0
    for left, right, result in einsum_steps(ins, out):
        if (set(left) & set(right)) - set(result):
            total = total + volume(sizes[n] for n in dict.fromkeys(left + right) if n in result or n in left and n in right)
    return total


def _einsum_saves(xs: tuple[TensorType, ...], ins: tuple[tuple[str, ...], ...], out: tuple[str, ...]) -> list[str | TensorType]:
    """Both sides of each product: an operand itself when torch can view it as [batch, rows, summed], else a copy."""
    sizes, kept = _sizes(xs, ins), []
    memory = ins[0]  # the axes of the left side as they lie in memory
    for i, (left, right, result) in enumerate(einsum_steps(ins, out), 1):
        both = [n for n in result if n in left and n in right]
        summed = [n for n in left if n in right and n not in result]
        for names, order, whole in ((left, memory, f"xs.{i - 1}" if i == 1 else None), (right, ins[i], f"xs.{i}")):
            own = [n for n in result if n in names and n not in both]
            order = [n for n in order if sizes[n] != 1]
            view = not summed or all(_adjacent(order, [n for n in group if sizes[n] != 1]) for group in (both, own, summed))
            kept.append(whole if view and whole else TensorType(xs[0].dtype, tuple(sizes[n] for n in names)))
        memory = (*both, *(n for n in result if n in left and n not in both), *(n for n in result if n in right and n not in both))
    return kept


def _adjacent(order: list[str], group: list[str]) -> bool:
    """Whether the axes of a group follow one another in memory."""
    start = order.index(group[0]) if group else 0
    return order[start:start + len(group)] == group


def _letters(names: tuple[tuple[str, ...], ...]) -> str:
    """The equation `ab,bc->ac`, one letter for each name."""
    letter = {n: chr(ord("a") + i) for i, n in enumerate(dict.fromkeys(n for axes in names for n in axes))}
    *sides, result = ("".join(letter[n] for n in axes) for axes in names)
    return ",".join(sides) + "->" + result


@op("einsum(xs: list[[*s]], ins: list[list[str]], out: list[str]) -> [*u]", infer=_einsum, own=("ins", "out"), macs=_einsum_macs, saves=_einsum_saves,
    samples=lambda: [{"xs": (floats(2, 3, 5, 7), floats(2, 4, 5, 7)), "ins": (("B", "T", "h", "w"), ("B", "S", "h", "w")),
                      "out": ("B", "h", "T", "S")},
                     {"xs": (floats(2, 5, 3), floats(7, 5)), "ins": (("B", "i", "T"), ("o", "i")), "out": ("B", "o", "T")},
                     {"xs": (floats(1, 3), floats(1, 4)), "ins": (("b", "i"), ("b", "j")), "out": ("b", "i", "j")},
                     {"xs": (floats(2, 3), floats(3, 4), floats(4, 5)), "ins": (("a", "b"), ("b", "c"), ("c", "d")), "out": ("a", "d")},
                     {"xs": (floats(3, 4, 5),), "ins": (("a", "b", "c"),), "out": ("c", "a")}])
def einsum(xs, *, ins, out):
    """The product of all operands, summed over the axes that `out` does not name; `ins` names the axes of each."""
    if len(xs) == 1:
        return torch.einsum(_letters((ins[0], out)), xs[0])
    x = xs[0]
    for names, y in zip(einsum_steps(ins, out), xs[1:]):  # in pairs: torch's own order for more depends on what is installed
        x = torch.einsum(_letters(names), x, y)
    return x
