"""Where messages point and what they say, for mistakes that newcomers make."""
from __future__ import annotations

import re

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.diagnostics.render import helps
from archdsl.spec import check_text, loads, text_setting
from tests.elaborate.helpers import fault, made, model


@pytest.mark.parametrize(("call", "at"), [
    ("Pre(LayerNorm(), Attention(3))", "3"),
    ("Pre(norm = LayerNorm(), f = Attention(heads = 3))", "heads = 3"),
    ("Pre(LayerNorm(scale = eye()), Attention(2))", "scale = eye()"),
    ("Post(LayerNorm(), Pre(LayerNorm(), Attention(3)))", "3"),
    ("Pre(LayerNorm(), BatchNorm())", "BatchNorm()"),
    ("Pre(BatchNorm(), Attention(2))", "BatchNorm()"),
])
def test_a_fault_inside_a_wrapper_points_at_the_argument_whose_block_failed(call: str, at: str):
    header = "(x: [8]) -> y: [8]" if "Batch" in call else "(x: [B, T, 8]) -> y: [B, T, 8]"  # a batch norm needs two axes
    assert fault(lambda: model(f"return {call}(x) as a", header)).span.text == at


def test_a_tensor_is_piped_into_blocks():
    found = fault(lambda: model("return (x # >>\n >> LayerNorm() >> Linear(8)) as a"))
    (fix,) = found.fixes
    assert found.code == "A0206" and [(span.text, new) for span, new in fix.edits] == [(">>", "|>")] * 2
    (number,) = helps(fault(lambda: model("f = LayerNorm() >> 0.5\nreturn f(x) as a")))
    assert number.startswith("a block that computes with a number")


NET = """use std.linear { Linear }
record Stage { width: int, depth: int = 2 }
model M(d: int = 16, stages: list[Stage] = [Stage(16), Stage(32)], q: list["attn" | "conv"] = ["attn"], p: list[int; 2]? = none,
        g: list[list[int]] = [[1], [2]], t: (int, str) = (1, "a"))(x: [B, d]) -> y: [B, _] {
  l: for i in range(2) {
    choose f { wide(k: int = 1) => Linear(k * d)  skip => identity } = wide
    x = f(x)
  }
  s: for st in stages { x = Linear(st.width / 4)(x) as up }
  return x
}
"""


@pytest.mark.parametrize(("settings", "code", "at", "message", "help"), [
    ("l.*.f = wid", "A0224", "wid", "`f` has no arm `wid`", "replace by `wide`"),
    ('l.1.f = "wid"', "A0224", '"wid"', "`f` has no arm `wid`", "replace by `wide`"),
    ("l.*.f = wide(w = 3)", "A0202", "w = 3", "the arm `wide` has no argument `w`", None),
    ('l.*.f.k = "x"', "A0204", '"x"', '`k` is of type int, not "x" (str)', None),
    ('stages.0.depth = "x"', "A0204", '"x"', '`stages.0.depth` is of type int, not "x" (str)', None),
    ("stages.*.width = 7.5", "A0204", "7.5", "`stages.*.width` is of type int, not 7.5 (float)", None),
    ("stages.0 = 3", "A0204", "3", "`stages.0` is of type Stage, not 3 (int)", None),
    ("stages.0.blocks.1.f = wide", "A0215", "stages.0.blocks.1.f", "the record Stage has no field `blocks`",
     "`stages` is a knob: for what lies below a loop `stages: for …`, give the loop a name of its own"),
    ("stages.0.widht = 3", "A0215", "stages.0.widht", "the record Stage has no field `widht`", "replace by `width`"),
    ('q = ["attn", "con"]', "A0204", '"con"', 'item 1 of `q` is of type "attn" | "conv", not "con" (str)', 'replace by `"conv"`'),
    ('q.0 = "con"', "A0204", '"con"', '`q.0` is of type "attn" | "conv", not "con" (str)', 'replace by `"conv"`'),
    ("p = [1]", "A0204", "[1]", "`p` is of type list[int; 2], and this list has 1 item", None),
    ("p = [1, 2.5]", "A0204", "2.5", "item 1 of `p` is of type int, not 2.5 (float)", "replace by `2`"),
    ("g = [[1], [2, true]]", "A0204", "true", "item 1 of item 1 of `g` is of type int, not true (bool)", None),
    ("g.0.0 = false", "A0204", "false", "`g.0.0` is of type int, not false (bool)", None),
    ("t.0 = 2.5", "A0204", "2.5", "`t.0` is of type int, not 2.5 (float)", None),
    ("q = 3", "A0204", "3", '`q` is of type list["attn" | "conv"], not 3 (int)', None),
])
def test_a_setting_that_does_not_fit_is_told_where_it_is_written(settings: str, code: str, at: str, message: str, help: str | None):
    d = fault(lambda: loads(f"{NET}variant v {{ {settings} }}\n"))
    assert (d.code, d.span.text, d.message) == (code, at, message)
    assert d.span.start > len(NET)
    assert help is None or help in helps(d)


