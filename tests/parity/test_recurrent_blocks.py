"""The library's recurrent mixers against their equations in plain torch, with gradients of the input and of every weight; all forms of each; both
directions and windows; gated DeltaNet against transformers' layer."""
from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.fla_layout import rope
from tests.parity.proof import EXACT, relative
from tests.streaming.forms import agree, shaken

F64 = torch.float64
Weights = dict[str, torch.Tensor]
LIBRARY = {"std.recurrent": "Bidirectional DeltaNet GatedDeltaNet GatedLinearAttention GatedSlotAttention LinearAttention Retention ShortConv",
           "std.rwkv": "ChannelMix RWKV6 RWKV7"}


def spec_of(expression: str, d: int = 12) -> archdsl.Spec:
    body = expression if "return" in expression else f"return {expression} as mix"
    uses = "".join(f"use {module} {{ {n} }}\n" for module, names in LIBRARY.items() for n in names.split() if re.search(rf"\b{n}\(", body))
    return archdsl.loads(f"{uses}model M(d: int = {d})(x: [B = 2, T = 5, d]) -> y: [B, T, d] stream T {{\n  {body}\n}}\n", "blocks.arch")


def heads(w: Weights, name: str, x: torch.Tensor, n: int, act: Callable[[torch.Tensor], torch.Tensor] = lambda y: y) -> torch.Tensor:
    """[B, n, T, width] of the map `name`, through its convolution if there is one."""
    y = F.linear(x, w[f"{name}.weight"])
    if f"{name}.conv.weight" in w:
        kernel = w[f"{name}.conv.weight"]
        long = F.pad(y, (0, 0, kernel.shape[1] - 1, 0))
        y = torch.stack([long[:, j:j + y.shape[1]] * kernel[:, j] for j in range(kernel.shape[1])]).sum(0)
    return act(y).unflatten(-1, (n, -1)).transpose(1, 2)


def merged(y: torch.Tensor) -> torch.Tensor:
    return y.transpose(1, 2).flatten(2)


def rms(y: torch.Tensor, weight: torch.Tensor | float = 1.0, eps: float = 1e-5) -> torch.Tensor:
    return y / (y.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def fold(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, update: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """q_t S_t with S_t = update(t, S_(t-1))."""
    state, ys = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        state = update(t, state)
        ys.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(ys, 2)


def outer(a: torch.Tensor, b: torch.Tensor, t: int) -> torch.Tensor:
    return a[:, :, t, :, None] * b[:, :, t, None]


def linear_attention(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, h) for n, h in (("q", 4), ("k", 2), ("v", 2)))
    k, v = (y.repeat_interleave(2, 1) for y in (k, v))
    scores = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril()
    return F.linear(merged(scores @ v / (scores.sum(-1, keepdim=True) + 1e-6)), w["mix.out.weight"])


def retention(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, 2) for n in "qkv")
    n = torch.arange(x.shape[1], dtype=F64)
    gap = n[:, None] - n
    rate = torch.stack([(1 - 2.0 ** (-5 - h)) ** gap.clamp_min(0) for h in range(2)]).tril()
    y = rms((rope(q) @ rope(k).mT * rate / q.shape[-1] ** 0.5) @ v)
    return F.linear(merged(y) * F.silu(F.linear(x, w["mix.gate.weight"])), w["mix.out.weight"])


def gla(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, h, F.silu) for n, h in (("q", 3), ("k", 1), ("v", 1)))
    u = F.linear(F.linear(x, w["mix.rate.down.weight"]), w["mix.rate.up.weight"], w["mix.rate.up.bias"])
    gate = (u.sigmoid() ** (1 / 4)).clamp_min(math.exp(-0.3)).unflatten(-1, (1, -1)).transpose(1, 2)
    q, k, v, gate = (y.expand(-1, 3, -1, -1) for y in (q, k, v, gate))
    y = fold(q, k, v, lambda t, s: gate[:, :, t, :, None] * s + outer(k, v, t)) / q.shape[-1] ** 0.5
    return F.linear(merged(rms(y, w["mix.out_norm.weight"])) * F.silu(F.linear(x, w["mix.gate.weight"])), w["mix.out.weight"])


