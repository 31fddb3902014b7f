"""Consts, draws, records spread into headers, optional inputs of models."""

from __future__ import annotations

import pytest
import torch

import archdsl
from archdsl.printer import print_graph
from tests.elaborate.helpers import addresses, made, model
from tests.elaborate.helpers import fault as raised

CONSTS = "const half as rate: [8] = 0.5 * ones()\nconst one: [8, 8] = eye()\nreturn linear(x * half, one)"


def fault(body: str, code: str):
    """The diagnostic of a body."""
    found = raised(lambda: model(body))
    assert found.code == code, found
    return found


def built(body: str, header: str = "(x: [B, T, 8]) -> y: [B, T, 8]", **settings):
    return archdsl.loads(f"model M(){header} {{\n{body}\n}}").build(**settings)


def test_a_const_is_computed_and_not_saved():
    net = built(CONSTS)
    x = torch.randn(2, 3, 8)
    assert list(net.state_dict()) == [] and list(net.parameters()) == []
    assert torch.equal(net(x), x / 2)
    assert set(dict(net.named_buffers())) == {"rate", "one"}


def test_a_const_is_neither_counted_nor_lost_in_print():
    e = model(CONSTS)
    text = print_graph(e)
    assert "const rate: [8] = mul(0.5, ones())" in text and "const one: [8, 8] = eye()" in text
    assert archdsl.loads(text).elaborate().graph.hash == e.graph.hash
    assert archdsl.loads(text).cost().params == 0


@pytest.mark.parametrize(("name", "printed"), [("M", "M"), ("net", "net"), ("x", "x"), ("gelu", "Gelu")])
def test_the_printed_model_keeps_its_name(name, printed):
    text = ("use std.linear { Linear }\nblock Up(n: int)(x: [..., d]) -> [..., d] { return x |> Linear(n) as up |> Linear(d) as down }\n"
            f"model {name}(d: int = 8)(x: [M, d], net: [M, d]) -> y: [M, d] {{\n  param weight: [d] = normal()\n"
            "  Y: for i in range(2) { x = Up(3)(x) as m }\n"
            "  return x * weight + net\n}")
    made = archdsl.loads(text).elaborate()
    again = archdsl.loads(print_graph(made))
    assert again.name == printed
    assert again.elaborate().graph.hash == made.graph.hash


@pytest.mark.parametrize("value", ["normal()", "2 * uniform(low = -1)", "0.5 * (1 + normal())"])
def test_a_const_that_others_would_not_have_is_refused(value):
    assert "const" in fault(f"param w: [8] = normal()\nconst c: [8] = {value}\nreturn x * c * w", code="A0204").help[0]


@pytest.mark.parametrize("value", ["w", "w + iota(8)", "x", "permutation(8)"])
def test_a_const_follows_from_numbers_alone(value):
    assert "without `const`" in fault(f"param w: [8] = ones()\nconst c = {value}\nreturn x * w", "A0204").help[0]
    assert model("const c = 2 * iota(8) + T\nreturn x * cast(c, \"float\")")


def test_a_const_shares_the_addresses_of_weights():
    fault("param w: [8] = ones()\nconst c as w: [8] = ones()\nreturn x * c * w", code="A0211")


def test_as_on_a_value_that_owns_nothing():
    fault("const c as other: [2] = [1, 2]\nreturn x", code="A0209")


def test_draws_are_new_in_each_pass_and_follow_the_generator():
    body = "draw n: [B, T, 8] = normal(mean = 3, std = 0.5)\ndraw u: f32[B] = uniform(low = 2, high = 4)\nreturn x * 0 + n, u"
    net = built(body, "(x: [B, T, 8]) -> (n: [B, T, 8], u: f32[B])")
    torch.manual_seed(1)
    n, u = net(torch.zeros(64, 16, 8))
    assert abs(n.mean() - 3) < 0.02 and abs(n.std() - 0.5) < 0.02 and 2 <= u.min() < 2.3 and 3.7 < u.max() <= 4
    again, _ = net(torch.zeros(64, 16, 8))
    torch.manual_seed(1)
    same, _ = net(torch.zeros(64, 16, 8))
    assert not torch.equal(n, again) and torch.equal(n, same)
    assert net.double()(torch.zeros(2, 3, 8, dtype=torch.float64))[1].dtype == torch.float32


def test_two_draws_are_two():
    net = built("draw a: [B, T, 8] = normal()\ndraw b: [B, T, 8] = normal()\nreturn x * 0 + a - b")
    assert net(torch.zeros(1, 2, 8)).abs().min() > 0


WRONG = [
    ("draw n: [8] = 2 * normal()", "A0204"),
    ("draw n = normal()", "A0204"),
    ("draw n: [8] = eye()", "A0204"),
    ("draw n: [e] = normal()", "A0301"),
]


@pytest.mark.parametrize(("text", "code"), WRONG)
def test_what_cannot_be_drawn(text, code):
    fault(f"{text}\nreturn x", code=code)


SIZES = """record Sizes { hidden: int = 16 in {8, 16}, act: block = gelu }
block F(...Sizes, bias: bool = true)(x: [..., d]) -> [..., d] {
  return x |> Linear(hidden, bias = bias) as up |> act |> Linear(d) as down
}
"""


def test_a_record_in_a_header_gives_its_fields():
    body = "x = F(hidden = hidden, bias = false)(x) as a\nreturn F(...Sizes(hidden = 4, act = relu))(x) as b"
    e = made(f"{SIZES}model M(...Sizes)(x: [B, 8]) -> y: [B, 8] {{\n{body} }}", hidden=8)
    assert addresses(e) == ["a.up.weight", "a.down.weight", "a.down.bias", "b.up.weight", "b.up.bias", "b.down.weight", "b.down.bias"]
    assert e.knobs["hidden"].value == 8 and e.knobs["hidden"].default == 16
    assert dict(e.graph.parameters())["b.up.weight"].type.shape == (4, 8)


