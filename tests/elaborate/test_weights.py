"""DESIGN's rules about weights: templates are values, `share` is the word, addresses are written."""
from __future__ import annotations

import pytest

from archdsl.printer import print_graph
from archdsl.spec import loads
from tests.elaborate.helpers import addresses, fault, made, model


def test_each_application_owns_fresh_weights():
    e = model("f = Linear(8)\nx = f(x) as a\nx = f(x) as b\nreturn x")
    assert addresses(e) == ["a.weight", "a.bias", "b.weight", "b.bias"]


def test_replacing_a_binding_by_its_definition_changes_nothing():
    bound = model("norm = LayerNorm(eps = 1e-6)\nx = Pre(norm, Attention(2))(x) as attn\nreturn Pre(norm, MLP(16))(x) as mlp")
    written = model("x = Pre(LayerNorm(eps = 1e-6), Attention(2))(x) as attn\nreturn Pre(LayerNorm(eps = 1e-6), MLP(16))(x) as mlp")
    assert bound.graph.hash == written.graph.hash


def test_peri_owns_two_norms():
    e = model("return Peri(RMSNorm(), Linear(8, bias = false) as f)(x) as p")
    assert [a for a in addresses(e) if "norm" in a] == ["p.norm_in.weight", "p.norm_out.weight"]


def test_share_makes_one_set_at_its_own_name():
    e = model("share f = Linear(8)\nx = f(x)\nx = Pre(LayerNorm(), f)(x) as p\nreturn f(x)")
    assert sorted(addresses(e)) == ["f.bias", "f.weight", "p.norm.bias", "p.norm.weight"]


def test_a_share_reaches_through_parameters_and_loops():
    e = model("share f = Linear(8)\nlayers: for i in range(3) { x = Pre(LayerNorm(), f)(x) as p }\nreturn x")
    assert sorted(addresses(e)) == ["f.bias", "f.weight", *sorted(f"layers.{i}.p.norm.{w}" for i in range(3) for w in ("bias", "weight"))]


def test_share_when_is_a_knob():
    text = "blocks: for i in range(2) { share f = Linear(8) when tied\n passes: for p in range(3) { x = f(x) } }\nreturn x"
    assert len(addresses(model(text, params="tied: bool = true"))) == 4
    assert sorted(addresses(model(text, params="tied: bool = true", tied=False)))[:2] == ["blocks.0.passes.0.f.bias", "blocks.0.passes.0.f.weight"]


def test_a_shared_block_may_be_applied_with_other_arguments():
    text = """block Part(d: int)(x: [B, T, d], groups: int) -> [B, T, d] {
  require T % groups == 0
  return x |> under([B, (groups n), d] -> [B, groups, n, d], Linear(d) as f)
}
model M()(x: [B, T, 8]) -> y: [B, T, 8] { require T % 4 == 0
  share f = Part(8)
  x = f(x, groups = 4)
  return f(x, groups = 2)
}"""
    assert addresses(made(text)) == ["f.f.weight", "f.f.bias"]


FORMS = """block Part(k: int, out: int = 8)(x: [B, T, d]) -> [B, T, out] { return k * Linear(out)(x) as f }
model M(tied: bool = true)(x: [B, T, 8]) -> y: [B, T, 8] {
%s
}"""


def test_another_block_with_the_weights_of_a_shared_one():
    e = made(FORMS % "share f = Part(2)\nshare g of f = Part(3)\nx = Pre(RMSNorm(affine = false), g)(f(x))\nreturn x + linear(x, g.f.weight)")
    assert addresses(e) == ["f.f.weight", "f.f.bias"]
    text = print_graph(e)
    assert "share f = Part" in text and "share f_2 of f = Part" in text
    assert loads(text, "graph.arch").elaborate().graph.hash == e.graph.hash


def test_forms_of_one_block_are_printed_each():
    text = """block Part()(x: [B, T, d], flat: bool) -> [B, T, d] { return if flat { Linear(d)(x) as f } else { x + Linear(d)(x) as f } }
model M()(x: [B, T, 8]) -> y: [B, T, 8] {
  share part = Part()
  x = part(x, flat = true)
  layers: for i in range(2) { x = part(x, flat = i == 0) }
  return part(x, flat = false)
}"""
    e = made(text)
    assert addresses(e) == ["part.f.weight", "part.f.bias"]
    assert loads(print_graph(e), "graph.arch").elaborate().graph.hash == e.graph.hash


@pytest.mark.parametrize(("body", "code", "marked"), [
    ("share f = Part(2)\nshare g of f = Part(2, out = 4)\nreturn f(x) + g(x)", "A0213", "g(x)"),
    ("f = Part(2)\nshare g of f = Part(3)\nreturn g(x)", "A0213", "f"),
    ("share f = Part(2) when not tied\nshare g of f = Part(3)\nreturn g(f(x))", "A0213", "f"),
    ("share g of f = Part(3)\nreturn g(x)", "A0201", "f"),
    ("share f as a = Part(2)\nshare g as a = Part(3)\nreturn g(f(x))", "A0211", "g"),
])
def test_weights_of_what_is_no_fitting_share(body, code, marked):
    d = fault(lambda: made(FORMS % body))
    assert (d.code, d.span.text) == (code, marked)


@pytest.mark.parametrize("taken", ["block(y) => y + x", "g"])
def test_a_shared_block_does_not_reach_out(taken):
    """Its graph is one for all applications: what a template that it takes would read of the body around it is not there."""
    text = """block Around(f: block)(x: [B, T, d]) -> [B, T, d] { return f(Linear(d)(x) as map) }
model M()(x: [B, T, 8]) -> y: [B, T, 8] {
  share g = Linear(8)
  share f = Around(%s)
  return f(g(x))
}"""
    d = fault(lambda: made(text % taken))
    assert (d.code, d.span.text) == ("A0213", "f(g(x))") and "`f` reaches" in d.message
    assert addresses(made(text % "Linear(8)")) == ["g.weight", "g.bias", "f.map.weight", "f.map.bias", "f.f.weight", "f.f.bias"]


def test_two_instances_of_a_body_do_not_share_by_accident():
    text = """wrap block Twice(_ f: block)(x: [B, T, d]) -> [B, T, d] { share a = Linear(d)  return a(f(a(x))) }
model M()(x: [B, T, 8]) -> y: [B, T, 8] {
  x = Twice(identity)(x)
  return Twice(identity)(x)%s
}"""
    assert fault(lambda: made(text % "")).code == "A0211"
    assert addresses(made(text % " as second")) == ["a.weight", "a.bias", "second.a.weight", "second.a.bias"]


def test_a_shared_block_at_two_widths_is_refused():
    d = fault(lambda: model("share f = Linear(8)\ny = f(x)\nreturn f(concat([y, x], axis = -1))"))
    assert d.code == "A0213" and "weight" in d.message


def test_tying_reads_a_shared_weight():
    e = made("model M(v: int = 11)(t: int[B, T]) -> y: [B, T, v] {\nshare e = TokenEmbedding(v, 8)\nreturn linear(e(t), e.weight)\n}")
    assert addresses(e) == ["e.weight"]


def test_reading_weights_before_the_first_application():
    assert fault(lambda: model("share f = Linear(8)\nreturn linear(x, f.weight)")).code == "A0213"


@pytest.mark.parametrize("body", [
    "x = Linear(8)(x)\nreturn Linear(8)(x)",
    "x = Linear(8)(x) as a\nreturn Linear(8)(x) as a",
    "x = Pre(LayerNorm(), Linear(8) as f)(x)\nreturn Pre(LayerNorm(), Linear(8) as g)(x)",
])
def test_two_owners_at_one_address(body):
    d = fault(lambda: model(body))
    assert d.code == "A0211" and d.labels and (d.help or d.fixes)


def test_a_loop_that_owns_weights_needs_a_label():
    d = fault(lambda: model("for i in range(2) { x = Linear(8)(x) as f }\nreturn x"))
    assert d.code == "A0212" and "label" in d.help[0]


def test_loops_and_arguments_give_the_segments():
    body = "x = Pre(RMSNorm() as pre, Linear(8, bias = false) as body)(x) as _"
    e = model(f"stages: for i in range(2) {{ blocks: for j in range(1) {{ {body} }} }}\nreturn x")
    assert addresses(e) == [f"stages.{i}.blocks.0.{n}.weight" for i in range(2) for n in ("pre", "body")]


def test_names_that_modules_use_are_refused():
    assert fault(lambda: model("return Linear(8)(x) as forward")).code == "A0210"


def test_a_block_without_a_name_takes_its_own_in_snake_case():
    own = [f"{n}.{w}" for n in ("gate", "up", "down") for w in ("weight", "bias")]
    assert addresses(model("x = RMSNorm()(x)\nreturn SwiGLU(4)(x) as _")) == ["rms_norm.weight", *own]


def test_conditional_weights():
    text = "x = Linear(8, bias = b)(x) as f\nreturn x"
    assert addresses(model(text, params="b: bool = true")) == ["f.weight", "f.bias"]
    assert addresses(model(text, params="b: bool = true", b=False)) == ["f.weight"]


