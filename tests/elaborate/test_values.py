"""Hyper values, sizes, choices, settings, layouts, emitted values, phases."""
from __future__ import annotations

from contextlib import suppress

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.values import show
from tests.effort import calls
from tests.elaborate.helpers import addresses, fault, made, model


def hyper(expression: str, before: str = "") -> str:
    """A hyper value, seen through a failing require."""
    d = fault(lambda: made(f"{before}\nmodel M()(x: [B, 8]) -> y: [B, 8] {{\nv = {expression}\nrequire false, \"{{v}}\"\nreturn x\n}}"))
    return d.message


@pytest.mark.parametrize(("expression", "expected"), [
    ("[i * i for i in range(5) if i % 2 == 0]", "[0, 4, 16]"), ("zip([1, 2], [3, 4])", "[[1, 3], [2, 4]]"),
    ("ramp(0, 0.5, [2, 1])", "[[0, 0.25], [0.5]]"),
    ("ramp(0, 1, [2, 2], end = false)", "[[0, 0.25], [0.5, 0.75]]"), ("multiples(32, 48, 192)", "[64, 96, 128, 160, 192]"), ("7 // 2 + 7 % 2", "4"),
    ("floor(7 / 2.0)", "3"), ("round(2.5) + round(3.5)", "6"), ("float(7) / 2", "3.5"), ("split(\"(2)4(2)\", \"(\")[1:]", "[\"2)4\", \"2)\"]"),
    ("[1..<4, 9]", "[1, 2, 3, 9]"), ("none ?? 3", "3"), ("if 2 > 1 { \"a\" } else { \"b\" }", "a"), ("2 ** 10", "1024"),
    ("match \"x\" { \"x\" | \"y\" => 1\n _ => 2 }", "1"), ("sqrt(16)", "4"),
    ("3 in {1, 2, 3} and not (4 in [1])", "true"), ("[1, 2] + [3]", "[1, 2, 3]"), ("\"ab\" * 2", "abab"),
    ("linspace(0, 1, 3)", "[0, 0.5, 1]"), ("divisors(12)", "[1, 2, 3, 4, 6, 12]"), ("max([1, 5, 2]) - min(3, 2)", "3"),
])
def test_hyper_expressions(expression, expected):
    assert hyper(expression) == expected


def test_functions_of_hyper_values():
    allocate = """/// Megatron's layer allocation.
fn allocate(n: int, attention: float, mlp: float) -> str {
  na = round(n * attention)
  length = float(n - na) / (na + 1)
  kinds = []
  left = length
  for i in range(n) {
    if left < 0.5 { kinds = kinds + ["*"]
      left = left + length } else { kinds = kinds + ["M"]
      left = left - 1 }
  }
  nm = round(n * mlp)
  if nm == 0 { return join(kinds) }
  run = float(n - na - nm) / nm
  left = run
  out = ""
  for k in kinds {
    if k == "M" and left < 0.5 { out = out + "-"
      left = left + run } else if k == "M" { out = out + "M"
      left = left - 1 } else { out = out + k }
  }
  return out
}
fn join(parts: list[str]) -> str {
  out = ""
  for p in parts { out = out + p }
  return out
}"""
    assert hyper("allocate(56, 0.08, 0.5)", allocate) == "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"


@pytest.mark.parametrize(("body", "code"), [
    ("v = 7 / 2\nreturn x", "A0303"), ("v = [1][3]\nreturn x", "A0221"), ("v = 1 / 0\nreturn x", "A0221"), ("if 1 { x = x }\nreturn x", "A0222"),
    ("v = unknwon\nreturn x", "A0201"), ("v = range(10 ** 9)\nreturn x", "A0602"), ("a, b = 3\nreturn x", "A0225"),
    ("return Linear(8, bais = false)(x)", "A0202"), ("return Linear()(x)", "A0203"),
    ("return Linear(8)(x, x)", "A0205"), ("return Linear(8.5)(x)", "A0204"), ("return Linear(9)(x) as f", "A0305"),
    ("return x |> rearrange([B, T, (h w)] -> [B, h, T, w])", "A0308"), ("return x |> rearrange([B, T, d] -> [B, T])", "A0308"),
    ("return matmul(x, x)", "A0304"), ("v = match 3 { 1 => 2 }\nreturn x", "A0223"), ("return 3(x)", "A0206"), ("y = x", "A0220"),
    ("param w: [2 ** T] = zeros()\nreturn x", "A0301"), ("param w: [2 ** (0 - 1)] = zeros()\nreturn x", "A0301"),
    ("param w: [9 ** 99_999_999] = zeros()\nreturn x", "A0602"),
])
def test_faults(body, code):
    assert fault(lambda: model(body)).code == code


