"""What the lowered model computes: sizes, phases, updates, emitted values, tables, dtypes, initial values."""
from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from lowered import CONVNET, LLAMA, ROUTED, SIGMA, build, image, tokens
from torch import nn

from archdsl.diagnostics.model import ArchError
from archdsl.dims import sym
from archdsl.dims.poly import make
from archdsl.graph import Graph, InitExpr, Node, Param, TensorType, Value
from archdsl.lower import lower
from archdsl.lower.module import blocks
from archdsl.lower.plan import matches
from archdsl.lower.sizes import Axes, Unknown


@pytest.mark.parametrize(("text", "inputs"), [(LLAMA, tokens()), (CONVNET, image()), (SIGMA, torch.randn(2, 6)), (ROUTED, torch.randn(2, 4))],
                         ids=["llama", "convnet", "sigma", "routed"])
def test_flat_equals_hierarchical(text, inputs):
    a, b = build(text), build(text, flat=True)
    assert list(a.state_dict()) == list(b.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not [n for n in b.graph.nodes if n.op == "call_module" and not str(n.target).startswith("_")]
    for phase in (True, False):
        results = []
        for model in (a.train(phase), b.train(phase)):
            torch.manual_seed(0)
            y = model(inputs)
            grads = torch.autograd.grad(y.square().sum(), list(model.parameters()))
            results.append((y, grads))
        torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(dict(a.named_buffers()), dict(b.named_buffers()))


def test_sizes_follow_the_input():
    model = build(LLAMA)
    long = model(tokens(3, 11))
    assert long.shape == (3, 11, 31)
    assert torch.allclose(model(tokens(3, 11)[:, :5]), long[:, :5], atol=1e-6)


def test_sizes_that_no_axis_of_a_block_tells_come_from_the_caller():
    B, T = sym("B"), sym("T")
    x = Node("input", (), {"name": "x"}, (TensorType("float", (B, 4)),), name="x")
    w = Node("param", (), {"path": "w"}, (TensorType("float", (4,)),), name="w")
    s = Node("mul", (Value(x), Value(w)), {}, (TensorType("float", (B, 4)),))
    y = Node("div", (Value(s), 2 * T + 1), {}, (TensorType("float", (B, 4)),), name="y")
    inner = Graph("Ratio", (Value(x),), (x, w, s, y), (Value(y),), params=(Param("w", "param", TensorType("float", (4,)), InitExpr("ones")),))
    a = Node("input", (), {"name": "a"}, (TensorType("float", (B, T, 4)),), name="a")
    m = Node("mean", (Value(a),), {"axis": 1}, (TensorType("float", (B, 4)),), name="m")
    c = Node("call", (Value(m),), {"path": "f", "graph": inner}, (TensorType("float", (B, 4)),), name="c")
    outer = Graph("M", (Value(a),), (a, m, c), (Value(c),), children={"f": inner})
    model = lower(outer)
    a = torch.randn(2, 3, 4)
    assert torch.allclose(model(a), a.mean(1) / 7)
    assert torch.allclose(lower(outer, flat=True)(a), a.mean(1) / 7)
    assert "self.f(m, a.size(1))" in model.code


def test_sizes_that_no_input_tells_are_an_error():
    B, N = sym("B"), sym("N")
    x = Node("input", (), {"name": "x"}, (TensorType("float", (B, 4)),), name="x")
    y = Node("div", (Value(x), N), {}, (TensorType("float", (B, 4)),))
    with pytest.raises(ArchError, match="A0512"):
        lower(Graph("M", (Value(x),), (x, y), (Value(y),)))


@pytest.mark.parametrize(("text", "B", "size"), [("2*N + 1", 9, 4), ("(N - 1)/3", 5, 16), ("floordiv(N, 2)", None, None)])
def test_sizes_are_solved_from_the_axes_at_hand(text, B, size):
    N = sym("N")
    axis = {"2*N + 1": 2 * N + 1, "(N - 1)/3": make({m: Fraction(c, 3) for m, c in {(): -1, **N.terms}.items()}),
            "floordiv(N, 2)": N // 2}[text]
    assert str(axis) == text
    x = Value(Node("input", (), {}, (TensorType("float", (axis,)),)))
    arithmetic = {"add": int.__add__, "sub": int.__sub__, "mul": int.__mul__, "floordiv": int.__floordiv__}
    axes = Axes(lambda value, i: B, lambda op, *operands: arithmetic[op](*operands))
    axes.add(x)
    if size is None:
        with pytest.raises(Unknown):
            axes(N)
    else:
        assert axes(N) == size
        assert axes(N * N + 3) == size * size + 3


def test_guards_are_checked_on_the_host():
    model = build(CONVNET).eval()
    with pytest.raises(ValueError, match="the height must be even"):
        model(image(2, 7, 6))
    assert model(image(2, 10, 6)).shape == (2, 5)


# ---------------------------------------------------------------- phases
def test_dropout_and_stochastic_depth_act_in_training_alone():
    model = build(CONVNET, {"rate": 0.5, "drop": 0.5})
    torch.manual_seed(0)
    a = model(image())
    b = model(image())
    assert not torch.equal(a, b)
    model.eval()
    assert torch.equal(model(image()), model(image()))


def test_batch_statistics_move_in_training_alone():
    model = build(CONVNET).eval()
    norm = model.blocks[0].norm
    model(image())
    assert torch.equal(norm.running_mean, torch.zeros(4))
    model.train()(image())
    assert not torch.equal(norm.running_mean, torch.zeros(4))
    reference = nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 5)
    other = build(CONVNET).blocks[0].norm.train()
    torch.testing.assert_close(other(x), reference(x))
    torch.testing.assert_close(other.running_var, reference.running_var)


def test_phase_arms():
    text = """
model M()(x: [B, 4]) -> y: [B, 4] {
  param w: [4] = ones()
  return phase { train => x * w  eval => x + w }
}
"""
    model = build(text)
    x = torch.randn(2, 4)
    assert torch.equal(model(x), x)
    assert torch.equal(model.eval()(x), x + 1)
    assert list(model.state_dict()) == ["w"]
    model.train()(x).sum().backward()
    assert torch.allclose(model.w.grad, x.sum(0))


def test_updates_commit_after_the_forward_pass():
    model = build(SIGMA)
    x = torch.randn(3, 6)
    sigma = model.layers[1].f
    before = sigma.u.clone()
    y = model.eval()(x)
    assert torch.equal(sigma.u, before)
    assert torch.allclose(model.train()(x), y)  # readers saw the old value
    v = nn.functional.normalize(sigma.weight @ before, dim=0)
    assert torch.allclose(sigma.u, nn.functional.normalize(v @ sigma.weight, dim=0), atol=1e-5)
    assert not sigma.u.requires_grad


def test_updates_leave_the_backward_pass_its_old_values():
    model = build(SIGMA, dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64)
    old = model.layers[0].f.u.clone()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model(x).square().sum().backward()
    assert not torch.equal(model.layers[0].f.u, old)
    again = build(SIGMA, dtype=torch.float64).eval()
    again.load_state_dict(state)
    again(x).square().sum().backward()
    for a, b in zip(model.parameters(), again.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_evaluation_does_not_compute_what_only_updates_need():
    model = build(SIGMA)
    assert "_phase_0" in model.layers[0].f.code
    assert "torch.matmul(v" not in model.layers[0].f.code
    assert "torch.matmul(v" in model.layers[0].f._phase_0.train_arm.code
    assert "self._read_0(self.layers[0].f.u)" in model.code


SHARED = """
block Average()(x: [B, d]) -> [B, d] {
  param w: [d] = ones()
  buffer seen: [d] = zeros()
  buffer n: [] = zeros()
  update seen = 0.5 * seen + mean(x, axis = 0)
  update n = n + 1
  return x * w + seen
}
block Twice(f: block)(x: [B, d]) -> [B, d] { return f(f(x)) }
model M()(x: [B, 4]) -> y: [B, 4] {
  share f = Average()
  return f(f(x) + 1)
}
"""


@pytest.mark.parametrize("flat", [False, True])
def test_updates_of_a_shared_block_compose_in_the_order_of_calls(flat):
    model, x = build(SHARED, flat=flat), torch.randn(3, 4)
    seen = torch.zeros(4)
    for _ in range(2):
        first = x + seen  # both calls read the old value
        second = first + 1 + seen
        expected = 0.5 * (0.5 * seen + x.mean(0)) + (first + 1).mean(0)
        assert torch.allclose(model(x), second)
        seen = expected
        assert torch.allclose(model.f.seen, seen)
    assert model.f.n == 4
    model.eval()(x)
    assert model.f.n == 4
    assert torch.allclose(model.f.seen, seen)


def test_updates_compose_below_a_shared_block():
    text = SHARED.split("model")[0].replace("block Twice(f: block)", "block Outer()").replace("return f(f(x))", "return Average()(x) as a")
    model = build(text + """model M()(x: [B, 4]) -> y: [B, 4] {
  share g = Outer()
  return g(g(x) + 1)
}""")
    x = torch.randn(3, 4)
    model(x)
    assert torch.allclose(model.g.a.seen, 0.5 * x.mean(0) + (x + 1).mean(0))
    assert model.g.a.n == 2


# ---------------------------------------------------------------- emitted values
def test_emitted_values_are_handed_out_by_address():
    x = torch.randn(2, 4)
    plain = build(ROUTED)
    y, found = build(ROUTED, emit=("layers.*.gate.balance",))(x)
    assert list(found) == [f"layers.{i}.gate.balance" for i in range(3)]
    assert torch.equal(y, plain(x))
    gate = plain.layers[0].gate
    assert torch.allclose(found["layers.0.gate.balance"], torch.sigmoid(gate.linear(x)).mean())
    assert list(build(ROUTED, emit=("**.spread",), flat=True)(x)[1]) == [f"layers.{i}.gate.spread" for i in range(3)]


def test_unwanted_emitted_values_are_not_computed():
    assert "mean" not in build(ROUTED).layers[0].gate.code
    model = build(ROUTED, emit=("layers.1.**",))
    assert model.layers[1].gate.code.count("mean()") == 2
    assert "mean" not in model.layers[0].gate.code
    assert type(model.layers[0]) is type(model.layers[2]) is not type(model.layers[1])


def test_one_pattern_may_stand_alone():
    assert list(build(ROUTED, emit="layers.*.gate.balance")(torch.randn(2, 4))[1]) == [f"layers.{i}.gate.balance" for i in range(3)]


@pytest.mark.parametrize(("dtype", "wanted"), [
    (torch.bfloat16, torch.bfloat16), ("bf16", torch.bfloat16), ("float64", torch.float64), (None, torch.float32)])
def test_float_types_by_name(dtype, wanted):
    assert {p.dtype for p in build(ROUTED, dtype=dtype).parameters()} == {wanted}


@pytest.mark.parametrize("dtype", [torch.int64, "int64", "f8", "int", "nn", 3])
def test_what_is_no_float_type(dtype):
    with pytest.raises(ArchError, match="A0644"):
        build(ROUTED, dtype=dtype)


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(ArchError, match="A0511"):
        build(ROUTED, emit=("layers.*.gate.balnce",))


@pytest.mark.parametrize(("pattern", "address", "yes"), [
    ("a.*.c", "a.b.c", True), ("a.*.c", "a.b.b.c", False), ("a.**.c", "a.b.b.c", True), ("a.**.c", "a.c", True), ("**", "a.b", True),
    ("**.c", "c", True), ("a.l*", "a.loss", True), ("a.l*", "a.x", False), ("a", "a.b", False), ("a.+", "a.b", False)])
def test_patterns(pattern, address, yes):
    assert matches(pattern.split("."), address.split(".")) is yes


# ---------------------------------------------------------------- tables
def count_calls(model: nn.Module, name: str) -> int:
    return sum(n.target is getattr(torch, name) for _, m in blocks(model) for n in m.graph.nodes)


def test_tables_are_computed_once_in_the_root():
    shared, own = build(LLAMA), build(LLAMA, hoist=False)
    assert count_calls(shared, "cos") == 1
    assert count_calls(own, "cos") >= 4
    assert torch.equal(shared(tokens()), own(tokens()))
    assert list(shared.state_dict()) == list(own.state_dict())


def test_tables_of_consts_are_shared_and_stay_out_of_the_state_dict():
    f, shape = TensorType("float", (sym("B"), 4)), TensorType("float", (4,))
    x = Node("input", (), {"name": "x"}, (f,), name="x")
    rates, w = (Node("param", (), {"path": n}, (shape,), name=n) for n in ("rates", "w"))
    table = Node("sin", (Value(Node("exp", (Value(rates),), {}, (shape,))),), {}, (shape,), name="waves")
    y = Node("mul", (Value(x), Value(w)), {}, (f,))
    z = Node("add", (Value(y), Value(table)), {}, (f,))
    numbers = InitExpr("constant", (), (("value", (1.0, 2.0, 3.0, 4.0)),))
    weights = (Param("rates", "const", shape, numbers), Param("w", "param", shape, InitExpr("ones")))
    block = Graph("Waves", (Value(x),), (x, rates, table.args[0].node, w, table, y, z), (Value(z),), params=weights)
    a = Node("input", (), {"name": "a"}, (f,), name="a")
    nodes, value = [a], Value(a)
    for i in range(3):
        nodes.append(Node("call", (value,), {"path": f"layers.{i}", "graph": block}, (f,)))
        value = Value(nodes[-1])
    graph = Graph("M", (Value(a),), tuple(nodes), (value,), children={f"layers.{i}": block for i in range(3)})
    shared, own, x = lower(graph), lower(graph, hoist=False), torch.randn(2, 4)
    assert torch.equal(shared(x), own(x))
    assert torch.allclose(shared(x), x + 3 * torch.sin(torch.exp(torch.tensor([1.0, 2, 3, 4]))))
    assert (count_calls(shared, "sin"), count_calls(own, "sin")) == (1, 3)
    assert list(shared.state_dict()) == [f"layers.{i}.w" for i in range(3)]


# ---------------------------------------------------------------- dtypes and initial values
def test_pinned_values_are_a_minimum():
    text = """
model M()(x: [B, 4]) -> y: [B, 4] {
  param w: [4] = ones()
  param p: f32[4] = ones()
  buffer n: int[] = zeros()
  f32 { s = x * x }
  return x * w + cast(s * p, "float")
}
"""
    for dtype, pinned in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        model = build(text, dtype=dtype)
        assert (model.w.dtype, model.p.dtype, model.n.dtype) == (dtype, pinned, torch.int64)
        assert model(torch.randn(2, 4, dtype=dtype)).dtype == dtype


def test_default_dtype_is_torchs():
    torch.set_default_dtype(torch.float64)
    try:
        assert build(SIGMA).layers[0].f.weight.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_initial_values_depend_on_seed_and_address_alone():
    a, b, c = build(LLAMA), build(LLAMA, {"depth": 2, "tie": True}), build(LLAMA, seed=1)
    for name, value in b.state_dict().items():
        assert torch.equal(a.state_dict()[name], value), name
    assert not torch.equal(a.embed.weight, c.embed.weight)
    assert not torch.equal(a.layers[0].attn.q.weight, a.layers[1].attn.q.weight)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    build(LLAMA)
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_values_agree_between_dtypes():
    for name, value in build(LLAMA, dtype=torch.bfloat16).state_dict().items():
        assert torch.equal(build(LLAMA).state_dict()[name].bfloat16(), value), name


def test_initialisers_are_expressions_over_earlier_weights():
    text = """
model M()(x: [B, 3]) -> y: [B, 3] {
  param a: [3, 3] = 2 * eye() + 1
  param b: [3, 3] = a * 0.5
  return linear(linear(x, a), b)
}
"""
    model = build(text)
    assert torch.equal(model.a, 2 * torch.eye(3) + 1)
    assert torch.equal(model.b, model.a / 2)
    assert build(text).b.requires_grad


def test_frozen_weights_ask_no_gradient():
    text = "model M()(x: [B, 3]) -> y: [B, 3] {\n  frozen param a: [3] = ones()\n  param b: [3] = ones()\n  return x * a * b\n}"
    model = build(text)
    assert (model.a.requires_grad, model.b.requires_grad) == (False, True)


def test_meta_device_allocates_nothing():
    model = build(LLAMA, device="meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model(tokens().to("meta")).shape == (2, 7, 31)


def test_a_shared_block_with_other_arguments_is_inlined():
    text = """
use std.linear { Linear }
block Turn()(x: [B, 4], times: int) -> [B, 4] {
  y = Linear(4)(x)
  return roll(y, shifts = times, axes = 1)
}
model M()(x: [B, 4]) -> y: [B, 4] {
  share f = Turn()
  return f(f(x, times = 1), times = 2)
}
"""
    model, x = build(text), torch.randn(2, 4)
    y = torch.roll(model.f.linear(x), 1, 1)
    assert torch.allclose(model(x), torch.roll(model.f.linear(y), 2, 1))
    assert list(model.state_dict()) == ["f.linear.weight", "f.linear.bias"]


def test_tensors_written_as_numbers_become_buffers_outside_the_state_dict():
    text = """
model M()(x: [B, 3]) -> y: [B, 3] {
  const scale: [3] = [1, 2, 4]
  return x * scale
}
"""
    model = build(text, dtype=torch.float64)
    assert torch.equal(model(torch.ones(2, 3, dtype=torch.float64)), torch.tensor([[1.0, 2, 4]] * 2, dtype=torch.float64))
    assert not model.state_dict()
    assert [b.dtype for b in model.buffers()] == [torch.float64]
    assert build(text, device="meta")(torch.ones(2, 3, device="meta")).device.type == "meta"


def test_tensors_are_compared_with_sizes():
    """On either side, and joined with `and`; the size is that of the call."""
    model = build("model M()(x: [B, T]) -> y: bool[B, T] { return index(T) >= T - 2 and T - 1 > index(T) and x > 0 }")
    for n in (1, 2, 5):
        x = torch.randn(3, n)
        assert torch.equal(model(x), (torch.arange(n) == n - 2) & (x > 0))
