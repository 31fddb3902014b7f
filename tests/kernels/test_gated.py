"""Gated linear attention and the delta rule by Triton, and steps of other recurrences, against the reference in float64: results, states and
gradients, at odd sizes, over every size of gates, with strides of their own and with fresh memory that holds NaN."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from archdsl.graph import TensorType
from archdsl.kernels.bindings import choose
from archdsl.kernels.gated import DeltaRule, DplrDeltaRule, Gla
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import OPS
from archdsl.ops.registry import load as load_ops
from tests.kernels.held import CARD, DEVICE, as_exact, close, gpu, guarded, interpreted, nudged, poisoned, pulled, strided

load_ops()
TOLERANCE = {torch.float32: 1e-5}
FACTOR = 6.0
GATES = ("decay", "value_decay")
Call = tuple[dict[str, Any], dict[str, Any]]


def call(form: str, lead: tuple[int, ...], T: int, K: int, V: int, least: float, dtype: torch.dtype, device: str = DEVICE) -> Call:
    """Operands of one of FORMS, keys of length 1, and attributes. Gates: half of them from exp(least) to 1, the others close to 1."""
    g = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*lead, T, *shape, generator=g)

    def gate(*shape: int) -> torch.Tensor:
        u = torch.rand(*lead, T, *shape, generator=g)
        return torch.where(torch.rand(u.shape, generator=g) < 0.5, least * u, -0.01 * u)

    x: dict[str, Any] = {"q": normal(K), "k": torch.nn.functional.normalize(normal(K), dim=-1), "v": normal(V)}
    if form.startswith("gla"):
        x |= {"decay": None, "value_decay": gate(V)} if form == "gla of values" else {"decay": gate(K), "value_decay": None}
    elif form == "dplr":  # what is removed of the memory is at most what is there
        x |= {"a": -x["k"], "b": x["k"] * torch.rand(*lead, T, 1, generator=g), "decay": gate(K)}
    else:
        x |= {"beta": 2 * torch.rand(*lead, T, generator=g), "decay": gate() if form == "gated delta" else None}
    x["memory"] = torch.randn(*lead, K, V, generator=g)
    wide = ("decay", "value_decay", "memory")
    given = {n: None if v is None else v.to(device, torch.float32 if n in wide else dtype) for n, v in x.items()}
    return given, {"scale": 0.7} | ({"before": form == "gla before"} if form.startswith("gla") else {})


def held(form: str, given: dict[str, Any], attributes: dict[str, Any], tolerance: float) -> None:
    """Results, the new memory and all gradients of `triton` against the declared body in float64. In float32 within the tolerance; in bf16 at most
    FACTOR times as far as that body is when its operands, gates aside, and its results are rounded to bf16 once more."""
    op = RECURRENCES[op_of(form)]
    kernel = choose(op.name, "cuda", "bf16", dict.fromkeys(given) | _types(given), attributes, installed=False).binding
    assert kernel is not None and kernel.gradient is not None
    found = kernel.forward(*given.values(), **attributes)
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=g).to(y.device, y.dtype) for y in found]
    got = kernel.gradient(*grads, *given.values(), **attributes)
    wide = [None if v is None else v.double() for v in given.values()]
    state = wide[-1] if wide[-1] is not None else torch.zeros_like(found[1], dtype=torch.float64)
    exact = op.body(*wide[:-1], state, **attributes)
    expected = pulled(lambda *values: op.body(*values, **attributes), [*wide[:-1], state], [x.double() for x in grads])
    if found[0].dtype == torch.float32:
        close(found, exact, tolerance, "y memory")
        close(got, expected, 2 * tolerance, " ".join(given))
        return
    dtype = found[0].dtype
    near = [v if n in GATES else nudged(v, dtype, g) for n, v in zip(given, [*wide[:-1], state])]
    plain = [y.to(dtype) for y in op.body(*near, **attributes)]
    as_exact(found, exact, plain, FACTOR, "y memory")
    pulled_near = pulled(lambda *values: op.body(*values, **attributes), near, [nudged(x, dtype, g) for x in grads])
    as_exact(got, expected, pulled_near, FACTOR, " ".join(given))


def _types(given: dict[str, Any]) -> dict[str, Any]:
    from archdsl.graph import TensorType

    return {n: TensorType("bf16", tuple(v.shape)) for n, v in given.items() if v is not None}


FORMS = ("gla", "gla before", "gla of values", "delta", "gated delta", "dplr")
forms = pytest.mark.parametrize("form", FORMS)


@interpreted
@forms
@pytest.mark.parametrize(("lead", "T", "K", "V", "least"), [((2,), 1, 5, 3, -4.0), ((1, 2), 65, 20, 17, -0.3), ((1, 1), 70, 16, 60, -1e3)])
def test_float32(form, lead, T, K, V, least, monkeypatch):
    poisoned(monkeypatch)
    few = form == "dplr" and least == -1e3  # one chunk: its kernels are four times the others' in the interpreter
    held(form, *call(form, lead, 20 if few else T, K, V, least, torch.float32), TOLERANCE[torch.float32])


@interpreted
@forms
def test_bfloat16_with_strides(form):
    """Heads that stand side by side in memory, an axis of channels that is not in order, and no first memory."""
    given, attributes = call(form, (1, 2), 20 if form == "dplr" else 67, 40, 16, -0.3, torch.bfloat16)
    for name in ("q", "v"):
        given[name] = given[name].transpose(1, 2).contiguous().transpose(1, 2)
    held(form, {**given, "k": strided(given["k"]), "memory": None}, attributes, 0.0)


@interpreted
@forms
def test_nothing_beside_the_tensors(form, monkeypatch):
    """Two chunks, the last of one position, in widths that are no multiple of a block: neither read nor written outside."""
    within, untouched = guarded(monkeypatch)
    given, attributes = call(form, (1, 1), 15 if form == "dplr" else 65, 20, 17, -4.0, torch.float32)
    placed = {n: None if v is None else within(v) for n, v in given.items()}
    kernel = {"gla": Gla, "delta_rule": DeltaRule, "dplr_delta_rule": DplrDeltaRule}[op_of(form)]
    found = kernel.forward(*placed.values(), **attributes)
    pulled_back = kernel.gradient(*(within(torch.ones_like(y)) for y in found), *placed.values(), **attributes)
    assert all(bool(x.isfinite().all()) for x in (*found, *pulled_back) if x is not None)
    untouched()


STEPS = (*FORMS, "gla both", "gla alone", "scan", "scan softplus", "mean", "prefixes")
steps = pytest.mark.parametrize("form", STEPS)


@interpreted
@steps
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step(form, dtype, monkeypatch):
    poisoned(monkeypatch)
    one_position(form, (2, 3), 20, 35, dtype)


def one_position(form: str, lead: tuple[int, ...], K: int, V: int, dtype: torch.dtype) -> None:
    """The step that is chosen, through the op that goes on, against the declared step in float64."""
    name, given, attributes = step_call(form, lead, K, V, dtype)
    alone = form in ("gla both", "gla alone", "mean", "prefixes") or form == "gla of values" and dtype == torch.float32 and V > 256
    op, more = RECURRENCES[name], {"kernel": "triton_step" if alone else "triton"}  # what takes no more than one position
    found = OPS[f"{name}_extend"].body(*given.values(), **attributes, **more)
    wide = [None if v is None else v.double() for v in given.values()]
    close(found, op.extend.reference(*wide, **attributes), 1e-5 if dtype == torch.float32 else 0.05)  # type: ignore[misc]


def step_call(form: str, lead: tuple[int, ...], K: int, V: int, dtype: torch.dtype) -> tuple[str, dict[str, Any], dict[str, Any]]:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(DEVICE, dtype)

    f32, one = torch.float32, (*lead, 1)
    if form.startswith("scan"):
        softplus = form == "scan softplus"
        dt = normal(*one, V, dtype=f32)
        return "selective_scan", {
            "x": normal(*one, V), "dt": 8 * dt if softplus else dt.abs(), "a": -normal(V, K, dtype=f32).abs(), "b": normal(*one, K),
            "c": normal(*one, K), "skip": normal(V, dtype=f32) if softplus else None,
            "memory": normal(*lead, V, K, dtype=f32)}, {"dt_softplus": softplus}
    if form == "mean":  # keys of which one alone counts, channels in front of their first position, and keys that are left out
        begun = torch.arange(V, device=DEVICE).remainder(3) > 0
        return "wkv", {
            "k": (20 * normal(*one, V)).masked_fill(torch.arange(V, device=DEVICE).remainder(4) == 0, float("-inf")),
            "v": normal(*one, V), "decay": -normal(V, dtype=f32).exp(), "bonus": normal(V, dtype=f32),
            "peak": 20 * normal(*lead, V, dtype=f32), "denominator": (1 + normal(*lead, V, dtype=f32).abs()) * begun,
            "numerator": normal(*lead, V, dtype=f32) * begun}, {}
    if form == "prefixes":  # a row without a position yet, and one whose first is left out
        scores, begun = 20 * normal(*one), torch.ones(lead, device=DEVICE)
        scores[0], begun[0], begun[-1] = float("-inf"), 0, 0
        return "prefix_attention", {
            "scores": scores, "v": normal(*one, V), "peak": 20 * normal(*lead, dtype=f32),
            "denominator": (1 + normal(*lead, dtype=f32).abs()) * begun, "numerator": normal(*lead, V, dtype=f32) * begun[..., None]}, {}
    given, attributes = call("gla" if form in ("gla both", "gla alone") else form, lead, 1, K, V, -3.0, dtype)
    if form == "gla both":
        given["value_decay"] = -normal(*one, V, dtype=f32).abs()
    if form == "gla alone":
        given["decay"] = None
    return op_of(form), given, attributes


def op_of(form: str) -> str:
    return "gla" if form.startswith("gla") else "dplr_delta_rule" if form == "dplr" else "delta_rule"


def test_every_pair_of_gates_alone():
    """A gate of exp(-1000) in front of small ones costs them no digits, whichever way the chunk is computed."""
    for form in ("gla", "gated delta"):
        given, attributes = call(form, (1, 1), 64, 16, 16, -0.05, torch.float32)
        given["decay"][:, :, 20] = -1e3
        held(form, given, attributes, TOLERANCE[torch.float32])


@interpreted
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_gate_that_is_no_number_shows():
    for form, body in (("gla", Gla), ("gated delta", DeltaRule)):
        given, attributes = call(form, (1,), 5, 4, 4, -1.0, torch.float32)
        given["decay"][:, 3] = float("nan")
        assert body.forward(*given.values(), **attributes)[0][:, 3:].isnan().all()


def test_what_does_not_fit_is_told():
    given, _ = call("gla", (1, 1), 2, 4, 4, -1.0, torch.float32)
    types = dict.fromkeys(given) | _types(given)
    for more, words in (({"value_decay": types["q"]}, "`value_decay`, and these are both"), ({"decay": None}, "without gates it is linear attention"),
                        ({"k": _types({"k": given["q"]})["k"].__class__("f32", (1, 1, 2, 4))}, "q is bf16, k is f32, v is bf16")):
        found = choose("gla", "cuda", "bf16", types | more, {}, installed=False)
        assert found.binding is None and words in found.reasons["triton"]
    many = {n: None if t is None else t.__class__(t.dtype, (300, 300, *t.shape[2:])) for n, t in types.items()}
    assert choose("gla", "cuda", "bf16", many, {}, installed=False).reasons["triton"] == "there are 90000 sequences, and 65535 are the most"
    wide, _ = call("delta", (1, 1), 1, 300, 4, -1.0, torch.float32)
    found = choose("delta_rule", "cuda", "bf16", dict.fromkeys(wide) | _types(wide), {}, installed=False)
    assert found.reasons["triton"] == "k is 300 wide, and it holds memories of at most 256 rows"
    _, mean, _ = step_call("mean", (2,), 1, 4, torch.float32)
    one, begins = _types(mean), {"peak": None, "denominator": None, "numerator": None}
    several = one["k"].__class__("bf16", (2, 3, 4))
    assert (found := choose("wkv", "cuda", "bf16", one, {}, installed=False)).binding is not None and found.name == "triton_step"
    for types in (one | begins, one | {"k": several, "v": several}):
        assert choose("wkv", "cuda", "bf16", types, {}, installed=False).reasons["triton_step"] == "it computes one position, from a state"


def test_positions_far_apart_in_memory_are_brought_together():
    """Kernels count within a chunk in 32 bits. Of the memory between the positions nothing is touched."""
    from archdsl.kernels.chunks import CHUNK, FARTHEST, heads

    assert FARTHEST * CHUNK < 2**31
    for apart, kept in ((FARTHEST, True), (FARTHEST + 1, False)):
        x = torch.empty(2 * apart, dtype=torch.bfloat16).as_strided((1, 1, 2, 4), (1, 1, apart, 1))
        x.copy_(torch.arange(8).view(1, 1, 2, 4))
        found = heads(x, 2)
        assert (found is x) == kept and torch.equal(found, x) and (kept or found.is_contiguous())


def test_more_channels_than_a_launch_has_room_for_are_told():
    types = {n: TensorType("f32", (1, 8, 65_536 * 64)) for n in ("a", "b")} | {"h": None}
    why = choose("linear_scan", "cuda", "f32", types, {}, installed=False).reasons["triton"]
    assert why == "there are 4,194,304 channels, and 4,194,240 are the most"


@interpreted
def test_inside_the_op():
    """The op asked for its kernel gives what its body gives, and its gradient."""
    given, attributes = call("gated delta", (1, 2), 5, 4, 3, -1.0, torch.float32)
    found = []
    for kernel in ("triton", "reference"):
        leaves = [None if v is None else v.clone().requires_grad_() for n, v in given.items() if n != "memory"]
        y = OPS["delta_rule"].body(*leaves, kernel=kernel, **attributes)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x for x in leaves if x is not None])])
    close(found[0], found[1], 1e-5)


# ---------------------------------------------------------------- on a card
@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@forms
@pytest.mark.parametrize(("lead", "T", "K", "V", "least", "dtype"), [
    *((*shape, dtype) for dtype in (torch.float32, torch.bfloat16) for shape in (
        ((2, 3), 63, 60, 60, -4.0), ((3,), 65, 64, 128, -0.3), ((2, 4), 1000, 128, 128, -0.1), ((1, 2), 257, 100, 36, -1e3))),
    ((1, 2), 300, 256, 512, -0.3, torch.bfloat16)])
def test_on_a_card(form, dtype, lead, T, K, V, least, monkeypatch):
    poisoned(monkeypatch)
    given, attributes = call(form, lead, T, K, V, least, dtype)
    if len(lead) == 2:
        given["k"] = given["k"].transpose(1, 2).contiguous().transpose(1, 2)
    held(form, given, attributes, 1e-4)


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@steps
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_on_a_card(form, dtype, monkeypatch):
    poisoned(monkeypatch)
    for lead, K, V in (((1, 16), 128, 128), ((32, 4), 256, 512), ((3,), 60, 20)):
        one_position(form, lead, K, V, dtype)


# ---------------------------------------------------------------- offline
def launches() -> Iterator[tuple[str, Any]]:
    """Every configuration, for `tests/kernels/offline.py`."""
    for dtype in (torch.bfloat16, torch.float32):
        for form in FORMS:
            for lead, T, K, V in (((8, 16), 2048, 128, 128), ((8, 4), 2048, 128, 256), ((2, 8), 8192, 128, 128), ((8, 4), 2048, 256, 512),
                                  ((2, 3), 63, 60, 60)):
                def run(form: str = form, lead: Any = lead, T: int = T, K: int = K, V: int = V, dtype: torch.dtype = dtype) -> None:
                    (x, more), body = meta(form, lead, T, K, V, dtype), {"gla": Gla, "delta_rule": DeltaRule}.get(op_of(form), DplrDeltaRule)
                    body.forward(*x.values(), **more)
                    body.gradient(x["v"], x["memory"], *x.values(), **more)

                yield f"{form} {dtype} {list(lead)} {T} {K} {V}", run
        for form in STEPS:
            for lead, K, V in (((1, 16), 128, 128), ((32, 4), 256, 512), ((2,), 16, 2048)):
                def step(form: str = form, lead: Any = lead, K: int = K, V: int = V, dtype: torch.dtype = dtype) -> None:
                    from archdsl.kernels import steps

                    name, given, attributes = step_call(form, lead, K, V, dtype)
                    getattr(steps, name)(*(None if v is None else v.to("meta") for v in given.values()), **attributes)

                yield f"{form} {dtype} {list(lead)} {K} {V}", step


def meta(form: str, lead: tuple[int, ...], T: int, K: int, V: int, dtype: torch.dtype) -> Call:
    """Operands without numbers, heads side by side in memory."""
    given, attributes = call(form, (1,), 1, 1, 1, -1.0, dtype)
    width = {"q": (K,), "k": (K,), "v": (V,), "a": (K,), "b": (K,), "value_decay": (V,),
             "decay": () if form == "gated delta" else (K,)}

    def made(name: str, like: torch.Tensor) -> torch.Tensor:
        if name == "memory":
            return torch.empty(*lead, K, V, device="meta")
        return torch.empty(lead[0], T, *lead[1:], *width.get(name, ()), dtype=like.dtype, device="meta").transpose(1, 2)

    return {n: None if v is None else made(n, v) for n, v in given.items()}, attributes