def delta_net(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, 3, F.silu) for n in "qkv")
    q, k = (y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
    beta = 2 * F.linear(x, w["mix.beta.weight"]).sigmoid().transpose(1, 2)[..., None, None]
    y = fold(q, k, v, lambda t, s: s - beta[:, :, t] * k[:, :, t, :, None] @ (k[:, :, t, None] @ s) + beta[:, :, t] * outer(k, v, t))
    y = y / q.shape[-1] ** 0.5
    return F.linear(merged(rms(y, w["mix.out_norm.weight"])), w["mix.out.weight"])


def gated_delta_net(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, h, F.silu) for n, h in (("q", 2), ("k", 2), ("v", 4)))
    q, k = ((y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt()).repeat_interleave(2, 1) for y in (q, k))
    beta = F.linear(x, w["mix.beta.weight"]).sigmoid().transpose(1, 2)[..., None, None]
    gate = (-w["mix.A_log"].exp() * F.softplus(F.linear(x, w["mix.rate.weight"]) + w["mix.dt_bias"])).exp().transpose(1, 2)[..., None, None]

    def update(t: int, s: torch.Tensor) -> torch.Tensor:
        s = gate[:, :, t] * s
        return s + beta[:, :, t] * k[:, :, t, :, None] @ (v[:, :, t, None] - k[:, :, t, None] @ s)

    y = rms(fold(q, k, v, update) / q.shape[-1] ** 0.5, w["mix.out_norm.weight"])
    return F.linear(merged(y) * F.silu(F.linear(x, w["mix.gate.weight"])), w["mix.out.weight"])


def gated_slots(w: Weights, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(w, f"mix.{n}", x, h, F.silu) for n, h in (("q", 4), ("k", 2), ("v", 2)))
    keep = (heads(w, "mix.rate", x, 2).sigmoid() ** (1 / 8)).repeat_interleave(2, 1)
    k, v = (y.repeat_interleave(2, 1) for y in (k, v))
    K, V, ys = q.new_zeros(*q.shape[:2], 5, 3), q.new_zeros(*q.shape[:2], 5, 3), []
    for t in range(x.shape[1]):
        a = keep[:, :, t, :, None]
        K, V = a * K + (1 - a) * k[:, :, t, None], a * V + (1 - a) * v[:, :, t, None]
        ys.append((torch.softmax((K * q[:, :, t, None]).sum(-1), -1)[..., None] * V).sum(-2))
    return F.linear(rms(F.silu(merged(torch.stack(ys, 2))), w["mix.out_norm.weight"]), w["mix.out.weight"])


def previous(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (0, 0, 1, 0))[:, :-1] - x


def group_norm(w: Weights, at: str, y: torch.Tensor) -> torch.Tensor:
    flat = merged(y).flatten(0, 1)
    return F.group_norm(flat, y.shape[1], w[f"{at}.weight"], w[f"{at}.bias"], 64e-5).view(y.shape[0], y.shape[2], -1)


def low_rank(w: Weights, at: str, x: torch.Tensor, act: Callable[[torch.Tensor], torch.Tensor] = lambda y: y) -> torch.Tensor:
    return F.linear(act(F.linear(x, w[f"{at}.down.weight"])), w[f"{at}.up.weight"], w.get(f"{at}.up.bias"))


def rwkv6(w: Weights, x: torch.Tensor) -> torch.Tensor:
    xx, n = previous(x), x.shape[-1] // 4
    low = torch.tanh(F.linear(x + xx * w["mix.mix_all"], w["mix.mix_down.weight"])).unflatten(-1, (5, -1))
    xw, xk, xv, xr, xg = (x + xx * (w["mix.mix"][i] + low[:, :, i] @ w["mix.mix_up"][i]) for i in range(5))
    k, v, r = (heads(w, f"mix.{name}", y, n) for name, y in (("k", xk), ("v", xv), ("r", xr)))
    keep = (-(w["mix.decay_base"] + low_rank(w, "mix.decay", xw, torch.tanh)).exp()).exp().unflatten(-1, (n, -1)).transpose(1, 2)
    state, ys = x.new_zeros(x.shape[0], n, 4, 4), []
    for t in range(x.shape[1]):
        kv = outer(k, v, t)
        ys.append((r[:, :, t, None] @ (state + w["mix.bonus"][:, :, None] * kv))[:, :, 0])
        state = keep[:, :, t, :, None] * state + kv
    return F.linear(group_norm(w, "mix.out_norm", torch.stack(ys, 2)) * F.silu(F.linear(xg, w["mix.gate.weight"])), w["mix.out.weight"])