def test_settings_inside_one_list_of_a_block_add_up():
    block = "block F(w: list[int] = [8, 8] in {[8, 8], [4, 16]})(x: [B, d]) -> [B, _] { return x |> Linear(w[0]) as a |> Linear(w[1]) as b }\n"
    spec = loads(f"use std.linear {{ Linear }}\n{block}model M()(x: [B, 8]) -> y: [B, _] {{ return F()(x) as f }}\n"
                 "variant v { f.w.0 = 4, f.w.1 = 16 }\n")
    assert {a: p.type.shape for a, p in spec.elaborate("v").graph.parameters() if "weight" in a} == {"f.a.weight": (4, 8), "f.b.weight": (16, 4)}


def test_a_fault_that_a_variant_causes_elsewhere_names_the_variant():
    elsewhere = fault(lambda: loads(f"{NET}variant fine {{ d = 8 }}\nvariant odd {{ stages = [Stage(6)] * 2 }}\n"))
    assert elsewhere.notes == ("in the variant `odd`",)
    written = fault(lambda: loads(f"{NET}variant fine {{ d = 8 }}\nvariant odd {{ stages.0.width = 6 }}\n"))
    assert (written.span.text, written.notes) == ("6", ())
    inherited = fault(lambda: loads(f"{NET}variant odd {{ d = 0.5 }}\n"))
    assert inherited.notes == ()


@pytest.mark.parametrize(("body", "code", "at", "message", "said"), [
    ("return x + y", "A0304", "x + y", "add: the shapes [B, T, 8] and [B, 7] do not fit", "the right operand of `+` is [B, 7]"),
    ("return y @ y", "A0304", "y @ y", "matmul: the last axis of the left operand and the last but one of the right operand differ", None),
    ("return x + Linear(8)", "A0204", "Linear(8)", "the right operand of `+` is a tensor, not a block", "apply it"),
    ("return Linear(8) * x", "A0204", "Linear(8)", "the left operand of `*` is a tensor, not a block", "apply it"),
    ("return x - none", "A0204", "none", "the right operand of `-` is a tensor, not none", None),
    ('return "a" < x', "A0204", '"a"', "the left operand of `<` is a tensor, not \"a\" (str)", None),
    ("return add(x, y)", "A0304", "add(x, y)", "add: the shapes [B, T, 8] and [B, 7] do not fit", "`y` is [B, 7]"),
    ("if x > 0 { return x }\nreturn x", "A0222", "x > 0", "the values of a tensor cannot decide what is built", "`where(condition, a, b)`"),
    ("return if any(x > 0) { x } else { y }", "A0222", "any(x > 0)", "the values of a tensor cannot decide what is built", "where("),
    ("return if x { x } else { y }", "A0222", "x", "a condition must be a bool", "`… is some`"),
    ("return x |> take(0, axis = 1)", "A0204", "0", "`index` of take is a tensor, not 0 (int)", "`x[:, 0]`"),
    ("return take(x, 3)", "A0204", "3", "`index` of take is a tensor, not 3 (int)", "`x[3]`"),
    ("return take(x, 3, axis = -2)", "A0204", "3", "`index` of take is a tensor, not 3 (int)", "`x[..., 3, :]`"),
    ("return LayerNorm(8)(x)", "A0310", "8", "eps is 8: a small number in the square root, not a width", None),
    ("return Pre(RMSNorm(8), Linear(8))(x) as f", "A0310", "8", "eps is 8: a small number in the square root", None),
])
def test_mistakes_about_operands(body: str, code: str, at: str, message: str, said: str | None):
    d = fault(lambda: model(body, "(x: [B, T, 8], y: [B, 7]) -> z: [B, T, 8]"))
    assert (d.code, d.span.text) == (code, at)
    assert d.message.startswith(message)
    assert said is None or any(said in text for text in (*d.help, *d.notes))