def test_a_run_time_size_cannot_be_a_weights():
    d = fault(lambda: made("model M()(x: [B, T, 8]) -> y: [B, T, 8] {\nparam w: [T, 8] = zeros()\nreturn x + w\n}"))
    assert d.code == "A0306"


def test_dead_applications_keep_their_weights():
    e = model("_ = LayerNorm()(x) as unused\nreturn x")
    assert addresses(e) == ["unused.weight", "unused.bias"] and not any(n.op == "call" for n in e.graph.nodes)


def test_defaults_reach_library_blocks_and_explicit_arguments_win():
    e = model("default Linear(bias = false)\nx = MLP(16)(x) as a\nreturn Linear(8, bias = true)(x) as b")
    assert addresses(e) == ["a.up.weight", "a.down.weight", "b.weight", "b.bias"]


def test_a_blocks_own_default_wins_over_the_callers():
    e = model("default Linear(bias = false)\nx = Linear(8)(x) as f\nreturn Attention(2, bias = true)(x) as a")
    assert "a.q.bias" in addresses(e) and "f.bias" not in addresses(e)
    d = fault(lambda: model("default Linear(bias = false)\nreturn Attention(2, bias = true)(x) as a"))
    assert (d.code, d.span.text) == ("A0214", "default Linear(bias = false)")


def test_a_template_closes_over_the_defaults_where_it_is_written():
    text = """block Inner(f: block)(x: [..., d]) -> [..., d] {
  default Linear(bias = true)
  return Linear(8)(f(x)) as own
}
model M()(x: [B, 8]) -> y: [B, 8] {
  default Linear(bias = false)
  return Inner(Linear(8))(x) as i
}"""
    assert addresses(made(text)) == ["i.f.weight", "i.own.weight", "i.own.bias"]


def test_a_default_that_reaches_nothing():
    assert fault(lambda: model("default RMSNorm(eps = 1)\nreturn Linear(8)(x) as f")).code == "A0214"


def test_a_default_that_a_later_one_replaces_reaches_nothing():
    d = fault(lambda: model("default Linear(bias = false)\ndefault Linear(bias = true)\nreturn Linear(8)(x) as f"))
    assert (d.code, d.span.text) == ("A0214", "default Linear(bias = false)")


INNER = """block Inner()(x: [..., d]) -> [..., d] {
  default Linear(bias = true)
  return relu(x)
}
model M()(x: [B, 8]) -> y: [B, 8] {
  default Linear(bias = false)
  return x |> Linear(8) as a |> Inner() as b
}"""


def test_a_default_does_not_count_as_used_where_another_one_of_the_same_argument_is():
    d = fault(lambda: made(INNER))
    assert (d.code, d.span.text) == ("A0214", "default Linear(bias = true)")


def test_a_default_counts_as_used_where_a_known_definition_reads_it():
    """Two blocks say the same default over the same block, whose graph is made once; a second elaboration reads it from memory."""
    block = "block {}()(x: [..., d]) -> [..., d] {{\n  default Linear(bias = false)\n  return MLP(16)(x) as f\n}}\n"
    net = "model M(k: int = 1)(x: [B, 8]) -> y: [B, 8] { return k * (x |> One() as a |> Two() as b) }\n"
    spec = loads("use std.channel { MLP }\nuse std.linear { Linear }\n" + block.format("One") + block.format("Two") + net)
    assert spec.elaborate(None, {"k": 2}).graph.children["a"].children["f"] is spec.elaborate().graph.children["b"].children["f"]


@pytest.mark.parametrize(("style", "expected"), [
    ("Pre(RMSNorm(), F)", ["norm"]), ("Post(RMSNorm(), F)", ["norm"]), ("Peri(RMSNorm(), F)", ["norm_in", "norm_out"]),
    ("OutputNorm(RMSNorm(), F)", ["norm"]), ("Sandwich(RMSNorm(), F)", ["norm_in", "norm_out"]),
])
def test_norm_placements(style, expected):
    e = model(f"return {style.replace('F', 'Linear(8, bias = false) as f')}(x) as p")
    assert sorted(a.split(".")[1] for a in addresses(e) if "norm" in a) == expected


def test_residual_scalars():
    e = model("x = Scaled(Linear(8, bias = false) as f)(x) as s\nreturn ReZero(Linear(8, bias = false) as f)(x) as r")
    assert sorted(addresses(e)) == ["r.f.weight", "r.gain", "s.a", "s.b", "s.f.weight"]
    e = model("return Parallel(RMSNorm(), Linear(8, bias = false), MLP(16))(x) as p")
    assert "p.f.weight" in addresses(e) and "p.g.up.weight" in addresses(e)


def test_an_ensemble_of_paths_is_the_stream_at_gain_one():
    """arxiv 2308.06548: with every gain 1 the ensemble is the stream; a gain changes the head's input alone, never the stream."""
    import torch

    import archdsl
    from tests.elaborate.helpers import USES

    text = USES + """use std.residual { EnsemblePath }
model M()(x: [B, 8]) -> (x: [B, 8], e: [B, 8]) {
  e = x
  layers: for i in range(3) { x, e = EnsemblePath(LayerNorm(), MLP(16))(x, e) as mlp }
  return x, e
}"""
    net = archdsl.loads(text).build(seed=1, dtype=torch.float64)
    x = torch.randn(2, 8, dtype=torch.float64)
    stream, ensemble = net(x)
    torch.testing.assert_close(stream, ensemble, rtol=0, atol=0)
    with torch.no_grad():
        net.layers[0].mlp.gain.zero_()
    again, pruned = net(x)
    assert torch.equal(again, stream) and not torch.allclose(pruned, ensemble)


@pytest.mark.parametrize("body", [
    "return x + norm(x)", "g = norm\nreturn x + g(x)", "g = norm\nh = g\nreturn x + h(x)", "a, g = 1, norm\nreturn x + g(x)",
    "return x + (x |> norm)", "g = norm\nreturn x + (x |> g)",
])
def test_another_name_for_a_block_parameter_changes_no_address(body):
    block = f"block F(norm: block)(x: [..., d]) -> [..., d] {{\n{body}\n}}\n"
    e = made(block + "model M()(x: [B, T, 8]) -> y: [B, T, 8] { return F(LayerNorm())(x) as f }")
    assert addresses(e) == ["f.norm.weight", "f.norm.bias"]


def test_another_name_for_a_body_adds_no_segment():
    block = "block F(_ f: block)(x: [..., d]) -> [..., d] {\ng = f\nreturn x + g(x)\n}\n"
    e = made(block + "model M()(x: [B, T, 8]) -> y: [B, T, 8] { return F(LayerNorm())(x) as f }")
    assert addresses(e) == ["f.weight", "f.bias"]


@pytest.mark.parametrize(("line", "code", "said", "at"), [
    ("param p: [16] = [1, 2]", "A0301", "the initial value of `p` has the shape [2], the weight [16]", "[1, 2]"),
    ("param p: [2] = [[1, 2], [3, 4]]", "A0301", "the shape [2, 2], the weight [2]", "[[1, 2], [3, 4]]"),
    ("param p: [2] = []", "A0301", "the shape [0]", "[]"),
    ("param p: [2] = [1, [2]]", "A0301", "different lengths", "[1, [2]]"),
    ("param q: [3] = ones()\nparam p: [2] = q", "A0301", "the shape [3], the weight [2]", "q"),
    ("param p: [2] = concat([ones(), zeros()])", "A0301", "the shape [4]", "concat([ones(), zeros()])"),
    ("param p: [2] = zeros() + [1, 2]", "A0204", "not a list", "zeros() + [1, 2]"),
    ("param p: [2] = kaiming_uniform()", "A0301", "needs a weight with two axes or more", "kaiming_uniform()"),
    ("param p: [2] = eye", "A0301", "needs a weight with two axes or more", "eye"),
    ("param p: [2] = orthogonal()", "A0301", "needs a weight with two axes or more", "orthogonal()"),
    ("param p: [2] = 10**400", "A0221", "a number of 401 digits", "10**400"),
    ("param p: f16[2] = 1e6", "A0221", "outside of -65504 to 65504", "1e6"),
    ("buffer p: u8[2] = 300", "A0221", "300 lies outside of 0 to 255", "300"),
    ("buffer p: i8[2] = [1, -129]", "A0221", "-129 lies outside of -128 to 127", "-129"),
    ("buffer p: i32[2] = 2**31", "A0221", "2147483648 lies outside", "2**31"),
    ("buffer p: i8[2] = [1, 2.5]", "A0307", "2.5 is no whole number", "2.5"),
    ("buffer p: bool[2] = 3", "A0307", "3 is no truth value", "3"),
    ("buffer p: i8[2] = normal()", "A0307", "`normal` draws floats", "normal()"),
    ("const c: u8[2] = [300, 2]", "A0304", "300 lies outside of 0 to 255", "[300, 2]"),
    ("const c: i8[2] = [0.5, 2]", "A0304", "0.5 is no whole number", "[0.5, 2]"),
    ("param p: [2] = normal(std = \"a\")", "A0204", "`std` of the initialiser normal is a number", 'std = "a"'),
    ("param p: [2] = normal(std = T)", "A0204", "`std` of the initialiser normal is a number", "std = T"),
    ("param p: [2] = normal(std = -1)", "A0221", "the `std` of normal is negative", "normal(std = -1)"),
    ("param p: [2] = normal(std = 10**400)", "A0221", "out of the range of floats", "normal(std = 10**400)"),
    ("param p: [2] = trunc_normal(cut = 0)", "A0221", "the `cut` of trunc_normal is not positive", "trunc_normal(cut = 0)"),
    ("param p: [2] = uniform(low = 3, high = 1)", "A0221", "`low` of uniform lies above", "uniform(low = 3, high = 1)"),
])
def test_an_initial_value_that_the_weight_cannot_hold_is_told_at_check(line: str, code: str, said: str, at: str):
    d = fault(lambda: model(f"{line}\nreturn x"))
    assert (d.code, d.span.text) == (code, at)
    assert said in d.message


