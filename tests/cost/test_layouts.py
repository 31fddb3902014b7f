"""Where results lie and what autograd keeps, for every op on operands that lie in memory in six ways: against torch."""
from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch._prims_common import suggest_memory_format

from archdsl.cost.memory import Placed, places
from archdsl.cost.saved import kept
from archdsl.cost.strides import contiguous, elementwise, expanded, is_dense, prefers_channels_last, unsqueezed, viewed
from archdsl.graph import Mask, TensorType
from archdsl.ops.registry import OPS
from archdsl.ops.rules import torch_dtype
from tests.ops.cases import CASES, Call, float_operands, operand_names, subsets
from tests.ops.test_registry import _kept

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = ("matrix_exp", "embedding_bag", "rotary")  # told right for operands that lie plainly: costs count them so wherever these lie otherwise
OWN = [(n, i) for n, i in CASES if n != "aten" and n not in PLAIN and OPS[n].saves is not None]
"""Of an op of another library the cost is unknown, and where its results lie; those that only forms with state have are counted as contiguous."""
cases = pytest.mark.parametrize(("name", "i"), OWN, ids=[f"{n}-{i}" for n, i in OWN])
HOW = ("plain", "reversed", "channels last", "heads inside", "part", "every second")
NAMES = {torch.float64: "f64", torch.float32: "f32", torch.bfloat16: "bf16", torch.int64: "int", torch.int32: "i32", torch.bool: "bool"}


def lay(t: torch.Tensor, how: str) -> torch.Tensor:
    """The same values, otherwise in memory."""
    n, out = t.dim(), t.detach().clone()
    if how == "part" and n:
        out = torch.zeros([s + 1 for s in t.shape], dtype=t.dtype)[tuple(slice(0, s) for s in t.shape)]
    elif how == "every second" and n:
        out = torch.zeros([*t.shape[:-1], 2 * t.shape[-1]], dtype=t.dtype)[..., ::2]
    elif how != "plain" and n > 1:
        heads = [*range(n - 3), n - 2, n - 3, n - 1] if n > 2 else [0, 1]
        order = {"reversed": [*range(n)][::-1], "channels last": [0, *range(2, n), 1], "heads inside": heads}[how]
        out = torch.empty([t.shape[a] for a in order], dtype=t.dtype).permute([order.index(a) for a in range(n)])
    return out.copy_(t.detach()).requires_grad_(t.requires_grad)


def placed(t: torch.Tensor) -> Placed:
    return Placed(NAMES[t.dtype], tuple(t.shape), tuple(t.shape), tuple(t.stride()))


