"""Cases where two rules meet: shares in phases and loops, named results, sizes in functions, lists of tensors, reserved words."""
from __future__ import annotations

import pytest

from archdsl.elaborate.model import elaborate
from archdsl.modules import Library
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.spec import loads
from archdsl.syntax import tree
from tests.elaborate.helpers import addresses, fault, made, model

KNOB = "block A(k: int = 3 in {3, 5})(x: [..., d]) -> [..., d] { return MLP(k)(x) as _ }\n"


def test_named_results_go_where_the_header_says():
    plain = made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return x, x * 2 }")
    named = made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return z = x * 2, y = x }")
    assert plain.graph.hash == named.graph.hash
    assert fault(lambda: made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return x, w = x }")).code == "A0202"
    assert fault(lambda: made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return x, y = x }")).code == "A0205"
    assert fault(lambda: made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return x, z = x, x }")).code in ("A0205", "A0220")
    assert fault(lambda: made("model M()(x: [B, 8]) -> (y: [B, 8], z: [B, 8]) { return z = x }")).code == "A0220"


def test_a_knob_of_a_shared_block_is_set_at_the_share():
    e = made(KNOB + "model M()(x: [B, 8]) -> y: [B, 8] { share f = A()\n layers: for i in range(2) { x = f(x) }\n return x }", **{"f.k": 5})
    assert dict(e.graph.parameters())["f.up.weight"].type.shape == (5, 8) and e.knobs["f.k"].value == 5
    text = "model M()(x: [B, 8]) -> y: [B, 8] { outer: for i in range(2) { share f = A()\n inner: for j in range(2) { x = f(x) } }\n return x }"
    e = made(KNOB + text, **{"outer.1.f.k": 5})
    assert [p.type.shape[0] for a, p in e.graph.parameters() if a.endswith("up.weight")] == [3, 5]


def test_phase_arms_share_weights():
    e = model("share f = MLP(16)\nz = f(x)\ny = phase { train => f(x) + 1 eval => linear(x, f.up.weight)[..., :8] + z }\nreturn y")
    assert addresses(e) == ["f.up.weight", "f.up.bias", "f.down.weight", "f.down.bias"]
    module = Library().open(Source("graph.arch", print_graph(e)), None)
    again = elaborate(module, next(d for d in module.tree.decls if isinstance(d, tree.Model)))
    assert again.graph.hash == e.graph.hash


def test_block_parameters_of_a_model_name_their_weights():
    assert addresses(model("return f(x)", params="f: block = Linear(8)")) == ["f.weight", "f.bias"]


def test_tensors_in_a_list_are_added_up():
    one = model("emit a = mean(x)\nemit b = mean(x)\nreturn x + sum(collect(a))")
    assert [n.op for n in one.graph.nodes if n.op != "input"] == ["mean", "add"]
    assert fault(lambda: model("return x + sum(stack(collect(a)))")).code == "A0204"


def test_functions_of_numbers_take_run_time_sizes():
    e = model("return x[:, :floordiv(T, 2)] * mod(T, 3) + max(T, 4) - min(T, ceildiv(T, 2))", header="(x: [B, T, 8]) -> y: [B, _, 8]")
    assert "floordiv(T, 2)" in str(e.graph.outputs[0].shape[1])


def test_functions_of_run_time_sizes_know_what_is_required():
    """As `/` and `//` do: a printed graph says `floordiv` where the spec said `/`."""
    a, b = (model(f"require T % 4 == 0\nreturn x[:, :{n}]", header="(x: [B, T, 8]) -> y: [B, _, 8]").graph for n in ("T / 4", "floordiv(T, 4)"))
    assert a.hash == b.hash
    assert model("require T % 4 == 0\nreturn x * (1 + mod(T, 4))").graph.hash == model("require T % 4 == 0\nreturn x * 1").graph.hash


@pytest.mark.parametrize(("body", "code"), [
    ("return x + sin(1)", "A0204"), ("return bank(4, Linear(8))(x)", "A0218"), ("return x |> rearrange(l)", "A0218"),
    ("bf16 { y = x * 2 }\nreturn as_type(y, x)", "A0307"),
    ("control t: float = 1\nreturn x * t", "A0218"), ("for i in range(2) { emit early = x }\nreturn x", "A0212"),
])
def test_refusals(body, code):
    assert fault(lambda: model(body)).code == code


def test_a_requirement_without_a_message_says_what_was_written():
    assert [g.message for g in model("require T % 4 == 0\nreturn x").graph.guards] == ["T % 4 == 0 is required"]


@pytest.mark.parametrize("body", [
    "x = Linear(8)(x) as layers\nlayers: for i in range(2) { x = Linear(8)(x) }\nreturn x",
    "x = Linear(8)(x) as layers.0.linear\nlayers: for i in range(2) { x = Linear(8)(x) }\nreturn x",
    "x = Linear(8)(x) as a.b\nparam w as a: [8] = zeros()\nreturn x * w",
])
def test_one_address_inside_another(body):
    d = fault(lambda: model(body))
    assert d.code == "A0211" and "inside the other" in d.message and d.labels


def test_a_name_on_an_argument_reaches_compositions_and_literals():
    e = model("return Pre(RMSNorm(), (RMSNorm() >> Linear(8, bias = false)) as f)(x) as p")
    assert addresses(e) == ["p.norm.weight", "p.f.rms_norm.weight", "p.f.linear.weight"]
    assert addresses(model("return Pre(RMSNorm(), (block(y) => Linear(8, bias = false)(y)) as f)(x) as p")) == ["p.norm.weight", "p.f.linear.weight"]


