"""torch's FlexAttention as a binding: never by itself, its refusals told, the numbers and gradients of the declared body in float64, and the blocks
of pairs that it leaves out."""
from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as flex

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.graph import Mask, TensorType
from archdsl.kernels import bindings as b
from archdsl.kernels import flex_attention as own
from archdsl.kernels.flex import Flex, told
from archdsl.lower.emit_python import python_source
from archdsl.lower.exhausted import faults_told
from archdsl.lower.forms import sibling
from archdsl.ops.masks import CAUSAL, FULL, allowed
from archdsl.ops.registry import OPS, load
from tests.kernels.held import CARD, alike, gpu

load()
WINDOW = Mask("and", (CAUSAL, Mask("window", (40,))))
SHORT = Mask("and", (CAUSAL, Mask("window", (300,))))
T = 300
LABELS, LATE = torch.arange(T) // 70, torch.arange(T) % 150
MASKS = {
    "full": FULL, "causal": CAUSAL, "window": WINDOW, "chunks": Mask("causal_by", (48,)), "blocks": Mask("own_block", (64, 1)),
    "one block": Mask("own_block", (50,)), "or": Mask("or", (Mask("own_block", (128,)), Mask("window", (3,)))),
    "documents": Mask("and", (CAUSAL, Mask("equal_labels", (LABELS,)))),
    "rows of documents": Mask("equal_labels", (torch.stack([LABELS, LABELS.flip(0) // 2]),)),
    "keys": Mask("and", (Mask("keys", (torch.stack([LATE < 100, LATE < 149]),)), CAUSAL)),
    "at": Mask("at", (WINDOW, LATE)),
}


@pytest.fixture
def with_gradients(monkeypatch):
    """torch computes gradients by the plain formula on a CPU too, where its check of the device lets it."""
    monkeypatch.setattr(own, "GRADIENTS_ON_CPU", True)
    monkeypatch.setattr(flex, "_validate_device", lambda *given: None)


@pytest.fixture
def not_compiled(monkeypatch):
    """torch's own switch: its formula without a compiler, in which captured tensors have no gradients."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        yield


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def both(case: tuple, of_bias: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The result and all gradients, of the binding and of the op's body."""
    *shapes, attributes, bias, sink = case
    q, k, v = map(drawn, shapes)
    more = [None if bias is None else drawn(bias).requires_grad_(of_bias), drawn(q.shape[-3:-2]) if sink else None]
    leaves = [x for x in (q, k, v, *more) if x is not None and x.requires_grad]
    found = []
    for run in (Flex.forward, OPS["attention"].body):
        y = run(q, k, v, *more, **attributes)
        found.append([y, *torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(-2))])
    return zip(*found, strict=True)


CASES = (
    ((2, 4, 63, 20), (2, 2, 63, 20), (2, 2, 63, 12), {"mask": WINDOW, "scale": 0.3, "cap": 2.5}, None, False),
    ((4, 63, 12), (1, 63, 12), (1, 63, 7), {"mask": CAUSAL}, (4, 63, 63), True),
    ((2, 3, 6, 5, 8), (2, 3, 2, 9, 8), (2, 3, 2, 9, 8), {}, (3, 1, 5, 9), False),
    ((1, 2, 1, 4), (1, 2, 1, 4), (1, 2, 1, 4), {"mask": CAUSAL}, (1,), True),
    ((3, 2, 150, 4), (3, 2, 150, 4), (3, 2, 150, 4), {"mask": Mask("own_block", (40, 1)), "cap": 3}, (150,), True))


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_gradients(with_gradients, not_compiled, case):
    for x, y in both(case, of_bias=False):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.proof
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_biases(with_gradients, case):
    for x, y in both(case, of_bias=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_masks(not_compiled, mask, dtype):
    """Where a query has nothing to attend as well, which gives 0."""
    with torch.no_grad():
        given = [drawn((2, h, T, w), dtype).detach() for h, w in ((4, 6), (2, 6), (2, 3))]
        found, expected = (run(*given, mask=MASKS[mask]) for run in (Flex.forward, OPS["attention"].body))
    torch.testing.assert_close(found, expected, rtol=1e-9 if dtype == torch.float64 else 1e-4, atol=1e-9 if dtype == torch.float64 else 1e-5)
    if mask == "keys":
        assert bool((OPS["attention"].body(*given, mask=Mask("keys", (torch.zeros(T, dtype=torch.bool),))) == 0).all())
        assert bool((Flex.forward(*given, mask=Mask("keys", (torch.zeros(T, dtype=torch.bool),))) == 0).all())


@pytest.mark.proof
@pytest.mark.parametrize("mask", ["window", "documents"])
def test_compiled(mask):
    """By inductor's kernel, which leaves blocks out and masks none that is whole: as on a card, but for the gradients."""
    chosen = own._flat(told(SHORT if mask == "window" else MASKS[mask]), (2,))
    length = 700 if mask == "window" else T
    q, k, v, bias = (drawn((2, h, n, w), torch.float32).detach() for h, n, w in ((4, length, 32), (2, length, 32), (2, length, 16), (1, 1, length)))
    with torch.no_grad():
        blocks = own._blocks(chosen, length, length, q.device)
        assert blocks is not None and (mask != "window" or int(blocks.full_kv_num_blocks.sum()) > 0)
        found, _ = own._compiled()(q, k, v, bias, False, chosen, blocks, 0.2, 4.0)
        expected = OPS["attention"].body(q, k, v, bias, None, mask=SHORT if mask == "window" else MASKS[mask], scale=0.2, cap=4.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@pytest.mark.parametrize("mask", [m for m in MASKS if m != "full"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_on_a_card(mask, dtype):
    """Against the body in float64: numbers and gradients at widths that are no powers of two, keys for several queries, with a cap and sinks."""
    def moved(m):
        return Mask(m.kind, tuple(moved(a) if isinstance(a, Mask) else a.cuda() if isinstance(a, torch.Tensor) else a for a in m.args))

    given = [drawn((2, h, T, w)).detach().to("cuda", dtype).requires_grad_() for h, w in ((4, 60), (2, 60), (2, 36))]
    sink = drawn((4,)).detach().to("cuda", dtype).requires_grad_()
    wide = [x.detach().double().requires_grad_() for x in (*given, sink)]
    attributes = {"mask": moved(MASKS[mask]), "scale": 0.1, "cap": 3.0}
    found, expected = Flex.forward(*given, None, sink, **attributes), OPS["attention"].body(*wide[:3], None, wide[3], **attributes)
    pull = torch.randn_like(found)
    within = 2e-2 if dtype == torch.bfloat16 else 1e-3
    alike([found, *torch.autograd.grad(found, [*given, sink], pull)], [expected, *torch.autograd.grad(expected, wide, pull.double())], within)


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
def test_sinks_in_a_compiled_graph_on_a_card():
    """In bf16 as op by op; in float32, where torch's compiler gives wrong gradients, they are refused and results alone are not."""
    def run(*given):
        return Flex.forward(*given[:3], None, given[3], mask=CAUSAL)

    for dtype in (torch.bfloat16, torch.float32):
        given = [drawn(s).detach().to("cuda", dtype).requires_grad_() for s in ((2, 4, T, 64), (2, 2, T, 64), (2, 2, T, 64), (4,))]
        wide = [x.detach().double().requires_grad_() for x in given]
        compiled, expected = torch.compile(run), OPS["attention"].body(*wide[:3], None, wide[3], mask=CAUSAL)
        with torch.no_grad():
            alike([compiled(*given)], [expected.detach()], 2e-2 if dtype == torch.bfloat16 else 1e-3)
        if dtype == torch.float32:
            with pytest.raises(Exception, match="wrong gradients of sinks"):
                torch.compile(run, fullgraph=True)(*given)
        else:
            found, pull = compiled(*given), torch.randn(2, 4, T, 64, device="cuda", dtype=dtype)
            alike([found, *torch.autograd.grad(found, given, pull)], [expected, *torch.autograd.grad(expected, wide, pull.double())], 2e-2)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("length", [T, 256, 1])
def test_blocks(mask, length):
    """Against the mask itself: a block that is left out has no pair, one that is not masked has all, and no block is masked in vain but where `or` or
    numbers of a tensor are all that is known of it."""
    q = torch.empty(2, 4, length, 1)

    def cut(m):
        return Mask(m.kind, tuple(cut(a) if isinstance(a, Mask) else a[..., :length] if isinstance(a, torch.Tensor) else a for a in m.args))

    chosen = own._flat(told(cut(MASKS[mask])), (2,))
    pairs, axes = allowed(cut(MASKS[mask]), q, q)
    pairs = pairs if axes == 4 else pairs[None, None]
    n = -(-length // own.BLOCK)
    padded = torch.zeros(*pairs.shape[:2], n * own.BLOCK, n * own.BLOCK, dtype=torch.bool)
    padded[..., :length, :length] = pairs
    cells = padded.unflatten(-1, (n, -1)).unflatten(-3, (n, -1)).transpose(-2, -3)
    some, every = cells.flatten(-2).any(-1), cells.flatten(-2).all(-1)
    blocks = own._made(chosen, length, length, q.device)
    for count, listed, back, listed_back in ((*blocks[:2], *blocks[4:6]), (*blocks[2:4], *blocks[6:])):
        assert count.dtype == listed.dtype == torch.int32 and listed.is_contiguous() and listed_back.is_contiguous()
        torch.testing.assert_close(dense(count, listed), dense(back, listed_back).mT)
    partial, full = dense(*blocks[:2]), dense(*blocks[2:4])
    assert not (partial & full).any() and bool(((partial | full) | ~some).all()) and bool((~full | every).all())
    if mask not in ("or", "at", "rows of documents"):
        torch.testing.assert_close(partial, (some & ~every).expand_as(partial))
        torch.testing.assert_close(full, every.expand_as(full))


def dense(count, listed):
    return torch.zeros(listed.shape, dtype=torch.bool).scatter(-1, listed.long(), torch.arange(listed.shape[-1]) < count[..., None])


def test_blocks_are_made_once_for_a_shape():
    own._kept.cache_clear()
    given = [torch.randn(1, 2, 140, 4) for _ in range(3)]
    blocks = [own._blocks(told(WINDOW), 140, 140, x.device) for x in given]
    assert blocks[0] is not None and blocks[1] is not None
    assert blocks[0].kv_indices is blocks[1].kv_indices and own._kept.cache_info().misses == 1


# ---------------------------------------------------------------- as a binding
SPEC = """
use std.mixer { Attention }
use std.embed { Alibi }

model Net(d: int = 12, heads: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  near = Attention(heads, kv_heads = 2, mask = causal & window(4), cap = 5.0, sinks = true)(x) as near
  return Attention(heads, mask = causal)(near, bias_table = Alibi(heads)(near)) as far
}
"""


def types(dtype: str = "bf16", wide: int = 64, **more: str) -> dict[str, TensorType | None]:
    shape = (2, 4, 64, wide)
    return {**{n: TensorType(more.get(n, dtype), shape) for n in ("q", "k", "v")}, "bias": None, "sink": None}


def test_it_is_asked_for_by_name():
    auto = b.choose("attention", "cuda", "bf16", types(), {}, capability=(9, 0))
    assert auto.name == "reference" and auto.reasons == {"flex": "it is taken where it is asked for by name"}
    assert b.choose("attention", "cuda", "bf16", types(), {}, asked="flex", capability=(9, 0)).name == "flex"
    assert b.choose("attention", "cpu", "f64", types("f64", 3), {}, asked="flex").name == "flex"


@pytest.mark.parametrize(("device", "dtype", "given", "words"), [
    ("cuda", "f64", types("f64"), "on a card FlexAttention takes bf16, f16 or f32, not f64"),
    ("cuda", "f32", types("f32", 8), "k is 8 wide, and FlexAttention takes heads of 16 numbers at least on a card"),
    ("cpu", "f32", types("f32", v="bf16"), "q is f32, k is f32, v is bf16: they have to be of one dtype"),
    ("mps", "f32", types("f32"), "it runs on cuda or cpu, not on mps")])
def test_what_it_does_not_take_is_told(device, dtype, given, words):
    with pytest.raises(b.KernelError, match="the kernel `flex` of `attention` cannot be used here") as fault:
        b.choose("attention", device, dtype, given, {}, asked="flex")
    assert words in str(fault.value)


def built(**more):
    spec = archdsl.loads(SPEC)
    return [spec.build(dtype=torch.float64, kernels=kernels, **more).eval() for kernels in ({"attention": "flex"}, "reference")]


def test_in_a_model(not_compiled):
    model, reference = built()
    assert all("attend(" in m.code for m in (model.near, model.far))
    with torch.no_grad():
        for length in (9, 131):
            x = torch.randn(2, length, 12, dtype=torch.float64)
            torch.testing.assert_close(model(x), reference(x))
        stepped = sibling(model, "extend")  # forms with a state are the op's own
        y, _ = stepped(x[:, :5], stepped.init_state(2, 9))
        torch.testing.assert_close(y, reference(x)[:, :5])
    with pytest.raises(b.KernelError, match="FlexAttention has no gradients on the CPU"):
        model(x)


def test_of_documents(not_compiled):
    model, reference = built(form="packed")
    x, lengths = torch.randn(1, 9, 12, dtype=torch.float64), torch.tensor([4, 3, 2])
    with torch.no_grad():
        torch.testing.assert_close(model(x, lengths), reference(x, lengths))


@pytest.mark.parametrize("lengths", [(9,), pytest.param((9, 130, 11), marks=pytest.mark.proof)])
def test_a_compiler_of_graphs_sees_through_it(lengths):
    model, reference = (m.near for m in built())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for length in lengths:  # the second makes lengths symbols where nothing asks for numbers
            x = torch.randn(2, length, 12, dtype=torch.float64)
            torch.testing.assert_close(compiled(x), reference(x))


def test_torch_says_where_it_is_not():
    q = torch.empty(2, 4, 9, 8, device="meta")
    with torch.no_grad(), pytest.raises(ValueError, match=r"only supported on .* CPU"):
        Flex.forward(q, q, q)


def test_an_export_leaves_nothing_behind(not_compiled):
    """Blocks that are listed under a fake mode are not those of later calls."""
    class Attends(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return own.attend(x, x, x, None, None, told(CAUSAL), None, None)

    own._kept.cache_clear()
    x, model = torch.randn(1, 2, 11, 4), Attends()
    exported = torch.export.export(model, (x,)).module()
    for found in (exported(x), model(x)):
        assert type(found) is torch.Tensor
        torch.testing.assert_close(found, OPS["attention"].body(x, x, x, mask=CAUSAL))


def test_training_on_a_cpu_is_told():
    model, _ = built()
    with pytest.raises(ArchError, match="FlexAttention has no gradients on the CPU") as fault, faults_told(model):
        model(torch.randn(2, 9, 12, dtype=torch.float64))
    assert fault.value.diagnostics[0].code == "A0519"


def test_what_is_written_needs_torch_alone():
    model, _ = built()
    assert "attend(" not in python_source(model) and "import archdsl" not in python_source(model)


def test_a_shape_of_a_call_that_it_does_not_take():
    x = torch.zeros(2, 3, 0, 4)
    with pytest.raises(b.KernelError, match="an operand is empty"):
        Flex.forward(x, x, x)
    spread: Any = torch.zeros(1, 1, 2, 4)
    spread.placements = ()  # as a DTensor has
    with pytest.raises(b.KernelError, match="spread over devices"):
        Flex.forward(spread, spread, spread)
