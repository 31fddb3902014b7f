"""Mamba's selective state space: a linear recurrence whose decays, inputs and outputs depend on the position. Both passes are written out."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.gates import LOG2_E, softplus
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

BLOCK = 64
"""Positions whose states are held at a time."""


def _scan_macs(x: TensorType, a: TensorType, **_: Any) -> Size:
    """Each position adds one outer product to the memory and reads it once."""
    return 2 * volume(x.shape) * a.shape[-1]


@recurrent("selective_scan(x: [..., T, d], dt: f32[..., T, d], a: f32[d, n], b: [..., T, n], c: [..., T, n], skip: f32[d]? = none, "
           "dt_softplus: bool = false) -> [..., T, d]", state={"memory": "f32[..., d, n]"}, roles={"n": "contract"}, macs=_scan_macs,
           source="arxiv 2312.00752, algorithm 2",
           samples=lambda: [
               {"x": floats(2, 5, 3), "dt": floats(2, 5, 3, low=0.01, high=2), "a": floats(3, 4, low=-3, high=-0.1), "b": floats(2, 5, 4),
                "c": floats(2, 5, 4), "skip": floats(3)},
               {"x": floats(1, 2), "dt": floats(1, 2, low=0.1, high=1), "a": floats(2, 1, low=-3, high=-1), "b": floats(1, 1), "c": floats(1, 1)},
               {"x": floats(131, 2), "dt": floats(131, 2, low=0.01, high=30), "a": floats(2, 3, low=-16, high=-0.01), "b": floats(131, 3),
                "c": floats(131, 3)},
               {"x": floats(2, 5, 3), "dt": floats(2, 5, 3, low=-9, high=3), "a": floats(3, 4, low=-3, high=-0.1), "b": floats(2, 5, 4),
                "c": floats(2, 5, 4), "dt_softplus": True}])
def selective_scan(x, dt, a, b, c, skip, memory, *, dt_softplus=False):
    """Mamba's state space, n numbers for each channel: memory ← exp(dt a) memory + dt x bᵀ, y = memory c + skip x. `dt` is positive, `a` negative.
    `dt_softplus`: dt is softplus of what is given."""
    x, dt, b, c = _front(x, dt, b, c)
    rates, memory, room = _rates(a), memory.mT, _room(x, a, 2)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for u, t, i, o, out in zip(*(v.split(BLOCK) for v in (x, dt, b, c, y))):
        t = softplus(t) if dt_softplus else t
        _, states = _states(u, t, rates, i, memory, *room)
        torch.matmul(o[..., None, :], states[1:], out=out[..., None, :])
        if skip is not None:
            out.addcmul_(skip, u)
        memory = states[-1].clone()
    return y.movedim(0, -2), memory.mT


@selective_scan.step
def _selective_scan_step(x, dt, a, b, c, skip, memory, *, dt_softplus=False):
    dt = F.softplus(dt) if dt_softplus else dt
    memory = torch.exp(dt[..., None] * a) * memory + (dt * x)[..., :, None] @ b[..., None, :]
    y = (memory @ c[..., :, None])[..., 0]
    return (y if skip is None else y + skip * x), memory


@selective_scan.gradient
def _selective_scan_gradient(dy, later, x, dt, a, b, c, skip, memory, *, dt_softplus=False):
    """The states between blocks once more; then block by block, from the last one, all states and their gradients."""
    dy, x, dt, b, c = _front(dy, x, dt, b, c)
    given, dt = dt, softplus(dt) if dt_softplus else dt
    rates, a, later, room, met = _rates(a), a.mT.contiguous(), later.mT, _room(x, a, 3), [memory.mT]
    for u, t, i in [*zip(*(v.split(BLOCK) for v in (x, dt, b)))][:-1]:
        met.append(_states(u, t, rates, i, met[-1], *room[:2])[1][-1].clone())
    da, found = torch.zeros_like(a), [torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x, dt, b, c)]
    blocks = zip(*(v.split(BLOCK) for v in (dy, x, dt, b, c, *found)))
    for before, (g, u, t, i, o, dx, ddt, db, dc) in zip(reversed(met), reversed([*blocks])):
        decay, states = _states(u, t, rates, i, before, *room[:2])
        # Of the states: by what reads them, then by what is made of them.
        grads = torch.mul(o[..., None], g[..., None, :], out=room[2][:len(u)])
        each, fades = grads.unbind(), decay.unbind()
        each[-1].add_(later)
        for now, fade, after in zip(reversed(each[:-1]), reversed(fades), reversed(each)):
            now.addcmul_(fade, after)
        later = fades[0] * each[0]
        du = _times(i, grads)
        db.copy_(_times(t * u, grads.mT))
        dc.copy_(_times(g, states[1:].mT))
        dlog = states[:-1].mul_(decay).mul_(grads)
        torch.mul(du, t, out=dx)
        torch.add(torch.mul(dlog, a, out=decay).sum(-2), du * u, out=ddt)
        da += dlog.mul_(t[..., None, :]).flatten(0, -3).sum(0)
        if skip is not None:
            dx.addcmul_(skip, g)
    dskip = None if skip is None else (dy * x).flatten(0, -2).sum(0)
    if dt_softplus:
        found[1].mul_(torch.sigmoid(given))
    dx, ddt, db, dc = (v.movedim(0, -2) for v in found)
    return dx, ddt, da.mT, db, dc, dskip, later.mT


def _front(*operands: Any) -> list[Any]:
    """Time in front."""
    return [v.movedim(-2, 0) for v in operands]


def _times(row: Any, matrix: Any) -> Any:
    """Rows, [..., i], by matrices, [..., i, j]: several times as quick as matrices by columns."""
    return (row[..., None, :] @ matrix)[..., 0, :]


def _rates(a: Any) -> tuple[Any, Any]:
    """[n, d], to the base of 2, and what they lost when they were rounded: a power would tell."""
    exact = a.mT.double() * LOG2_E
    rates = exact.to(a.dtype)
    return rates.contiguous(), (exact - rates).to(a.dtype).contiguous()


def _room(x: Any, a: Any, many: int) -> list[Any]:
    """Memory for the numbers of a block, [t, ..., n, d], and one position more: all blocks use the same, for new pages cost more than sums."""
    return [x.new_empty((min(BLOCK, len(x)) + 1, *x.shape[1:-1], *a.mT.shape)) for _ in range(many)]


def _states(x: Any, dt: Any, rates: tuple[Any, Any], b: Any, memory: Any, decay: Any, states: Any) -> tuple[Any, Any]:
    """The decays of a block and its states, the first one that before it, [t, ..., n, d], as `memory` is [..., n, d], in the given room."""
    decay, states = decay[:len(x)], states[:len(x) + 1]
    torch.mul(dt[..., None, :], rates[1], out=decay).addcmul_(dt[..., None, :], rates[0]).exp2_()
    torch.mul((dt * x)[..., None, :], b[..., None], out=states[1:])
    states[0] = memory
    each = states.unbind()
    for fade, before, state in zip(decay.unbind(), each, each[1:]):
        state.addcmul_(fade, before)
    return decay, states
