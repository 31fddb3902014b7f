"""Linear attention, with and without gates: memories of key-value pairs that fade, and that are written over."""
from __future__ import annotations

from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

CHUNK = 64
"""Positions that are computed together; between chunks a state is carried."""


PART = 16
"""Positions of which each pair has fades of its own, channel by channel."""
BLOCK = 256
"""Positions whose parts are held at a time."""


def fades(log):
    """exp of the sum of logarithms behind j up to i for each channel, 0 where i < j: [..., T, c] -> [..., T (i), T (j), c]. Each sum is made of its
    own terms, none above 0: nothing overflows, and no small gate is lost behind a large one, as in differences of sums from the beginning."""
    n = log.shape[-2]
    order = torch.arange(n, device=log.device)
    gap = order[:, None, None] - order[:, None]
    behind = log[..., :, None, :].expand(*log.shape[:-1], n, log.shape[-1]).masked_fill(gap <= 0, 0)
    return torch.exp(behind.cumsum(-3)).masked_fill(gap < 0, 0)


def _scalar_fades(log):
    return fades(log[..., None])[..., 0]


def _parts(x):
    """[..., T, c] as parts of PART positions, [..., parts, PART, c]; zeros behind the end change no state."""
    n = x.shape[-2]
    size = min(PART, n)
    if missing := -n % size:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(-2, (-1, size))


def _sooner(x, axis):
    """What was there one position before; 0 at the first."""
    return torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.narrow(axis, 0, x.shape[axis] - 1)], axis)


def _macs(q: TensorType, v: TensorType, **_: object):
    """Each position adds one outer product to the memory and reads it once."""
    return 2 * volume(q.shape) * v.shape[-1]


@recurrent("linear_attention(q: [..., T, k], k: [..., T, k], v: [..., T, e], decay: f32[..., T]? = none, scale: float = 1) -> [..., T, e]",
           state={"memory": "f32[..., k, e]"}, roles={"k": "contract"}, source="arxiv 2006.16236, 2307.08621, 2405.21060", macs=_macs,
           samples=lambda: [
               {"q": floats(2, 3, 5, 4), "k": floats(2, 3, 5, 4), "v": floats(2, 3, 5, 3), "decay": floats(2, 3, 5, low=-3, high=-0.01)},
               {"q": floats(1, 1, 4), "k": floats(1, 1, 4), "v": floats(1, 1, 2), "scale": 0.5},
               {"q": floats(67, 3), "k": floats(67, 3), "v": floats(67, 5), "decay": floats(67, low=-30, high=-0.01)}])
def linear_attention(q, k, v, decay, memory, *, scale=1):
    """memory ← exp(decay) memory + k vᵀ, y = scale · q memory: attention without softmax; with a constant decay retention, with one that depends on
    the position the scalar-gated form and Mamba-2's scan. `decay` is a logarithm, 0 or below, one for each head and position."""
    ys = []
    for at in range(0, q.shape[-2], CHUNK):
        part = slice(at, at + CHUNK)
        y, memory = _linear_chunk(q[..., part, :], k[..., part, :], v[..., part, :], None if decay is None else decay[..., part], memory)
        ys.append(y)
    return scale * torch.cat(ys, -2), memory


def _linear_chunk(q, k, v, decay, memory):
    scores = q @ k.mT
    if decay is None:
        return scores.tril() @ v + q @ memory, memory + k.mT @ v
    kept, fade = torch.exp(decay.cumsum(-1))[..., None], _scalar_fades(decay)
    y = (scores * fade) @ v + (q * kept) @ memory
    return y, kept[..., -1:, :] * memory + (k * fade[..., -1, :, None]).mT @ v


@linear_attention.step
def _linear_step(q, k, v, decay, memory, *, scale=1):
    kept = memory if decay is None else torch.exp(decay)[..., None, None] * memory
    memory = kept + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory


@recurrent("gla(q: [..., T, k], k: [..., T, k], v: [..., T, e], decay: f32[..., T, k]? = none, value_decay: f32[..., T, e]? = none, "
           "scale: float = 1, before: bool = false) -> [..., T, e]",
           state={"memory": "f32[..., k, e]"}, roles={"k": "contract"}, source="arxiv 2312.06635, equation 3", macs=_macs,
           samples=lambda: [
               {"q": floats(2, 3, 5, 4), "k": floats(2, 3, 5, 4), "v": floats(2, 3, 5, 3), "decay": floats(2, 3, 5, 4, low=-3, high=-0.01)},
               {"q": floats(1, 1, 4), "k": floats(1, 1, 4), "v": floats(1, 1, 2), "decay": floats(1, 1, 4, low=-9, high=0), "scale": 0.5},
               {"q": floats(67, 3), "k": floats(67, 3), "v": floats(67, 5), "decay": floats(67, 3, low=-30, high=-0.01)},
               {"q": floats(37, 3), "k": floats(37, 3), "v": floats(37, 2), "value_decay": floats(37, 2, low=-9, high=-0.01)},
               {"q": floats(2, 21, 3), "k": floats(2, 21, 3), "v": floats(2, 21, 2), "decay": floats(2, 21, 3, low=-9, high=-0.01),
                "value_decay": floats(2, 21, 2, low=-9, high=-0.01), "before": True},
               {"q": floats(18, 2), "k": floats(18, 2), "v": floats(18, 2), "before": True}])
