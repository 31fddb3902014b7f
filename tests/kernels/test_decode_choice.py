"""The kernels of a recorded step: what each takes, what else is told, and that the torch op of each runs it."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.decoding import kept, states  # noqa: F401  (registers the torch ops)
from archdsl.decoding.choice import described
from archdsl.decoding.decoder import Rerun
from archdsl.diagnostics.model import ArchError
from archdsl.kernels import bindings as b
from archdsl.kernels.running import named, run
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import load
from archdsl.records import replace
from archdsl.reports.kernels import kernels
from archdsl.reports.registry import Subject
from tests.kernels.held import close, interpreted
from tests.kernels.test_decode import interprets_loops

load()
Given = dict[str, Any]


def zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device="meta")


def apart(*shape: int) -> torch.Tensor:
    """With gaps between the numbers of the last axis, and everywhere."""
    return zeros(*shape[:-1], 2 * shape[-1])[..., ::2]


WIDE, F64 = torch.float32, torch.float64
AT = torch.zeros((), dtype=torch.int64, device="meta")
IDS = torch.zeros(2, dtype=torch.int64, device="meta")
NEAR: dict[str, Given] = {
    "decode_attention": {"q": zeros(2, 4, 1, 256), "k": zeros(2, 2, 1, 256), "v": zeros(2, 2, 1, 8), "keys": zeros(2, 2, 9, 256),
                         "values": zeros(2, 2, 9, 8), "position": AT, "start": None, "sink": None, "scale": None, "cap": None, "window": 0,
                         "tables": []},
    "decode_rotary": {"x": zeros(2, 4, 1, 8), "cos": zeros(1, 8), "sin": zeros(1, 8)},
    "decode_linears": {"x": zeros(4, 1, 8), "weights": [zeros(3, 8), zeros(5, 8)], "biases": [None, zeros(5)], "norm": None, "eps": 0.0,
                       "act": "identity", "residual": None},
    "decode_gated": {"x": zeros(2, 1, 8), "weights": [zeros(3, 8), zeros(3, 8)], "biases": [None, None], "norm": zeros(8), "eps": 1e-5,
                     "act": "silu"},
    "decode_convolved": {"x": zeros(2, 1, 8), "weight": zeros(9, 8), "bias": None, "norm": None, "eps": 0.0, "taps": zeros(5, 32), "taps_bias": None,
                         "tail": zeros(2, 31, 5), "first": 2, "act": "silu"},
    "decode_gla": {"q": zeros(2, 2, 1, 512), "k": zeros(2, 2, 1, 512), "v": zeros(2, 2, 1, 8), "u": zeros(2, 2, 1, 512), "up": None, "up_bias": None,
                   "memory": zeros(2, 2, 512, 8, dtype=WIDE), "tau": 16.0, "scale": 1.0, "before": False},
    "decode_ssd": {"x": zeros(2, 1, 3, 8), "dt": zeros(2, 1, 3), "dt_bias": None, "a": zeros(3, dtype=WIDE), "b": zeros(2, 1, 1, 16),
                   "c": zeros(2, 1, 1, 16), "skip": None, "gate": None, "memory": zeros(2, 3, 8, 16, dtype=WIDE), "softplus": True},
    "decode_conv": {"x": zeros(2, 1, 5), "taps": zeros(5, 1), "bias": None, "tail": zeros(2, 0, 5), "act": "silu"},
    "decode_head_norm": {"x": zeros(2, 3, 1, 8), "weight": None, "eps": 1e-5, "gate": zeros(2, 1, 24)},
    "decode_take": {"logits": zeros(2, 30), "tokens": IDS, "ended": IDS > 0, "ends": IDS[:0], "history": IDS[:, None], "count": IDS},
}
"""What is taken, at the edge of what is."""
FAR: list[tuple[str, Given, str]] = [
    ("decode_attention", {"q": zeros(2, 4, 1, 257), "keys": zeros(2, 2, 9, 257)}, "heads are 257 wide, and it holds at most 256"),
    ("decode_attention", {"values": zeros(2, 2, 9, 300)}, "heads are 300 wide, and it holds at most 256"),
    ("decode_attention", {"q": zeros(2, 4, 8)}, "it takes heads [B, heads, 1, w], and q has 3 axes"),
    ("decode_attention", {"keys": zeros(2, 2, 9, 256, dtype=WIDE)}, "q is bf16, keys is f32, values is bf16: they have to be of one dtype"),
    ("decode_attention", {"values": apart(2, 2, 9, 8)}, "the rows of values have gaps in memory"),
    ("decode_attention", {"q": zeros(2, 4, 1, 8, dtype=F64)}, "it takes bf16, f16 or f32, not f64"),
    ("decode_rotary", {"x": zeros(4, 1, 8)}, "it takes heads [B, heads, 1, w], and x has 3 axes"),
    ("decode_linears", {"x": zeros(5, 1, 8)}, "x has 5 rows, and 4 are the most"),
    ("decode_linears", {"weights": [zeros(3, 8), zeros(5, 8, dtype=WIDE)]}, "x is bf16, weights[0] is bf16, weights[1] is f32: they have to be of"),
    ("decode_linears", {"weights": [zeros(3, 8), zeros(8, 5).T]}, "the rows of weights[1] have gaps in memory"),
    ("decode_linears", {"x": zeros(0, 1, 8)}, "an operand is empty"),
    ("decode_gated", {"x": zeros(2, 1, 8, dtype=F64)}, "it takes bf16, f16 or f32, not f64"),
    ("decode_convolved", {"taps": zeros(5, 33)}, "it has 33 taps, and 32 are the most"),
    ("decode_convolved", {"tail": apart(2, 31, 5)}, "tail has gaps in memory, and it changes one without"),
    ("decode_convolved", {"x": zeros(8, 1, 8)}, "x has 8 rows, and 4 are the most"),
    ("decode_gla", {"k": zeros(2, 2, 1, 513)}, "k is 513 wide, and it holds memories of at most 512"),
    ("decode_gla", {"memory": zeros(2, 40000, 512, 8, dtype=WIDE)}, "there are 80000 memories, and 65535 are the most"),
    ("decode_gla", {"memory": zeros(2, 2, 512, 8, dtype=F64)}, "memory is f64, and it takes bf16, f16 or f32"),
    ("decode_ssd", {"b": zeros(2, 1, 1, 600)}, "b is 600 wide, and it holds memories of at most 512"),
    ("decode_ssd", {"memory": apart(2, 3, 8, 16)}, "memory has gaps in memory, and it changes one without"),
    ("decode_ssd", {"a": zeros(3, dtype=F64)}, "a is f64, and it takes bf16, f16 or f32"),
    ("decode_conv", {"act": "gelu"}, "it has no gelu behind"),
    ("decode_conv", {"x": zeros(70000, 1, 5)}, "there are 70000 sequences, and 65535 are the most"),
    ("decode_head_norm", {"x": zeros(2, 3, 1, 20000)}, "heads are 20000 wide, and it holds at most 16384"),
    ("decode_head_norm", {"gate": zeros(2, 1, 24, dtype=F64)}, "gate is f64, and it takes bf16, f16 or f32"),
    ("decode_take", {"logits": zeros(2, 30, dtype=F64)}, "it takes bf16, f16 or f32, not f64"),
]


def chosen(op: str, given: Given, device: str = "cuda", capability: tuple[int, int] = (9, 0)) -> b.Choice:
    names, tensors, attributes = described(op, list(given.values()))
    operands = named(names, tensors)
    return b.choose(op, device, next(t.dtype for t in operands.values() if t), operands, attributes, capability=capability, installed=False)


@pytest.mark.parametrize("op", NEAR)
def test_what_is_taken(op: str):
    assert [a.name for a in getattr(torch.ops.archdsl, op).default._schema.arguments] == list(NEAR[op])
    assert chosen(op, NEAR[op]).name == "triton"
    assert chosen(op, NEAR[op], "cpu").reasons == {"triton": "it runs on cuda, not on cpu"}
    assert chosen(op, NEAR[op], capability=(7, 5)).reasons == {"triton": "it needs compute capability 8.0, and this card has 7.5"}


@pytest.mark.parametrize(("op", "changed", "told"), FAR, ids=[f"{c[0]}-{i}" for i, c in enumerate(FAR)])
def test_what_is_not_taken(op: str, changed: Given, told: str):
    found = chosen(op, {**NEAR[op], **changed})
    assert found.name == b.REFERENCE and found.reasons["triton"].startswith(told)


# ---------------------------------------------------------------- the torch ops
def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def calls() -> dict[str, list[Any]]:
    """Operands of every op whose kernel does not depend on where the numbers of a loop end."""
    ids = torch.tensor([3, 4])
    return {
        "decode_attention": [numbers(2, 4, 1, 6), numbers(2, 2, 1, 6), numbers(2, 2, 1, 5), numbers(2, 2, 9, 6), numbers(2, 2, 9, 5), torch.tensor(4),
                             None, numbers(4), None, 5.0, 3, [numbers(1, 6, seed=i) for i in range(4)]],
        "decode_rotary": [numbers(2, 4, 1, 6), numbers(1, 6), numbers(1, 6, seed=1)],
        "decode_linears": [numbers(2, 1, 7), [numbers(3, 7), numbers(5, 7)], [None, numbers(5)], numbers(7), 1e-5, "silu", numbers(2, 1, 8)],
        "decode_gated": [numbers(1, 1, 7), [numbers(3, 7), numbers(3, 7, seed=1)], [None, numbers(3)], numbers(7), 1e-5, "gelu"],
        "decode_convolved": [numbers(2, 1, 7), numbers(9, 7), None, numbers(7), 1e-5, numbers(5, 4), numbers(5), numbers(2, 3, 5), 2, "silu"],
        "decode_gla": [numbers(2, 2, 1, 6), numbers(2, 2, 1, 6, seed=1), numbers(2, 2, 1, 5), numbers(2, 1, 3), numbers(12, 3), numbers(12),
                       numbers(2, 2, 6, 5), 16.0, 0.5, False],
        "decode_ssd": [numbers(2, 1, 4, 6), numbers(2, 1, 4), numbers(4), -numbers(4, seed=1).exp(), numbers(2, 1, 2, 5), numbers(2, 1, 2, 5, seed=1),
                       numbers(4, seed=2), numbers(2, 1, 4, 6, seed=1), numbers(2, 4, 6, 5), True],
        "decode_conv": [numbers(2, 1, 5), numbers(5, 4), numbers(5), numbers(2, 3, 5), "silu"],
        "decode_head_norm": [numbers(2, 3, 1, 6), numbers(6), 1e-5, numbers(2, 1, 18)],
        "decode_take": [numbers(2, 30), ids, ids < 0, ids[:1].clone(), torch.zeros(2, 5, dtype=torch.int64), torch.tensor([0, 2])],
    }


@interpreted
@interprets_loops
@pytest.mark.parametrize("op", NEAR)
def test_an_op_runs_its_kernel(op: str):
    """In the interpreter: its result and what it changes are those of plain torch."""
    def result() -> list[torch.Tensor]:
        for name in ("gla", "ssd", "causal_conv"):  # what plain torch calls: a model that has such an op has made it
            assert RECURRENCES[name]._kernel
        given, ran = calls()[op], getattr(torch.ops.archdsl, op)
        y = ran(*given)
        return [x for x in (y, *given) if isinstance(x, torch.Tensor)]

    expected, used = result(), []
    with b.apart():
        found = b.BINDINGS[op]["triton"]
        body = type("Counted", (), {"forward": staticmethod(lambda *given: (used.append(op), found.forward(*given))[1])})
        b.BINDINGS[op] = {"triton": replace(found, devices=("cpu",), body=body)}
        b._changed()
        got = result()
    assert used == [op]
    close(got, [x.double() for x in expected], 2e-5)


# ---------------------------------------------------------------- of a model
def told(name: str, step: int, dtype: str = "bf16", **settings: Any) -> tuple[set[tuple[Any, ...]], tuple[str, ...]]:
    made = archdsl.load(f"specs/language/{name}.arch").elaborate("tiny", settings)
    found = kernels([Subject(name, made, {"B": 1, "T": 40})], device="cuda", dtype=dtype, step=step)
    return {(r.address, *r.cells) for r in found.rows}, found.notes


def test_of_a_step_of_a_model():
    rows, notes = told("llama", 1)
    assert rows == {*((f"layers.{i}", op, "triton", "") for i in range(2) for op in ("decode_linears", "decode_attention", "decode_gated")),
                    ("", "decode_linears", "triton", ""), ("", "decode_take", "triton", "")} and not notes
    rows, _ = told("llama", 1, "f64")
    assert {r[2:] for r in rows} == {("reference", "triton: it takes bf16, f16 or f32, not f64")}
    rows, notes = told("llama", 8)
    assert not [r for r in rows if r[1] in ("decode_linears", "decode_gated")] and ("layers.0", "decode_attention", "triton", "") in rows
    assert notes == ("llama: linear maps of 8 rows are not joined, 2 are the most",)
    rows, _ = told("llama", 2, d=1200, heads=4, kv_heads=2)
    assert ("layers.1", "decode_attention", "reference", "triton: heads are 300 wide, and it holds at most 256") in rows


@pytest.mark.parametrize(("name", "op", "kernel", "why"), [
    ("bloom", "attention_extend", "reference", "decode_attention: it takes no bias"),
    ("deepseek_v2", "latent_attention_extend", "reference", "decode_attention: it keeps keys and values apart, and here values are part of the keys"),
    ("mamba2", "decode_convolved", "triton", ""), ("gla", "decode_gla", "triton", "")])
def test_of_other_models(name: str, op: str, kernel: str, why: str):
    assert (op, kernel, why) in {r[1:] for r in told(name, 1)[0]}


def test_a_mask_that_is_not_taken():
    text = """use std { Linear, TokenEmbedding }
