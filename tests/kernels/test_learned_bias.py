"""Attention with a bias that learns, compiled for a CPU: torch's numbers and gradients, no more kept for the backward pass, and torch's own function
where something else looks on."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.kernels import eager, learned_bias

SPEC = archdsl.loads("""use std { WindowAttention }
model M(shift: int = 0, c: int = 6)(x: [B, H, W, c]) -> [B, H, W, c] { return WindowAttention(2, [3, 4], [shift, 0])(x) as attn }
""")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the biases that are taken."""
    seen: list[tuple[int, ...]] = []
    attend = learned_bias.attend

    def noted(q: Any, k: Any, v: Any, bias: Any, scale: Any) -> Any:
        seen.append(tuple(bias.shape))
        return attend(q, k, v, bias, scale)

    monkeypatch.setattr(learned_bias, "attend", noted)
    return seen


def given(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def compiled(f: Any, backend: Any = "aot_eager", **options: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize(("shapes", "dynamic"), [(((1, 2, 5, 7), (3, 2, 5, 7), (5, 7), (3, 1, 1, 7)), False), (((1, 2, 5, 7),), True)])
def test_numbers_and_gradients(calls: list[tuple[int, ...]], shapes: tuple[tuple[int, ...], ...], dynamic: bool):
    """By biases of several shapes, and by those with -inf, of which some rows have nothing else: their results and gradients are 0."""
    q, k, v = given(3, 2, 5, 4), given(3, 2, 7, 4, seed=1), given(3, 2, 7, 6, seed=2)
    tables = [given(*shape, seed=i) for i, shape in enumerate(2 * shapes)]
    with torch.no_grad():
        for table in tables[len(shapes):]:
            table[..., 0, :] = table[..., ::2] = -torch.inf
    leaves = (q, k, v, *tables)
    found = compiled(lambda *x: [eager.scaled_dot_product_attention(*x[:3], attn_mask=1 * b, scale=0.3) for b in x[3:]], dynamic=dynamic)(*leaves)
    assert calls == [*shapes, *shapes]
    wanted = [F.scaled_dot_product_attention(q, k, v, attn_mask=b, scale=0.3) for b in tables]
    assert all(torch.equal(y[:, :, 0], torch.zeros_like(y[:, :, 0])) for y in found[len(shapes):])
    grads = []
    for ys in (found, wanted):
        grads.append(torch.autograd.grad(ys, leaves, [given(*y.shape, seed=20 + i).detach() for i, y in enumerate(ys)]))
    for mine, theirs in zip([*found, *grads[0]], [*wanted, *grads[1]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0, 1])
def test_models(calls: list[tuple[int, ...]], shift: int):
    """The scores of a model are kept once, as torch keeps them; what its bias is made of is computed for a place in memory, or the sum is where the
    bias has a mask for each window."""
    from functorch.compile import make_boxed_func  # pyright: ignore[reportPrivateImportUsage]
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    model, plain = (SPEC.build(knobs={"shift": shift}, dtype=torch.float64, kernels=k) for k in (None, {"attention": "reference"}))
    for p in model.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))
    plain.load_state_dict(model.state_dict())
    kept: list[list[tuple[int, ...]]] = []
    placed: list[list[tuple[int, ...]]] = []

    def forward(graph: torch.fx.GraphModule, _: Any) -> Any:
        results: Any = graph.graph.output_node().args[0]
        kept.append(sorted(tuple(n.meta["val"].shape) for n in results[1:] if isinstance(n.meta["val"], torch.Tensor)))
        placed.append([tuple(n.meta["val"].shape) for n in graph.graph.nodes if n.target is torch.ops.aten.as_strided.default])
        return make_boxed_func(graph.forward)

    def backward(graph: torch.fx.GraphModule, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=forward, bw_compiler=backward, partition_fn=min_cut_rematerialization_partition)
    found, x = [], given(2, 7, 9, 6)
    for m in (model, plain):
        y = compiled(m, backend, dynamic=False)(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *m.parameters()])])
    for mine, want in zip(*found, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-11, atol=1e-11)
    windows = 2 * 3 * 3
    mine, want = (sum(torch.Size(s).numel() for s in shapes) for shapes in kept)
    assert mine <= want
    assert [s[-2:] for s in kept[0]].count((12, 12)) == 1
    assert placed == [[(windows if shift else 1, 2, 12, 12)], []] and len(calls) == 1


def test_who_reads_the_graph_sees_torch(calls: list[tuple[int, ...]]):
    model, x = SPEC.build(), torch.randn(1, 6, 8, 6)
    for strict in (False, True):
        exported = torch.export.export(model, (x,), strict=strict).graph
        assert [str(n.target) for n in exported.nodes if "attention" in str(n.target)] == ["aten.scaled_dot_product_attention.default"]
    model(x)
    assert not calls


def test_what_is_left_to_torch(calls: list[tuple[int, ...]]):
    q, k, v, bias = given(3, 2, 5, 4), given(3, 2, 5, 4, seed=1), given(3, 2, 5, 4, seed=2), given(1, 2, 5, 5, seed=3)

    def attention(b: Any, *x: Any) -> Any:
        return eager.scaled_dot_product_attention(*(x or (q, k, v)), attn_mask=1 * b)

    def loss(b: Any) -> Any:
        return attention(b).square().sum()

    few = [x.detach() for x in (q, k[:, :1], v[:, :1])]
    grouped = compiled(lambda b: eager.scaled_dot_product_attention(*few, attn_mask=1 * b, enable_gqa=True))(bias)
    torch.testing.assert_close(grouped, F.scaled_dot_product_attention(*few, attn_mask=bias, enable_gqa=True))
    with torch.no_grad():
        compiled(attention)(bias)
    compiled(attention)(bias.detach())
    assert not compiled(attention)(given(5, 0), q, given(3, 2, 0, 4), given(3, 2, 0, 4)).any()  # no keys at all
    low, single = ([x.detach().to(dtype).requires_grad_() for x in (bias, q, k, v)] for dtype in (torch.bfloat16, torch.float32))
    assert compiled(attention)(*low).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled(attention)(*single).dtype == torch.bfloat16
    fixed = bias.detach()
    torch.testing.assert_close(compiled(torch.func.grad(loss))(fixed), torch.autograd.grad(loss(bias), bias)[0])
    both = compiled(torch.func.vmap(torch.func.grad(loss)))(torch.stack([fixed, 2 * fixed]))
    torch.testing.assert_close(both[1], torch.func.grad(loss)(2 * fixed))
    assert not calls
    plain = [x[0, 0].detach().requires_grad_() for x in (bias, q, k, v)]  # one head of one example
    torch.testing.assert_close(compiled(attention)(*plain), attention(*plain))
    assert calls == [(5, 5)]