def gla(q, k, v, decay, value_decay, memory, *, scale=1, before=False):
    """Gated linear attention: memory ← exp(decay) memory exp(value_decay) + k vᵀ, by row of the memory and by column, y = scale · q memory. Both are
    logarithms, 0 or below. `before`: y reads the memory as earlier positions left it."""
    ys = []
    for at in range(0, q.shape[-2], BLOCK):
        block = [None if x is None else _parts(x[..., at:at + BLOCK, :]) for x in (q, k, v, decay, value_decay)]
        y, memory = _gla_block(block, memory, before)
        ys.append(y.flatten(-3, -2))
    return scale * torch.cat(ys, -2)[..., :q.shape[-2], :], memory


def _gla_block(operands, memory, before):
    """Pairs of positions within a part, then what each part reads of the memory that the parts in front of it left."""
    q, k, v, decay, value_decay = operands
    row, row_kept, k_left, row_end = _fading(decay, before)
    column, column_kept, v_left, column_end = _fading(value_decay, before)
    if row is None:
        scores = (q @ k.mT).tril(-1 if before else 0)
    else:
        scores = ((row * k[..., None, :, :]) @ q[..., None])[..., 0]
    y = scores @ v if column is None else (scores[..., None, :] @ (column * v[..., None, :, :]))[..., 0, :]
    added = (k * k_left).mT @ (v * v_left)
    met = []
    for part in range(q.shape[-3]):
        met.append(memory)
        if row_end is not None:
            memory = row_end[..., part, :, :].mT * memory
        if column_end is not None:
            memory = column_end[..., part, :, :] * memory
        memory = memory + added[..., part, :, :]
    return y + ((q * row_kept) @ torch.stack(met, -3)) * column_kept, memory


def _fading(log, before):
    """Of gates in parts, [..., parts, T, c]: the fades between positions, what a position meets of the memory, what is left of it at the end of the
    part, what is left of the memory there. Without gates all is left."""
    if log is None:
        return None, 1, 1, None
    fade, total = fades(log), log.cumsum(-2)
    left, end = fade[..., -1, :, :], torch.exp(total[..., -1:, :])
    if before:
        fade, total = _sooner(fade, -3), _sooner(total, -2)
    return fade, torch.exp(total), left, end


@gla.step
def _gla_step(q, k, v, decay, value_decay, memory, *, scale=1, before=False):
    met = memory
    if decay is not None:
        memory = torch.exp(decay)[..., :, None] * memory
    if value_decay is not None:
        memory = torch.exp(value_decay)[..., None, :] * memory
    memory = memory + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ (met if before else memory))[..., 0, :], memory


# ---------------------------------------------------------------- the delta rule
def _delta_macs(q: TensorType, v: TensorType, **_: object):
    """Each position reads the memory at its key, adds one outer product and reads it at its query."""
    return 3 * volume(q.shape) * v.shape[-1]


@recurrent("delta_rule(q: [..., T, k], k: [..., T, k], v: [..., T, e], beta: [..., T], decay: f32[..., T]? = none, scale: float = 1) -> [..., T, e]",
           state={"memory": "f32[..., k, e]"}, roles={"k": "contract"}, source="arxiv 2406.06484, 2412.06464", macs=_delta_macs,
           samples=lambda: [
               {"q": floats(2, 3, 5, 4), "k": floats(2, 3, 5, 4, low=-0.7, high=0.7), "v": floats(2, 3, 5, 3), "beta": floats(2, 3, 5, low=0, high=1),
                "decay": floats(2, 3, 5, low=-3, high=-0.01)},
               {"q": floats(1, 1, 4), "k": floats(1, 1, 4), "v": floats(1, 1, 2), "beta": floats(1, 1, low=0, high=2), "scale": 0.5},
               {"q": floats(67, 3), "k": floats(67, 3, low=-0.7, high=0.7), "v": floats(67, 5), "beta": floats(67, low=0, high=1)}])
def delta_rule(q, k, v, beta, decay, memory, *, scale=1):
    """memory ← exp(decay) memory, then memory ← memory + beta k (v - memoryᵀ k)ᵀ, y = scale · q memory: what is written replaces what the memory
    held at that key, all of it where beta = 1 and |k| = 1. With `decay` (a logarithm, 0 or below) the gated delta rule."""
    ys = []
    for at in range(0, q.shape[-2], CHUNK):
        part = slice(at, at + CHUNK)
        fade = torch.zeros_like(beta[..., part]) if decay is None else decay[..., part]
        y, memory = _delta_chunk(q[..., part, :], k[..., part, :], v[..., part, :], beta[..., part, None], fade, memory)
        ys.append(y)
    return scale * torch.cat(ys, -2), memory