def mapped(value: Any, f: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return f(value)
    if isinstance(value, Mask):
        return Mask(value.kind, tuple(mapped(a, f) for a in value.args))
    return tuple(mapped(v, f) for v in value) if isinstance(value, tuple) else value


def laid_call(name: str, i: int, model: torch.dtype, how: str, grad: set[str] | bool = False) -> tuple[Call, dict[str, Any]]:
    """The call on such operands, and its arguments as the rules take them."""
    call = Call(name, i, model, grad)
    call.args = tuple(mapped(a, lambda t: lay(t, how)) for a in call.args)
    call.attrs = {k: mapped(v, lambda t: lay(t, how)) for k, v in call.attrs.items()}
    values = dict(zip(operand_names(call.op), call.args)) | call.attrs
    call.named = {k + (f".{j}" if isinstance(v, tuple) else ""): t for k, v in values.items()
                  for j, t in enumerate(v if isinstance(v, tuple) else (v,)) if isinstance(t, torch.Tensor)}
    return call, {k: mapped(v, placed) for k, v in values.items()}


@cases
def test_results(name: str, i: int):
    """Alias or new, strides and bytes of every result, in evaluation and in training."""
    results(name, i, torch.float32)


@pytest.mark.proof
@cases
def test_results_in_float64(name: str, i: int):
    results(name, i, torch.float64)


def results(name: str, i: int, model: torch.dtype) -> None:
    for how in HOW:
        for training in {False, OPS[name].phase}:
            call, arguments = laid_call(name, i, model, how)
            found = call(training)
            types = tuple(Placed(NAMES[r.dtype], tuple(r.shape), tuple(r.shape), contiguous(tuple(r.shape))) for r in found)
            operands = {t.untyped_storage().data_ptr(): k for k, t in call.named.items()}
            for said, r in zip(places(call.op, arguments, types, training), found):
                assert (said.alias, said.strides) == (operands.get(r.untyped_storage().data_ptr()), tuple(r.stride())), how
                if said.alias is None:
                    assert math.prod(said.storage.shape if said.storage else r.shape) * r.element_size() == r.untyped_storage().nbytes()


@cases
def test_saves(name: str, i: int):
    """For the gradient of each operand alone and of all."""
    saves(name, i, torch.float32)


@pytest.mark.proof
@cases
def test_saves_in_bfloat16(name: str, i: int):
    saves(name, i, torch.bfloat16)


@cache
def copies_groups() -> bool:
    """Whether this torch keeps a contiguous copy of what group_norm takes (2.11 does, 2.14 does not). Costs are those of the newer."""
    x, kept = torch.ones(2, 4, 3).mT.requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        torch.nn.functional.group_norm(x, 1)
    return x.data_ptr() not in kept


def saves(name: str, i: int, model: torch.dtype) -> None:
    for how in HOW if name != "group_norm" or not copies_groups() else HOW[:1]:
        for wanted in subsets(float_operands(Call(name, i))):
            call, arguments = laid_call(name, i, model, how, {w.split(".")[0] for w in wanted})
            try:
                known, rest = _kept(call)
            except RuntimeError as e:
                if "not implemented for 'BFloat16'" in str(e):
                    continue
                raise
            said = kept(call.op, arguments, {w.split(".")[0] for w in wanted})
            names = {n for s in said if isinstance(s, str) for n in ([k for k in call.named if k.split(".")[0] == s] or [s])}
            extra = Counter((d, math.prod(t.shape) * d.itemsize) for t in said if isinstance(t, TensorType) for d in [torch_dtype(t.dtype, model)])
            assert (known, rest) == (names, extra), f"gradient of {sorted(wanted)}, {model}, {how}"


# ---------------------------------------------------------------- the algebra of strides, on random tensors
def random_tensor(g: torch.Generator) -> torch.Tensor:
    """Permuted, cut, stepped, repeated, with axes of size 1."""
    n = int(torch.randint(1, 6, (), generator=g))
    sizes = [int(torch.randint(1, 4, (), generator=g)) for _ in range(n)]
    t = torch.zeros([2 * s for s in sizes]).permute(torch.randperm(n, generator=g).tolist())
    for a in range(n):
        kind = int(torch.randint(0, 4, (), generator=g))
        t = t[(slice(None),) * a + (slice(None, None, 2) if kind == 0 else slice(1) if kind == 1 else slice(0, t.shape[a] - kind % 2),)]
    return t.contiguous().permute(torch.randperm(n, generator=g).tolist()) if int(torch.randint(0, 2, (), generator=g)) else t


def laid(t: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(t.shape), tuple(t.stride())


@pytest.mark.parametrize("seed", range(40))
def test_strides(seed: int):
    g = torch.Generator().manual_seed(seed)
    for _ in range(25):
        t = random_tensor(g)
        assert is_dense(*laid(t)) == torch.ops.aten.is_non_overlapping_and_dense(t)
        assert (viewed(laid(t), (t.numel(),)) is not None) == _can_view(t, (t.numel(),))
        for new in ((t.shape[0], t.numel() // t.shape[0]), (t.numel() // t.shape[-1], t.shape[-1]), (1, *t.shape, 1), (t.numel(), 1)):
            strides = viewed(laid(t), tuple(new))
            assert strides == (tuple(t.view(new).stride()) if _can_view(t, new) else None)
        axis = int(torch.randint(0, t.dim() + 1, (), generator=g))
        assert unsqueezed(laid(t), axis) == laid(t.unsqueeze(axis))
        wide = (3, *(5 if s == 1 else s for s in t.shape))
        assert expanded(laid(t), wide) == laid(t.expand(wide))
        if t.dim() in (4, 5):
            like = torch.channels_last if t.dim() == 4 else torch.channels_last_3d
            assert prefers_channels_last(*laid(t)) == (suggest_memory_format(t) == like)
        other = random_tensor(g)
        try:
            total = t + other
        except RuntimeError:
            continue
        assert elementwise(tuple(total.shape), [laid(t), laid(other)]) == tuple(total.stride())


def _can_view(t: torch.Tensor, sizes: tuple[int, ...]) -> bool:
    try:
        t.view(sizes)
    except RuntimeError:
        return False
    return True
