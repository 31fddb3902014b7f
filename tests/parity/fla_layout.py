"""Decoders with the weights of flash-linear-attention's DeltaNet and GLA models under their names, in plain torch: every recurrence position by
position as the papers write it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(i: int, o: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(i, o, bias=bias)


class Conv(nn.Conv1d):
    """Each channel's last `kernel` positions, [B, T, c] -> [B, T, c]."""

    def __init__(self, c: int, kernel: int = 4):
        super().__init__(c, c, kernel, groups=c, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input.transpose(1, 2), (self.kernel_size[0] - 1, 0))).transpose(1, 2)


class DeltaNet(nn.Module):
    def __init__(self, d: int, heads: int, eps: float, act: str = "silu", qk_norm: str = "l2", beta: bool = True, negative: bool = False,
                 gate: bool = False, conv: int | None = 4):
        super().__init__()
        self.heads, self.act, self.qk_norm, self.negative = heads, act, qk_norm, negative
        for name in "qkv":
            self.add_module(f"{name}_proj", linear(d, d))
            self.add_module(f"{name}_conv1d", nn.Identity() if conv is None else Conv(d, conv))
        self.b_proj = linear(d, heads) if beta else None
        self.g_proj = linear(d, d) if gate else None
        self.o_norm = nn.RMSNorm(d // heads, eps)
        self.o_proj = linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = (split(getattr(self, f"{n}_conv1d")(getattr(self, f"{n}_proj")(x))) for n in "qkv")
        acts = {"silu": F.silu, "relu": F.relu, "elu": lambda y: F.elu(y) + 1, "identity": lambda y: y}
        q, k, v = acts[self.act](q), acts[self.act](k), F.silu(v)
        norms = {"l2": lambda y: y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt(), "sum": lambda y: y / y.sum(-1, keepdim=True)}
        q, k = norms[self.qk_norm](q), norms[self.qk_norm](k)
        beta = torch.ones_like(q[..., 0]) if self.b_proj is None else self.b_proj(x).sigmoid().transpose(1, 2)
        if self.negative:
            beta = 2 * beta
        q = q / q.shape[-1] ** 0.5
        state = x.new_zeros(x.shape[0], self.heads, k.shape[-1], v.shape[-1])
        out = []
        for t in range(x.shape[1]):
            error = v[:, :, t] - torch.einsum("bhke,bhk->bhe", state, k[:, :, t])
            state = state + torch.einsum("bhk,bhe->bhke", k[:, :, t], beta[:, :, t, None] * error)
            out.append(torch.einsum("bhke,bhk->bhe", state, q[:, :, t]))
        y = self.o_norm(torch.stack(out, 1))
        if self.g_proj is not None:
            y = y * F.silu(self.g_proj(x).unflatten(-1, (self.heads, -1)))
        return self.o_proj(y.flatten(2))


class GatedLinearAttention(nn.Module):
    def __init__(self, d: int, heads: int, eps: float, kv_heads: int | None = None, feature: str = "identity", conv: int | None = None,
                 least: float | None = None, gate: bool = True, gate_bias: bool = False, head_norm: str = "rms", tau: float = 16.0):
        super().__init__()
        kv = kv_heads or heads
        self.heads, self.times, self.feature, self.least, self.tau = heads, heads // kv, feature, least, tau
        self.k_dim, self.v_dim = d // 2 // heads, d // heads
        widths = {"q": heads * self.k_dim, "k": kv * self.k_dim, "v": kv * self.v_dim}
        for name, w in widths.items():
            self.add_module(f"{name}_proj", linear(d, w))
            if conv:
                self.add_module(f"{name}_conv1d", Conv(w, conv))
        self.conv = conv
        self.gk_proj = nn.Sequential(linear(d, 16), linear(16, widths["k"], bias=True))
        self.g_proj = linear(d, d, bias=gate_bias) if gate else None
        norm = nn.RMSNorm(self.v_dim, eps) if head_norm == "rms" else nn.LayerNorm(self.v_dim, eps, elementwise_affine=False)
        self.add_module("g_norm_swish_gate" if gate else "g_norm", norm)
        self.o_proj = linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        def heads(name: str, width: int) -> Tensor:
            y = getattr(self, f"{name}_proj")(x)
            if self.conv:
                y = F.silu(getattr(self, f"{name}_conv1d")(y))
            return y.unflatten(-1, (-1, width))

        acts = {"identity": lambda y: y, "relu": F.relu}
        q, k, v = acts[self.feature](heads("q", self.k_dim)), acts[self.feature](heads("k", self.k_dim)), heads("v", self.v_dim)
        rate = F.logsigmoid(self.gk_proj(x)).unflatten(-1, (-1, self.k_dim)) / self.tau
        if self.least is not None:
            rate = rate.clamp_min(self.least)
        k, v, rate = (y[:, :, [h // self.times for h in range(self.heads)]] for y in (k, v, rate))
        state = x.new_zeros(x.shape[0], self.heads, self.k_dim, self.v_dim)
        out = []
        for t in range(x.shape[1]):
            state = rate[:, t].exp()[..., None] * state + k[:, t, :, :, None] * v[:, t, :, None, :]
            out.append(torch.einsum("bhk,bhke->bhe", q[:, t], state) / self.k_dim**0.5)
        norm = getattr(self, "g_norm_swish_gate" if self.g_proj is not None else "g_norm")
        y = norm(torch.stack(out, 1)).flatten(2)
        return self.o_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x)))


class Attention(nn.Module):
    """Causal softmax attention with rotary positions over the last `span` keys."""

    def __init__(self, d: int, heads: int, span: int | None):
        super().__init__()
        self.heads, self.span = heads, span
        for name in "qkvo":
            self.add_module(f"{name}_proj", linear(d, d))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.get_submodule(f"{n}_proj")(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for n in "qkv")
        n = torch.arange(x.shape[1])
        far = n[:, None] - n
        hidden = (far < 0) | (far >= (self.span or len(n)))
        scores = (rope(q) @ rope(k).mT / q.shape[-1] ** 0.5).masked_fill(hidden, float("-inf"))
        return self.get_submodule("o_proj")((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def rope(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Pairs (i, i + w/2) of [..., T, w] turned by position · base^(-2i/w)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle).to(torch.complex(x, x).dtype)
    return torch.cat([turned.real, turned.imag], -1)


class MLP(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(d, hidden), linear(d, hidden), linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, d: int, hidden: int, eps: float, mixer: nn.Module):
        super().__init__()
        self.attn_norm, self.mlp_norm, self.attn, self.mlp = nn.RMSNorm(d, eps), nn.RMSNorm(d, eps), mixer, MLP(d, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """[B, T] of tokens -> logits [B, T, vocab]."""

    def __init__(self, vocab: int, d: int, hidden: int, mixers: Sequence[nn.Module], eps: float = 1e-6, tie: bool = False):
        super().__init__()
        layers = nn.ModuleList(Layer(d, hidden, eps, m) for m in mixers)
        self.model: Any = nn.ModuleDict({"embeddings": nn.Embedding(vocab, d), "layers": layers, "norm": nn.RMSNorm(d, eps)})
        self.lm_head = linear(d, vocab)
        if tie:
            self.lm_head.weight = self.model["embeddings"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.model["embeddings"](tokens)
        for layer in self.model["layers"]:
            x = layer(x)
        return self.lm_head(self.model["norm"](x))
