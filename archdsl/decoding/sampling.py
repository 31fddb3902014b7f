"""The next token, of the logits of all."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def drawn(logits: Tensor, generator: Any, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """The next tokens, int64 [batch], of logits [batch, vocab]."""
    if temperature == 0:
        return logits.argmax(-1)
    likeliest = logits.amax(-1, keepdim=True)  # so that a temperature close to 0 divides nothing above it
    scaled = (logits - likeliest) / max(temperature, torch.finfo(torch.float32).tiny)
    probabilities = torch.softmax(restricted(scaled, top_k, top_p), -1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def restricted(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits with -inf for every token that is not among the `top_k` likeliest, nor in the smallest set of likeliest ones with probability
    `top_p` (the likeliest token always is). [..., vocab]"""
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, -1).values[..., -1:], float("-inf"))
    if top_p is not None and top_p < 1:
        ordered, places = logits.sort(-1, descending=True)
        probabilities = torch.softmax(ordered, -1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), float("-inf"))
    return logits
