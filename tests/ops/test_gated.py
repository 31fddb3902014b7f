"""Linear attention, gated linear attention and the delta rules against their equations, position by position in plain torch; over long sequences
with gates of every size; and what the equations promise of memories."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from archdsl.ops import gated
from archdsl.ops.registry import OPS, find

assert find("gla") is not None  # the families are read
F64 = torch.float64


def stepped(name: str, x: dict[str, torch.Tensor], memory: torch.Tensor, scale: float = 1, before: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the last memory, from the update as it stands in the papers: memory [B, h, k, e]."""
    eye = torch.eye(x["q"].shape[-1], dtype=memory.dtype)
    ys = []
    for t in range(x["q"].shape[2]):
        now = {n: v[:, :, t] for n, v in x.items()}
        q, k, v = now["q"], now["k"], now["v"]
        met = memory
        kv = torch.einsum("bhk,bhe->bhke", k, v)
        if name == "linear_attention":
            memory = memory * now["decay"].exp()[..., None, None] + kv
        elif name == "gla":
            gate = torch.ones_like(memory)
            if "decay" in now:
                gate = gate * now["decay"].exp()[..., :, None]
            if "value_decay" in now:
                gate = gate * now["value_decay"].exp()[..., None, :]
            memory = gate * memory + kv
        elif name == "delta_rule":
            beta, gate = now["beta"][..., None, None], now["decay"].exp()[..., None, None] if "decay" in now else 1
            memory = gate * (eye - beta * torch.einsum("bhi,bhj->bhij", k, k)) @ memory + beta * kv
        else:
            turn = torch.diag_embed(now["decay"].exp()) + torch.einsum("bhi,bhj->bhij", now["b"], now["a"])
            memory = turn @ memory + kv
        ys.append(scale * torch.einsum("bhk,bhke->bhe", q, met if before else memory))
    return torch.stack(ys, 2), memory


def operands(name: str, batch: int, heads: int, T: int, k: int, e: int, low: float = -4.0, of: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Random operands; gates from exp(low) to 1, half of them close to 1."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, heads, T, *shape, generator=g, dtype=F64)

    def gate(*shape: int) -> torch.Tensor:
        u = torch.rand(batch, heads, T, *shape, generator=g, dtype=F64)
        return torch.where(torch.rand(u.shape, generator=g) < 0.5, low * u, -0.01 * u)

    unit = torch.nn.functional.normalize
    x = {"q": normal(k), "k": unit(normal(k), dim=-1), "v": normal(e)}
    more = {"beta": lambda: torch.rand(batch, heads, T, generator=g, dtype=F64), "value_decay": lambda: gate(e),
            "decay": lambda: gate(k) if name in ("gla", "dplr_delta_rule") else gate()}
    if name == "dplr_delta_rule":  # as RWKV-7 has them: what is removed is at most what is there
        x["a"] = -unit(normal(k), dim=-1)
        x["b"] = -x["a"] * torch.rand(x["a"].shape, generator=g, dtype=F64) * 0.9
    return x | {n: more[n]() for n in of}


FORMS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "linear": ("linear_attention", ("decay",), {}),
    "gla": ("gla", ("decay",), {}),
    "gla, read before": ("gla", ("decay",), {"before": True}),
    "gla, gates of values": ("gla", ("value_decay",), {}),
    "gla, both gates": ("gla", ("decay", "value_decay"), {}),
    "delta": ("delta_rule", ("beta",), {}),
    "gated delta": ("delta_rule", ("beta", "decay"), {}),
    "dplr": ("dplr_delta_rule", ("decay",), {}),
}
forms = pytest.mark.parametrize("form", FORMS)


def extended(name: str, x: dict[str, torch.Tensor], memory: torch.Tensor | None, **attributes: Any) -> tuple[torch.Tensor, ...]:
    """(y,) of the op, or (y, memory) of its extension from a memory."""
    op = OPS[name if memory is None else f"{name}_extend"]
    order = [p.name for p in op.decl.params if p.name in ("q", "k", "v", "a", "b", "beta", "decay", "value_decay")]
    found = op.body(*(x.get(n) for n in order), *(() if memory is None else (memory,)), **attributes)
    return found if isinstance(found, tuple) else (found,)


