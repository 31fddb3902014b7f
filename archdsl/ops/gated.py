"""Linear attention, with and without gates: memories of key-value pairs that fade, and that are written over."""
from __future__ import annotations

from itertools import repeat

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.gates import below, halves, left, length, padded, twice
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

CHUNK = 64
"""Positions that are computed together, a power of two; between chunks a state is carried."""
BLOCK = 512
"""Positions whose chunks are held at a time, whole chunks."""


def _blocks(*operands):
    """[..., T, c] in blocks of `BLOCK` positions, and these as chunks of one length, a power of two, [..., chunks, length, c]; zeros behind the end
    change no state. Gates for each position, [..., T], get an axis of 1. None stays None."""
    n = operands[0].shape[-2]
    size = length(n, CHUNK)
    split = [[None] * -(-n // BLOCK) if x is None else x.split(BLOCK, -2) for x in operands]  # as slices, each would have a gradient of n positions
    for parts in zip(*split, strict=True):
        missing = -parts[0].shape[-2] % size
        yield [None if x is None else (padded(x, 0, missing) if missing else x).unflatten(-2, (-1, size)) for x in parts]


def _joined(ys, like):
    """The results of all blocks behind each other, as many as there are positions."""
    return torch.cat([y.flatten(-3, -2) for y in ys], -2)[..., :like.shape[-2], :]


def _scores(q, k, decay, before):
    """q_i · a_ij k_j for earlier positions j of a chunk, where a is what gates leave on the way, and for i itself but for `before`, [..., i, j];
    q times what they leave from the start of the chunk, k times what they leave to its end, and what they leave of a whole chunk (None: all).
    Halves of halves: the way from a left half into a right one leads over its end."""
    if decay is None:
        return (q @ k.mT).tril(-1 if before else 0), q, k, None
    total = torch.exp(decay)
    scores = (q.new_zeros(*k.shape[:-1], 1) if before else (q * k).sum(-1, keepdim=True))[..., None]
    q = q if before else q * total
    half = 1
    while half < q.shape[-2]:
        (keys, _), (_, queries) = halves(k, half), halves(q, half)
        found = queries @ keys.mT
        near, far = scores.unflatten(-3, (-1, 2)).unbind(-3)
        scores = below(near, far, found)
        q, k, total = twice(q, k, total, half)
        half *= 2
    return scores[..., 0, :, :], q, k, total[..., 0, :]


def _values(q, k, v, decay, value_decay, before):
    """Σ_j (q_i · a_ij k_j) b_ij v_j, with b for gates of the values; q, k and the whole as `_scores` gives them, and the same of the values."""
    y = torch.zeros_like(v) if before else (q * k).sum(-1, keepdim=True) * v
    row, column = None if decay is None else torch.exp(decay), torch.exp(value_decay)
    out = torch.ones_like(column) if before else column
    q = q if row is None or before else q * row
    half = 1
    while half < q.shape[-2]:
        (keys, _), (values, _), (_, queries), (_, kept), (near, far) = (halves(x, half) for x in (k, v, q, out, y))
        y = torch.stack([near, far + queries @ keys.mT @ values * kept], -3).flatten(-4, -2)
        if row is not None:
            q, k, row = twice(q, k, row, half)
        out, v, column = twice(out, v, column, half)
        half *= 2
    return y, q, k, v, out, None if row is None else row[..., 0, :], column[..., 0, :]


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
    for block in _blocks(q, k, v, None if decay is None else decay[..., None]):
        y, memory = _linear_block(block, memory)
        ys.append(y)
    return scale * _joined(ys, v), memory


def _linear_block(block, memory):
    q, k, v, decay = block
    if decay is None:
        met, memory = _carried(k.mT @ v, None, memory)
        return (q @ k.mT).tril() @ v + q @ met, memory
    pairs, start, end, total = left(decay[..., 0])
    met, memory = _carried(k.mT @ (v * end[..., None]), total[..., None], memory)
    return ((k @ q.mT).mT * pairs) @ v + q @ met * start[..., None], memory


def _carried(added, kept, memory):
    """The memory in front of each chunk, and the last: each chunk leaves `kept` of it (None: all) and adds to it."""
    met = []
    for own, left_of_it in zip(added.unbind(-3), repeat(None) if kept is None else kept.unbind(-3)):
        met.append(memory)
        memory = (memory if left_of_it is None else left_of_it * memory) + own
    return torch.stack(met, -3), memory


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
    for block in _blocks(q, k, v, decay, value_decay):
        y, memory = _gla_block(block, memory, before)
        ys.append(y)
    return scale * _joined(ys, v), memory


def _gla_block(block, memory, before):
    """Pairs of positions within a chunk, then what each chunk reads of the memory that those in front of it left."""
    q, k, v, decay, value_decay = block
    if value_decay is None:
        scores, q, k, row = _scores(q, k, decay, before)
        met, memory = _carried(k.mT @ v, None if row is None else row[..., None], memory)
        return scores @ v + q @ met, memory
    y, q, k, v, out, row, column = _values(q, k, v, decay, value_decay, before)
    kept = column[..., None, :] if row is None else row[..., None] * column[..., None, :]
    met, memory = _carried(k.mT @ v, kept, memory)
    return y + q @ met * out, memory


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
    for block in _blocks(q, k, v, beta[..., None], None if decay is None else decay[..., None]):
        y, memory = _delta_block(block, memory)
        ys.append(y)
    return scale * _joined(ys, v), memory


def _delta_block(block, memory):
    """What each position writes depends on what earlier ones wrote: one triangular system for each chunk (the WY form), solved for what is written
    without a memory, and for what is taken of it for each of its rows."""
    q, k, v, beta, decay = block
    weighted = beta * k
    system, read = (k @ weighted.mT).mT, (k @ q.mT).mT
    if decay is None:
        system, read, faded, end = system.tril(-1), read.tril(), k, None
    else:
        pairs, start, to_end, total = left(decay[..., 0])
        system, read = (system * pairs).tril(-1), read * pairs
        q, weighted, faded, end = q * start[..., None], weighted * start[..., None], k * to_end[..., None], total[..., None]
    solved = torch.linalg.solve_triangular(system, torch.cat([beta * v, weighted], -1), upper=False, unitriangular=True)
    new, taken = solved.split([v.shape[-1], k.shape[-1]], -1)
    met, written = [], []
    for own, of_memory, keys, kept in zip(*(x.unbind(-3) for x in (new, taken, faded.mT)), repeat(None) if end is None else end.unbind(-3)):
        met.append(memory)
        written.append(own - of_memory @ memory)
        memory = (memory if kept is None else kept * memory) + keys @ written[-1]
    return read @ torch.stack(written, -3) + q @ torch.stack(met, -3), memory


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
    for block in _blocks(q, k, v, a, b, decay):
        y, memory = _dplr_block(block, memory)
        ys.append(y)
    return scale * _joined(ys, v), memory


def _dplr_block(block, memory):
    """`read`: what each position reads at a, which depends on what earlier ones read: a triangular system for each chunk."""
    q, k, v, a, b, decay = block
    (through_b, through_k), (from_start,), (b_left, k_left), _ = _scores(a[None], torch.stack([b, k]), decay[None], True)
    end = torch.exp(decay.sum(-2))[..., None]
    wanted = torch.cat([through_k @ v, from_start], -1)
    own, of_memory = torch.linalg.solve_triangular(-through_b, wanted, upper=False, unitriangular=True).split([v.shape[-1], a.shape[-1]], -1)
    met, read = [], []
    for first, more, kept, added, by_read in zip(*(x.unbind(-3) for x in (own, of_memory, end, k_left.mT @ v, b_left.mT))):
        met.append(memory)
        read.append(first + more @ memory)
        memory = kept * memory + added + by_read @ read[-1]
    (of_b, of_k), (queries,), _, _ = _scores(q[None], torch.stack([b, k]), decay[None], False)
    return of_k @ v + of_b @ torch.stack(read, -3) + queries @ torch.stack(met, -3), memory


@dplr_delta_rule.step
def _dplr_step(q, k, v, a, b, decay, memory, *, scale=1):
    read = a[..., None, :] @ memory
    memory = torch.exp(decay)[..., None] * memory + b[..., :, None] @ read + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory
