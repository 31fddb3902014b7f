"""Linear attention, with and without gates: memories of key-value pairs that fade, and that are written over."""
from __future__ import annotations

from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

CHUNK = 64
"""Positions that are computed together, a power of two; between chunks a state is carried."""


BLOCK = 512
"""Positions whose chunks are held at a time, whole chunks."""


def fades(log):
    """exp of the sum of logarithms behind j up to i, 0 where i < j: [..., T] -> [..., T (i), T (j)]. Each sum is made of its own terms, none above 0:
    nothing overflows, and no small gate is lost behind a large one, as in differences of sums from the beginning."""
    n = log.shape[-1]
    order = torch.arange(n, device=log.device)
    gap = order[:, None] - order
    behind = log[..., :, None].expand(*log.shape, n).masked_fill(gap <= 0, 0)
    return torch.exp(behind.cumsum(-2)).masked_fill(gap < 0, 0)


def _chunks(x):
    """[..., T, c] as chunks of one length, a power of two, [..., chunks, length, c]; zeros behind the end change no state."""
    n = x.shape[-2]
    size = 1
    while size < min(CHUNK, n):
        size *= 2
    if missing := -n % size:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(-2, (-1, size))


def _sooner(x):
    """What was there one position before; 0 at the first."""
    return F.pad(x, (0, 0, 1, -1))


def _to_end(log):
    """exp of the sum of logarithms behind each position, to the last."""
    return torch.exp(F.pad(log, (0, 0, -1, 1)).flip(-2).cumsum(-2).flip(-2))


def _from_start(log, before):
    """exp of the sum of logarithms from the first position to each, or to the one before."""
    total = log.cumsum(-2)
    return torch.exp(_sooner(total) if before else total)


def _halves(x, half):
    """Each 2 · half positions as two times half."""
    return x.unflatten(-2, (-1, 2, half)).unbind(-3)


def _within(q, k, v, decay, value_decay, before):
    """Σ_j (q_i · a_ij k_j) b_ij v_j over earlier positions j of a chunk, where a and b are what gates leave on the way; i itself but for `before`.
    Halves of halves: the way from a left half into a right one leads over its end, and what is left on both parts of it is at most 1."""
    y = torch.zeros_like(v) if before else (q * k).sum(-1, keepdim=True) * v
    half = 1
    while half < q.shape[-2]:
        (keys, _), (values, _), (_, queries) = _halves(k, half), _halves(v, half), _halves(q, half)
        if decay is not None:
            near, far = _halves(decay, half)
            keys, queries = keys * _to_end(near), queries * _from_start(far, before)
        if value_decay is None:
            found = (queries @ keys.mT) @ values
        else:
            near, far = _halves(value_decay, half)
            found = ((queries @ keys.mT) @ (values * _to_end(near))) * _from_start(far, before)
        y = y + torch.stack([torch.zeros_like(found), found], -3).flatten(-4, -2)
        half *= 2
    return y


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
    kept, fade = torch.exp(decay.cumsum(-1))[..., None], fades(decay)
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
        y, memory = _gla_block([None if x is None else _chunks(x[..., at:at + BLOCK, :]) for x in (q, k, v, decay, value_decay)], memory, before)
        ys.append(y.flatten(-3, -2))
    return scale * torch.cat(ys, -2)[..., :q.shape[-2], :], memory


def _gla_block(operands, memory, before):
    """Pairs of positions within a chunk, then what each chunk reads of the memory that those in front of it left."""
    q, k, v, decay, value_decay = operands
    y = _within(q, k, v, decay, value_decay, before)
    added = (k if decay is None else k * _to_end(decay)).mT @ (v if value_decay is None else v * _to_end(value_decay))
    row, column = (None if x is None else torch.exp(x.sum(-2)) for x in (decay, value_decay))
    met = []
    for chunk in range(q.shape[-3]):
        met.append(memory)
        if row is not None:
            memory = row[..., chunk, :, None] * memory
        if column is not None:
            memory = column[..., chunk, None, :] * memory
        memory = memory + added[..., chunk, :, :]
    read = (q if decay is None else q * _from_start(decay, before)) @ torch.stack(met, -3)
    return y + (read if value_decay is None else read * _from_start(value_decay, before)), memory


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
    fade, kept = fades(decay), torch.exp(decay.cumsum(-1))[..., None]
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
        y, memory = _dplr_block([_chunks(x[..., at:at + BLOCK, :]) for x in (q, k, v, a, b, decay)], memory)
        ys.append(y.flatten(-3, -2))
    return scale * torch.cat(ys, -2)[..., :q.shape[-2], :], memory


def _dplr_block(operands, memory):
    """`read`: what each position reads at a, which depends on what earlier ones read: a triangular system for each chunk."""
    q, k, v, a, b, decay = operands
    n, end = q.shape[-2], torch.exp(decay.sum(-2))
    each = torch.eye(n, dtype=q.dtype, device=q.device).expand(*q.shape[:-1], n)
    through_b = _within(a, b, each, decay, None, True)
    wanted = torch.cat([_within(a, k, v, decay, None, True), a * _from_start(decay, True)], -1)
    own, of_memory = torch.linalg.solve_triangular(-through_b, wanted, upper=False, unitriangular=True).split([v.shape[-1], a.shape[-1]], -1)
    left = _to_end(decay)
    added, b_left, met, read = (k * left).mT @ v, (b * left).mT, [], []
    for chunk in range(q.shape[-3]):
        met.append(memory)
        read.append(own[..., chunk, :, :] + of_memory[..., chunk, :, :] @ memory)
        memory = end[..., chunk, :, None] * memory + added[..., chunk, :, :] + b_left[..., chunk, :, :] @ read[-1]
    y = _within(q, k, v, decay, None, False) + _within(q, b, torch.stack(read, -3), decay, None, False)
    return y + (q * _from_start(decay, False)) @ torch.stack(met, -3), memory


@dplr_delta_rule.step
def _dplr_step(q, k, v, a, b, decay, memory, *, scale=1):
    read = a[..., None, :] @ memory
    memory = torch.exp(decay)[..., None] * memory + b[..., :, None] @ read + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory
