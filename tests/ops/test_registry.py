"""Every op against torch: types, costs, what autograd keeps, gradients, tracing, documentation. The expected values are counted, not derived."""
from __future__ import annotations

import itertools
import math
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.proxy import GraphAppendingTracer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from archdsl.dims import Dim, evaluate, sym
from archdsl.elaborate.library import FUNCTIONS, MASKS
from archdsl.graph import STRUCTURE, Mask, TensorType
from archdsl.ops.initializers import INITIALIZERS
from archdsl.ops.recurrent import signature_of
from archdsl.ops.registry import OPS, USUAL, OpError
from archdsl.ops.rules import torch_dtype
from archdsl.syntax import tree
from tests.ops.cases import CASES, Call, default, float_operands, map_tensors, operand_names, sample, subsets, types_of

pytestmark = pytest.mark.filterwarnings("ignore")
cases = pytest.mark.parametrize(("name", "i"), CASES, ids=[f"{n}-{i}" for n, i in CASES])
tensor_cases = pytest.mark.parametrize(("name", "i"), [c for c in CASES if operand_names(OPS[c[0]])])
ops = pytest.mark.parametrize("name", OPS)
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16}


# ---------------------------------------------------------------- names
def test_names_tell_where_an_op_is_not():
    """What a check of a spec relies on, for it to import the families that it needs alone."""
    usual = {n for n, op in OPS.items() if op.body.__module__.rpartition(".")[2] in USUAL}
    assert OPS.keys() & FUNCTIONS.keys() <= usual
    assert not OPS.keys() & (INITIALIZERS.keys() | MASKS.keys() | STRUCTURE)
    assert not any(n[:1].isupper() for n in OPS)


def test_a_check_imports_the_families_of_ops_that_the_spec_needs():
    code = "import sys, archdsl; archdsl.load({!r}); print([m for m in sys.modules if m.startswith('archdsl.ops.')])"
    specs = Path(__file__).parents[2] / "specs"
    vit, mamba = (subprocess.run([sys.executable, "-c", code.format(str(specs / name))], capture_output=True, text=True, check=True).stdout
                  for name in ("vision/vit.arch", "language/mamba.arch"))
    assert "archdsl.ops.linear" in vit and "archdsl.ops.ssm" not in vit and "archdsl.ops.ssm" in mamba


# ---------------------------------------------------------------- types
@cases
def test_types(name: str, i: int):
    expected = types_of(OPS[name], sample(name, i))
    for (model, dtype), training in itertools.product(DTYPES.items(), (False, True) if OPS[name].phase else (False,)):
        got = _unless_missing(model, lambda dtype=dtype, training=training: Call(name, i, dtype)(training))
        if got is not None:
            assert [(t.dtype, tuple(t.shape)) for t in got] == [(torch_dtype(t.dtype, dtype), t.shape) for t in expected], model


def _unless_missing(model: str, run: Callable[[], Any]) -> Any:
    """What `run` gives; None where torch has no bfloat16 kernel."""
    try:
        return run()
    except RuntimeError as e:
        if model == "bf16" and "not implemented for 'BFloat16'" in str(e):
            return None
        raise


# ---------------------------------------------------------------- cost
def _counted(call: Call) -> int:
    """Multiply-accumulates that torch counts; vectors and FFTs, which its counter leaves out, are counted here: N ⌈log₂ N⌉ for N real numbers."""
    def fft(n: int, total: int) -> int:
        return 2 * total * (n - 1).bit_length()

    ffts = {torch.ops.aten._fft_r2c: lambda a, dim, *_, **__: fft(math.prod(a[d] for d in dim), math.prod(a)),
            torch.ops.aten._fft_c2r: lambda a, dim, *_, out_shape, **__: fft(math.prod(out_shape[d] for d in dim), math.prod(out_shape))}
    vectors = {torch.ops.aten.mv: lambda a, b, *_, **__: 2 * math.prod(a), torch.ops.aten.dot: lambda a, b, *_, **__: 2 * math.prod(a)}
    with FlopCounterMode(display=False, custom_mapping={**vectors, **ffts}) as counter, sdpa_kernel(SDPBackend.MATH):
        call(reference=True)  # the counter does not see into kernels
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@cases
def test_macs(name: str, i: int):
    op = OPS[name]
    assert (op.macs(**sample(name, i)) if op.macs else 0) == _counted(Call(name, i))


