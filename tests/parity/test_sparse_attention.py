"""ProbSparse attention (Informer) and attention by hashing (Reformer) against their equations, one query at a time, on the same draws."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, relative

F64 = torch.float64
TEXT = """use std { LSHAttention, ProbSparseAttention }

model Prob(d: int = 12, heads: int = 3, factor: int = 1, mixed: bool = false)(x: [B = 1, T = 8, d]) -> y: [B, T, d] {
  return ProbSparseAttention(heads, factor, bias = true, mixed = mixed)(x) as a
}

model Hashed(d: int = 12, heads: int = 3, size: int = 4, rounds: int = 4)(x: [B = 1, T = 8, d]) -> y: [B, T, d] {
  return LSHAttention(heads, size, rounds)(x) as a
}
"""


def heads_of(x: torch.Tensor, model: torch.nn.Module, name: str, heads: int) -> torch.Tensor:
    w = dict(model.named_parameters())
    return F.linear(x, w[f"a.{name}.weight"], w.get(f"a.{name}.bias")).unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(y: torch.Tensor, model: torch.nn.Module, mixed: bool = False) -> torch.Tensor:
    w = dict(model.named_parameters())
    return F.linear(y.reshape(len(y), y.shape[2], -1) if mixed else y.transpose(1, 2).flatten(2), w["a.out.weight"], w["a.out.bias"])


def prob_sparse(q, k, v, place, factor):
    """One head of one row: the c⌈ln T⌉ queries with the largest max - sum / T over so many drawn keys attend, the others get the mean."""
    n, w = q.shape
    few = min(factor * math.ceil(math.log(n)), n)
    drawn = [torch.stack([q[t] @ k[int(place[t, i] * n)] for i in range(few)]) for t in range(n)] if few else []
    chosen = sorted(range(n), key=lambda t: float(drawn[t].detach().sum() / n - drawn[t].detach().max()))[:few] if few else []
    return torch.stack([(q[t] @ k.T / w**0.5).softmax(-1) @ v if t in chosen else v.mean(0) for t in range(n)])


def hashed(q, v, rotation, size):
    """One head of one row: the softmax over rounds of what each round's chunk, and the one in front of it, hold."""
    n, w = q.shape
    turned = [q @ r for r in rotation]
    order = [(r, t) for r, z in enumerate(turned) for _, t in sorted((int(torch.cat((z[t], -z[t])).argmax()), t) for t in range(n))]
    chunks = [order[i:i + size] for i in range(0, len(order), size)]
    found: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    for i, chunk in enumerate(chunks):
        seen = [t for _, t in chunk + chunks[i - 1]]
        keys = F.normalize(q[seen], dim=-1)
        for r, t in chunk:
            score = q[t] @ keys.T / w**0.5
            score = torch.where(torch.tensor([s == t for s in seen]), torch.tensor(-5e4, dtype=F64), score)
            found[r, t] = score.softmax(-1) @ v[seen], score.logsumexp(-1)
    rounds = range(len(rotation))
    return torch.stack([torch.stack([found[r, t][1] for r in rounds]).softmax(0) @ torch.stack([found[r, t][0] for r in rounds]) for t in range(n)])


def each(f, *tensors):
    """f of each head of each row."""
    return torch.stack([torch.stack([f(*(x[i, j] for x in tensors)) for j in range(tensors[0].shape[1])]) for i in range(tensors[0].shape[0])])


def agree(model, x, draws, peer):
    """Outputs and gradients of the input and of every parameter."""
    got, want = model(x, draws=draws), peer(x)
    probe = torch.randn(want.shape, dtype=F64)
    leaves = [x, *model.parameters()]
    mine, theirs = (torch.autograd.grad((y * probe).sum(), leaves, allow_unused=True) for y in (got, want))
    assert relative(got, want) <= EXACT
    largest = max(g.abs().max() for g in theirs if g is not None)
    for a, b in zip(mine, theirs):
        assert (torch.zeros(()) if a is None else a - (0 if b is None else b)).abs().max() <= EXACT * max(largest, 1)


def sample(kind: str, batch: int, length: int, **knobs):
    torch.manual_seed(length)
    model = archdsl.loads(TEXT).models[kind].build(dtype=F64, seed=length, feed=("**",), **knobs)
    return model, torch.randn(batch, length, 12, dtype=F64, requires_grad=True)


@pytest.mark.parametrize(("batch", "length", "factor", "mixed"), [
    (2, 9, 1, True), (1, 1, 1, False), (1, 2, 1, False), (2, 21, 2, False), (1, 5, 5, True)])
def test_prob_sparse(batch, length, factor, mixed):
    """`mixed`: thuml/iTransformer (c2426e6) reads [heads, T, w] as [T, heads w]; Informer's own code turns the axes."""
    model, x = sample("Prob", batch, length, factor=factor, mixed=mixed)
    place = torch.rand(length, 16 * factor, dtype=F64)

    def peer(x):
        q, k, v = (heads_of(x, model, name, 3) for name in "qkv")
        return joined(each(lambda q, k, v: prob_sparse(q, k, v, place, factor), q, k, v), model, mixed)

    agree(model, x, {"a.place": place}, peer)


@pytest.mark.parametrize(("batch", "length", "size", "rounds"), [(2, 16, 4, 4), (1, 1, 4, 4), (2, 11, 4, 2), (1, 24, 2, 3)])
def test_hashed(batch, length, size, rounds):
    model, x = sample("Hashed", batch, length, size=size, rounds=rounds)
    padded = -(-length // (2 * size)) * 2 * size
    rotation = torch.randn(rounds, 4, padded // (2 * size), dtype=F64)

    def peer(x):
        z = F.pad(x, (0, 0, 0, padded - length))
        q, v = (heads_of(z, model, name, 3) for name in ("qk", "v"))
        return joined(each(lambda q, v: hashed(q, v, rotation, size), q, v)[:, :, :length], model)

    agree(model, x, {"a.rotation": rotation}, peer)


@pytest.mark.parametrize("kind", ["Prob", "Hashed"])
def test_draws_are_new_in_each_pass(kind):
    model = archdsl.loads(TEXT).models[kind].build(dtype=F64).eval()
    x = torch.randn(1, 33, 12, dtype=F64)
    torch.manual_seed(0)
    first, second = model(x), model(x)
    torch.manual_seed(0)
    assert torch.equal(model(x), first) and not torch.equal(first, second)
