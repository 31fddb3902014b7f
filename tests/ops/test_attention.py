"""Attention against its formula, pair by pair; masks against their definitions; the kernels it reaches."""
from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from archdsl.graph import Mask, TensorType
from archdsl.ops.masks import CAUSAL, FULL, allowed, pairs, simplified
from archdsl.ops.registry import OPS, OpError
from tests.ops.cases import types_of

ATTEND = {
    "full": (FULL, lambda i, j: True),
    "causal": (CAUSAL, lambda i, j: j <= i),
    "window": (Mask("window", (3,)), lambda i, j: abs(i - j) < 3),
    "causal_by": (Mask("causal_by", (4,)), lambda i, j: j // 4 <= i // 4),
    "own_block": (Mask("own_block", (4,)), lambda i, j: i // 4 == j // 4),
    "previous_block": (Mask("own_block", (3, 1)), lambda i, j: 0 <= i // 3 - j // 3 <= 1),
    "sliding": (Mask("and", (CAUSAL, Mask("window", (3,)))), lambda i, j: 0 <= i - j < 3),
    "nested": (Mask("and", (FULL, Mask("and", (CAUSAL, FULL)))), lambda i, j: j <= i),
    "either": (Mask("or", (Mask("own_block", (4,)), Mask("window", (2,)))), lambda i, j: i // 4 == j // 4 or abs(i - j) < 2),
}
masks = pytest.mark.parametrize("kind", ATTEND)


def _formula(q, k, v, allowed, bias, scale):
    """One query at a time, in float64; nothing to attend gives 0."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    group = q.shape[1] // k.shape[1]
    for b, h, i in itertools.product(*(range(n) for n in q.shape[:3])):
        seen = [j for j in range(k.shape[2]) if allowed(b, i, j)]
        if seen:
            scores = torch.stack([scale * q[b, h, i] @ k[b, h // group, j] + (bias[b, h, i, j] if bias is not None else 0) for j in seen])
            out[b, h, i] = torch.softmax(scores, 0) @ v[b, h // group, seen]
    return out


@masks
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_formula(kind: str, with_bias: bool, groups: int):
    torch.manual_seed(0)
    mask, attend = ATTEND[kind]
    q = torch.randn(2, 4, 9, 6, dtype=torch.float64)
    k, v = torch.randn(2, groups, 9, 6, dtype=torch.float64), torch.randn(2, groups, 9, 6, dtype=torch.float64)
    bias = torch.randn(2, 4, 9, 9, dtype=torch.float64) if with_bias else None
    got = OPS["attention"].body(q, k, v, bias, mask=mask, scale=None)
    torch.testing.assert_close(got, _formula(q, k, v, lambda b, i, j: attend(i, j), bias, 6**-0.5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
def test_nothing_to_attend_gives_zero(with_bias: bool):
    """In the result and in every gradient, with a bias (torch's plain formula) and without (its fused kernel)."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True) if with_bias else None
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    got = OPS["attention"].body(q, k, v, bias, mask=Mask("and", (CAUSAL, Mask("keys", (valid,)))), scale=0.7)
    whole = None if bias is None else bias.expand(3, 2, 5, 5)
    want = _formula(q, k, v, lambda b, i, j: j <= i and bool(valid[b, j]), whole, 0.7)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(got[1], torch.zeros_like(got[1])) and torch.equal(got[2, :, :2], torch.zeros_like(got[2, :, :2]))
    inputs = [t for t in (q, k, v, bias) if t is not None]
    upstream = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(want, inputs, upstream)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_cap(groups: int):
    """Scores are capped before the bias and the mask; nothing to attend gives 0 here too, in the result and in every gradient."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, h, 5, 4, dtype=torch.float64, requires_grad=True) for h in (4, groups, groups))
    bias = torch.randn(4, 5, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    got = OPS["attention"].body(q, k, v, bias, mask=Mask("and", (CAUSAL, Mask("keys", (valid,)))), scale=0.7, cap=0.8)
    capped = 0.8 * torch.tanh(0.7 * q @ k.repeat_interleave(4 // groups, 1).mT / 0.8) + bias
    want = _formula(torch.zeros_like(q), k, v, lambda b, i, j: j <= i and bool(valid[b, j]), capped, 1.0)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, (q, k, v, bias), upstream), torch.autograd.grad(want, (q, k, v, bias), upstream)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [4, 1])
def test_sink(groups: int):
    """A key of value 0 that every query attends to: with its score, and with nothing else, what is left is 0."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, h, 5, 4, dtype=torch.float64, requires_grad=True) for h in (4, groups, groups))
    sink = torch.randn(4, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    mask = Mask("and", (CAUSAL, Mask("keys", (valid,))))
    got = OPS["attention"].body(q, k, v, None, sink, mask=mask, scale=0.7)
    scores = 0.7 * q @ k.repeat_interleave(4 // groups, 1).mT
    scores = torch.cat([scores, sink[None, :, None, None].expand(3, 4, 5, 1)], -1)
    more = torch.cat([v, torch.zeros_like(v[:, :, :1])], 2)
    want = _formula(torch.zeros_like(q), torch.zeros_like(more), more, lambda b, i, j: j == 5 or j <= i and bool(valid[b, j]), scores, 1.0)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(got[1], torch.zeros_like(got[1]))
    upstream = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, (q, k, v, sink), upstream), torch.autograd.grad(want, (q, k, v, sink), upstream)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    weights = OPS["attention_weights"].body(q, k, None, sink, mask=mask, scale=0.7)
    torch.testing.assert_close(OPS["attend"].body(weights, v), got, rtol=1e-12, atol=1e-12)


def test_equal_labels_and_several_leading_axes():
    """Windows of windows: labels and bias differ by window, not by sample."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 2, 4, 5, dtype=torch.float64) for _ in range(3))
    labels, bias = torch.randint(2, (3, 4)), torch.randn(2, 4, 4, dtype=torch.float64)
    got = OPS["attention"].body(q, k, v, bias, mask=Mask("equal_labels", (labels,)), scale=None)
    want = torch.stack([_formula(q[:, w], k[:, w], v[:, w], lambda b, i, j, w=w: bool(labels[w, i] == labels[w, j]), bias.expand(2, 2, 4, 4), 5**-0.5)
                        for w in range(3)], 1)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@masks
@pytest.mark.parametrize("length", [1, 8, 11])
def test_pairs_and_mask_tensor(kind: str, length: int):
    mask, attend = ATTEND[kind]
    real = torch.tensor([[attend(i, j) for j in range(length)] for i in range(length)])
    x = torch.empty(1, 1, length, 1)
    assert torch.equal(allowed(simplified(mask), x, x)[0].expand(length, length), real)
    assert pairs(mask, length, length) == int(real.sum()) or kind == "either" and pairs(mask, length, length) >= int(real.sum())


class _Kernels(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", ["grouped", "grouped_causal", "bias", "window", "windows_of_windows"])
def test_fused_kernel(case: str, dtype: torch.dtype):
    """The CPU's fused kernel is reached, and grouped keys are not repeated in memory."""
    lead = (2, 3) if case == "windows_of_windows" else (2,)
    groups = 2 if "grouped" in case else 4
    q, k, v = (torch.randn(*lead, heads, 8, 16, dtype=dtype) for heads in (4, groups, groups))
    mask = {"grouped_causal": CAUSAL, "window": Mask("window", (3,))}.get(case, FULL)
    bias = torch.randn(4, 8, 8, dtype=dtype) if case in ("bias", "windows_of_windows") else None
    with _Kernels() as kernels:
        OPS["attention"].body(q, k, v, bias, mask=mask, scale=None)
    assert "_scaled_dot_product_flash_attention_for_cpu" in kernels.seen
    assert not {"repeat_interleave", "clone", "bmm"} & set(kernels.seen)


def test_pure_causal_builds_no_mask():
    q = torch.randn(1, 2, 8, 4)
    with _Kernels() as kernels:
        OPS["attention"].body(q, q, q, mask=Mask("and", (CAUSAL, FULL)), scale=None)
    assert "arange" not in kernels.seen


@pytest.mark.parametrize(("change", "message"), [
    ({"k": TensorType("float", (2, 3, 5, 8)), "v": TensorType("float", (2, 3, 5, 8))}, "4 query heads cannot share 3 key heads evenly"),
    ({"k": TensorType("float", (2, 2, 5, 7))}, "the widths of `q` and `k` differ: 8 and 7"),
    ({"k": TensorType("float", (2, 2, 6, 8)), "v": TensorType("float", (2, 2, 6, 8)), "mask": CAUSAL}, "the lengths of queries and keys"),
    ({"mask": Mask("keys", (TensorType("bool", (2, 6)),))}, "the last axis of the mask tensor and the keys differ: 6 and 5"),
    ({"mask": Mask("keys", (TensorType("float", (2, 5)),))}, "a bool tensor for `keys` is needed"),
    ({"bias": TensorType("float", (3, 5, 5))}, "do not fit"),
    ({"sink": TensorType("float", (2,))}, "the sinks and the heads of `q` differ: 2 and 4"),
    ({"sink": TensorType("float", (2, 4))}, "1 axes are needed, and this has 2"),
])
def test_faults(change: dict, message: str):
    operands = {"q": TensorType("float", (2, 4, 5, 8)), "k": TensorType("float", (2, 2, 5, 8)), "v": TensorType("float", (2, 2, 5, 8))}
    with pytest.raises(OpError, match="(?s)" + message.replace("(", r"\(")):
        types_of(OPS["attention"], {**operands, **change})


@pytest.mark.parametrize(("change", "message"), [
    ({"position": TensorType("float", ())}, "an integer tensor"),
    ({"position": TensorType("int", (8,))}, "0 axes are needed, and this has 1"),
    ({"start": TensorType("float", (2,))}, "an integer tensor"),
    ({"start": TensorType("int", (3,))}, "the rows of `start` and of `q` differ: 3 and 2"),
    ({"keys": TensorType("bool", (2, 2, 9, 8))}, "the element types differ"),
    ({"bias": TensorType("float", (4, 5, 5))}, "do not fit"),
    ({"bias": TensorType("float", (4, 5, 9)), "rolling": True}, "do not fit"),
    ({"cap": -1}, "cap must be above 0"),
    ({"mask": Mask("and", (CAUSAL, Mask("keys", (TensorType("bool", (2, 9)),))))}, "`keys` goes by a tensor"),
])
def test_faults_behind_earlier_positions(change: dict, message: str):
    """With keys and values kept, and with the keys alone."""
    new, kept = TensorType("float", (2, 2, 5, 8)), TensorType("float", (2, 2, 9, 8))
    operands = {"q": TensorType("float", (2, 4, 5, 8)), "k": new, "keys": kept, "position": TensorType("int", ())}
    types_of(OPS["attention_extend"], {**operands, "v": new, "values": kept})
    for name, more in (("attention_extend", {"v": new, "values": kept}), ("latent_attention_extend", {"width": 5})):
        with pytest.raises(OpError, match=message):
            types_of(OPS[name], {**operands, **more, **change})


def test_scale_default_is_by_key_width():
    q, v = torch.randn(1, 1, 3, 16, dtype=torch.float64), torch.randn(1, 1, 3, 2, dtype=torch.float64)
    got = OPS["attention"].body(q, q, v, mask=FULL, scale=None)
    torch.testing.assert_close(got, torch.softmax(q @ q.mT / math.sqrt(16), -1) @ v)