def test_an_op_is_not_named():
    assert fault(lambda: model("return relu(x) as r")).code == fault(lambda: model("return x |> relu as r")).code == "A0209"
    assert addresses(model("return f(x) as r", params="f: block = relu")) == []


def test_reduce_takes_sizes():
    e = model("return x |> reduce([B, T, (h w)] -> [B, T, h], max, h = 4)", header="(x: [B, T, 8]) -> y: [B, T, 4]")
    assert str(e.graph.outputs[0].type) == "[B, T, 4]"


def test_a_dead_application_prints_and_comes_back():
    from archdsl.printer import print_graph
    from archdsl.spec import loads

    e = model("_ = LayerNorm()(x) as unused\nreturn x * 2")
    assert loads(print_graph(e)).elaborate().graph.hash == e.graph.hash


@pytest.mark.parametrize("axes", ["2 * T, 8", "(2 T), 8", "T + 1, 8", "2 * T + 1, 8", "(S T), S"])
def test_sizes_that_sums_and_products_of_a_models_inputs_tell(axes: str):
    spec = loads(f"model M()(x: [B, {axes}]) -> y: [B, T, _] {{ return x[:, :T] }}")
    assert loads(print_graph(spec.elaborate())).elaborate().graph.hash == spec.elaborate().graph.hash


def test_closure_of_a_shared_block_that_emits():
    e = made("""block A()(x: [B, T, 8]) -> [B, T, 8] { emit z = x + 1
  return Linear(8)(x) }
model M()(x: [B, T, 8]) -> y: [B, T, 8] { share a = A()
  x = a(x) as p
  x = a(x)
  x = a(x) as q
  return x + collect(z)[2] }""")
    assert list(e.graph.emits) == ["p.z", "a.z", "q.z"]
    again = loads(print_graph(e), "graph.arch").elaborate()
    assert list(again.graph.emits) == list(e.graph.emits) and again.graph.hash == e.graph.hash


@pytest.mark.parametrize("text", [
    "return where(x > 0, x, -1e400)", "param w: [8] = 1e400\nreturn x * w", "param w: [8] = constant(1e400)\nreturn x * w", "return x * 1e400",
])
def test_numbers_that_no_float_holds(text):
    assert fault(lambda: model(text)).code == "A0221"


def test_a_setting_of_the_wrong_type_is_one_fault():
    """Defaults that would be computed from it stay silent."""
    d = fault(lambda: model("return MLP(hidden)(x) as f", params="d: int = 8, hidden: int = 2 * d, more: int = hidden + 1", d=7.5))
    assert d.code == "A0204" and "`d`" in d.message


def test_settings_may_be_numbers_of_numpy():
    numpy = pytest.importorskip("numpy")
    spec = loads("model M(n: int = 1, rate: float = 0.5, many: list[int] = [1])(x: [B, n]) -> y: [B, n] { return x }")
    knobs = spec.elaborate(knobs={"n": numpy.int64(3), "rate": numpy.float64(0.1), "many": [numpy.int32(2)]}).knobs
    assert {k: v.value for k, v in knobs.items()} == {k: v.value for k, v in spec.elaborate(knobs={"n": 3, "rate": 0.1, "many": [2]}).knobs.items()}


def test_tensors_in_the_first_list():
    d = fault(lambda: model("return RMSNorm(x)"))
    assert d.code == "A0204" and "F(…)(x)" in d.help[0]


def test_a_layout_that_reuses_a_name_of_the_header():
    d = fault(lambda: model("return x[:, ::2] |> rearrange([B, T, d] -> [B, d, T])"))
    assert d.code == "A0308" and d.help[0] == "`T` is a size in scope: under a name that is not, the axis may have any size"


def test_a_setting_is_read_in_the_models_names():
    """`d` is the model's, also where the knob's own block has an axis of that name."""
    from archdsl import expression
    from tests.elaborate.helpers import made

    text = """block F(k: int = 3 in {2, 3, 4})(x: [B, d]) -> [B, d] { return MLP(k)(x) as f }
model M(d: int = 2)(x: [B, 8]) -> y: [B, 8] { return F()(x) as a }"""
    e = made(text, **{"a.k": expression("d * 2")})
    assert dict(e.graph.parameters())["a.f.up.weight"].type.shape == (4, 8)


def test_a_model_that_declares_its_own_type_does_not_return_f32():
    d = fault(lambda: model("f32 { y = x * x }\nreturn y"))
    assert d.code == "A0307" and "cast" in d.help[0]
    assert model("f32 { y = x * x }\nreturn y", "(x: [B, T, 8]) -> y: f32[B, T, 8]").graph.outputs[0].dtype == "f32"


@pytest.mark.parametrize(("body", "ops"), [
    ("require T % 4 == 0\nreturn pad_to(x, multiple = 4, axes = 1)[:, :T]", []),
    ("y = pad_to(x, multiple = 4, axes = 1)\nz = pad_to(y, multiple = 4, axes = 1)\nreturn z[:, :T]", ["pad_to", "slice"]),
    ("return x[:, :, :8][:, 0:]", []),
    ("return x[:, 1:]", ["slice"]),
    ("return x[:, ..., none, :][:, :, 0]", ["slice", "slice"]),
    ("return pad_to(x, multiple = 3, axes = 2)", ["pad_to"]),
])
def test_nothing_stands_for_a_padding_or_a_slice_that_changes_nothing(body, ops):
    header = "(x: [B, T, 8]) -> y: [B, _, _]"
    assert [n.op for n in model(body, header).graph.nodes if n.op in ("pad_to", "slice")] == ops
