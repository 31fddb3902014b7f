"""What holds for every recurrence because it is declared as one: types, no positions, the shapes of compiled graphs."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from archdsl.graph import TensorType
from archdsl.ops import registry
from archdsl.ops.packing import packed_name
from archdsl.ops.recurrent import KERNELS, RECURRENCES, Recurrence, fixed
from archdsl.ops.registry import OPS, OpError
from archdsl.ops.rules import Sample, ints
from archdsl.ops.signatures import axes_of, leads
from archdsl.syntax import tree

registry.load()
recurrences = pytest.mark.parametrize("name", sorted(RECURRENCES))


def sample(r: Recurrence, length: int | None = None) -> tuple[list[Any], list[Any], list[Any]]:
    """(operands, states, attributes) of the first sample, cut to a length."""
    g = torch.Generator().manual_seed(0)
    given = OPS[f"{r.name}_extend"].samples()[0]  # type: ignore[misc]
    made = {k: torch.rand(t.shape, generator=g, dtype=torch.float64) * (t.high - t.low) + t.low  # type: ignore[arg-type]
            for k, t in given.items() if isinstance(t, Sample)}
    if length is not None:
        made.update({k: x.narrow(r.time[k], 0, length) for k, x in made.items() if k in r.time})
    operands, named = r.arguments(tuple(made.get(n) for n in r.operands), {k: v for k, v in given.items() if k in r.attributes})
    return operands, [made[s] for s in r.state], named


def long_sample(r: Recurrence, length: int, dtype: torch.dtype) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """(operands, states, attributes) of the first sample with `length` positions, each drawn from its own; a state that grows has room for them."""
    operands, states, named = sample(r)
    g = torch.Generator().manual_seed(1)
    along = {k: torch.randint(0, x.shape[r.time[k]], (length,), generator=g) for k, x in zip(r.operands, operands) if k in r.time and x is not None}
    operands = [x.index_select(x.ndim + r.time[k], along[k]) if k in along else x for k, x in zip(r.operands, operands)]
    operands = [None if x is None else (x + 1e-3 * torch.rand(x.shape, generator=g)).to(dtype) for x in operands]
    states = list(r.zeros(operands, length)) if r.grows else [x.to(z.dtype) for x, z in zip(states, r.zeros(operands))]
    return operands, states, dict(zip(r.attributes, named))


def in_parts(r: Recurrence, operands: list[Any], states: list[Any], named: dict[str, Any], lengths: list[int]) -> list[Any]:
    """Results behind each other and the last states."""
    results: list[Any] = []
    at = 0
    for n in lengths:
        part = [x if x is None or k not in r.time else x.narrow(r.time[k], at, n) for k, x in zip(r.operands, operands)]
        found = r.extend.body(*part, *states, **named)
        results.append(found[:r.results])
        states, at = list(found[r.results:]), at + n
    return [*(torch.cat(ys, r.time[f"->{i}"]) for i, ys in enumerate(zip(*results))), *states]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@recurrences
def test_any_parts(name: str, dtype: torch.dtype, within: float):
    """The sequence at once, in parts of any lengths, and one position after the other: the same results and the same state."""
    r, T = RECURRENCES[name], 83
    given = long_sample(r, T, dtype)
    whole = in_parts(r, *given, [T])
    for lengths in ([1] * T, [1, 64, 18], [17, 1, 1, 30, 34], [T - 1, 1]):
        for got, want in zip(in_parts(r, *given, lengths), whole, strict=True):
            assert got.dtype == want.dtype and (got - want).abs().max() <= within * max(1, want.abs().max()), lengths


@recurrences
def test_later_positions_change_nothing_before(name: str):
    r, T, kept = RECURRENCES[name], 83, 41
    operands, states, named = long_sample(r, T, torch.float64)
    other = [x if x is None or k not in r.time else torch.cat([x.narrow(r.time[k], 0, kept), x.narrow(r.time[k], kept, T - kept).flip(r.time[k])],
             r.time[k]) for k, x in zip(r.operands, operands)]
    mine, theirs = (in_parts(r, given, states, named, [T])[:r.results] for given in (operands, other))
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        axis = r.time[f"->{i}"]
        assert not torch.equal(a, b)
        torch.testing.assert_close(a.narrow(axis, 0, kept), b.narrow(axis, 0, kept), rtol=1e-12, atol=1e-12)


@recurrences
def test_no_positions(name: str):
    """They give no results, and the state is what it was; so is its gradient."""
    r = RECURRENCES[name]
    operands, states, named = sample(r, 0)
    wanted = [x.requires_grad_() for x in (*operands, *states) if x is not None]
    found = r._kernel(*operands, *states, *named)
    for got, shape in zip(found, r._shapes(operands)):
        assert got.shape == shape and not got.numel()
    for got, state in zip(found[r.results:], states, strict=True):
        assert torch.equal(got, state) and got.data_ptr() != state.data_ptr()
    grads = torch.autograd.grad(torch.cat([s.flatten() for s in found[r.results:]]).sum(), wanted, allow_unused=True)
    for x, g in zip(wanted, grads, strict=True):
        assert g is not None and torch.equal(g, torch.full_like(x, float(any(x is s for s in states))))


@recurrences
def test_no_rows(name: str):
    """A batch of none: everything is without numbers."""
    r = RECURRENCES[name]
    operands, states, named = sample(r)
    leading = [x if x is None or not leads(r._declared[n]) else x[:0] for n, x in zip(r.operands, operands)]
    found = r._kernel(*leading, *(s[:0] for s in states), *named)
    assert [tuple(y.shape) for y in found] == [*r._shapes(leading), *(tuple(s[:0].shape) for s in states)]


@pytest.mark.parametrize("name", sorted(n for n, r in RECURRENCES.items() if r.grows))
def test_states_have_room(name: str):
    r = RECURRENCES[name]
    given = r.op.samples()[0]  # type: ignore[misc]
    with pytest.raises(OpError, match="a state has room for one position or more"):
        r.types(r.extend, {**given, **r.state_types(given, 0)})
    r.types(r.extend, {**given, **r.state_types(given, 1)})


def without(r: Recurrence, axis: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """(operands, attributes) of the short samples with nothing along one axis of the signature (`...`: all leading ones), where that is legal."""
    found, g = [], torch.Generator().manual_seed(1)
    for given in r.op.samples():  # type: ignore[misc]
        types = {}
        for k, t in given.items():
            if isinstance(t, Sample):
                axes = r._declared[k].shape.axes  # type: ignore[union-attr]
                names = [getattr(a, "id", "") for a in axes if not isinstance(a, tree.AnyAxes)]  # "": a number
                names = ["..."] * (len(t.shape) - len(names)) + names
                shape = [0 if a == axis else s for a, s in zip(names, t.shape, strict=True)]
                types[k] = Sample(t.dtype, tuple(shape), t.low, t.high)
        named = {k: v for k, v in given.items() if k not in types}
        sizes = {s for t in types.values() for s in t.shape}
        if 0 not in sizes or max(sizes) > 40:
            continue
        try:
            r.types(r.op, {**types, **named})
        except OpError:
            continue
        drawn = {k: torch.rand(t.shape, generator=g, dtype=torch.float64) * (t.high - t.low) + t.low for k, t in types.items()}
        found.append(([drawn.get(k) for k in r.operands], named))
    return found


AXES = sorted({(r.name, a) for r in [*RECURRENCES.values(), *KERNELS.values()] for k in r.operands for a in (*axes_of(r._declared[k]), "...")} - {
    ("causal_conv", "k"), ("causal_conv_dense", "k"), ("ssd", "g"), *(("poly_norm", a) for a in "mb"), *(("grouped_rational", a) for a in "cgmn")})
"""All but those that are refused."""


@pytest.mark.parametrize(("name", "axis"), AXES)
def test_nothing_along_an_axis(name: str, axis: str):
    """Sums over nothing are 0: by position where there are steps, from a state as from the beginning; gradients are those of zeros."""
    r = {**KERNELS, **RECURRENCES}[name]
    cases = without(r, axis)
    assert cases
    for operands, named in cases:
        leaves = [x.requires_grad_() for x in operands if x is not None]
        y = r.op.body(*operands, **named)
        ys = y if isinstance(y, tuple) else (y,)
        for x, g in zip(leaves, torch.autograd.grad(torch.cat([y.flatten() for y in ys]).sum(), leaves), strict=True):
            assert g.shape == x.shape and g.isfinite().all()
        assert [tuple(y.shape) for y in ys] == r._shapes(operands)
        if r._step is None:
            assert not any(y.any() for y in ys)
        elif axis != "T":
            expected = r._reference(*operands, **named)
            torch.testing.assert_close(ys, expected if isinstance(expected, tuple) else (expected,), rtol=1e-10, atol=1e-10)
        if r.state:
            extended = r.extend.body(*operands, *r.zeros(operands, 3), **named)[:r.results]
            torch.testing.assert_close(extended, ys, rtol=1e-10, atol=1e-10)


@recurrences
@pytest.mark.parametrize("given", [True, False])
def test_shapes_in_graphs(name: str, given: bool):
    """What a compiled graph is told about the results is what they are, with states given and without."""
    r = RECURRENCES[name]
    operands, states, named = sample(r)
    states = states if given else [None for _ in states]
    real = r._kernel(*operands, *states, *named)
    with FakeTensorMode() as mode:
        fake = r._kernel(*(None if x is None else mode.from_tensor(x) for x in (*operands, *states)), *named)
    assert [(y.shape, y.dtype, y.stride()) for y in real] == [(y.shape, y.dtype, y.stride()) for y in fake]


@recurrences
@pytest.mark.parametrize("dtype", ["bool", "int", "u8"])
def test_operands_are_floats(name: str, dtype: str):
    """Those that the signature calls so, one by one, in all three ops; the refusal names the operand."""
    r = RECURRENCES[name]
    for op in (r.op, r.extend, OPS[packed_name(r)]):
        types = op.samples()[0]  # type: ignore[misc]
        for k in (*r.operands, *(r.state if op is r.extend else ())):
            if k in types:
                with pytest.raises(OpError, match=f"a float tensor is needed.*{dtype}") as e:
                    op.infer(**{**types, k: TensorType(dtype, types[k].shape)})  # type: ignore[misc]
                assert e.value.about == k


@recurrences
def test_results_have_the_type_of_the_first_operand(name: str):
    r = RECURRENCES[name]
    types = r.op.samples()[0]  # type: ignore[misc]
    for own, others in (("bf16", "f32"), ("f16", "f16"), ("f32", "bf16"), ("f32", "float")):
        mixed = {k: TensorType(own if k == r.operands[0] else others, t.shape) if isinstance(t, TensorType) else t for k, t in types.items()}
        labels = ints(3, fixed(mixed[r.operands[0]])[r.time[r.operands[0]]])
        assert {t.dtype for t in (*r.types(r.op, mixed), *OPS[packed_name(r)].infer(**mixed, documents=labels))} == {own}  # type: ignore[misc]
        torch_types = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "float": torch.float32}
        operands, states, named = sample(r)
        operands = [x if x is None else x.to(torch_types[mixed[n].dtype]) for n, x in zip(r.operands, operands)]
        states = [torch.zeros(fixed(t), dtype=torch_types[t.dtype]) for t in r.state_types(mixed, 3).values()]
        assert [s.dtype for s in r.zeros(operands, 3)] == [s.dtype for s in states]
        found = r._kernel(*operands, *states, *named)
        assert all(y.dtype == torch_types[own] for y in found[:r.results])
        assert [s.dtype for s in found[r.results:]] == [s.dtype for s in states]


def elsewhere(x: Any) -> Any:
    """The same numbers with the axes in another order in memory, as projections to heads leave them."""
    return x.transpose(0, -2).contiguous().transpose(0, -2) if isinstance(x, torch.Tensor) and x.ndim > 2 else x


def stand_in_strides(op: Any, *given: Any) -> tuple[list[Any], list[Any]]:
    """Strides of an op's results as a compiled graph expects them, and as they are."""
    with FakeTensorMode() as mode:
        expected = op(*tree_map(lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x, given))
    return [x.stride() for x in expected], [x.stride() for x in op(*given)]