# ---------------------------------------------------------------- kernels
@pytest.mark.parametrize(("name", "i"), [c for c in CASES if OPS[c[0]].reference is not None])
def test_kernel_equals_reference(name: str, i: int):
    for dtype, within in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        call = Call(name, i, dtype)
        for got, expected in zip(call(), call(reference=True), strict=True):
            assert got.dtype == expected.dtype and torch.allclose(got, expected, rtol=within, atol=within)


# ---------------------------------------------------------------- what autograd keeps
class _Holder:
    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def _kept(call: Call) -> tuple[set[str], Counter[tuple[torch.dtype, int]]]:
    """Names of operands and results whose storage is saved, and (dtype, bytes) of the saved tensors that are neither."""
    packed: list[weakref.ref[_Holder]] = []
    versions = {k: v.untyped_storage().data_ptr() for k, v in call.named.items()}

    def pack(t: torch.Tensor) -> _Holder:
        holder = _Holder(t)
        packed.append(weakref.ref(holder))
        return holder

    with saved_tensors_hooks(pack, lambda holder: holder.tensor):
        results = call(training=True)
    alive = [h.tensor for ref in packed if (h := ref()) is not None]  # what the result's graph still holds
    saved = {t.untyped_storage().data_ptr(): t for t in alive}
    names = {ptr: k for k, ptr in versions.items()}
    for n, r in enumerate(results):
        names.setdefault(r.untyped_storage().data_ptr(), f"out{n or ''}")
    known = {names[p] for p in saved if p in names}
    rest = Counter((t.dtype, t.untyped_storage().nbytes()) for p, t in saved.items() if p not in names and t.dim() > 0)  # 0-dim: numbers
    return known, rest


@cases
def test_saves(name: str, i: int):
    """For the gradient of each operand alone and of all."""
    op = OPS[name]
    if op.saves is None:
        assert name.endswith("_extend"), "only a form with state need not tell"
        return
    for dtype, wanted in itertools.product(("f64", "bf16"), subsets(float_operands(Call(name, i)))):
        typed = lambda t, dtype=dtype: TensorType(dtype if t.dtype == "float" else t.dtype, t.shape)
        arguments = {k: map_tensors(v, typed) for k, v in sample(name, i).items()}
        wanted, model = {w.split(".")[0] for w in wanted}, DTYPES[dtype]
        call = Call(name, i, model, wanted)
        found = _unless_missing(dtype, lambda call=call: _kept(call))
        if found is None:
            continue
        known, rest = found
        said = op.kept(arguments, wanted)
        names = {n for s in said if isinstance(s, str) for n in ([k for k in call.named if k.split(".")[0] == s] or [s])}
        extra = Counter((d, math.prod(t.shape) * d.itemsize) for t in said if isinstance(t, TensorType) for d in [torch_dtype(t.dtype, model)])
        assert (known, rest) == (names, extra), f"gradient of {sorted(wanted)}, {dtype}"


