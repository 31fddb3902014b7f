"""Several documents behind each other on one axis: which document a position is of, its place there, and recurrences that begin anew with each."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.kernels.running import run
from archdsl.lazy import torch
from archdsl.ops.kernels import apart, differentiable, gradients, in_turn, once, one_or_all, plain_like
from archdsl.ops.recurrent import RECURRENCES, Recurrence, described, of_kernel
from archdsl.ops.reduction import cumsum_type
from archdsl.ops.registry import OPS, Op, OpError, op
from archdsl.ops.rules import axis_of, bools, floats, ints, is_float, need_equal, need_index
from archdsl.shapes import infer_by_signature


def _labels(lengths: TensorType, n: Size = 1) -> TensorType:
    need_index(lengths, "lengths")
    if lengths.shape[0] == 0 and isinstance(n, int) and n:
        raise OpError(f"no documents have {n} positions", "lengths")
    return TensorType("int", (n,))


@op("documents(lengths: int[d], n: int) -> int[*s]", infer=_labels, grad="none",
    samples=lambda: [{"lengths": ints(4, 3), "n": 7}, {"lengths": ints(4, 1), "n": 1}])
def documents(lengths, *, n):
    """For each of n positions the number of the document that it lies in, from 0, when the documents lie behind each other with these lengths."""
    return torch.searchsorted(lengths.cumsum(0), torch.arange(n, device=lengths.device), right=True)


@op("index_packed(documents: int[T]) -> int[T]", grad="none", samples=lambda: [{"documents": ints(3, 7)}, {"documents": ints(3, 1)}])
def index_packed(documents):
    """The position within its document of each position: it counts from 0 wherever the label changes."""
    place = torch.arange(documents.shape[0], device=documents.device)
    same = torch.cat([torch.zeros_like(documents[:1], dtype=torch.bool), documents[1:] == documents[:-1]])
    return place - torch.cummax(torch.where(same, 0, place), 0).values


def _along(x: TensorType, documents: TensorType, axis: int = -1) -> TensorType:
    need_index(documents, "documents")
    a = axis_of(axis, len(x.shape))
    need_equal(documents.shape[0], x.shape[a], "the labels and the positions of `x`", "documents")
    return cumsum_type(x, axis)


@op("cumsum_packed(x: [*s], documents: int[T], axis: int = -1) -> [*s]", infer=_along, own=("x",),
    saves=lambda documents, **_: (TensorType("int", documents.shape),),
    samples=lambda: [{"x": floats(2, 7, 3), "documents": ints(3, 7), "axis": 1}, {"x": ints(5, 1, 4), "documents": ints(2, 4)},
                     {"x": bools(4), "documents": ints(2, 4)}, {"x": floats(1), "documents": ints(2, 1), "axis": 0}])
def cumsum_packed(x, documents, *, axis=-1):
    """`cumsum` on each document alone: the sum so far without what it was in front of the document. Floats are summed in float64."""
    place = torch.arange(documents.shape[0], device=documents.device)
    begin = place - index_packed.body(documents)
    wide = x.to(torch.float64 if is_float(x) else torch.int64)
    total = torch.cumsum(wide, axis)
    sums = total - torch.index_select(total - wide, axis, begin)
    return sums.to(x.dtype) if is_float(x) else sums


def _flipped(x: TensorType, documents: TensorType, axis: int = -2) -> TensorType:
    return TensorType(x.dtype, _along(x, documents, axis).shape)


@op("flip_packed(x: [*s], documents: int[T], axis: int = -2) -> [*s]", infer=_flipped, own=("x",),
    saves=lambda documents, **_: (TensorType("int", documents.shape),),
    samples=lambda: [{"x": floats(2, 7, 3), "documents": ints(3, 7)}, {"x": ints(5, 1, 4), "documents": ints(2, 4), "axis": -1},
                     {"x": floats(1), "documents": ints(2, 1), "axis": 0}])
def flip_packed(x, documents, *, axis=-2):
    """`flip` of each document alone: the last of its positions comes first."""
    ahead = index_packed.body(documents)
    behind = index_packed.body(documents.flip(0)).flip(0)
    place = torch.arange(documents.shape[0], device=documents.device)
    return torch.index_select(x, axis, place - ahead + behind)


# ---------------------------------------------------------------- recurrences
SHORT = 12


def packed_name(r: Recurrence) -> str:
    return f"{r.name}_packed"


def register(r: Recurrence) -> None:
    """The op that runs a recurrence on each document alone: its operands, then `documents: int[T]`."""
    head, _, result = r.signature.rpartition(") -> ")
    body = _body(r)
    OPS[packed_name(r)] = Op(
        packed_name(r), f"{packed_name(r)}{head[len(r.name):]}, documents: int[T]) -> {result}", body, infer=_types(r), macs=_macs(r),
        saves=lambda needs=(), **arguments: (*r.op.saves(needs, **arguments), "documents"),  # type: ignore[operator,misc]
        roles=r.op.roles, grad=r.op.grad, source=r.op.source, form_of=r.name, samples=lambda: _labelled(r), reference=_reference(r))


def _types(r: Recurrence) -> Callable[..., Any]:
    def types(documents: TensorType, **arguments: Any) -> tuple[TensorType, ...]:
        found = r.types(r.op, arguments)
        infer_by_signature(OPS[packed_name(r)], {**arguments, "documents": documents})
        return found

    return types


def _macs(r: Recurrence) -> Callable[..., Any] | None:
    macs = r.op.macs
    return None if macs is None else lambda documents, **arguments: macs(**arguments)


def _labelled(r: Recurrence) -> list[dict[str, Any]]:
    """The short samples of the recurrence, with labels: the long ones say nothing more here. Where a position reads all earlier ones, costs are
    those of one document."""
    found, labels = [], 1 if r.grows else 3
    for sample in (r.op.samples or list)():
        length = next(sample[n].shape[a] for n, a in r.time.items() if n in sample)
        if length <= SHORT:
            found.append({**sample, "documents": ints(labels, length)})
    return found


def _body(r: Recurrence) -> Callable[..., Any]:
    def body(*args: Any, documents: Any = None, **attributes: Any) -> Any:
        if documents is None:
            args, documents = args[:-1], args[-1]
        asked = of_kernel(attributes)
        given, named = r.arguments(args, attributes)
        found = _kernel(r)(*given, documents, *named, *asked)
        return found[0] if r.results == 1 else tuple(found[i] for i in range(r.results))

    words = f"`{r.name}` on each document alone: it begins anew wherever the label of `documents` changes."
    return described(body, r, tuple(r.state), words, ("documents",))


def _reference(r: Recurrence) -> Callable[..., Any]:
    def reference(*args: Any, **attributes: Any) -> Any:
        *given, labels = args
        parts = [r.op.reference(*part, **attributes) for part in _parts(r, given, labels)]  # type: ignore[misc]
        found = [p if isinstance(p, tuple) else (p,) for p in parts]
        joined = tuple(torch.cat(ys, r.time[f"->{i}"]) for i, ys in enumerate(zip(*found)))
        return joined[0] if r.results == 1 else joined

    return reference


def _parts(r: Recurrence, given: list[Any], labels: Any) -> list[list[Any]]:
    """The operands of each document; those without the axis of time are the same for all."""
    borders = [0, *(torch.nonzero(labels[1:] != labels[:-1])[:, 0] + 1).tolist(), labels.shape[0]]
    return [[x if x is None or n not in r.time else x.narrow(r.time[n], a, b - a) for n, x in zip(r.operands, given)]
            for a, b in pairwise(borders)]


@cache
def _kernel(r: Recurrence) -> Any:
    """The torch op, made when it is first called."""
    import torch as t

    n = len(r.operands)
    tensors, attributes = r.schema()
    none = (None,) * len(r.state)

    def whole(given: list[Any], named: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        """The kernel that takes all documents at once, where there is one, and the attributes."""
        attributes = dict(zip(r.attributes, named))
        kernel = r.bound([*given, *none], attributes, named)
        return (kernel.body if kernel is not None and hasattr(kernel.body, "packed") else None), attributes

    def forward(*args: Any) -> tuple[Any, ...]:
        given = list(args[:n])
        kernel, attributes = whole(given, args[n + 1:])
        if kernel is not None:
            return tuple(apart(run(kernel.packed, [*given, args[n]], attributes), given))
        found = [r.forward(*part, *none, *args[n + 1:])[:r.results] for part in _parts(r, list(args[:n]), args[n])]
        return tuple(t.cat(ys, r.time[f"->{i}"]) for i, ys in enumerate(zip(*found)))

    def backward(given: list[Any], labels: Any, grads: list[Any], *named: Any) -> list[Any]:
        kernel, attributes = whole(given, named)
        if kernel is not None:
            pulls = [given[0].new_zeros(shape) if g is None else g for g, shape in zip(grads, r._shapes(given))]
            return apart(gradients(given, run(kernel.packed_gradient, [*pulls, *given, labels], attributes)), [*given, *grads])
        parts = _parts(r, given, labels)
        ends = [{f"->{i}": g for i, g in enumerate(grads)} for _ in parts]
        at = 0
        for part, own in zip(parts, ends):
            length = next(x.shape[r.time[k]] for k, x in zip(r.operands, part) if k in r.time and x is not None)
            own.update({k: None if g is None else g.narrow(r.time[k], at, length) for k, g in own.items()})
            at += length
        found = [r.backward([*part, *none], [*own.values(), *none], [True] * (n + len(none)), *named)[:n] for part, own in zip(parts, ends)]
        return [t.cat(gs, r.time[k]) if k in r.time and x is not None else sum(gs[1:], gs[0]) for k, x, gs in zip(r.operands, given, zip(*found))]

    results = "Tensor" if r.results == 1 else f"({', '.join(['Tensor'] * r.results)})"
    op_ = t.library.custom_op(f"archdsl::{packed_name(r)}", lambda *args: one_or_all(forward(*args)), mutates_args=(),
                              schema=f"({', '.join([*tensors[:n], 'Tensor documents', *attributes])}) -> {results}")
    op_.register_fake(lambda *args: one_or_all(r.fake(*args[:n], *none, *args[n + 1:])[:r.results]))
    back = t.library.custom_op(f"archdsl::{packed_name(r)}_backward", backward, mutates_args=(),
                               schema=f"({', '.join(['Tensor?[] tensors', 'Tensor documents', 'Tensor?[] grads', *attributes])}) -> Tensor[]")
    back.register_fake(lambda given, labels, grads, *named: plain_like(given))

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:n + 1])
        ctx.named = inputs[n + 1:]

    def pull(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        *saved, labels = ctx.saved_tensors
        with t.no_grad():
            found = back(list(saved), labels, list(grads), *ctx.named)
        wanted = [g if x is not None and x.is_floating_point() else None for x, g in zip(saved, found)]
        return (*once(packed_name(r), [*saved, *grads], wanted), None, *(None for _ in ctx.named))

    called = getattr(t.ops.archdsl, packed_name(r))
    differentiable(op_, called.default, pull, setup)
    in_turn(back)
    return (lambda *args: (called(*args),)) if r.results == 1 else called


def register_all() -> None:
    for r in RECURRENCES.values():
        register(r)