def _delta_chunk(q, k, v, beta, decay, memory):
    """What each position writes depends on what earlier ones wrote: one triangular system for the whole chunk (the WY form)."""
    fade, kept = _scalar_fades(decay), torch.exp(decay.cumsum(-1))[..., None]
    system = (beta * (k @ k.mT) * fade).tril(-1)
    written = torch.linalg.solve_triangular(system, beta * (v - (k * kept) @ memory), upper=False, unitriangular=True)
    y = (q @ k.mT * fade).tril() @ written + (q * kept) @ memory
    return y, kept[..., -1:, :] * memory + (k * fade[..., -1, :, None]).mT @ written


@delta_rule.step
def _delta_step(q, k, v, beta, decay, memory, *, scale=1):
    if decay is not None:
        memory = torch.exp(decay)[..., None, None] * memory
    held = (k[..., None, :] @ memory)[..., 0, :]
    memory = memory + k[..., :, None] @ (beta[..., None] * (v - held))[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory


# ---------------------------------------------------------------- the delta rule, generalised
def _dplr_macs(q: TensorType, v: TensorType, **_: object):
    """Each position reads the memory at a, adds two outer products and reads it at its query."""
    return 4 * volume(q.shape) * v.shape[-1]


@recurrent("dplr_delta_rule(q: [..., T, k], k: [..., T, k], v: [..., T, e], a: [..., T, k], b: [..., T, k], decay: f32[..., T, k], scale: float = 1) "
           "-> [..., T, e]",
           state={"memory": "f32[..., k, e]"}, roles={"k": "contract"}, source="arxiv 2503.14456", macs=_dplr_macs,
           samples=lambda: [
               {"q": floats(2, 3, 5, 4), "k": floats(2, 3, 5, 4), "v": floats(2, 3, 5, 3), "a": floats(2, 3, 5, 4, low=-0.6, high=0.6),
                "b": floats(2, 3, 5, 4, low=-0.6, high=0.6), "decay": floats(2, 3, 5, 4, low=-3, high=-0.01)},
               {"q": floats(1, 1, 4), "k": floats(1, 1, 4), "v": floats(1, 1, 2), "a": floats(1, 1, 4), "b": floats(1, 1, 4),
                "decay": floats(1, 1, 4, low=-9, high=0), "scale": 0.5},
               {"q": floats(37, 3), "k": floats(37, 3), "v": floats(37, 5), "a": floats(37, 3, low=-0.6, high=0.6),
                "b": floats(37, 3, low=-0.6, high=0.6), "decay": floats(37, 3, low=-30, high=-0.01)}])
def dplr_delta_rule(q, k, v, a, b, decay, memory, *, scale=1):
    """memory ← (diag(exp(decay)) + b aᵀ) memory + k vᵀ, y = scale · q memory: the delta rule with gates by row of the memory, and with a key that is
    read (a) and one that is written over (b). With a = -exp(decay) k, b = beta k and beta k for its key it is the delta rule that forgets by row
    first. `decay` is a logarithm, 0 or below."""
    ys = []
    for at in range(0, q.shape[-2], BLOCK):
        y, memory = _dplr_block([_parts(x[..., at:at + BLOCK, :]) for x in (q, k, v, a, b, decay)], memory)
        ys.append(y.flatten(-3, -2))
    return scale * torch.cat(ys, -2)[..., :q.shape[-2], :], memory


def _dplr_block(operands, memory):
    """`read`: what each position reads at a, which depends on what earlier ones read: a triangular system for each part."""
    q, k, v, a, b, decay = operands
    fade, total = fades(decay), decay.cumsum(-2)
    kept, left, end = torch.exp(total), fade[..., -1, :, :], torch.exp(total[..., -1:, :])
    sooner, met_kept = _sooner(fade, -3), torch.exp(_sooner(total, -2))
    through_b, through_k = (((sooner * x[..., None, :, :]) @ a[..., None])[..., 0] for x in (b, k))
    wanted = torch.cat([through_k @ v, a * met_kept], -1)
    own, of_memory = torch.linalg.solve_triangular(-through_b, wanted, upper=False, unitriangular=True).split([v.shape[-1], a.shape[-1]], -1)
    added, b_left, met, read = (k * left).mT @ v, (b * left).mT, [], []
    for part in range(q.shape[-3]):
        met.append(memory)
        read.append(own[..., part, :, :] + of_memory[..., part, :, :] @ memory)
        memory = end[..., part, :, :].mT * memory + added[..., part, :, :] + b_left[..., part, :, :] @ read[-1]
    from_k, from_b = (((fade * x[..., None, :, :]) @ q[..., None])[..., 0] for x in (k, b))
    return from_k @ v + from_b @ torch.stack(read, -3) + (q * kept) @ torch.stack(met, -3), memory


@dplr_delta_rule.step
def _dplr_step(q, k, v, a, b, decay, memory, *, scale=1):
    read = a[..., None, :] @ memory
    memory = torch.exp(decay)[..., None] * memory + b[..., :, None] @ read + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory
