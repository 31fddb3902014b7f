"""`torch.func` over opaque ops: gradients, each of a batch by itself, and vmap are those of plain calls; second derivatives are refused there too."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

import archdsl
from archdsl.ops.packing import packed_name
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import OPS
from tests.ops.test_losses import fused, operands
from tests.ops.test_recurrent import recurrences, sample

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def held(run: Callable[..., torch.Tensor], given: list[torch.Tensor]) -> None:
    """`run` gives one tensor of the given ones, which get another axis in front here: it and its gradients, for each of three alone and at once."""
    rows = [torch.stack([x, x.flip(-1), x]) for x in given]
    many = vmap(run)(*rows)
    weights = torch.rand(many.shape[1:], generator=torch.Generator().manual_seed(1), dtype=many.dtype)
    places = tuple(range(len(given)))

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return (run(*values).square() * weights).sum()

    each = vmap(grad(loss, places))(*rows)
    for i in range(3):
        leaves = [x[i].clone().requires_grad_() for x in rows]
        torch.testing.assert_close(many[i], run(*leaves), rtol=0, atol=0)
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for mine, one, theirs in zip([g[i] for g in each], grad(loss, places)(*(x[i] for x in rows)), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(one, theirs, rtol=1e-12, atol=1e-14)


@recurrences
def test_recurrences(name: str):
    """With respect to all operands and states, through the results and the states behind them."""
    r = RECURRENCES[name]
    operands_, states, named = sample(r)
    all_ = [*operands_, *states]
    here = [i for i, x in enumerate(all_) if x is not None]

    def run(*values: torch.Tensor) -> torch.Tensor:
        filled: list[Any] = list(all_)
        for i, x in zip(here, values):
            filled[i] = x
        return torch.cat([y.flatten() for y in r._kernel(*filled, *named)])

    held(run, [all_[i] for i in here])


def test_packed():
    r = RECURRENCES["gla"]
    given, _, _ = sample(r)
    labels = torch.tensor([0] * 2 + [1] * (given[0].shape[-2] - 2))
    held(lambda q, k, v, decay: OPS[packed_name(r)].body(q, k, v, decay, documents=labels), [x for x in given if x is not None])


def test_experts():
    x, weight, bias = torch.rand(2, 5).double(), torch.rand(4, 3, 5).double(), torch.rand(4, 3).double()
    index = torch.tensor([[0, 3], [-1, 2]])
    held(lambda x, weight, bias: OPS["grouped_linear"].body(x, index, weight, bias), [x, weight, bias])


def test_loss():
    x, w, targets, b = operands(rows=(7,))
    held(lambda x, w, b: fused(x, w, targets, b, cap=2.0), [t.detach() for t in (x, w, b)])


def test_second_derivatives_are_refused():
    x = torch.rand(2, 5, 3)
    with pytest.raises(RuntimeError, match="have no derivative of their own"):
        grad(lambda x: grad(lambda y: OPS["linear_attention"].body(y, y, y).square().sum())(x).sum())(x)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("dims", [(0, None, None), (None, None, 1), (0, 0, 0)])
def test_compiled(dims: tuple[int | None, ...]):
    """Batches of some operands and of all, under dynamo."""
    given = [torch.rand(*([3, 3, 5, 3] if d is not None else [3, 5, 3]), dtype=torch.float64) for d in dims]
    many = vmap(lambda q, k, v: OPS["linear_attention"].body(q, k, v), dims)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(many, backend="eager")(*given), many(*given), rtol=0, atol=0)


def test_a_batch_of_none_is_refused():
    x = torch.rand(2, 5, 3)
    with pytest.raises(ValueError, match="linear_attention: `vmap` over a batch of none"):
        vmap(lambda q: OPS["linear_attention"].body(q, x, x))(torch.rand(0, 2, 5, 3))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_is_refused_by_name():
    x = torch.rand(2, 5, 3)
    with pytest.raises(NotImplementedError, match=r"linear_attention: an opaque op, which has gradients .* and no tangents"):
        jvp(lambda x: OPS["linear_attention"].body(x, x, x), (x,), (x,))


def test_a_model():
    """Jacobians of the logits, and gradients of each sample by itself."""
    model = archdsl.load("mamba2").build("tiny", dtype=torch.float64).eval()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    tokens = torch.randint(0, 61, (3, 7), generator=torch.Generator().manual_seed(0))

    def logits(weights: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return functional_call(model, weights, (row[None],))[0, -1]

    def of(rates: torch.Tensor) -> torch.Tensor:
        return logits({**weights, "layers.0.mixer.A_log": rates}, tokens[0])

    jacobian = jacrev(of)(weights["layers.0.mixer.A_log"])
    y, pull = vjp(of, weights["layers.0.mixer.A_log"])[:2]
    for i in (0, 17, 60):
        torch.testing.assert_close(jacobian[i], pull(torch.eye(len(y), dtype=y.dtype)[i])[0], rtol=1e-12, atol=1e-15)
    each = vmap(grad(lambda w, row: logits(w, row).square().sum()), (None, 0))(weights, tokens)
    for i, row in enumerate(tokens):
        expected = torch.autograd.grad(model(row[None])[0, -1].square().sum(), list(model.parameters()))
        for name, theirs in zip(weights, expected, strict=True):
            torch.testing.assert_close(each[name][i], theirs, rtol=1e-9, atol=1e-12)