@pytest.mark.parametrize("line", [
    "param p: [2, 3] = [1, 2, 3]", "param p: [2, 3] = [[1], [2]]", "param p: [2, 3] = 1 + 2 * normal()", "buffer p: u8[2] = 255",
    "buffer p: int[2] = 3.0", "buffer p: bool[2] = [true, false]", "param q: [1, 3] = ones()\nparam p: [2, 3] = 2 * q", "param p: [2, 4] = eye()",
    "param p: f64[2] = 1e300", "buffer p: i8[2] = -128", "param p: [2] = exp(zeros())",
])
def test_an_initial_value_that_fits_is_built(line: str):
    built = loads(f"model M()(x: [B, T, 8]) -> y: [B, T, 8] {{\n{line}\nreturn x\n}}").build()
    assert "p" in dict(built.named_parameters()) | dict(built.named_buffers())


def test_a_misfit_of_an_initialiser_given_to_a_block_points_at_the_argument():
    d = fault(lambda: model("return LayerNorm(scale = kaiming_uniform())(x)"))
    assert (d.code, d.span.text) == ("A0301", "scale = kaiming_uniform()")


def test_blocks_joined_by_arrows_are_shared_together():
    text = "f = LayerNorm() >> MLP(16, act = relu) >> silu\nshare trunk = f\nx = trunk(x)\nreturn Pre(RMSNorm(), trunk)(x) as p"
    e = model(text)
    assert sorted(addresses(e)) == sorted(["trunk.layer_norm.weight", "trunk.layer_norm.bias", *(f"trunk.mlp.{m}.{w}" for m in ("up", "down")
                                                                                          for w in ("weight", "bias")), "p.norm.weight"])
    assert [n.attrs["path"] for n in e.graph.nodes if n.op == "call"].count("trunk.mlp") == 2
    alone = model("f = LayerNorm() >> MLP(16, act = relu) >> silu\nreturn f(x) as trunk")
    assert [a for a in addresses(e) if a.startswith("trunk")] == addresses(alone)


def test_what_cannot_be_shared_says_what_it_is():
    assert fault(lambda: model("share f = relu\nreturn f(x)")).message.endswith("this is the op `relu`")
    literal = fault(lambda: model("share f = block(x) => 2 * x\nreturn f(x)"))
    assert literal.message.endswith("this is a block literal") and "share `F()`" in literal.help[0]
    assert fault(lambda: model("share f = Linear(8)\nshare g = f\nreturn g(f(x))")).message.endswith("this is shared already")
    assert fault(lambda: model("share f = Linear(8) >> Linear(8)\nreturn f(x)")).code == "A0211"


def test_a_shared_composition_keeps_to_one_set_of_weights():
    d = fault(lambda: model("share f = LayerNorm() >> Linear(8)\nx = f(x)\nreturn f(concat([x, x], axis = -1))"))
    assert d.code == "A0213" and "other weights" in d.message


def test_a_shared_composition_is_built_and_shared():
    m = loads("use std.linear { Linear }\nuse std.norm { LayerNorm }\nmodel M()(x: [B, 8]) -> y: [B, 8] {\n"
              "  share f = LayerNorm() >> Linear(8)\n  return f(f(x))\n}").build()
    assert sum(p.numel() for p in m.parameters()) == 2 * 8 + 8 * 8 + 8
