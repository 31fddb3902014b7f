"""`linear_attention` and `ssd` in chunks on a card: results, memories and every gradient against one position after the other in float64."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import archdsl
from archdsl.graph import TensorType
from archdsl.kernels.bindings import bindings, choose
from archdsl.kernels.target import Target
from archdsl.lower.plan import plan
from archdsl.lower.trace import trace
from archdsl.ops.registry import OPS, load
from archdsl.streaming import in_form, source
from tests.kernels.held import DEVICE, alike, close, gpu, interpreted, poisoned, strided

load()
Make = Callable[..., torch.Tensor]


def linear(make: Make, lead: tuple[int, ...], T: int, K: int, V: int, decay: float | None = 1.0, memory: bool = True) -> list[Any]:
    """q, k, v, decay, memory; the decays from none to `decay` on average."""
    g = None if decay is None else -decay * make(*lead, T, like=torch.float32).abs()
    return [make(*lead, T, K), make(*lead, T, K), make(*lead, T, V), g, make(*lead, K, V, like=torch.float32) if memory else None]


def scan(make: Make, lead: tuple[int, ...], T: int, H: int, P: int, G: int, N: int, skip: bool = True, memory: bool = True) -> list[Any]:
    """x, dt, a, b, c, skip, memory."""
    f32 = torch.float32
    return [make(*lead, T, H, P), make(*lead, T, H, like=f32).abs() + 0.01, -make(H, like=f32).abs() - 0.1, make(*lead, T, G, N),
            make(*lead, T, G, N), make(H, like=f32) if skip else None, make(*lead, H, P, N, like=f32) if memory else None]


CASES: dict[str, Callable[[Make], tuple[str, list[Any], dict[str, Any]]]] = {
    "one position": lambda make: ("linear_attention", linear(make, (1, 2), 1, 16, 16), {"scale": 1}),
    "a chunk and one": lambda make: ("linear_attention", linear(make, (2, 1), 33, 20, 36), {"scale": 0.3}),
    "no decay, no memory": lambda make: ("linear_attention", linear(make, (3,), 37, 16, 12, None, False), {"scale": 1}),
    "strong decays": lambda make: ("linear_attention", linear(make, (), 40, 16, 16, 60.0), {"scale": 2}),
    "two blocks of keys": lambda make: ("linear_attention", linear(make, (1, 1, 2), 18, 40, 40), {"scale": 1}),
    "groups": lambda make: ("ssd", scan(make, (1,), 35, 4, 12, 2, 20), {}),
    "one group, no skip": lambda make: ("ssd", scan(make, (), 17, 3, 16, 1, 36, False, False), {}),
    "one position of ssd": lambda make: ("ssd", scan(make, (2,), 1, 2, 4, 2, 16), {}),
}
LARGE: dict[str, Callable[[Make], tuple[str, list[Any], dict[str, Any]]]] = {
    "heads of 128": lambda make: ("linear_attention", linear(make, (2, 3), 257, 128, 128, 0.1), {"scale": 128**-0.5}),
    "63 positions of 60": lambda make: ("linear_attention", linear(make, (1, 5), 63, 60, 60, 0.3), {"scale": 0.1}),
    "65 positions, no decay": lambda make: ("linear_attention", linear(make, (2, 2), 65, 64, 128, None), {"scale": 0.1}),
    "a retention of 256 and 512": lambda make: ("linear_attention", linear(make, (1, 2), 200, 256, 512, 0.05, False), {"scale": 1 / 16}),
    "resets": lambda make: ("linear_attention", linear(make, (2, 2), 300, 64, 64, 80.0), {"scale": 0.1}),
    "mamba2 340M": lambda make: ("ssd", scan(make, (2,), 321, 32, 64, 1, 128), {}),
    "eight groups": lambda make: ("ssd", scan(make, (1,), 130, 16, 60, 8, 60), {}),
}


ERRORS = {torch.float32: 1e-4, torch.bfloat16: 0.01, torch.float16: 0.001}
"""The largest deviation in float32, in units of the root mean square; in 16-bit types a share of the whole."""


def maker(dtype: torch.dtype, apart: bool, device: str = DEVICE) -> Make:
    """Normal numbers in a dtype (`like`: another one), not contiguous for `apart`."""
    generator = torch.Generator().manual_seed(3)

    def make(*shape: int, like: torch.dtype | None = None) -> torch.Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(like or dtype).to(device)
        return strided(x, max(-2, -len(shape))) if apart and shape else x

    return make


def truth(op: str, given: list[Any], attributes: dict[str, Any], pull: Make) -> tuple[list[Any], list[Any], list[Any]]:
    """Results, random gradients of them, and those of the operands, one position after the other, in float64."""
    wide = [None if x is None else x.detach().double().requires_grad_() for x in given]
    x, memory = wide[0], wide[-1]
    assert x is not None
    if memory is None:
        memory = x.new_zeros(_memory(op, given))
    found = OPS[f"{op}_extend"].reference(*wide[:-1], memory, **attributes)  # type: ignore[misc]
    pulls = [pull(*found[0].shape), pull(*found[1].shape, like=torch.float32)]
    grads = iter(torch.autograd.grad(found, [x for x in wide if x is not None], [p.double() for p in pulls], allow_unused=True))
    return list(found), pulls, [None if x is None else next(grads) for x in wide]


def _memory(op: str, given: list[Any]) -> tuple[int, ...]:
    """The shape of the memory."""
    x = given[0].shape
    return (*x[:-2], x[-1], given[2].shape[-1]) if op == "linear_attention" else (*x[:-3], *x[-2:], given[3].shape[-1])


def held(case: Callable[[Make], Any], dtype: torch.dtype, tolerance: float, apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    op, given, attributes = case(maker(dtype, apart))
    kernel = bindings(op)["triton"]
    results, pulls, grads = truth(op, given, attributes, maker(dtype, apart))
    with monkeypatch.context() as patch:
        poisoned(patch)
        found = kernel.forward(*given, **attributes)
        back = kernel.gradient(*pulls, *given, **attributes)  # type: ignore[misc]
    assert found[0].dtype == dtype and found[1].dtype == torch.float32
    near = close if dtype == torch.float32 else alike
    near(found, results, tolerance, "y memory")
    near(back, grads, tolerance)


@interpreted
@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str, monkeypatch: pytest.MonkeyPatch):
    held(CASES[name], torch.float32, 2e-5, name in ("a chunk and one", "groups"), monkeypatch)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    held(CASES["a chunk and one"], dtype, ERRORS[dtype], False, monkeypatch)


@interpreted
def test_products_beyond_float16():
    """Queries times keys, and values times gradients, that float16 does not hold, of results that it does: as the memories, they stay in float32."""
    g = torch.Generator().manual_seed(0)
    q, k, v, dy = ((torch.randn(1, 13, n, generator=g) * by).half() for n, by in ((20, 150.0), (20, 150.0), (12, 1e-3), (12, 1e-3)))
    given, attributes = [q, k, v, -torch.rand(1, 13, generator=g), None], {"scale": 1.0}
    assert (q.float() @ k.float().mT).abs().max() > 65504
    kernel = bindings("linear_attention")["triton"]
    wide = [x.double().requires_grad_() for x in given[:4]]
    expected = OPS["linear_attention"].body(*wide, kernel="reference", **attributes)
    alike(kernel.forward(*given, **attributes)[:1], [expected], 2e-3)
    grads = torch.autograd.grad(expected, wide, dy.double())
    assert all(x.abs().max() < 65504 for x in grads)
    alike(kernel.gradient(dy, None, *given, **attributes)[:4], grads, 2e-3)  # type: ignore[misc]


def packed(case: Callable[[Make], Any], dtype: torch.dtype, tolerance: float) -> None:
    """Documents behind each other, of 1 position too, by one launch: each begins anew."""
    op, (*given, _), attributes = case(maker(dtype, False))
    length = given[0].shape[-2 if op == "linear_attention" else -3]
    documents = (torch.arange(length, device=DEVICE)[:, None] >= torch.tensor([3, 4, length - 7], device=DEVICE)).sum(1)
    kernel, reference = bindings(op)["triton"].body, OPS[f"{op}_packed"].reference
    wide = [None if x is None else x.detach().double().requires_grad_() for x in given]
    expected = reference(*wide, documents, **attributes)  # type: ignore[misc]
    pull = torch.randn_like(expected).to(dtype)
    wanted = [x for x in wide if x is not None]
    grads = iter(torch.autograd.grad(expected, wanted, pull.double()))
    near = close if dtype == torch.float32 else alike
    near(kernel.packed(*given, documents, **attributes), [expected], tolerance)
    near(kernel.packed_gradient(pull, *given, documents, **attributes), [None if x is None else next(grads) for x in wide], tolerance)


@interpreted
@pytest.mark.parametrize("name", ["two blocks of keys", "no decay, no memory", "groups"])
def test_packed_documents(name: str):
    packed(CASES[name], torch.float32, 2e-5)


@interpreted
def test_packed_documents_inside_the_torch_op():
    make = maker(torch.float32, False)
    given = [x.requires_grad_() for x in linear(make, (2,), 20, 16, 16)[:4]]
    documents = torch.arange(20) // 7
    found, expected = (OPS["linear_attention_packed"].body(*given, documents, scale=1, kernel=name) for name in ("triton", "reference"))
    close([found], [expected], 1e-5)
    close(torch.autograd.grad(found.sum(), given), torch.autograd.grad(expected.sum(), given), 1e-4)


def stepped(case: Callable[[Make], Any], dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    op, given, attributes = case(maker(dtype, False))
    expected = OPS[f"{op}_extend"].reference(*(None if x is None else x.double() for x in given), **attributes)  # type: ignore[misc]
    with monkeypatch.context() as patch:
        poisoned(patch)
        found = bindings(op)["triton"].step(*given, **attributes)  # type: ignore[misc]
    assert found[0].dtype == dtype and found[1].dtype == torch.float32
    (close if dtype == torch.float32 else alike)(found, expected, tolerance, "y memory")


@pytest.mark.parametrize("name", ["one position", "one position of ssd"])
@interpreted
def test_a_step(name: str, monkeypatch: pytest.MonkeyPatch):
    stepped(CASES[name], torch.float32, 1e-5, monkeypatch)


MODEL = """use std.ssm { Mamba2 }
model Net(d: int = 16)(x: [B = 2, T = 19, d]) -> [B, T, d] stream T { return Mamba2(heads = 4, head_dim = 8, state = 16)(x) }
"""


def asked_for(form: str) -> None:
    """Inside the torch op: the same results and gradients as the reference's, the same state."""
    spec = archdsl.loads(MODEL)
    mine, plain = (spec.build(form=form, kernels={"ssd": name}, device=DEVICE) for name in ("triton", "reference"))
    x = torch.randn(2, 19 if form == "parallel" else 1, 16, device=DEVICE)
    if form == "step":
        (y, state), (expected, held) = (m(x, m.init_state(2)) for m in (mine, plain))
        close([y, *state.values()], [expected, *held.values()], 1e-4)
        return
    y, expected = mine(x), plain(x)
    close([y], [expected], 1e-4)
    weights = [*mine.parameters(), *plain.parameters()]
    grads = torch.autograd.grad((y + expected).square().sum(), weights)
    close(grads[:len(grads) // 2], grads[len(grads) // 2:], 1e-4)


@interpreted
@pytest.mark.parametrize("form", ["parallel", "step"])
def test_a_model_that_asks_for_it(form: str):
    asked_for(form)


@gpu
@pytest.mark.parametrize("form", ["parallel", "step"])
def test_a_model_on_a_card(form: str):
    asked_for(form)


def test_what_it_does_not_take():
    """Each with its reason; the reference is chosen then."""
    def of(op: str, **shapes: tuple[int, ...]) -> str:
        types = {n: TensorType("f16" if n == "odd" else "bf16", s) for n, s in shapes.items()} | {"decay": None, "memory": None}
        if "odd" in types:
            types["k"] = types.pop("odd")
        return choose(op, "cuda", "bf16", types, {}, installed=False).reasons["triton"]

    assert of("linear_attention", q=(2, 8, 600), k=(2, 8, 600), v=(2, 8, 4)) == "the keys are 600 wide, and 512 is the most"
    assert of("linear_attention", q=(2, 8, 4), k=(8, 4), v=(2, 8, 4)) == "its operands differ in the axes in front"
    assert of("linear_attention", q=(2, 8, 4), odd=(2, 8, 4), v=(2, 8, 4)) == "q, k and v are of the types bf16, f16"
    assert of("linear_attention", q=(3_000_000, 4), k=(3_000_000, 4), v=(3_000_000, 4)) == "there are 3,000,000 positions, and 2,097,120 is the most"
    assert of("ssd", x=(8, 4, 600), b=(8, 1, 16), c=(8, 1, 16)) == "the channels of a head are 600 wide, and 512 is the most"


@interpreted
def test_decays_without_a_gradient():
    """Constant decays: the other gradients are the same."""
    op, given, attributes = CASES["a chunk and one"](maker(torch.float32, False))
    pulls, gradient = [torch.randn_like(given[2]), None], bindings(op)["triton"].gradient
    every, some = (gradient(*pulls, *given, needs=[True, True, True, wanted, True], **attributes) for wanted in (True, False))  # type: ignore[misc]
    assert some[3] is None and every[3] is not None
    close([g for i, g in enumerate(some) if i != 3], [g for i, g in enumerate(every) if i != 3], 1e-6)


@interpreted
def test_a_decay_that_is_no_number():
    """From its position on nothing is one."""
    op, given, attributes = CASES["a chunk and one"](maker(torch.float32, False))
    given[3][..., 5] = float("nan")
    y, last = bindings(op)["triton"].forward(*given, **attributes)
    assert y[..., :5, :].isfinite().all() and y[..., 5:, :].isnan().all() and last.isnan().all()


@interpreted
def test_heads_of_a_group_in_parts(monkeypatch: pytest.MonkeyPatch):
    """Small batches: the gradients of what heads share are summed over parts."""
    from archdsl.kernels.linear import Heads

    monkeypatch.setattr(Heads, "_parts", lambda self: 2)
    held(CASES["groups"], torch.float32, 2e-5, False, monkeypatch)


@pytest.mark.parametrize(("form", "device", "calls"), [("parallel", "cuda", True), ("step", "cuda", True), ("step", "cpu", False)])
def test_what_a_model_is_lowered_to(form: str, device: str, calls: bool):
    """For a card a step calls the torch op, which has a kernel for one position; elsewhere it is written out."""
    made = archdsl.loads(MODEL).elaborate()
    streamed = in_form(source(made), form)
    graph, held = (made.graph, {}) if streamed is None else \
        (streamed.graph, {"state": streamed.addresses, "moves": (streamed.step, streamed.longest)})
    root = plan(graph, dtype="bfloat16", target=Target(device), **held)
    names = {str(n.target) for d in (root, *root.children.values()) for n in trace(d).graph.nodes}
    assert any("archdsl.ssd" in n for n in names) is calls


# ---------------------------------------------------------------- on a card


@gpu
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
@pytest.mark.parametrize("name", [*CASES, *LARGE])
def test_on_a_card(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    held((CASES | LARGE)[name], dtype, ERRORS[dtype], "groups" in name, monkeypatch)


@gpu
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
def test_steps_on_a_card(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    for case in (CASES["one position"], CASES["one position of ssd"], lambda make: ("ssd", scan(make, (3,), 1, 32, 64, 1, 128), {}),
                 lambda make: ("linear_attention", linear(make, (3, 4), 1, 256, 512), {"scale": 0.1})):
        stepped(case, dtype, ERRORS[dtype], monkeypatch)


@gpu
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
@pytest.mark.parametrize("name", ["63 positions of 60", "65 positions, no decay", "eight groups"])
def test_packed_documents_on_a_card(name: str, dtype: torch.dtype):
    packed(LARGE[name], dtype, ERRORS[dtype])


def launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every kernel in every configuration, for tests/kernels/offline.py."""
    for dtype in ERRORS:
        def make(*shape: int, like: torch.dtype | None = None, own: torch.dtype = dtype) -> torch.Tensor:
            return torch.empty(shape, dtype=like or own, device="meta")

        for name, case in {**{n: CASES[n] for n in ("one position", "no decay, no memory")}, **LARGE}.items():
            op, given, attributes = case(make)
            kernel, (x, *_) = bindings(op)["triton"], given
            y = given[2] if op == "linear_attention" else x
            later = make(*_memory(op, given), like=torch.float32)
            yield f"{name}, {dtype}", lambda k=kernel, g=given, a=attributes: k.forward(*g, **a)
            yield f"{name}, {dtype}, back", lambda k=kernel, g=given, a=attributes, y=y, s=later: k.gradient(torch.empty_like(y), s, *g, **a)  # type: ignore[misc]
        for op, given, attributes in (("ssd", scan(make, (3,), 1, 32, 64, 1, 128), {}),
                                      ("linear_attention", linear(make, (3, 4), 1, 128, 128), {"scale": 1})):
            yield f"step of {op}, {dtype}", lambda o=op, g=given, a=attributes: bindings(o)["triton"].step(*g, **a)  # type: ignore[misc]