@pytest.mark.parametrize(("condition", "help"), [
    ("3 * w % 2 == 0", "14 and 16 are multiples of 2"),
    ("w % 8 == 0 and w > 0", "8 is a multiple of 8"),
    ("w > 0 and (w + 7) % w == 0", "3 (4), 4 (3), 6 (2) divide 12"),
    ("w % 3 == 1", None),
])
def test_what_a_remainder_asks_for(condition: str, help: str | None):
    """Of a divisor that is written, the multiples; of one that may be chosen, what divides."""
    d = fault(lambda: model(f"w = 5\nrequire {condition}\nreturn x"))
    assert (d.code, d.help) == ("A0310", () if help is None else (help,))


@pytest.mark.parametrize(("inputs", "call", "operand"), [
    ("x: int[B, T, 8]", "softmax(x)", "x"),
    ("x: bool[B, T, 8]", "neg(x)", "x"),
    ("x: int[B, T, 8]", "sqrt(x)", "x"),
    ("x: [B, T, 8], w: f64[8]", "layer_norm(x, w)", "w"),
    ("x: [B, T, 8], w: f64[8, 8]", "linear(x, w)", "w"),
])
def test_what_a_message_offers_to_cast_can_be_written(inputs: str, call: str, operand: str):
    found = fault(lambda: model(f"return {call}", f"({inputs}) -> y: [_, _, _]"))
    offered = re.search(r"`(cast\([^`]*\))`", " ".join(found.help))
    assert offered, found
    cast = re.sub(r"cast\(\w+", f"cast({operand}", offered[1])
    model(f"y = {re.sub(rf'(?<=[( ]){operand}(?=[,)])', cast, call)}\nreturn mean(cast(y, \"float\"))", f"({inputs}) -> y: []")


GROUPS = """use std.linear { Linear }
block Mix(heads: int)(x: [..., T, d]) -> [..., T, d] {
  q = Linear(d)(x) as q |> rearrange([..., T, (heads w)] -> [..., heads, T, w])
  k = Linear(d)(x) as k |> rearrange([..., T, (heads w)] -> [..., heads, T, w])
  return (q * k) |> rearrange([..., heads, T, w] -> [..., T, (heads w)])
}
model M(d: int = 128, heads: int = 5)(x: [B = 1, T = 4, d]) -> y: [B, T, d] { return x |> Mix(heads) as mix }
"""


def test_parts_that_do_not_come_out_even_are_one_fault_at_the_number():
    with pytest.raises(ArchError) as caught:
        loads(GROUPS, "a.arch").elaborate()
    (d,) = caught.value.diagnostics
    assert (d.code, d.span.text, d.label) == ("A0308", "5", "`heads` is 5")
    assert d.labels[0].message == "128 is not a multiple of 5" and d.labels[0].span.text.startswith("rearrange")
    assert [f.edits[0][1] for f in d.fixes] == ["4", "8", "2"]


EVEN = GROUPS.replace("heads: int = 5", "heads: int = 4")


def test_a_number_set_in_python_is_not_looked_for_in_the_file():
    with pytest.raises(ArchError) as caught:
        loads(EVEN, "a.arch").elaborate(knobs={"heads": 3})
    assert {d.span.text.split("(")[0] for d in caught.value.diagnostics} == {"rearrange"}
    assert all(d.help == ("1 (128), 2 (64), 4 (32) divide 128",) for d in caught.value.diagnostics)


def test_a_number_from_the_command_line_is_shown_behind_the_fault():
    with pytest.raises(ArchError) as caught:
        loads(EVEN, "a.arch").elaborate(knobs={"heads": text_setting("heads=3")})
    (d,) = caught.value.diagnostics
    assert d.span.text.startswith("rearrange") and [(x.span.source.path, x.message) for x in d.labels] == [("--set", "`heads` is 3")]


