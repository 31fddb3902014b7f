"""Selective state spaces: linear recurrences whose decay, input and output depend on the position."""
from __future__ import annotations

from functools import cache
from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.gates import left, length
from archdsl.ops.recurrent import recurrent
from archdsl.ops.registry import OpError
from archdsl.ops.rules import floats, size, volume

BLOCK = 64
"""Positions whose states `selective_scan` holds at a time."""
CHUNK = 64
"""Positions that `ssd` computes by matrix products; between chunks a state is carried."""
SPAN = 1024
"""Positions whose chunks `ssd` computes at a time: what they need between stays small however long the sequence is."""


# ---------------------------------------------------------------- Mamba-1
def _scan_macs(x: TensorType, a: TensorType, **_: Any) -> Size:
    """Each position adds one outer product to the memory and reads it once."""
    return 2 * volume(x.shape) * a.shape[-1]


@recurrent("selective_scan(x: [..., T, d], dt: f32[..., T, d], a: f32[d, n], b: [..., T, n], c: [..., T, n], skip: f32[d]? = none) "
           "-> [..., T, d]", state={"memory": "f32[..., d, n]"}, roles={"n": "contract"}, macs=_scan_macs, source="arxiv 2312.00752, algorithm 2",
           samples=lambda: [
               {"x": floats(2, 5, 3), "dt": floats(2, 5, 3, low=0.01, high=2), "a": floats(3, 4, low=-3, high=-0.1), "b": floats(2, 5, 4),
                "c": floats(2, 5, 4), "skip": floats(3)},
               {"x": floats(1, 2), "dt": floats(1, 2, low=0.1, high=1), "a": floats(2, 1, low=-3, high=-1), "b": floats(1, 1), "c": floats(1, 1)},
               {"x": floats(131, 2), "dt": floats(131, 2, low=0.01, high=30), "a": floats(2, 3, low=-16, high=-0.01), "b": floats(131, 3),
                "c": floats(131, 3)}])
def selective_scan(x, dt, a, b, c, skip, memory):
    """Mamba's state space, n numbers for each channel: memory ← exp(dt a) memory + dt x bᵀ, y = memory c + skip x. `dt` is positive (behind its
    softplus), `a` negative."""
    y, memory, _ = _scan()(x, dt, a, b, c, memory)
    return (y if skip is None else y + skip * x), memory


@selective_scan.step
def _selective_scan_step(x, dt, a, b, c, skip, memory):
    memory = torch.exp(dt[..., None] * a) * memory + (dt * x)[..., :, None] @ b[..., None, :]
    y = (memory @ c[..., :, None])[..., 0]
    return (y if skip is None else y + skip * x), memory


def _front(*operands: Any) -> list[Any]:
    """Time in front."""
    return [v.movedim(-2, 0) for v in operands]


def _room(x: Any, a: Any, many: int) -> list[Any]:
    """Memory for the numbers of a block, [t, ..., n, d], and one position more: all blocks use the same, for new pages cost more than sums."""
    return [x.new_empty((min(BLOCK, len(x)) + 1, *x.shape[1:-1], *a.shape)) for _ in range(many)]


def _states(x: Any, dt: Any, a: Any, b: Any, memory: Any, decay: Any, states: Any) -> tuple[Any, Any]:
    """The decays of a block and its states, the first one that before it, [t, ..., n, d], as `a` and `memory` are [n, d], in the given room."""
    decay, states = decay[:len(x)], states[:len(x) + 1]
    torch.mul(dt[..., None, :], a, out=decay).exp_()
    torch.mul((dt * x)[..., None, :], b[..., None], out=states[1:])
    states[0] = memory
    each = states.unbind()
    for fade, before, state in zip(decay.unbind(), each, each[1:]):
        state.addcmul_(fade, before)
    return decay, states


@cache
def _scan() -> Any:
    """`selective_scan` as a function of torch that keeps its operands and the states between blocks: the backward pass computes the others again."""

    class Scan(torch.autograd.Function):
        @staticmethod
        def forward(x: Any, dt: Any, a: Any, b: Any, c: Any, memory: Any) -> tuple[Any, Any, Any]:  # type: ignore[override]
            x, dt, b, c = _front(x, dt, b, c)
            a, memory, room = a.mT.contiguous(), memory.mT, _room(x, a.mT, 2)
            y, met = torch.empty_like(x, memory_format=torch.contiguous_format), []
            for u, t, i, o, out in zip(*(v.split(BLOCK) for v in (x, dt, b, c, y))):
                met.append(memory)
                _, states = _states(u, t, a, i, memory, *room)
                out.copy_((o[..., None, :] @ states[1:])[..., 0, :])
                memory = states[-1].clone()
            return y.movedim(0, -2), memory.mT, torch.stack(met)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_non_differentiable(output[2])
            ctx.save_for_backward(*inputs[:-1], output[2])

        @staticmethod
        def backward(ctx: Any, dy: Any, later: Any, _: Any) -> tuple[Any, ...]:  # type: ignore[override]
            x, dt, a, b, c, met = ctx.saved_tensors
            dy, x, dt, b, c = _front(dy, x, dt, b, c)
            a, later, room = a.mT.contiguous(), later.mT, _room(x, a.mT, 3)
            da, found = torch.zeros_like(a), [torch.empty_like(v) for v in (x, dt, b, c)]
            blocks = zip(met, *(v.split(BLOCK) for v in (dy, x, dt, b, c, *found)))
            for memory, g, u, t, i, o, dx, ddt, db, dc in reversed(list(blocks)):
                decay, states = _states(u, t, a, i, memory, *room[:2])
                # Of the states: by what reads them, then by what is made of them.
                grads = torch.mul(o[..., None], g[..., None, :], out=room[2][:len(u)])
                each, fades = grads.unbind(), decay.unbind()
                each[-1].add_(later)
                for now, fade, after in zip(reversed(each[:-1]), reversed(fades), reversed(each)):
                    now.addcmul_(fade, after)
                later = fades[0] * each[0]
                du = (i[..., None, :] @ grads)[..., 0, :]
                db.copy_((grads @ (t * u)[..., None])[..., 0])
                dc.copy_((states[1:] @ g[..., None])[..., 0])
                dlog = states[:-1].mul_(decay).mul_(grads)
                torch.mul(du, t, out=dx)
                torch.add(torch.mul(dlog, a, out=decay).sum(-2), du * u, out=ddt)
                da += dlog.mul_(t[..., None, :]).flatten(0, -3).sum(0)
            dx, ddt, db, dc = (v.movedim(0, -2) for v in found)
            return dx, ddt, da.mT, db, dc, later.mT

    return Scan.apply


