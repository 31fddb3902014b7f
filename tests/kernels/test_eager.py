"""Kernels that a model on the CPU takes by itself: on tensors that hold numbers, from a size on, and nowhere else; with the numbers, the gradients
and the second derivatives of torch's functions."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.kernels import eager, onednn, processor, running, written_out

SPEC = archdsl.loads("""use std { Linear, RMSNorm }
model M(bias: bool = true, d: int = 128, o: int = 256)(x: [B, T, d]) -> y: [B, T, o] { return Linear(o, bias)(RMSNorm()(x) as norm) as up }
""")
SHAPE = (2, 150, 128)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor on which oneDNN is the quicker one."""
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: None)
    running._choose.cache_clear()
    yield
    running._choose.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kernels compute, forwards."""
    seen: list[str] = []

    def noted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kw: (seen.append(name), run(*args, **kw))[1]

    for module, name, op in ((onednn, "_product", "linear"), (written_out, "_forward", "rms_norm")):
        monkeypatch.setattr(module, name, noted(op, getattr(module, name)))
    return seen


def given(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


def models(**knobs: Any) -> tuple[Any, Any, Any]:
    """By itself, in plain torch, and in float64."""
    made = SPEC.build(knobs=knobs), SPEC.build(knobs=knobs, kernels="reference"), SPEC.build(knobs=knobs, dtype=torch.float64)
    for p in made[0].parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))
    for m in made[1:]:
        m.load_state_dict(made[0].state_dict())
    return made


@pytest.mark.parametrize("bias", [True, False])
def test_numbers_and_gradients(calls: list[str], bias: bool):
    x, found = given(), []
    for model in models(bias=bias):
        leaf = x.to(next(model.parameters()).dtype).requires_grad_()
        y = model(leaf)
        found.append([y, *torch.autograd.grad(y, [leaf, *model.parameters()], given(*y.shape, seed=1).to(y.dtype))])
    assert calls[:2] == ["rms_norm", "linear"] and calls.count("rms_norm") == 2  # of the first, and of float64
    for mine, theirs, want in zip(*found, strict=True):
        error, other = ((v.double() - want).norm() / want.norm() for v in (mine, theirs))
        assert error <= 1.1 * other, (error, other)


def test_second_derivatives_are_those_of_torch():
    found = []
    for model in models()[:2]:
        leaf = given().requires_grad_()
        y = model(leaf)
        (first,) = torch.autograd.grad(y.square().mean(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [leaf, *model.parameters()]))
    for mine, want in zip(*found, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-6)


def test_many_gradients_at_once():
    model, plain, _ = models()
    found = []
    for m in (model, plain):
        leaf = given().requires_grad_()
        found.append(torch.autograd.grad(m(leaf), leaf, torch.stack([given(2, 150, 256, seed=s) for s in (1, 2)]), is_grads_batched=True)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def _exported(model: Any, x: torch.Tensor) -> list[str]:
    return [str(n.target) for n in torch.export.export(model, (x,)).graph.nodes if n.op == "call_function"]


def _compiled(model: Any, x: torch.Tensor) -> list[str]:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph

    torch.compile(model, fullgraph=True, backend=backend)(x)
    return seen


def _traced(model: Any, x: torch.Tensor) -> list[str]:
    with warnings.catch_warnings(record=True) as told:  # of sizes that are looked at
        warnings.simplefilter("always")
        found: Any = torch.jit.trace(model, x, check_trace=False)
    return [*(str(n.kind()) for n in found.inlined_graph.nodes()), str(len(told))]


@pytest.mark.parametrize("see", [_exported, _compiled, _traced])
def test_who_reads_the_graph_sees_torch(calls: list[str], see: Callable[[Any, torch.Tensor], list[str]]):
    model, plain, _ = models()
    assert see(model, given()) == see(plain, given()) != []
    mine, want = ([str(n.target) for n in torch.fx.symbolic_trace(m.up).graph.nodes] for m in (model, plain))
    assert mine == want
    assert not calls


MAPS = archdsl.loads("""use std { Conv, LayerNorm }
model M(c: int = 8)(x: [B, c, H, W]) -> y: [B, c, H, W] {
  maps = x |> Conv(c, 3, pad = 1) as first |> rearrange([B, c, H, W] -> [B, H, W, c])
  return (maps + LayerNorm()(maps) as norm) |> rearrange([B, H, W, c] -> [B, c, H, W]) |> Conv(c, 3, pad = 1) as last
}
""")


def test_layer_norms_of_maps_keep_rows():
    """Of what is compiled a backward pass gets nothing of four axes with the channels last, and the numbers are the same."""
    from functorch.compile import make_boxed_func  # pyright: ignore[reportPrivateImportUsage]
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    model, plain = MAPS.build(dtype=torch.float64), MAPS.build(dtype=torch.float64, kernels="reference")
    for p in model.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))
    plain.load_state_dict(model.state_dict())
    found, kept = [], []

    def forward(graph: torch.fx.GraphModule, _: Any) -> Any:
        results: Any = graph.graph.output_node().args[0]
        kept.append([tuple(v.meta["val"].shape) for v in results if isinstance(v.meta["val"], torch.Tensor)])
        return make_boxed_func(graph.forward)

    def backward(graph: torch.fx.GraphModule, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=forward, bw_compiler=backward, partition_fn=min_cut_rematerialization_partition)
    for m in (model, plain):
        x = given(3, 8, 5, 7).double().requires_grad_()
        y = torch.compile(m, fullgraph=True, dynamic=False, backend=backend)(x)
        grads = torch.autograd.grad(y.square().sum(), [x, *m.parameters()])
        found.append([y, *grads])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    ours, torchs = ([shape for shape in shapes if len(shape) == 4 and shape[:3] == (3, 5, 7)] for shapes in kept)
    assert ours == [] and torchs != []
    assert _exported(model, given(3, 8, 5, 7).double()) == _exported(plain, given(3, 8, 5, 7).double())


def test_who_looks_on_sees_torch(calls: list[str]):
    model, plain, _ = models()
    x = given()
    with FlopCounterMode(display=False) as mine:
        model(x)
    with FlopCounterMode(display=False) as want:
        plain(x)
    assert mine.get_total_flops() == want.get_total_flops() == 2 * 300 * 128 * 256
    found = torch.func.grad(lambda w: torch.func.functional_call(model, w, (x,)).sum())(dict(model.named_parameters()))
    torch.testing.assert_close(found["up.bias"], torch.full((256,), 300.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    torch.func.jvp(model, (x,), (x,))
    assert not calls


def test_who_replaces_functions_of_torch_is_called(calls: list[str], monkeypatch: pytest.MonkeyPatch):
    model, seen, theirs = models()[0], [], torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *args: (seen.append(args), theirs(*args))[1])
    model(given())
    assert len(seen) == 1 and calls == ["rms_norm"]


def test_operands_that_do_not_fit_are_left_to_torch(calls: list[str]):
    x = given(400, 256)
    for columns in (300, 200):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            eager.linear(x, given(512, columns), None)
    weight, bias = given(512, 256), given(1)
    torch.testing.assert_close(eager.linear(x, weight, bias), x @ weight.mT + bias, rtol=1e-4, atol=1e-4)
    for shape, weight in ((256,), (1,)), ((128,), (128,)):
        with pytest.raises(RuntimeError, match="normalized_shape"):
            eager.rms_norm(x, shape, given(*weight), 1e-5)
    assert not calls


def test_biases_with_strides(calls: list[str]):
    x, weight = given(400, 256), given(512, 256)
    for bias in (given(1024)[::2], given(1).expand(512)):
        torch.testing.assert_close(eager.linear(x, weight, bias), x @ weight.mT + bias, rtol=1e-4, atol=1e-4)
    assert calls == ["linear"] * 2


def test_only_what_gradients_need_is_kept(calls: list[str]):
    """Frozen weights keep no activations, and may be written to; so may results."""
    x, weight = given(400, 256), given(512, 256)
    hidden = x.requires_grad_() * 2
    y = eager.linear(hidden, weight, None)
    with torch.no_grad():
        hidden.zero_()
    y.relu_().sum().backward()
    want = 2 * ((x @ weight.mT) > 0).float() @ weight
    torch.testing.assert_close(x.grad, want, rtol=1e-4, atol=1e-3)
    weight.requires_grad_()
    y = eager.linear(x.detach(), weight, None)
    with torch.no_grad():
        weight.zero_()
    y.sum().backward()
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(512, 256), rtol=1e-4, atol=1e-3)
    assert calls.count("linear") == 4  # forwards and backwards
    scale, x = given(256).requires_grad_(), x.detach()
    y = eager.rms_norm(x, (256,), scale, 1e-5)
    with torch.no_grad():
        scale.zero_()
    y.sum().backward()
    torch.testing.assert_close(scale.grad, (x / x.square().mean(-1, keepdim=True).sqrt()).sum(0), rtol=1e-3, atol=1e-3)


def test_switches(calls: list[str]):
    x = given()
    for kernels in ("reference", {"linear": "reference", "rms_norm": "reference"}):
        SPEC.build(kernels=kernels)(x)
    assert not calls
    SPEC.build(kernels={"rms_norm": "reference"})(x)
    assert calls == ["linear"]
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):  # pyright: ignore[reportArgumentType]  (True warns where there is no such card)
        SPEC.build(kernels={"rms_norm": "reference"})(x)
    assert calls == ["linear"]


def test_from_a_size_on():
    def chosen(op: str, **types: TensorType | None) -> tuple[str, str]:
        found = b.choose(op, "cpu", "f32", types, {"eps": 1e-5} if op == "rms_norm" else {})
        return found.name, found.reasons.get("onednn", found.reasons.get("written_out", ""))

    def f32(*shape: Any) -> TensorType:
        return TensorType("f32", shape)

    assert chosen("linear", x=f32(8, 64, 128), weight=f32(128, 128), bias=None) == ("onednn", "")
    assert "8,257,536 multiplications" in chosen("linear", x=f32(8, 63, 128), weight=f32(128, 128), bias=None)[1]
    assert "of 63 rows" in chosen("linear", x=f32(63, 4096), weight=f32(4096, 4096), bias=None)[1]
    assert chosen("rms_norm", x=f32(256, 128), weight=f32(128)) == ("written_out", "")
    assert "fewer than" in chosen("rms_norm", x=f32(255, 128), weight=f32(128))[1]
    wide = {"x": f32(1, 2048, 8, 64), "dt": f32(1, 2048, 8), "a": f32(8), "b": f32(1, 2048, 1, 128), "c": f32(1, 2048, 1, 128), "skip": None}
    assert chosen("ssd", **wide, memory=None) == ("onednn", "")
    assert "1,048,576 multiplications" in chosen("ssd", **wide | {"b": f32(1, 2048, 4, 128)}, memory=None)[1]
    assert "of 63 positions" in chosen("ssd", **wide | {"x": f32(1, 63, 8, 64)}, memory=None)[1]


def test_processors(monkeypatch: pytest.MonkeyPatch):
    """By what it says of itself, whatever this one is."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for maker, quick in (("AuthenticAMD", True), ("GenuineIntel", False), ("", False)):
        monkeypatch.setattr(processor, "vendor", lambda maker=maker: maker)
        processor.mkl_is_slow.cache_clear()
        assert (processor.mkl_is_slow() is None) == quick
    monkeypatch.setattr(processor, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    processor.mkl_is_slow.cache_clear()
    assert "AVX-512" in str(processor.mkl_is_slow())
    processor.mkl_is_slow.cache_clear()