def test_an_inexact_shape_of_a_weight_points_at_its_number():
    with pytest.raises(ArchError) as caught:
        loads("model M(d: int = 8, heads: int = 3)(x: [B, d]) -> y: [B, d] { param w: [d / heads] = zeros(); return x * mean(w) }").elaborate()
    (d,) = caught.value.diagnostics
    assert (d.code, d.span.text, d.label) == ("A0301", "3", "`heads` is 3")
    assert [f.edits[0][1] for f in d.fixes] == ["4", "2", "1"]


def test_a_name_of_the_text_is_meant_rather_than_one_of_the_library():
    text = ("use std.linear { Linear }\n"
            "model M(d: int = 4)(x: [B, 2]) -> y: [B, 1] { return x |> Linear(2 * dd, 7) as a |> Linear(1) as b }\n")
    (found,) = check_text(text, "m.arch")
    assert (found.code, found.fixes[0].title) == ("A0201", "replace by `d`")


WIDE = """block Norm()(x: [..., d]) -> [..., d] {{
  param w: [d] = zeros()
  f32 {{ r = rsqrt(mean(x * x, axis = -1, keep = true)) }}
  return {}
}}
model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {{ {} }}
"""


@pytest.mark.parametrize(("result", "at", "fix"), [
    ("x * r", "x * r", "as_type(r, x)"),
    ("x * r * (1 + w)", "x * r", "as_type(r, x)"),
    ("(1 + w) * (r * x)", "(r * x)", "as_type(r, x)"),
    ("where(x > 0, x, r)", "where(x > 0, x, r)", "as_type(r, x)"),
    ("x * rsqrt(r)", "x * rsqrt(r)", None),
])
@pytest.mark.parametrize("body", [
    "return x |> Norm() as norm |> Linear(d) as one",
    "return Pre(Norm(), Attention(2))(x) as one",
    "x = x + Norm()(x) as norm; return x |> LayerNorm() as last",
    "return Norm()(x) as norm",
])
def test_an_element_type_is_mended_where_it_left_the_models(result: str, at: str, fix: str | None, body: str):
    text = WIDE.format(result, body)
    with pytest.raises(ArchError) as caught:
        made(text)
    (d,) = caught.value.diagnostics
    assert (d.code in ("A0304", "A0307"), d.span.text) == (True, at)
    if fix is None:
        assert not d.fixes and "as_type" in d.help[0]
        return
    (span, new), = d.fixes[0].edits
    assert (span.text, new) == ("r", fix)
    mended = span.source.text[: span.start] + new + span.source.text[span.end :]
    assert loads(mended, "test.arch").elaborate().graph.outputs[0].dtype == "float"


@pytest.mark.parametrize("body", [
    "f32 { y = x * 2 }; return Linear(d)(y) as one",
    "return Linear(d)(cast(x, \"f32\")) as one",
])
def test_an_element_type_that_was_written_so_is_told_where_it_does_not_fit(body: str):
    d = fault(lambda: model(body, "(x: [B, T, d]) -> y: [B, T, d]", "d: int = 8"))
    assert d.code == "A0304" and d.span.text.startswith("Linear(d)(")


@pytest.mark.parametrize("domain", ["{4, 8}", "4..8"])
@pytest.mark.parametrize("around", ["{}", "layers: for i in range(2) {{ {} }}"], ids=["body", "loop"])
def test_a_domain_in_a_body_is_told_where_domains_stand(domain: str, around: str):
    inside = around.format(f"heads: int = 8 in {domain}; x = Pre(LayerNorm(), Attention(heads))(x) as mixer")
    d = fault(lambda: model(inside + "; return x", "(x: [B, T, 8]) -> y: [B, T, 8]"))
    assert (d.code, d.span.text, d.message) == ("A0204", f"8 in {domain}", "`heads` is of type int, not true (bool)")
    assert d.label == f"in a body, `in` asks whether 8 is one of {domain}"
    assert helps(d) == (f"a domain stands behind an argument in the header of the model or of a block: `(heads: int = 8 in {domain})`",)


@pytest.mark.parametrize(("bound", "told"), [
    ('n: int = "x"', '`n` is of type int, not "x" (str)'),
    ("a, n: int = 1, 2.5", "`n` is of type int, not 2.5 (float)"),
    ("n: list[int] = [1, true]", "item 1 of `n` is of type int, not true (bool)"),
])
def test_hyper_values_of_a_body_are_of_the_types_beside_their_names(bound: str, told: str):
    d = fault(lambda: model(f"{bound}; return x"))
    assert (d.code, d.message) == ("A0204", told)