# ---------------------------------------------------------------- Mamba-2
def _shared(x: TensorType, b: TensorType, **_: Any) -> None:
    """Groups share the heads evenly."""
    heads, groups = x.shape[-2], b.shape[-2]
    if groups == 0 or isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise OpError(f"{heads} heads cannot share {groups} groups of `b` and `c` evenly", "b")


def _ssd_macs(x: TensorType, b: TensorType, **_: Any) -> Size:
    """Each position adds one outer product to each head's memory and reads it once."""
    return 2 * volume(x.shape) * b.shape[-1]


@recurrent("ssd(x: [..., T, h, p], dt: f32[..., T, h], a: f32[h], b: [..., T, g, n], c: [..., T, g, n], skip: f32[h]? = none) "
           "-> [..., T, h, p]", state={"memory": "f32[..., h, p, n]"}, roles={"n": "contract", "g": "grouped"}, macs=_ssd_macs, fit=_shared,
           source="arxiv 2405.21060, listing 1",
           samples=lambda: [
               {"x": floats(2, 5, 4, 3), "dt": floats(2, 5, 4, low=0.01, high=2), "a": floats(4, low=-3, high=-0.1), "b": floats(2, 5, 2, 6),
                "c": floats(2, 5, 2, 6), "skip": floats(4)},
               {"x": floats(1, 2, 1), "dt": floats(1, 2, low=0.1, high=1), "a": floats(2, low=-3, high=-1), "b": floats(1, 1, 3),
                "c": floats(1, 1, 3)},
               {"x": floats(67, 2, 2), "dt": floats(67, 2, low=0.01, high=30), "a": floats(2, low=-16, high=-0.01), "b": floats(67, 2, 1),
                "c": floats(67, 2, 1)}])
def ssd(x, dt, a, b, c, skip, memory):
    """Mamba-2's state space, one decay for each head, whose memory is p × n: memory ← exp(dt a) memory + dt x bᵀ, y = memory c + skip x. The heads
    share g groups of b and c, h / g in a row each. `dt` is positive (behind its softplus), `a` negative."""
    ys = []
    for u, t, i, o in zip(*(v.split(SPAN, axis) for v, axis in ((x, -3), (dt, -2), (b, -3), (c, -3)))):
        y, memory = _span(t[..., None] * u, t * a, i, o, memory)
        ys.append(y)
    y = torch.cat(ys, -3)
    return (y if skip is None else y + skip[:, None] * x), memory


def _span(u, log, b, c, memory):
    """`ssd` of inputs times dt, u, and logarithms of decays, in chunks. Heads of a group stand side by side, so that they read and write the memory
    in one product."""
    n, g, p = u.shape[-3], b.shape[-2], u.shape[-1]
    u, log, b, c = _chunks(u, 3), _chunks(log, 2), _chunks(b, 3).movedim(-2, -3), _chunks(c, 3).movedim(-2, -3)
    pairs, start, end, total = left(log.mT)  # of each head, [..., chunks, h, q (, q)]
    y = ((b @ c.mT).mT.unsqueeze(-3) * pairs.unflatten(-3, (g, -1))).flatten(-4, -3) @ u.movedim(-2, -3)
    added = b.mT @ (u * end.mT[..., None]).unflatten(-2, (g, -1)).flatten(-2).movedim(-2, -3)  # [..., chunks, g, n, (r p)]
    kept = total[..., 0].repeat_interleave(p, -1).unflatten(-1, (g, 1, -1))
    shape, memory, met = memory.shape, memory.unflatten(-3, (g, -1)).flatten(-3, -2).mT, []
    for fade, own in zip(kept.unbind(-4), added.unbind(-4)):
        met.append(memory)
        memory = fade * memory + own
    read = (c @ torch.stack(met, -4)).movedim(-3, -2).reshape(u.shape) * start.mT[..., None]
    return (y.movedim(-3, -2) + read).flatten(-4, -3)[..., :n, :, :], memory.mT.reshape(shape)


@ssd.step
def _ssd_step(x, dt, a, b, c, skip, memory):
    each = size(x, -2) // size(b, -2)
    b, c = b.repeat_interleave(each, -2), c.repeat_interleave(each, -2)
    memory = torch.exp(dt * a)[..., None, None] * memory + (dt[..., None] * x)[..., :, None] @ b[..., None, :]
    y = (memory @ c[..., :, None])[..., 0]
    return (y if skip is None else y + skip[:, None] * x), memory


def _chunks(x: Any, axes: int) -> Any:
    """Time, the first of the last `axes` axes, as chunks of equal length, a power of two; zeros behind the end change no state."""
    n = x.shape[-axes]
    q = length(n, CHUNK)
    if missing := -n % q:
        x = torch.nn.functional.pad(x, (0, 0) * (axes - 1) + (0, missing))
    return x.unflatten(-axes, (-1, q))
