"""Linear attention with gates: memories of key-value pairs that fade."""
from __future__ import annotations

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume

CHUNK = 64
"""Positions that are computed together; between chunks a state is carried."""


def _macs(q: TensorType, v: TensorType, **_: object):
    """Each position adds one outer product to the memory and reads it once."""
    return 2 * volume(q.shape) * v.shape[-1]


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
