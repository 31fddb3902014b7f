"""`scan`: recurrences written in the language, against loops in plain torch."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from archdsl.lower.module import ArchModule
from archdsl.printer import print_graph
from tests.cost import counted
from tests.streaming.forms import agree, close, shaken

RNN = """
use std.linear { Linear }
/// A gated recurrence with a matrix of its own.
block Recur()(x: [B, T, d], g: [B, T, d]) -> [B, T, d] {
  param w: [d, d] = normal(std = 0.1)
  scan (x, g) over T carry s: [B, d] = zeros() {
    new = tanh(linear(s, w)) * sigmoid(g) + x
    next s = new
    yield new * 2
  }
}
model Net(d: int = 8, depth: int = 2)(x: [B = 2, T = 5, d]) -> y: [B, T, d] stream T {
  layers: for i in range(depth) {
    g = Linear(d)(x) as gate
    x = x + Recur()(x, g) as rec
  }
  return x
}
"""

TWO = """
/// Two carries of other shapes and types, two results, time as the last axis.
block Two()(x: [B, d, T], k: [B, T, d]) -> (sums: [B, d, T], products: f32[B, d, T, d]) {
  scan (x, k) over T carry total: [B, d] = zeros(), memory: f32[B, d, d] = zeros() {
    f32 { memory_now = 0.5 * memory + outer(x, k) }
    next total = total + x
    next memory = memory_now
    yield total, memory_now
  }
}
model Net(d: int = 3)(x: [B = 2, d, T = 5], k: [B, T, d]) -> (sums: [B, d, T], products: f32[B, d, T, d]) stream T { return Two()(x, k) }
"""


def test_recurrence():
    model = archdsl.loads(RNN).build(dtype=torch.float64)
    x = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    h: Any = x
    for layer in model.layers:
        g, s, out = layer.gate(h), torch.zeros(3, 8, dtype=torch.float64), []
        for t in range(7):
            s = torch.tanh(s @ layer.rec.w.T) * torch.sigmoid(g[:, t]) + h[:, t]
            out.append(2 * s)
        h = h + torch.stack(out, 1)
    y = model(x)
    close(y, h, 1e-12)
    inputs = [x, *model.parameters()]
    for a, b in zip(torch.autograd.grad(y.square().sum(), inputs), torch.autograd.grad(h.square().sum(), inputs)):
        close(a, b, 1e-10)
    one = x[:1, :1].detach()
    assert model(one).shape == one.shape


def test_the_carried_name_is_the_old_value():
    """`total` is yielded as it came in, `memory_now` as it goes out; the axis lies where each operand has it."""
    model = archdsl.loads(TWO).build(dtype=torch.float64)
    x, k = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    sums, products = model(x, k)
    close(sums, x.cumsum(-1) - x, 1e-12)
    memory = torch.zeros(2, 3, 3, dtype=torch.float64)
    for t in range(6):
        memory = 0.5 * memory + x[:, :, t, None] * k[:, t, None, :]
        close(products[:, :, t], memory, 1e-12)


def test_forms_agree():
    state = agree(archdsl.loads(RNN))["state"]
    assert {k: list(v.shape) for k, v in state.items()} == {"layers.0.rec.s": [2, 8], "layers.1.rec.s": [2, 8]}


def test_a_step_is_plain():
    """No loop is left in it: it exports."""
    spec = archdsl.loads(RNN)
    step = spec.build(form="step").eval()
    x, state = torch.randn(2, 1, 8), step.init_state(2)
    program = torch.export.export(step, (x, state)).module()
    close(program(x, state)[0], step(x, state)[0], 1e-6)


@pytest.mark.parametrize("text", [RNN, TWO])
def test_printed_graph_is_the_same(text: str):
    spec = archdsl.loads(text)
    printed = print_graph(spec.elaborate())
    assert archdsl.loads(printed).graph().hash == spec.graph().hash


@pytest.mark.parametrize("form", ["parallel", "extend", "step"])
def test_written_out(form: str, tmp_path: Any):
    """`model.py` gives the same, with torch alone."""
    spec = archdsl.loads(RNN)
    model = shaken(spec.build(dtype=torch.float64, form=form)).eval()
    name: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), name)
    other = name["Net"]().double().eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 1 if form == "step" else 5, 8, dtype=torch.float64)
    if form == "parallel":
        close(other(x), model(x), 1e-12)
    else:
        state = {k: torch.randn_like(v) for k, v in model.init_state(2).items()}
        for got, expected in zip(other(x, state), model(x, state)):
            close(tuple(got.values()) if isinstance(got, dict) else got, tuple(expected.values()) if isinstance(expected, dict) else expected, 1e-12)


def test_no_positions_give_no_results():
    """As the recurrences of the library do; in TWO the axis of time is the last."""
    net = archdsl.loads(RNN).build()
    x = torch.zeros(3, 0, 8, requires_grad=True)
    y = net(x)
    assert y.shape == (3, 0, 8) and torch.autograd.grad(y.sum(), x)[0].shape == x.shape
    sums, products = archdsl.loads(TWO).build()(torch.zeros(2, 3, 0, dtype=torch.float32), torch.zeros(2, 0, 3))
    assert sums.shape == (2, 3, 0) and products.shape == (2, 3, 0, 3)
    space: dict[str, Any] = {}
    exec(python_source(net), space)
    assert space["Net"]()(torch.zeros(3, 0, 8)).shape == (3, 0, 8)


def test_costs():
    spec = archdsl.loads(RNN)
    model, x = spec.build(dtype=torch.float64), torch.randn(3, 7, 8, dtype=torch.float64)
    cost = spec.cost(at={"B": 3, "T": 7}, dtype="f64")
    assert cost.macs == counted.macs(model, (x,)) and cost.saved_bytes == counted.saved_bytes(model, (x,))
    assert cost.peak_bytes >= counted.peak_bytes(model, (x,)) >= cost.peak_bytes / 1.2
    assert spec.cost(form="step").state_bytes == 2 * 2 * 8 * 4


def net(body: str, more: str = "") -> str:
    return f"block Net_()(x: [B, T, d]) -> [B, T, d] {{\n{body}\n}}\n" \
        f"model Net(d: int = 4)(x: [B = 2, T = 5, d]) -> y: [B, T, d] stream T {{ return Net_()(x) }}\n{more}"


@pytest.mark.parametrize(("body", "code", "told"), [
    ("scan x over T carry s: [B, d] = zeros() { next s = s + x }", "A0220", "yields nothing"),
    ("scan x over T carry s: [B, d] = zeros() { yield s }", "A0220", "no next value"),
    ("scan x over T carry s: [B, d] = zeros() { next s = s\n next s = x\n yield s }", "A0208", "second next"),
    ("scan x over T carry s: [B, d] = zeros() { next s = sum(x, axis = -1)\n yield s }", "A0301", "next `s` is"),
    ("scan x over T carry s: [B, d] = zeros() { next r = x\n next s = s\n yield s }", "A0209", "carries no `r`"),
    ("scan x over T carry s: [B, d] = zeros() { next s = s\n yield 3 }", "A0204", "yields tensors"),
    ("k = sum(x, axis = 1)\nscan k over T carry s: [B, d] = zeros() { next s = s\n yield s }", "A0309", "no axis of T"),
    ("scan x over T carry s: [B, d] = x { next s = s\n yield s }", "A0301", "begins with"),
    ("scan x over T carry s: [B, d] = normal() { next s = s\n yield s }", "A0204", "begins with a number"),
    ("scan x over T carry s: int = 0 { next s = s\n yield s }", "A0204", "it is a tensor"),
    ("scan x over Q carry s: [B, d] = zeros() { next s = s\n yield s }", "A0201", "Q"),
    ("next s = x\nreturn x", "A0220", "belongs into"),
    ("yield x\nreturn x", "A0220", "belongs into"),
])
def test_wrong_scans(body: str, code: str, told: str):
    with pytest.raises(archdsl.ArchError) as e:
        archdsl.loads(net(body)).graph()
    assert any(d.code == code and told in d.message for d in e.value.diagnostics), str(e.value)


@pytest.mark.parametrize(("body", "told"), [
    ("scan x over T carry s: [B, d] = ones() { next s = s + x\n yield s }", "does not begin with zeros"),
    ("scan x over d carry s: [B, T] = zeros() { next s = s + x\n yield s }", "another axis"),
    ("k = x * 2\nscan x over T carry s: [B, d] = zeros() { next s = s + sum(k, axis = 1)\n yield s }", "all positions"),
    ("scan x over T carry s: [B, T] = zeros() { next s = s\n yield x }", r"`s` is \[B, T\]: what is carried has the size of a position"),
])
def test_scans_that_do_not_stream(body: str, told: str):
    spec = archdsl.loads(net(body))
    spec.build()
    for form in ("extend", "step"):
        with pytest.raises(archdsl.ArchError, match=told):
            spec.build(form=form)


BEGUN = """
model Net(d: int = 4)(x: [B = 2, T = 9, d], g: [B, T], h: [B, d]) -> y: [B, T, d] stream T {
  scan (x, g) over T carry s: f32[B, d] = h, n: f32[] = constant(2) {
    f32 { new = g[:, none] * s + n * x }
    next s = new
    next n = n + 1
    yield as_type(new, x)
  }
}
"""


def test_packed():
    """Each document begins with what the scan begins with, be it zeros, a number or a tensor; gradients go to all of it."""
    spec = archdsl.loads(BEGUN.replace("f32", "").replace(" { new = g[:, none] * s + n * x }", " new = g[:, none] * s + n * x"))
    whole, packed = (spec.build(form=form, dtype=torch.float64) for form in ("parallel", "packed"))
    x, g, h = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 9, 4), (2, 9), (2, 4)))
    lengths = [3, 1, 5]
    expected = torch.cat([whole(a, b, h) for a, b in zip(x.split(lengths, 1), g.split(lengths, 1))], 1)
    got = packed(x, g, h, torch.tensor(lengths))
    close(got, expected, 1e-12)
    probe = torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad((got * probe).sum(), (x, g, h)), torch.autograd.grad((expected * probe).sum(), (x, g, h))):
        close(a, b, 1e-12)


# ---------------------------------------------------------------- linear in what they carry
LINEAR = {
    "gates": """
  param rate: [d] = uniform(-1, 1)
  scan (x, g) over T carry s: [B, d] = zeros() {
    next s = (1 - g) * s * rate + g * x - s / 2
    yield s * x
  }""",
    "two": """
  scan (x, g) over T carry r: [B, d] = zeros(), s: [B, d] = constant(2) {
    new = g * s + x
    next s = new
    next r = new * tanh(s) - 0.5 * r
    yield r + new
  }""",
    "kinds": """
  k = sum(g, axis = -1)
  scan (x, k) over T carry s: [B, d] = zeros(), n: [] = constant(1), m: [B] = zeros() {
    next s = where(k[:, none] > 0, s, x) * n
    next n = n * 0.9
    next m = m * k + 1
    yield -s + n * m[:, none]
  }""",
    "matrix": """
  scan (x, g) over T carry m: f32[B, d, d] = zeros() {
    f32 { now = outer(g, x) - m * g[:, :, none] }
    next m = now
    yield as_type(sum(now, axis = -1), x)
  }""",
}
LOOPS = {
    "squared": "next s = s * s + x\n yield s",
    "turned": "next s = linear(s, w) + x\n yield s",
    "coupled": "next s = r + x\n next r = s\n yield s",
    "cut off": "next s = as_type(cast(0.5 * s + x, \"int\"), x)\n yield s",
    "drawn anew": "next s = 0.5 * s + dropout(w[0], 0.5)\n yield s",
    "flags": "next s = x\n next r = where(x > 0, g > 0, r)\n yield where(r, s, x)",
    "beyond numbers": "next s = s / 0 + x\n yield s",
}
CARRIES = {"coupled": ", r: [B, d] = zeros()", "flags": ", r: bool[B, d] = zeros()"}


def own(body: str, time: str = "T = 5", stream: str = " stream T", carry: str = "") -> archdsl.Spec:
    return archdsl.loads(f"block Own()(x: [B, T, d], g: [B, T, d]) -> [B, T, d] {{{body}\n}}\n"
                         f"model Net(d: int = 3)(x: [B = 2, {time}, d], g: [B, T, d]) -> y: [B, T, d]{stream} {{ return Own()(x, g) as own }}")


def ops_of(model: Any) -> set[str]:
    return {n.op for m in model.modules() if isinstance(m, ArchModule) for n in type(m).definition.graph.nodes}


def loop_of(spec: archdsl.Spec, model: Any, monkeypatch: Any, **options: Any) -> Any:
    """The same model, position by position."""
    with monkeypatch.context() as m:
        m.setattr("archdsl.lower.plan.parallel_scans", lambda graph: graph)
        loop = spec.build(dtype=torch.float64, **options)
    loop.load_state_dict(model.state_dict())
    assert "scan" in ops_of(loop) and "linear_scan_extend" not in ops_of(loop)
    return loop


def inputs(length: int, batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, length, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("name", LINEAR)
def test_linear_carries_run_at_once(name: str, monkeypatch: Any):
    """Values and gradients are those of the loop, also from a state and with documents behind each other; no loop is left."""
    spec = own(LINEAR[name])
    model = shaken(spec.build(dtype=torch.float64))
    assert "scan" not in ops_of(model)
    loop = loop_of(spec, model, monkeypatch)
    for length, batch in ((70, 2), (1, 1)):
        given = inputs(length, batch)
        y, expected = model(*given), loop(*given)
        close(y, expected, 1e-12)
        if length > 1:
            probe = torch.randn_like(y)
            for a, b in zip(*(torch.autograd.grad((out * probe).sum(), [*given, *m.parameters()]) for out, m in ((y, model), (expected, loop)))):
                close(a, b, 1e-10)
    lengths = torch.tensor([3, 1, 40])
    packed = spec.build(form="packed", dtype=torch.float64)
    packed.load_state_dict(model.state_dict())
    assert "scan" not in ops_of(packed)
    given = inputs(44)
    close(packed(*given, lengths), torch.cat([loop(*part) for part in zip(*(x.split([3, 1, 40], 1) for x in given))], 1), 1e-12)
    header = own(LINEAR[name], "ragged T = 5", "").build(dtype=torch.float64)
    header.load_state_dict(model.state_dict())
    close(header(*given, lengths), packed(*given, lengths), 0)


@pytest.mark.parametrize("name", ["gates", "matrix"])
def test_linear_carries_go_on_from_a_state(name: str):
    agree(own(LINEAR[name]))


def test_linear_carries_have_the_gradient_of_differences():
    model = shaken(own(LINEAR["gates"]).build(dtype=torch.float64))
    assert torch.autograd.gradcheck(model, tuple(inputs(35, 1)))


@pytest.mark.parametrize("body", LOOPS)
def test_other_scans_stay_loops(body: str):
    carry = CARRIES.get(body, "")
    spec = own(f"\n  param w: [d, d] = eye()\n  scan (x, g) over T carry s: [B, d] = zeros(){carry} {{\n {LOOPS[body]}\n }}")
    assert "scan" in ops_of(spec.build())


def test_linear_carries_cost_what_they_use():
    spec = own(LINEAR["gates"])
    model, given = spec.build(dtype=torch.float64), tuple(x.detach() for x in inputs(40))
    cost = spec.cost(at={"B": 2, "T": 40}, dtype="f64")
    assert cost.macs == counted.macs(model, given) and cost.saved_bytes == counted.saved_bytes(model, given)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_carries_written_out(name: str):
    model = shaken(own(LINEAR[name]).build(dtype=torch.float64)).eval()
    written: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), written)
    other = written["Net"]().double().eval()
    other.load_state_dict(model.state_dict())
    given = inputs(37)
    close(other(*given), model(*given), 1e-12)