@pytest.mark.parametrize(("division", "help"), [
    ("1 / 2", "only 1 divides 1"), ("101 / 2", "1 (101) divides 101"), ("7 / 2", "1 (7), 7 (1) divide 7"),
    ("768 / 7", "4 (192), 6 (128), 8 (96) divide 768")])
def test_what_divides_is_told(division, help):
    assert fault(lambda: model(f"v = {division}\nreturn x")).help[0] == help


def test_no_size_of_a_weight_varies_not_even_among_those_of_an_ellipsis():
    d = fault(lambda: made("block W()(x: [..., d]) -> [..., d] {\n param w: [..., d] = zeros()\n return x + w\n}\n"
                           "model M()(x: [3, 4, T, 8]) -> y: [3, 4, T, 8] { return W()(x) as w }"))
    assert d.code == "A0306" and "T" in d.message


def test_a_fault_poisons_what_it_would_bind_and_others_are_still_found():
    with pytest.raises(ArchError) as e:
        model("a = unknown_one\nb = a + 1\nc = Linear(8, bais = true)(x) as c\nd = unknown_two\nreturn x")
    assert [d.code for d in e.value.diagnostics] == ["A0201", "A0202", "A0201"]


# ---------------------------------------------------------------- sizes
def test_run_time_divisibility_needs_a_require():
    text = "return x |> under([B, (n w), d] -> [B, n, w, d], Linear(8) as f, w = 4)"
    d = fault(lambda: model(text))
    assert d.code == "A0308" and any("T % 4 == 0" in h for h in d.help)
    e = model("require T % 4 == 0\n" + text)
    assert [str(g.left) + g.op + str(g.right) for g in e.graph.guards] and str(e.graph.outputs[0].type) == "[B, T, 8]"


def test_strided_convolutions_floor():
    e = model("return x |> Conv(4, 3, stride = 2, pad = 1) as c |> Conv(4, 2, stride = 2) as d", "(x: [B, 3, H, W]) -> y: [B, 4, _, _]")
    assert str(e.graph.outputs[0].shape[2]) == "floordiv(H + 1, 4)"


def test_unequal_sizes_are_an_error_with_the_require_to_paste():
    d = fault(lambda: model("return x + z", "(x: [B, T, 8], z: [B, S, 8]) -> y: [B, T, 8]"))
    assert d.code == "A0304" and any("require" in h for h in d.help)


def test_a_lower_case_size_that_nothing_binds():
    assert fault(lambda: model("return x", "(x: [B, n]) -> y: [B, n]")).code == "A0309"


def test_header_defaults_evaluate_at_the_application():
    d = fault(lambda: model("return Attention(3)(x) as a"))
    assert d.code == "A0303" and d.span.text in ("3", "Attention(3)", "Attention(3)(x) as a", "Attention(3)(x)")


# ---------------------------------------------------------------- settings and choices
def test_settings_reach_nested_knobs_lists_and_records():
    text = """record Stage { width: int, depth: int }
block Body(width: int = 16 in {16, 32})(x: [..., d]) -> [..., d] { return MLP(width)(x) as mlp }
model M(stages: list[Stage] = [Stage(8, 1), Stage(8, 2)], d: int = 8)(x: [B, 8]) -> y: [B, 8] {
  stages: for s in stages { blocks: for i in range(s.depth) { x = Body()(x) as body } }
  return x
}""".replace("  stages: for", "  parts: for")
    e = made(text, **{"stages.1.depth": 1, "parts.*.blocks.0.body.width": 32})
    assert [a for a in addresses(e) if a.endswith("up.weight")] == ["parts.0.blocks.0.body.mlp.up.weight", "parts.1.blocks.0.body.mlp.up.weight"]
    assert dict(e.graph.parameters())["parts.0.blocks.0.body.mlp.up.weight"].type.shape == (32, 8)
    assert e.knobs["parts.0.blocks.0.body.width"].value == 32 and e.knobs["parts.0.blocks.0.body.width"].default == 16


def test_nothing_at_an_address():
    assert fault(lambda: model("return Linear(8)(x) as f", params="d: int = 8", dd=3)).code == "A0215"