@recurrences
def test_gradients_lie_in_memory_as_compiled_graphs_expect(name: str):
    r = RECURRENCES[name]
    operands, states, named = sample(r)
    given = [elsewhere(x) for x in (*operands, *states)]
    found = r._kernel(*given, *named)
    pulls, needs = [torch.ones_like(y) for y in found], [True] * len(given)
    expected, real = stand_in_strides(getattr(torch.ops.archdsl, f"{name}_backward"), given, pulls, needs, *named)
    assert real == expected


def test_gradients_of_experts_lie_in_memory_as_compiled_graphs_expect():
    x, weight, index = torch.rand(2, 3, 4, 5), torch.rand(6, 7, 5), torch.randint(0, 6, (2, 3, 4))
    y = OPS["grouped_linear"].body(x, index, weight)
    expected, real = stand_in_strides(torch.ops.archdsl.grouped_linear_backward, torch.ones_like(y), elsewhere(x), index, elsewhere(weight), False)
    assert real == expected


@pytest.mark.parametrize("packed", [False, True])
def test_second_derivatives_are_refused(packed: bool):
    """Also where an operand, a state or a gradient is absent. First ones may be asked for in a way that allows for more."""
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    labels = {"documents": torch.tensor([0, 0, 1, 1, 1])} if packed else {}
    y = OPS["linear_attention_packed" if packed else "linear_attention"].body(x, x, x, **labels)
    (expected,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    for loss in (y.square().sum() + 0.5 * x.square().sum(), y.sum()):
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        with pytest.raises(RuntimeError, match="have no derivative of their own"):
            first.square().sum().backward()
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert torch.equal(first, expected)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_linear_maps_of_experts_under_autocast(given: torch.dtype):
    """As a linear map: operands are cast, and gradients have the types of what was given."""
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=g).to(kind).requires_grad_() for shape, kind in (
        ((6, 5), given), ((3, 4, 5), torch.float32), ((3, 4), torch.float32)))
    index, op = torch.tensor([2, 0, -1, 1, 2, 0]), OPS["grouped_linear"]
    expected = op.reference(x.detach().double(), index, weight.detach().double(), bias.detach().double())  # type: ignore[misc]
    for body in (op.body, op.plain):
        with torch.autocast("cpu", torch.bfloat16):
            y = body(x, index, weight, bias)  # type: ignore[misc]
        assert body is op.plain or y.dtype == torch.bfloat16
        torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)
        for leaf, grad in zip((x, weight, bias), torch.autograd.grad(y.float().sum(), (x, weight, bias)), strict=True):
            assert grad.dtype == leaf.dtype and grad.shape == leaf.shape
    of = lambda w: op.body(x.detach(), index, w, bias.detach()).float().sum()
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(of(weight), weight)
        torch.testing.assert_close(torch.func.grad(of)(weight.detach()), inside)