# ---------------------------------------------------------------- gradients
@cases
def test_gradient(name: str, i: int):
    op = OPS[name]
    call = Call(name, i, torch.float64, True)
    inputs = [call.named[k] for k in float_operands(call)]
    if not inputs:
        return
    results = [r for r in call() if r.requires_grad]
    if op.grad == "none":
        assert not any(g is not None and g.any() for r in results for g in torch.autograd.grad(r.sum(), inputs, allow_unused=True))
    elif op.grad == "straight_through":
        value, like = (call.named[k] for k in ("value", "like"))
        ones = torch.randn_like(results[0])
        gradients = torch.autograd.grad(results[0], [value, like], ones, allow_unused=True)
        assert gradients[0] is None and torch.equal(gradients[1], ones) and torch.equal(results[0], value)
    elif op.grad == "surrogate":  # no difference quotient tells it: it is the one of the reference, whose own is tested by equation
        probes = [torch.randn_like(r) for r in results]
        ours, theirs = (torch.autograd.grad(call(reference=r), inputs, probes) for r in (False, True))
        assert all(g.any() and torch.allclose(g, h, rtol=1e-10, atol=1e-10) for g, h in zip(ours, theirs, strict=True))
    else:
        assert op.grad == "exact"
        for training in {False, op.phase}:
            f = lambda *_, training=training: tuple(r for r in call(training) if r.requires_grad)
            assert results or op.name in _CASTS, "an exact op gives a gradient"
            many = sum(x.numel() for x in inputs) > 60  # random directions instead of one element at a time
            assert not results or torch.autograd.gradcheck(f, inputs, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=many)


_CASTS = ("cast",)  # to integers there is none


# ---------------------------------------------------------------- tracing
class _Proxies:
    """Traces a body with proxies that know their types; the sizes in `free` vary at run time."""

    def __init__(self, call: Call, arguments: dict[str, Any]):
        self.graph = torch.fx.Graph()
        self.tracer = GraphAppendingTracer(self.graph)
        self.axes: dict[str, Any] = {}
        names, body = operand_names(call.op), {}
        for key, value in arguments.items():
            body[key] = map_tensors(value, self.input)
        values = {k: self.sizes(v) for k, v in body.items()}
        attrs = {k: call.attrs.get(k, v) if k == "dtype" else v for k, v in values.items() if k not in names and k in call.attrs}
        result = call.op.body(*(values[n] for n in names), **attrs, **({"training": False} if call.op.phase else {}))
        self.graph.output(self.tracer.create_arg(result))

    def input(self, t: TensorType) -> Any:
        proxy: Any = self.tracer.create_proxy("placeholder", f"t{len(self.graph.nodes)}", (), {})
        proxy.node.meta["type"] = t
        for axis, size in enumerate(t.shape):
            if isinstance(size, Dim):
                self.axes.setdefault(str(size), proxy.shape[axis])
        return proxy

    def sizes(self, value: Any) -> Any:
        if isinstance(value, Dim):
            return self.axes[str(value)]
        return tuple(self.sizes(v) for v in value) if type(value) is tuple else value


def _tensors(call: Call) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for key in call.types:
        value = call.attrs[key] if key in call.attrs else dict(zip(operand_names(call.op), call.args)).get(key)
        _collect(value, found)
    return found


def _collect(value: Any, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    for v in value if isinstance(value, tuple) else value.args if isinstance(value, Mask) else ():
        _collect(v, found)


def _run(graph: torch.fx.Graph, call: Call) -> tuple[torch.Tensor, ...]:
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    torch.manual_seed(0)
    result = module(*_tensors(call))
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _same(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b))


@tensor_cases
def test_traced_equals_eager(name: str, i: int):
    call = Call(name, i)
    assert _same(_run(_Proxies(call, call.types).graph, call), call())


_SIZES = ("sizes", "shape", "shapes", "out", "size", "n")
"""Attributes that hold sizes of tensors."""


def _with_size(value: Any, old: int, new: Any, key: str = "") -> Any:
    if isinstance(value, TensorType):
        return type(value)(**{**{f: getattr(value, f) for f in value.__dataclass_fields__},
                              "shape": tuple(new if s == old else s for s in value.shape)})
    if isinstance(value, tuple) and (key in _SIZES or any(isinstance(v, TensorType) for v in value)):
        return tuple(_with_size(v, old, new, key) for v in value)
    if isinstance(value, Mask):
        return Mask(value.kind, tuple(_with_size(a, old, new) for a in value.args))
    return new if key in _SIZES and type(value) is int and value == old else value