def test_choose_is_a_knob_with_arms():
    text = """layers: for i in range(2) {
  choose mixer {
    linear(bias: bool = true in {true, false}) => Linear(8, bias = bias)
    nothing => identity
    mlp(width: int = 4 in {4, 8}) => MLP(width)
  } = linear
  x = mixer(x)
}
return x"""
    e = model(text)
    assert addresses(e) == [f"layers.{i}.mixer.{w}" for i in range(2) for w in ("weight", "bias")]
    assert {"layers.0.mixer", "layers.0.mixer.bias", "layers.1.mixer", "layers.1.mixer.bias"} <= set(e.knobs)
    changed = model(text, **{"layers.1.mixer": "mlp", "layers.1.mixer.width": 8, "layers.0.mixer": "nothing"})
    assert [a for a in addresses(changed) if "up" in a] == ["layers.1.mixer.up.weight", "layers.1.mixer.up.bias"]
    assert fault(lambda: model(text, **{"layers.0.mixer": "mpl"})).code == "A0224"


# ---------------------------------------------------------------- layouts, masks, emitted values, phases
def test_rearranging_there_and_back_and_new_axes():
    e = model("h = 2\ny = x |> rearrange([B, T, (h w)] -> [B, h, T, w]) |> rearrange([B, h, T, w] -> [B, T, (h w)])\n"
              "return y + (ones_like(x[:, :1]) |> rearrange([B, one, d] -> [B, one, d]))")
    assert str(e.graph.outputs[0].type) == "[B, T, 8]"
    token = made("model M()(x: [B, T, 8]) -> y: [B, _, 8] {\nparam t: [1, 8] = zeros()\n"
                 "return concat([rearrange(t, [n, d] -> [B, n, d]), x], axis = 1)\n}")
    assert str(token.graph.outputs[0].shape[1]) in ("T + 1", "1 + T")


def test_emitted_values_have_addresses_and_are_collected():
    text = """block Noisy()(x: [..., d]) -> [..., d] {
  emit loss = mean(x * x)
  return x
}
model M()(x: [B, 8]) -> (y: [B, 8], total: []) {
  layers: for i in range(3) { x = Noisy()(x) as n }
  return x, sum(stack(collect(loss)))
}"""
    e = made(text)
    assert list(e.graph.emits) == [f"layers.{i}.n.loss" for i in range(3)]


def test_both_phases_are_checked():
    assert fault(lambda: model("y = phase { train => x eval => x[:, 0] }\nreturn y")).code == "A0227"
    e = model("y = phase { train => Linear(8)(x) as a eval => x * 2 }\nreturn y")
    assert addresses(e) == ["a.weight", "a.bias"]


def test_islands_widen():
    e = model("f32 { y = x * x }\nreturn cast(y, \"float\")")
    assert [n.op for n in e.graph.nodes].count("at_least") in (1, 2)


def test_reserved_forms_say_so():
    assert fault(lambda: model("control t: float = 1\nreturn x")).code == "A0218"


def test_the_same_text_gives_the_same_hash_and_knobs_change_it():
    text = "layers: for i in range(n) { x = Pre(RMSNorm(), MLP(16))(x) as mlp }\nreturn x"
    first, again = (model(text, params="n: int = 2").graph.hash for _ in range(2))
    other = model(text, params="n: int = 2", n=3).graph.hash
    assert first == again != other


def test_show_writes_values_as_the_language_does():
    assert show((1, True, None, "a")) == "[1, true, none, \"a\"]"


# ---------------------------------------------------------------- limits
@pytest.mark.parametrize("body", [
    "for i in range(100_000) { for j in range(100_000) { x = x } }\nreturn x", "v = \"a\"\nfor i in range(60) { v = v + v }\nreturn x",
    "v = 10\nfor i in range(60) { v = v ** 2 }\nreturn x", "return Linear(10 ** 30)(x) as f", "v = [0] * 10 ** 12\nreturn x",
    "v = [0]\nfor i in range(60) { v = [v, v] }\nreturn x",
])
def test_exhaustion_is_refused_quickly(body):
    with pytest.raises(ArchError) as e:
        model(body)
    assert any(d.code == "A0602" for d in e.value.diagnostics)


def test_doubling_templates_run_out_of_budget():
    text = """block Twice(f: block)(x: [..., d]) -> [..., d] { y = f(x) as a
  return f(y) as b }
model M()(x: [B, 8]) -> y: [B, 8] {
  t = Linear(8)
  for i in range(60) { t = Twice(t) }
  return t(x) as t
}"""

    def tried() -> None:
        with suppress(ArchError):
            made(text)

    tried()  # loads the ops
    assert calls(tried) < 200_000, "some 20,000: no level is written out twice"