@pytest.mark.parametrize("bias", [True, False])
def test_dense_convolutions_in_pieces(bias: bool, monkeypatch: pytest.MonkeyPatch):
    """What is computed a few positions at a time, the last of them one alone, is what steps give, gradients too."""
    from archdsl.ops import memories

    monkeypatch.setattr(memories, "DENSE", 4)
    g = torch.Generator().manual_seed(0)
    numbers = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()
    given = [numbers(2, 9, 3), numbers(5, 3, 4), numbers(5) if bias else None, numbers(2, 3, 3)]
    leaves = [x for x in given if x is not None]
    found, expected = OPS["causal_conv_dense_extend"].body(*given), RECURRENCES["causal_conv_dense"].extend.reference(*given)  # type: ignore[misc]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    weights = [torch.randn(y.shape, dtype=torch.float64, generator=g) for y in found]
    grads = [torch.autograd.grad(list(ys), leaves, weights) for ys in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradients_of_dense_convolutions_are_made_once(monkeypatch: pytest.MonkeyPatch):
    """How many numbers the backward pass writes grows as the length does, though a sequence is computed in pieces."""
    from archdsl.ops import memories

    class Counted(TorchDispatchMode):
        written = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            y = func(*args, **kwargs or {})
            self.written += sum(x.numel() for x in (y if isinstance(y, (tuple, list)) else (y,)) if isinstance(x, torch.Tensor) and not x._is_view())
            return y

    monkeypatch.setattr(memories, "DENSE", 4)
    body, found = RECURRENCES["causal_conv_dense"].body, []
    for n in (64, 256):
        y, _ = body(torch.zeros(1, n, 3, requires_grad=True), torch.zeros(2, 3, 2), None, torch.zeros(1, 1, 3))
        with Counted() as counted:
            y.sum().backward()
        found.append(counted.written)
    assert found[1] < 5 * found[0]


@recurrences
def test_under_autocast(name: str):
    """What a recurrence computes in is said by its states: autocast changes neither its results nor its gradients."""
    r = RECURRENCES[name]
    operands, states, named = sample(r)
    leaves = [x if x is None else x.float().requires_grad_() for x in (*operands, *states)]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            ys = OPS[f"{name}_extend"].body(*leaves, **dict(zip(r.attributes, named)))
            total = sum((y * y).sum() for y in ys if y.is_floating_point())
            found.append([*ys, *torch.autograd.grad(total, [x for x in leaves if x is not None], allow_unused=True)])  # type: ignore[arg-type]
    for a, b in zip(*found, strict=True):
        assert a is b is None or a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@recurrences
def test_idle_positions_change_nothing_behind(name: str, dtype: torch.dtype):
    """Behind positions that hold what is declared to be no position, results are those of a sequence that begins here."""
    r, T, before = RECURRENCES[name], 11, 5
    assert r.idle is not None
    operands, states, named = long_sample(r, T + before, dtype)
    later = [x if x is None or k not in r.time else x.narrow(r.time[k], before, T) for k, x in zip(r.operands, operands)]
    idle = [x if x is None or y is None or k not in r.time
            else torch.cat([torch.full_like(x.narrow(r.time[k], 0, before), r.idle.get(k, 0)), y], r.time[k])
            for k, x, y in zip(r.operands, operands, later)]
    zeros = [torch.zeros_like(s) for s in states]
    for lengths in ([T + before], [before - 2, 4, T - 2], [1] * (T + before)):
        got = in_parts(r, idle, zeros, named, lengths)
        for i, want in enumerate(in_parts(r, later, zeros, named, [T])[:r.results]):
            found = got[i].narrow(r.time[f"->{i}"], before, T)
            within = (1e-10 if dtype == torch.float64 else 1e-4) * max(1, want.abs().max())
            assert found.isfinite().all() and (found - want).abs().max() <= within, lengths


@recurrences
def test_backward_inside_a_mode_that_sees_every_op(name: str):
    """As a counter of operations is one: the same gradients, whichever of both passes it sees."""
    r = RECURRENCES[name]
    operands, states, named = sample(r)
    leaves = [x if x is None else x.float().requires_grad_() for x in (*operands, *states)]
    given, found = [x for x in leaves if x is not None], []
    for forward, backward in ((nullcontext, nullcontext), (nullcontext, Seen), (Seen, nullcontext), (Seen, Seen)):
        with forward():
            ys = OPS[f"{name}_extend"].body(*leaves, **dict(zip(r.attributes, named)))
            total = torch.stack([(y * y).sum() for y in ys if y.is_floating_point()]).sum()
        with backward():
            found.append(torch.autograd.grad(total, given, allow_unused=True))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))