def test_names_in_a_body_may_have_types():
    model("one: bool = 8 in {4, 8}; n: int = 2; r: float = 1; f: block = gelu; k: int? = none; return f(n * r * x)")


@pytest.mark.parametrize(("knob", "told"), [
    ("d: float = 8.0", "8 (float)"), ("d: list[int] = [8]", "a list of 1"), ('d: str = "8"', '"8" (str)'),
])
def test_what_is_no_size_is_told_as_what_it_is(knob: str, told: str):
    (d,) = check_text(f"model M({knob})(x: [B, d]) -> y: [B, d] {{ return x }}\n", "a.arch", trials=False)
    assert (d.code, d.message) == ("A0309", f"the shape of `x`: `d` is no size: it is {told}")


def test_sizes_that_a_failed_statement_would_have_bound_are_not_told():
    """Neither as unknown names nor as what is no size."""
    text = """model M(d: int = 8)(x: [B, 14, T, d]) -> y: [B, 14, T, d] {
  z: [_, Rows, Columns, _] = pad_to(x, multiple = 0, axes = [1, 2])
  u: [_, Rows, Q, _] = x
  v = rearrange(x, [B, (Rows e), T, d] -> [B, Rows, e, T, d]) + iota(Columns) + iota(Q)
  return z[:, :Rows] + w
}
"""
    assert [d.code for d in check_text(text, "a.arch", trials=False)] == ["A0304", "A0201"]


def test_a_knob_that_makes_a_divisor_nought():
    text = "model M(h: int = 4)(x: [B, 8]) -> [B, _, _] { return rearrange(x, [B, (n w)] -> [B, n, w], n = h - 4) }\n"
    (d,) = check_text(text, "a.arch")
    assert d.code == "A0308" and "multiple of 0" in d.labels[0].message


@pytest.mark.parametrize(("settings", "at", "meant"), [
    ("d = d * 2", "d", "d = 8 * 2"), ("d = 16, hidden = hidden * 2", "hidden", "d = 16, hidden = (4 * d) * 2"), ("d = hidden", "hidden", None),
])
def test_a_setting_that_reads_what_it_replaces(settings: str, at: str, meant: str | None):
    text = f"model M(d: int = 8, hidden: int = 4 * d)(x: [B, d]) -> y: [B, d] {{ return x * hidden }}\nvariant big {{ {settings} }}\n"
    (d,) = check_text(text, "a.arch", trials=False)
    assert d.code == "A0201" and d.span.text == at and d.span.start > text.index("variant") and "is set" in d.message
    fixed = [text[: span.start] + new + text[span.end:] for f in d.fixes for span, new in f.edits]
    assert [f.splitlines()[1] for f in fixed] == ([f"variant big {{ {meant} }}"] if meant else [])
    assert not any(check_text(f, "a.arch") for f in fixed) and (fixed or d.help)


@pytest.mark.parametrize(("arguments", "argument"), [("kernel = 0", "kernel = 0"), ("3, groups = 0", "groups = 0")])
def test_an_argument_that_makes_an_initialiser_divide_by_zero_is_blamed(arguments: str, argument: str):
    found = fault(lambda: model(f"return Conv(8, {arguments})(x) as c", "(x: [B, 8, H, W]) -> y: [B, 8, _, _]"))
    assert found.code == "A0221" and found.span.text == argument and f"`{argument.split()[0]}` is 0" in (found.label, found.message.partition(":")[0])


def test_a_size_is_no_member_of_a_tensor():
    (told,) = helps(fault(lambda: model("y = max_pool(x, 2)\nreturn resize(x, [y.H, 4])", "(x: [B, 8, H, W]) -> y: [B, 8, _, _]")))
    assert "`y: [_, _, _, _] = …`, with `H` in its place" in told


def test_an_input_that_a_wrapper_hands_on_is_told_where_it_is_given():
    text = """use std { Attention, Post, RMSNorm }
model M(d: int = 8)(x: [B, T, d], m: [B, S, d]) -> y: [B, T, d] {
  return Post(RMSNorm(), Attention(2))(x, memmory = m) as cross
}
"""
    (fault,) = check_text(text, "a.arch")
    assert fault.code == "A0202" and fault.span.text == "memmory = m" and [f.title for f in fault.fixes] == ["replace by `memory`"]