def rwkv7(w: Weights, at: str, x: torch.Tensor, first: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    xx, n = previous(x), x.shape[-1] // 4
    xr, xw, xk, xv, xa, xg = (x + xx * w[f"{at}.mix"][i] for i in range(6))
    r, k, v = (F.linear(y, w[f"{at}.{name}.weight"]) for name, y in (("r", xr), ("k", xk), ("v", xv)))
    soft = -F.softplus(-low_rank(w, f"{at}.decay", xw, torch.tanh)) - 0.5
    keep = (-soft.exp()).exp()
    if first is not None:
        v = torch.lerp(v, first, low_rank(w, f"{at}.value", xv).sigmoid())
    a, gate = low_rank(w, f"{at}.rate", xa).sigmoid(), low_rank(w, f"{at}.gate", xg, torch.sigmoid)
    split = lambda y: y.unflatten(-1, (n, -1)).transpose(1, 2)
    kappa = F.normalize(split(k * w[f"{at}.removed"]), dim=-1)
    k = split(k * (1 + (a - 1) * w[f"{at}.kept"]))
    r, vs, a, keep = split(r), split(v), split(a), split(keep)
    y = fold(r, k, vs, lambda t, s: keep[:, :, t, :, None] * s - (a * kappa)[:, :, t, :, None] @ (kappa[:, :, t, None] @ s) + outer(k, vs, t))
    own = (r * k * w[f"{at}.bonus"][:, None]).sum(-1, keepdim=True) * vs
    return F.linear((group_norm(w, f"{at}.out_norm", y) + merged(own)) * gate, w[f"{at}.out.weight"]), v


def two_rwkv7(w: Weights, x: torch.Tensor) -> torch.Tensor:
    y, first = rwkv7(w, "one", x, None)
    return rwkv7(w, "two", x + y, first)[0]


def channel_mix(w: Weights, x: torch.Tensor) -> torch.Tensor:
    xx = previous(x)
    y = F.linear(F.relu(F.linear(x + xx * w["mix.mix"], w["mix.up.weight"])) ** 2, w["mix.down.weight"])
    return y * F.linear(x + xx * w["mix.gate_mix"], w["mix.gate.weight"]).sigmoid()


RWKV7S = "y, first = RWKV7(4, 3, 2, 3, 5)(x) as one\n  y, _ = RWKV7(4, 3, 2, 3, 5)(x + y, first) as two\n  return y"
BLOCKS: dict[str, tuple[str, Callable[[Weights, torch.Tensor], torch.Tensor]]] = {
    "linear attention": ("LinearAttention(4, 2)(x)", linear_attention),
    "retention": ("Retention(2)(x)", retention),
    "gla": ("GatedLinearAttention(3, 1, rank = 5, tau = 4, conv = ShortConv(3), least = -0.3)(x)", gla),
    "delta net": ("DeltaNet(3, negative = true)(x)", delta_net),
    "gated delta net": ("GatedDeltaNet(2, 4, 5, 3)(x)", gated_delta_net),
    "gated slots": ("GatedSlotAttention(4, 2, slots = 5)(x)", gated_slots),
    "rwkv6": ("RWKV6(4, 3, 5)(x)", rwkv6),
    "rwkv7": (RWKV7S, two_rwkv7),
    "channel mix": ("ChannelMix(16, gate = true)(x)", channel_mix),
}
blocks = pytest.mark.parametrize("block", BLOCKS)


def compare(model: Any, x: torch.Tensor, reference: Callable[[Weights, torch.Tensor], torch.Tensor]) -> None:
    """Values, and the gradients of the input and of every weight."""
    x = x.clone().requires_grad_()
    w = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    got, want = model(x), reference(w, x)
    assert want.abs().max() > 1e-3 and relative(got, want) <= EXACT
    probe = torch.randn(want.shape, dtype=F64, generator=torch.Generator().manual_seed(5))
    mine = torch.autograd.grad((got * probe).sum(), [x, *model.parameters()], allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad((want * probe).sum(), [x, *w.values()], allow_unused=True, materialize_grads=True)
    largest = max(g.abs().max().item() for g in theirs)
    for name, a, b in zip(["x", *w], mine, theirs, strict=True):
        assert (a - b).abs().max() <= EXACT * largest, name


def drawn(batch: int, T: int, d: int = 12) -> torch.Tensor:
    return torch.randn(batch, T, d, dtype=F64, generator=torch.Generator().manual_seed(1))


@blocks
@pytest.mark.parametrize(("batch", "T"), [(1, 1), (3, 37)])
def test_equations(block: str, batch: int, T: int):
    expression, reference = BLOCKS[block]
    compare(shaken(spec_of(expression).build(dtype=F64)), drawn(batch, T), reference)


@blocks
def test_forms(block: str):
    agree(spec_of(BLOCKS[block][0]), T=37)


@blocks
def test_in_float32(block: str):
    agree(spec_of(BLOCKS[block][0]), T=21, dtype=torch.float32, within=1e-4)


@blocks
def test_packed(block: str):
    """Documents behind each other give what each gives alone."""
    spec, lengths = spec_of(BLOCKS[block][0]), [4, 1, 19]
    whole, packed = shaken(spec.build(dtype=F64)).eval(), spec.build(dtype=F64, form="packed").eval()
    packed.load_state_dict(whole.state_dict())
    x = drawn(2, sum(lengths))
    assert relative(packed(x, torch.tensor(lengths)), torch.cat([whole(part) for part in x.split(lengths, 1)], 1)) <= EXACT


def test_both_directions():
    """Ahead and back with weights of their own: the back one is the same mixer on the input turned round; no form of it goes on from a state."""
    spec = spec_of("Bidirectional(GatedLinearAttention(2) as on, GatedLinearAttention(2) as back)(x)")
    one = spec_of("GatedLinearAttention(2)(x)")
    both, alone = shaken(spec.build(dtype=F64)), one.build(dtype=F64)
    x = drawn(2, 21)
    total = torch.zeros_like(x)
    for name, turn in (("on", lambda y: y), ("back", lambda y: y.flip(1))):
        mine = {k: v for k, v in both.state_dict().items() if f".{name}." in k}
        alone.load_state_dict(dict(zip(alone.state_dict(), mine.values(), strict=True)))
        total = total + turn(alone(turn(x)))
    assert relative(both(x), total) <= EXACT
    late = x.clone()
    late[:, 15:] += 1
    assert (both(late) - both(x))[:, :15].abs().min() > 0  # every position sees later ones
    with pytest.raises(archdsl.ArchError, match="flip"):
        spec.cost(form="step")


def test_gated_delta_net_is_transformers(monkeypatch):
    """OLMo's hybrid layer, which keeps its gates and its rule in float32. Where flash-linear-attention is installed transformers calls its kernels,
    which no CPU can run: the formula in plain torch stands beneath."""
    modeling = pytest.importorskip("transformers.models.olmo_hybrid.modeling_olmo_hybrid", reason="transformers is in the `parity` extra")
    for name, function in list(vars(modeling).items()):
        if name.startswith("torch_") and hasattr(function, "__wrapped__"):
            monkeypatch.setattr(modeling, name, function.__wrapped__)
    config = modeling.OlmoHybridConfig(hidden_size=24, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=5,
                                       linear_value_head_dim=7, linear_allow_neg_eigval=True, num_hidden_layers=4, num_attention_heads=2,
                                       num_key_value_heads=2)
    peer = modeling.OlmoHybridGatedDeltaNet(config, 0).eval()
    ours = spec_of("GatedDeltaNet(2, head_dim = 5, value_dim = 7, negative = true)(x)", d=24).build().eval()
    w = {k: v + 0.1 * torch.randn(v.shape, generator=torch.Generator().manual_seed(2)) for k, v in peer.state_dict().items()}
    peer.load_state_dict(w)
    convs = dict(zip("qkv", w["conv1d.weight"][:, 0].split([10, 10, 14])))
    mine = {f"mix.{n}.conv.weight": c for n, c in convs.items()} | {f"mix.{n}": w[n] for n in ("A_log", "dt_bias")}
    theirs = {"q": "q", "k": "k", "v": "v", "beta": "b", "rate": "a", "gate": "g", "out": "o"}
    mine |= {f"mix.{n}.weight": w[f"{m}_proj.weight"] for n, m in theirs.items()} | {"mix.out_norm.weight": w["o_norm.weight"]}
    ours.load_state_dict(mine)
    x = drawn(2, 70, 24).float()
    with torch.no_grad():
        assert relative(ours(x), peer(x)) <= 1e-5