model Net(d: int = 8, vocab: int = 30)(tokens: int[B, T]) -> [B, T, vocab] stream T {
  q = rearrange(tokens |> TokenEmbedding(vocab, d), [B, T, (heads w)] -> [B, heads, T, w], heads = 2)
  return rearrange(attention(q, q, q, mask = causal & own_block(4)), [B, heads, T, w] -> [B, T, (heads w)]) |> Linear(vocab)
}
"""
    (row,) = [r for r in kernels([Subject("net", archdsl.loads(text).elaborate(), {"B": 1, "T": 8})], device="cuda", dtype="bf16", step=1).rows
              if r.cells[0] == "attention_extend"]
    why = "it takes the masks `causal` and `causal & window(n)`, and this one is of `causal`, `own_block`"
    assert row.cells[1:] == ("reference", f"decode_attention: {why}")


@pytest.mark.parametrize(("options", "why"), [({"step": 0}, "it counts the rows of a batch"), ({"step": 1, "device": "cpu"}, "recorded on cuda")])
def test_there_is_no_such_step(options: Given, why: str):
    with pytest.raises(ArchError, match=why) as fault:
        kernels([], **{"device": "cuda", "dtype": "bf16", **options})
    assert fault.value.diagnostics[0].code == "A0582"


# ---------------------------------------------------------------- of a smaller card
def _exhausted(*given: Any, **attributes: Any) -> Any:
    from triton.runtime.errors import OutOfResources

    raise OutOfResources(196608, 101376, "shared memory")


SMALL = "cannot be used here: it needs 196,608 of shared memory, and this card has 101,376"


def _declare_exhausted(op: str, **more: Any) -> None:
    b.BINDINGS[op] = {}
    b.kernel(op, "triton", devices=("cpu",), dtypes=("f32",), needs=())(type("Large", (), {"forward": staticmethod(_exhausted), **more}))


def test_too_little_shared_memory():
    """Which kernel, what it wants, and what to ask for instead; other faults come as they are."""
    x = torch.zeros(2, 1, 4)
    with b.apart():
        _declare_exhausted("decode_linears", of="linear")
        with pytest.raises(b.KernelError) as fault:
            torch.ops.archdsl.decode_linears(x, [torch.zeros(3, 4)], [None], None, 0.0, "identity", None)
    assert str(fault.value) == f'the kernel `triton` of `decode_linears` {SMALL}; `kernels = {{"linear": "reference"}}` takes plain torch instead'
    with pytest.raises(b.KernelError, match=f"^a kernel {SMALL}$"):
        run(_exhausted, [x], {})
    with pytest.raises(ZeroDivisionError):
        run(lambda x: 1 / 0, [x], {})


def test_a_step_that_does_not_fit_is_not_recorded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(kept.RECORDINGS, "cpu", Rerun)
    monkeypatch.setattr(Rerun, "__init__", lambda self, work, generator: (work(), setattr(self, "replay", work))[0])
    made = archdsl.load("specs/language/llama.arch").build("tiny").eval()
    prompts = torch.arange(10).view(2, 5)
    expected = archdsl.generate(made, prompts, 6, recorded=False)
    with b.apart():
        _declare_exhausted("decode_linears", of="linear")
        with pytest.warns(UserWarning, match=f"runs op by op: KernelError: the kernel `triton` of `decode_linears` {SMALL}"):
            assert torch.equal(archdsl.generate(made, prompts, 6), expected)
        with pytest.raises(RuntimeError, match=f"cannot be recorded: KernelError: the kernel `triton` of `decode_linears` {SMALL}"):
            archdsl.generate(made, prompts, 6, recorded=True)