def _free_sizes(name: str, i: int) -> dict[int, tuple[dict[str, Any], tuple[TensorType, ...]]]:
    """The sizes of a sample that may vary at run time by the op's rule: size -> arguments and result types with a symbol in its place."""
    arguments, out = sample(name, i), {}
    shapes = [t.shape for v in arguments.values() for t in (v if isinstance(v, tuple) else (v,)) if isinstance(t, TensorType)]
    for old in sorted({s for shape in shapes for s in shape if isinstance(s, int) and s > 1}):
        free = {k: _with_size(v, old, sym("N"), k) for k, v in arguments.items()}
        try:
            out[old] = free, types_of(OPS[name], free)
        except (OpError, TypeError):
            continue
    return out


@cases
def test_run_time_sizes(name: str, i: int):
    """The graph traced with a symbol serves larger and smaller sizes, and the symbolic shape rule gives the real shape for each."""
    free = _free_sizes(name, i)
    for old, (arguments, types) in free.items():
        call = Call(name, i)
        graph = _Proxies(call, arguments).graph if call.named else None
        for new in (old, old + 1, old + 4):
            fixed = {k: _with_size(v, old, new, k) for k, v in sample(name, i).items()}
            try:
                types_of(OPS[name], fixed)
            except OpError:
                continue  # this size does not suit the fixed attributes
            other = Call(name, i, arguments=fixed)
            real = other()
            assert [tuple(t.shape) for t in real] == [tuple(evaluate(s, {"N": new}) for s in t.shape) for t in types], f"{old} -> {new}"
            assert graph is None or _same(_run(graph, other), real), f"{old} -> {new}"


@pytest.mark.parametrize("name", [n for n, o in OPS.items() if operand_names(o)])
def test_some_size_is_free(name: str):
    """The leading axis of some sample may vary at run time."""
    op = OPS[name]
    assert any(_free_sizes(name, i) for i in range(len(op.samples() if op.samples else []))), "no axis of any sample may be a run-time size"


# ---------------------------------------------------------------- declaration
@ops
def test_declaration(name: str):
    op = OPS[name]
    assert op.doc and op.doc[-1] in ".)", "a docstring that ends its sentence"
    assert op.samples, "samples for this test"
    parameters = signature_of(op.body).parameters
    names = operand_names(op)
    for p in op.decl.params:
        python = parameters[p.name]
        assert (python.kind is python.POSITIONAL_OR_KEYWORD) == (p.name in names), p.name
        assert (python.default is python.empty) == (p.default is None), p.name
        assert p.default is None or python.default == default(p), p.name
    assert [n for n in parameters if n in names] == names, "operands in the order of the signature"
    assert set(parameters) - {p.name for p in op.decl.params} <= {"training", "device", *(["kernel"] if op.form_of else [])}
    assert ("training" in parameters) == op.phase
    axes = {a for p in op.decl.params for a in _axis_names(p.type)}
    assert set(op.roles) <= axes


def _axis_names(t: Any) -> set[str]:
    if isinstance(t, tree.OptionalType):
        return _axis_names(t.item)
    return {a.id for a in t.shape.axes if isinstance(a, (tree.AxisName, tree.AxesVar))} if isinstance(t, tree.TensorType) else set()


@ops
def test_samples_have_odd_sizes_and_ones(name: str):
    values = [v for s in (OPS[name].samples or list)() for v in s.values()]
    sizes = {s for v in values for t in (v if isinstance(v, tuple) else (v,)) if isinstance(t, TensorType) for s in t.shape if isinstance(s, int)}
    if sizes:
        assert 1 in sizes and any(s > 1 and s % 2 for s in sizes)


def test_registry_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; from archdsl.ops.registry import load, OPS; load(); [o.decl for o in OPS.values()]; assert OPS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