@forms
@pytest.mark.parametrize(("batch", "heads", "T"), [(1, 1, 1), (1, 2, 15), (2, 1, 16), (2, 3, 65), (1, 1, 300)])
def test_equations(form: str, batch: int, heads: int, T: int):
    """Outputs, the last memory and all gradients, from nothing and from a memory, in one call and in two."""
    name, of, attributes = FORMS[form]
    x = operands(name, batch, heads, T, 5, 3, of=of)
    start = torch.randn(batch, heads, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    want, last = stepped(name, x, torch.zeros_like(start), 0.7, **attributes)
    assert want.abs().max() > 0.1 or T == 1 and attributes  # the first position reads nothing before it
    torch.testing.assert_close(extended(name, x, None, scale=0.7, **attributes)[0], want, rtol=1e-10, atol=1e-10)
    leaves = {n: v.clone().requires_grad_() for n, v in x.items()} | {"memory": start.clone().requires_grad_()}
    given = {n: v for n, v in leaves.items() if n != "memory"}
    want, last = stepped(name, given, leaves["memory"], **attributes)
    got, memory = extended(name, given, leaves["memory"], **attributes)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(memory, last, rtol=1e-10, atol=1e-10)
    probe = torch.randn(want.shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    theirs = torch.autograd.grad((want * probe).sum() + last.square().sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    mine = torch.autograd.grad((got * probe).sum() + memory.square().sum(), list(leaves.values()))
    for n, a, b in zip(leaves, mine, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1, b.abs().max().item()), n
    cut = T // 3
    first, middle = extended(name, {n: v[:, :, :cut] for n, v in x.items()}, start, **attributes) if cut else (want[:, :, :0], start)
    second, end = extended(name, {n: v[:, :, cut:] for n, v in x.items()}, middle, **attributes)
    torch.testing.assert_close(torch.cat([first, second], 2), want.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(end, last.detach(), rtol=1e-10, atol=1e-10)


@forms
def test_long_with_extreme_gates(form: str):
    """T = 8,192, gates from exp(-10,000), of another row exp(-30), to nearly 1 side by side: finite, and in float32 the float64 loop to 1e-4."""
    name, of, attributes = FORMS[form]
    rows = [operands(name, 1, 1, 8192, 4, 3, of=of, low=low) for low in (-1e4, -30.0)]
    x = {n: torch.cat([row[n] for row in rows]) for n in rows[0]}
    want, last = stepped(name, x, torch.zeros(2, 1, 4, 3, dtype=F64), **attributes)
    size, kept = (v.abs().amax((1, 2, 3), keepdim=True) for v in (want, last))
    for dtype, within in ((F64, 1e-10), (torch.float32, 1e-4)):
        low_x = {n: v.to(dtype).requires_grad_() for n, v in x.items()}
        got, memory = extended(name, low_x, torch.zeros(2, 1, 4, 3, dtype=dtype), **attributes)
        assert got.isfinite().all() and ((got.double() - want).abs() <= within * size).all()
        assert ((memory.double() - last).abs() <= within * kept.clamp(min=1)).all()
        grads = torch.autograd.grad(got.square().sum() + memory.sum(), list(low_x.values()))
        assert all(d.isfinite().all() for d in grads)


@forms
def test_later_tokens_change_nothing_before(form: str):
    name, of, attributes = FORMS[form]
    x = operands(name, 2, 2, 50, 4, 3, of=of)
    y = extended(name, x, None, **attributes)[0]
    other = {n: torch.cat([v[:, :, :20], 0.5 * v[:, :, 20:]], 2) for n, v in x.items()}
    assert torch.equal(extended(name, other, None, **attributes)[0][:, :, :20], y[:, :, :20])


@forms
@pytest.mark.parametrize("size", [1, 2, 16, 32, 128])
def test_any_chunk(form: str, size: int, monkeypatch: pytest.MonkeyPatch):
    """How many positions go together is no part of the result."""
    name, of, attributes = FORMS[form]
    x = operands(name, 1, 2, 75, 4, 3, of=of)
    start = torch.ones(1, 2, 4, 3, dtype=F64)
    want = extended(name, x, start, **attributes)
    for constant, value in (("CHUNK", size), ("BLOCK", 2 * size)):
        monkeypatch.setattr(gated, constant, value)
    for a, b in zip(extended(name, x, start, **attributes), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_special_cases():
    """No gate is the running sum of k vᵀ; a gate for each head is linear attention with its decay; beta = 0 writes nothing."""
    x = operands("gla", 2, 3, 37, 4, 5)
    sums = torch.einsum("bhtk,bhte->bhtke", x["k"], x["v"]).cumsum(2)
    want = torch.einsum("bhtk,bhtke->bhte", x["q"], sums)
    for found in (extended("gla", x, None), extended("gla", x | {"decay": torch.zeros_like(x["k"])}, None), extended("linear_attention", x, None)):
        torch.testing.assert_close(found[0], want, rtol=1e-10, atol=1e-10)
    rate = -torch.rand(2, 3, 37, dtype=F64)
    by_head = extended("linear_attention", x | {"decay": rate}, None)[0]
    torch.testing.assert_close(extended("gla", x | {"decay": rate[..., None].expand(-1, -1, -1, 4)}, None)[0], by_head, rtol=1e-10, atol=1e-10)
    assert not extended("delta_rule", x | {"beta": torch.zeros(2, 3, 37, dtype=F64)}, None)[0].any()


def test_delta_rule_recalls():
    """Orthonormal keys with beta = 1: each key gives back its value, and the value written last where a key was written again."""
    k = torch.linalg.qr(torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(3)))[0]
    v = torch.randn(8, 3, dtype=F64, generator=torch.Generator().manual_seed(4))
    keys = torch.cat([k, k[2:4]])[None, None]
    x = {"q": keys, "k": keys, "v": v[None, None], "beta": torch.ones(1, 1, 8, dtype=F64)}
    _, memory = extended("delta_rule", x, torch.zeros(1, 1, 6, 3, dtype=F64))
    expected = torch.cat([v[:2], v[6:8], v[4:6]])
    torch.testing.assert_close(k @ memory[0, 0], expected, rtol=1e-10, atol=1e-10)


def test_dplr_is_the_gated_delta_rule():
    """a = -exp(decay) k, b = beta k, and beta k in the place of k."""
    x = operands("delta_rule", 2, 2, 40, 4, 3, of=("beta", "decay"))
    gate, beta = x["decay"][..., None], x["beta"][..., None]
    as_dplr = {"q": x["q"], "k": beta * x["k"], "v": x["v"], "a": -gate.exp() * x["k"], "b": beta * x["k"], "decay": gate.expand_as(x["k"])}
    torch.testing.assert_close(extended("dplr_delta_rule", as_dplr, None)[0], extended("delta_rule", x, None)[0], rtol=1e-10, atol=1e-10)