@pytest.mark.parametrize(("header", "code"), [("...Size", "A0201"), ("...F", "A0204"), ("hidden: int, ...Sizes", "A0208")])
def test_a_header_that_spreads_something_else(header, code):
    with pytest.raises(archdsl.ArchError) as caught:
        made(SIZES + f"block G({header})(x: [..., d]) -> [..., d] {{ return x }}\nmodel M()(x: [B, 8]) -> y: [B, 8] {{ return x }}")
    assert caught.value.diagnostics[0].code == code


OPTIONAL = "return if memory is some { x + mean(memory, axis = 1, keep = true) } else { x }"
MEMORY = "(x: [B, T, 8], memory: [B, S, 8]?) -> y: [B, T, 8]"


def test_an_optional_input_of_a_model_is_there_or_not():
    with_it, without = built(OPTIONAL, MEMORY), built(OPTIONAL, MEMORY, memory=None)
    x, m = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    assert torch.equal(with_it(x, m), x + m.mean(1, keepdim=True)) and torch.equal(without(x), x)
    spec = archdsl.loads(f"model M(){MEMORY} {{ {OPTIONAL} }}\nvariant alone {{ memory = none }}")
    assert [i.name for i in spec.elaborate("alone").inputs] == ["x"]


def test_inputs_are_not_settings():
    for name in ("x", "memory"):
        with pytest.raises(archdsl.ArchError) as caught:
            built(OPTIONAL, MEMORY, **{name: 3})
        assert caught.value.diagnostics[0].code == "A0204"


STATIC = """model M()(x: [B, H = 4, W = 6]) -> y: [B, H, W] {
  static H, W
  param w: [H, W] = ones()
  require H * W % 2 == 0, "{H} x {W} is odd"
  return x * w
}
variant tall { H = 8 }
"""


def test_static_sizes_are_fixed_at_build():
    spec = archdsl.loads(STATIC)
    net, tall = spec.build(), spec.build("tall", W=2)
    assert (net.w.shape, tall.w.shape) == ((4, 6), (8, 2)) and [str(i.type) for i in spec.inputs] == ["[B, 4, 6]"]
    with pytest.raises(ValueError, match=r"`x` is \[B, 4, 6\]"):
        net(torch.zeros(1, 4, 5))
    assert spec.cost(at={"H": 8, "B": 3}).params == 48 and spec.cost("tall").params == 48


@pytest.mark.parametrize(("text", "code"), [
    (STATIC.replace("W = 6", "W"), "A0309"),
    (STATIC.replace("H = 8", "H = 0"), "A0204"),
    (STATIC.replace("H = 8", "H = 3, W = 5"), "A0310"),
    (STATIC.replace("static H, W", "static H, Q"), "A0201"),
    ("block F()(x: [B, T, 8]) -> [B, T, 8] { static T\nreturn x }\nmodel M()(x: [B, T, 8]) -> y: [B, T, 8] { return F()(x) }", "A0309"),
])
def test_static_sizes_that_are_none(text, code):
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(text)
    assert caught.value.diagnostics[0].code == code


def test_static_sizes_in_entries_and_claims():
    text = """model M() {
  param bias: [2] = zeros()
  entry a(x: [B, H], y: [B, H = 4]) -> y: [B, H] {
    static H
    param w: [H] = ones()
    return x * w + y
  }
  entry b(x: [B, T]) -> y: [B, T] { return x }
}
claim M.a { params == 6; params(H = 7) == 9 }"""
    spec = archdsl.loads(text)
    assert spec.models["M.a"].cost(at={"H": 5}).params == 7
    from archdsl.claims import verify

    assert [r["passed"] for r in verify(spec.models["M.a"])] == [True, True]


@pytest.mark.parametrize(("inputs", "said"), [
    ("a: [B = 2, T = 3], b: [B = 4, T = 3]", "`B` has two example sizes, 2 and 4"),
    ("a: [B, d = 3], b: [B, d]", "`d` needs no example size: it is 8 (int)"),
    ("a: [B, T] = 3, b: [B, T]", "the input `a` of a model has no default: it is given when the model runs"),
    ("a: [B, T], b: [B, T]? = a", "the input `b` of a model has no default: it is given when the model runs"),
])
def test_inputs_that_contradict_themselves(inputs, said):
    assert raised(lambda: model("return a", f"({inputs}) -> y: [B, _]", "d: int = 8")).message == said


def test_an_optional_input_may_say_none():
    net = built("return memory ?? x", "(x: [B, T, 8], memory: [B, T, 8]? = none) -> y: [B, T, 8]")
    assert net(torch.zeros(1, 2, 8), torch.ones(1, 2, 8)).sum() == 16


def test_a_default_of_one_choice_stays_for_the_others():
    """It reaches something at the text's own values; a variant that chooses otherwise is no mistake."""
    spec = archdsl.loads(
        'use std.norm { LayerNorm, RMSNorm }\nmodel Net(norm: str = "a" in {"a", "b"})(x: [B = 1, T = 2, 8]) -> y: [B, T, 8] {\n'
        "  default RMSNorm(eps = 1e-3)\n"
        '  return if norm == "a" { RMSNorm()(x) as norm_ } else { LayerNorm()(x) as norm_ }\n}\nvariant other { norm = "b" }\n')
    assert spec.graph().weight_count == 1 and spec.graph("other").weight_count == 2
