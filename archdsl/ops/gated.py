"""Linear attention, with and without gates: memories of key-value pairs that fade, and that are written over."""
from __future__ import annotations

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

CHUNK = 64
"""Positions that are computed together; between chunks a state is carried."""


def differences(total):
    """exp(total_i - total_j) for j at most i, 0 for later j. `total`: sums of logarithms up to each position, [..., T, …]; none of the differences
    is above 0, so nothing overflows whatever the gates are. [..., T, T, …] for axes behind T as in `total`."""
    n = total.shape[-1]
    later = torch.ones(n, n, dtype=torch.bool, device=total.device).triu(1)
    return torch.exp((total[..., :, None] - total[..., None, :]).masked_fill(later, float("-inf")))


def _macs(q: TensorType, v: TensorType, **_: object):
    """Each position adds one outer product to the memory and reads it once."""
    return 2 * volume(q.shape) * v.shape[-1]


@recurrent("linear_attention(q: [..., T, k], k: [..., T, k], v: [..., T, e], decay: [..., T]? = none, scale: float = 1) -> [..., T, e]",
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
    total = decay.cumsum(-1)
    y = (scores * differences(total)) @ v + (q * torch.exp(total)[..., None]) @ memory
    end = total[..., -1:]
    return y, torch.exp(end)[..., None] * memory + (k * torch.exp(end - total)[..., None]).mT @ v


@linear_attention.step
def _linear_step(q, k, v, decay, memory, *, scale=1):
    kept = memory if decay is None else torch.exp(decay)[..., None, None] * memory
    memory = kept + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory


@recurrent("gla(q: [..., T, k], k: [..., T, k], v: [..., T, e], decay: [..., T, k], scale: float = 1) -> [..., T, e]",
           state={"memory": "f32[..., k, e]"}, roles={"k": "contract"}, source="arxiv 2312.06635, equation 3", macs=_macs,
           samples=lambda: [
               {"q": floats(2, 3, 5, 4), "k": floats(2, 3, 5, 4), "v": floats(2, 3, 5, 3), "decay": floats(2, 3, 5, 4, low=-3, high=-0.01)},
               {"q": floats(1, 1, 4), "k": floats(1, 1, 4), "v": floats(1, 1, 2), "decay": floats(1, 1, 4, low=-9, high=0), "scale": 0.5},
               {"q": floats(67, 3), "k": floats(67, 3), "v": floats(67, 5), "decay": floats(67, 3, low=-30, high=-0.01)}])
def gla(q, k, v, decay, memory, *, scale=1):
    """Gated linear attention: memory ← exp(decay) memory + k vᵀ by row of the memory, y = scale · q memory. `decay` is a logarithm, 0 or below."""
    ys = []
    for at in range(0, q.shape[-2], CHUNK):
        part = slice(at, at + CHUNK)
        y, memory = _gla_chunk(q[..., part, :], k[..., part, :], v[..., part, :], decay[..., part, :], memory)
        ys.append(y)
    return scale * torch.cat(ys, -2), memory


def _gla_chunk(q, k, v, decay, memory):
    """All differences of sums of logarithms are 0 or below, so nothing overflows whatever the gates are."""
    total = decay.cumsum(-2)
    n = q.shape[-2]
    gap = total[..., :, None, :] - total[..., None, :, :]
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()[..., None]
    fade = torch.exp(torch.where(later, gap, float("-inf")))
    scores = torch.einsum("...ik,...jk,...ijk->...ij", q, k, fade)
    y = scores @ v + (q * torch.exp(total)) @ memory
    end = total[..., -1:, :]
    return y, torch.exp(end).mT * memory + (k * torch.exp(end - total)).mT @ v


@gla.step
def _gla_step(q, k, v, decay, memory, *, scale=1):
    memory = torch.exp(decay)[..., None] * memory + k[..., :, None] @ v[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory


# ---------------------------------------------------------------- the delta rule
def _delta_macs(q: TensorType, v: TensorType, **_: object):
    """Each position reads the memory at its key, adds one outer product and reads it at its query."""
    return 3 * volume(q.shape) * v.shape[-1]


@recurrent("delta_rule(q: [..., T, k], k: [..., T, k], v: [..., T, e], beta: [..., T], decay: [..., T]? = none, scale: float = 1) -> [..., T, e]",
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
        y, memory = _delta_chunk(q[..., part, :], k[..., part, :], v[..., part, :], beta[..., part, None], fade.cumsum(-1), memory)
        ys.append(y)
    return scale * torch.cat(ys, -2), memory


def _delta_chunk(q, k, v, beta, total, memory):
    """What each position writes depends on what earlier ones wrote: one triangular system for the whole chunk (the WY form)."""
    fade, kept = differences(total), torch.exp(total)[..., None]
    system = (beta * (k @ k.mT) * fade).tril(-1)
    written = torch.linalg.solve_triangular(system, beta * (v - (k * kept) @ memory), upper=False, unitriangular=True)
    y = (q @ k.mT * fade).tril() @ written + (q * kept) @ memory
    end = total[..., -1:]
    return y, torch.exp(end)[..., None] * memory + (k * torch.exp(end - total)[..., None]).mT @ written


@delta_rule.step
def _delta_step(q, k, v, beta, decay, memory, *, scale=1):
    if decay is not None:
        memory = torch.exp(decay)[..., None, None] * memory
    held = (k[..., None, :] @ memory)[..., 0, :]
    memory = memory + k[..., :, None] @ (beta[..., None] * (v - held))[..., None, :]
    return scale * (q[..., None, :] @ memory)[..., 0, :], memory
