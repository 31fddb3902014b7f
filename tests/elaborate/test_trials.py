"""Fixes that are tried before they are offered: the right one first, the fault where it is, and no message for what follows from another."""
from __future__ import annotations

from pathlib import Path

import pytest

import archdsl
from archdsl.diagnostics.fixing import apply
from archdsl.diagnostics.model import Diagnostic
from archdsl.elaborate import limits
from archdsl.source import Source
from archdsl.spec import check_text
from archdsl.syntax import tree
from archdsl.syntax.parser import parse
from archdsl.trials import search
from archdsl.trials.candidates import _instead

USE = "use std.linear { Linear }\nuse std.mixer { Attention }\nuse std.norm { RMSNorm }\nuse std.channel { SwiGLU }\n"
NET = USE + """
fn spread(a: int, b: float) -> float { return a * b }

model Net(vocab: int = 11, d: int = 8, depth: int = 3, heads: int = 4, hidden: int = 20, mode: "fast" | "slow" = "fast")(
  x: [B, T, d],
) -> y: [B, T, vocab] {
  layers: for i in range(depth) {
    x = x + Attention(heads)(x) as attn
    x = x + SwiGLU(hidden)(x) as mlp
  }
  z = rearrange(x, [B, T, (h w)] -> [B, h, T, w], h = heads)
  x = rearrange(z, [B, h, T, w] -> [B, T, (h w)])
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}

variant wide { d = 32, depth = 5, heads = 16, hidden = 7 }
variant slow { mode = "slow" }
claim Net { params(norm) == 8 }
names other of Net {
  "out.*" <-> head.*
  "last.*" <-> norm.*
  "l.{i}.{a, b}.*.*" <-> layers.{i}.{attn, mlp}.*.*
}
"""


def only(text: str) -> Diagnostic:
    (found,) = check_text(text, "a.arch")
    return found


def planted(old: str, new: str) -> Diagnostic:
    assert NET.count(old) == 1, old
    return only(NET.replace(old, new))


def mended(d: Diagnostic) -> list[str]:
    """The texts that the fixes give."""
    return [apply(d.span.source.text, [(span.start, span.end, new) for span, new in fix.edits]) for fix in d.fixes]


def test_the_sound_text_is_sound():
    assert check_text(NET, "a.arch") == []


@pytest.mark.parametrize(("old", "new", "code"), [
    ("Linear(vocab)", "Linear()", "A0203"),  # nothing else reads `vocab`
    ("SwiGLU(hidden)", "SwiGLU()", "A0203"),
    ("SwiGLU(hidden)", "SwiGLU(x)", "A0204"),
    ("Linear(vocab)", "Linear(2 * vocab)", "A0305"),
    ('mode = "slow"', "mode = slow", "A0201"),
    ('"slow" = "fast"', '"slow" = fast', "A0201"),
    ("[B, T, (h w)] -> [B, h, T, w], h = heads", "[B, T, (h w)] -> [B, h, w], h = heads", "A0308"),
    ("z, [B, h, T, w]", "z, [B, T, w]", "A0308"),
    ("Linear(vocab) as head", "Linear(vocab) as norm", "A0211"),
    ("as mlp", "as attn", "A0211"),
    ("d = 32, depth = 5, heads = 16", "d = 32, depth = 16, heads = 5", "A0303"),
    ("d = 32, depth = 5", "d = 5, depth = 32", "A0303"),
    ("depth = 5, heads = 16, hidden = 7", "depth = 5, heads = 7, hidden = 16", "A0303"),
])
def test_the_right_fix_is_among_those_offered(old: str, new: str, code: str):
    d = planted(old, new)
    assert d.code == code
    assert NET in mended(d), [f.title for f in d.fixes]


def test_every_fix_that_is_offered_after_trials_mends_the_text():
    d = planted("Linear(vocab) as head", "Linear(vocab) as norm")
    assert [check_text(text, "a.arch") for text in mended(d)] == [[]] * len(d.fixes) != []


def test_a_size_is_told_where_it_is_computed():
    d = planted("Linear(vocab)", "Linear(2 * vocab)")
    assert d.fixes[0].title == "replace by `vocab`"


def test_two_arguments_are_exchanged_when_exactly_one_order_fits():
    text = USE + "block Two(a: int, b: int, c: int)(x: [B, d]) -> [B, d] {\n  require a % b == 0\n  require b % c == 0\n  return x\n}\n" \
        "model M(d: int = 8)(x: [B, d]) -> [B, d] { return Two(6, 12, 3)(x) }\n"
    d = only(text)
    assert d.code == "A0310" and "exchange `6` and `12`" in [f.title for f in d.fixes]
    d = only(text.replace("Two(6, 12, 3)", "Two(5, 10, 15)"))  # no exchange of neighbours fits
    assert not any(f.title.startswith("exchange") for f in d.fixes)


def test_a_bracket_is_told_where_it_is_missing():
    d = planted("range(depth)", "range(depth")
    assert check_text(mended(d)[0], "a.arch") == []
    sizes = USE + "model M(s: list[int] = [4, 5])(x: [B, 4]) -> [B, 9] { return Linear(max(s[0], 4) + ceildiv(s[1, 2) + 2)(x) as a }\n"
    d = only(sizes)
    assert sizes.replace("s[1, 2)", "s[1], 2)") in mended(d) and d.span.text == ","


def test_of_one_number_one_fault_is_told():
    text = USE + "model M(d: int = 16, heads: int = 3, a: int = d / (2 * heads), b: int = d / heads)(x: [B, d]) -> [B, _] {\n" \
        "  return Linear(a + b)(x) as out\n}\n"
    d = only(text)
    assert (d.code, d.span.text) == ("A0303", "3") and [f.title for f in d.fixes][:2] == ["replace by `4`", "replace by `2`"]


def test_a_field_of_a_record_outside_of_its_domain():
    text = "record Sizes { w: int = 9 in {4, 8}, n: int = 2 in 1..3 }\nmodel M(s: Sizes = Sizes())(x: [B, 4]) -> [B, 4] { return x }\n"
    d = only(text)
    assert (d.code, d.span.text) == ("A0407", "9") and d.fixes[0].title == "replace by `8`"


@pytest.mark.parametrize(("old", "new"), [("Linear(vocab)", "Linear()"), ("Linear(vocab)", "Linear(2 * vocab)"),
                                          ("d = 32, depth = 5", "d = 5, depth = 32")])
def test_of_a_large_text_what_the_fault_is_about_is_tried(monkeypatch: pytest.MonkeyPatch, old: str, new: str):
    """Variants, claims and foreign names are left out, but for those that the fault is told of; places are those of the whole text."""
    monkeypatch.setattr(search, "MOST_STEPS", 10)
    d = planted(old, new)
    assert NET in mended(d) and d.span.source.text == NET.replace(old, new)


def test_a_fix_that_breaks_a_variant_which_was_left_out_is_not_the_first(monkeypatch: pytest.MonkeyPatch):
    """Of two numbers of a domain the nearer one would do, but for a variant of which the fault says nothing."""
    text = USE + "model M(d: int = 63 in {64, 96}, parts: int = 1)(x: [B, 8]) -> [B, 8] {\n  require d % parts == 0\n" \
        "  return x |> Linear(d) as up |> Linear(8) as down\n}\n\nvariant thirds { parts = 3 }\n"
    assert [f.title for f in only(text).fixes][:1] == ["replace by `96`"]
    monkeypatch.setattr(search, "MOST_STEPS", 10)
    assert [f.title for f in only(text).fixes] == ["replace by `96`", "replace by `64`"]
    monkeypatch.setattr(search, "WORK", 100)  # not even what the fault is about can be tried
    assert only(text).fixes


def test_trials_that_take_far_longer_than_the_check_itself_are_of_what_the_fault_is_about():
    """No variant is gone through to its end where the default lies outside of its domain, and all of them are where it is mended."""
    text = (Path(archdsl.__file__).parent / "specs" / "vision" / "vit.arch").read_text("utf-8")
    told = only(text.replace("side: int = 224", "side: int = 124"))
    assert told.code == "A0407" and [f.title for f in told.fixes] == ["replace by `224`"]
    told = only(text.replace("hidden: int", "hidden: nit"))
    assert told.code == "A0201" and [f.title for f in told.fixes] == ["replace by `int`"]


def test_what_is_left_out_of_a_large_text():
    broken = NET.replace("heads = 16", "heads = 5") + "variant wider of wide { d = 64 }\n"
    (d,) = check_text(broken, "a.arch", trials=False)
    short = search.essence([d], d.span.source)
    assert len(short) == len(broken) and "variant wide {" in short
    assert not any(word in short for word in ("variant slow", "variant wider", "claim", "names"))


def test_a_trial_that_takes_too_long_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch):
    """With 100 layers, what is tried first takes more than one trial may."""
    monkeypatch.setattr(search, "ONE", 4_000)
    d = planted("d = 32, depth = 5, heads = 16", "d = 32, depth = 16, heads = 500")
    assert all(f.title != "replace by `500`" for f in d.fixes) and d.fixes


def test_a_default_of_a_block_outside_of_its_domain():
    text = "block F(n: int = 8 in {3, 5})(x: [B, d]) -> [B, d] {\n  require n % 2 == 1\n  return x\n}\n" \
        "model M(d: int = 4)(x: [B, d]) -> [B, d] { return F()(x) }\n"
    d = only(text)
    assert (d.code, d.span.text) == ("A0310", "8") and [f.title for f in d.fixes] == ["replace by `5`", "replace by `3`"]


def test_a_slip_in_a_number_outside_of_its_domain():
    text = "model M(d: int = 8, k: int = 20 in 1..8)(x: [B, d]) -> [B, d] {\n  require k <= 4\n  return x\n}\n"
    d = only(text)
    assert (d.code, d.span.text) == ("A0407", "20") and [f.title for f in d.fixes] == ["replace by `2`"]  # 8 would not do


def test_an_axis_that_is_reduced_has_a_name():
    text = "model M(d: int = 4)(x: [B, d, H, W]) -> [B, d] { return x |> reduce([B, d, Y, X] -> [B, d], mean) }\n"
    assert text in mended(only(text.replace("Y, X", "X"))) and text in mended(only(text.replace("Y, X", "Y")))


def test_two_sizes_of_one_name_are_told_apart():
    text = "block F()(x: [B, T, d], m: [B, S, d], ok: bool[B, S]) -> [B, T, d] { return where(any(ok), x, 2 * x) }\n" \
        "model M(d: int = 4)(x: [B, T, d], m: [B, S, d], ok: bool[B, S]) -> [B, T, d] { return F()(x, m, ok) }\n"
    d = only(text.replace("F()(x, m, ok)", "F()(m, x, ok)"))
    assert d.message == "the input `ok` of `F` is bool[B, T] here, but this is bool[B, S]"
    assert d.span.text in ("m", "x") and text in mended(d) and not any("require" in h for h in d.help)


def test_what_is_tried_is_counted_and_not_timed(monkeypatch: pytest.MonkeyPatch):
    """A machine on which all takes ten times as long tells the same."""
    looks = iter(range(10**9))
    want = planted("Linear(vocab)", "Linear(2 * vocab)").fixes
    assert want
    monkeypatch.setattr(limits, "process_time", lambda: next(looks) * 0.0025)
    assert [f.title for f in planted("Linear(vocab)", "Linear(2 * vocab)").fixes] == [f.title for f in want]


def test_a_trial_is_given_up_when_its_ration_is_used_up(monkeypatch: pytest.MonkeyPatch):
    """A fix of a model of many blocks is not tried to the end; it is offered as before."""
    text = NET.replace("depth: int = 3", "depth: int = 100").replace("Linear(vocab)", "Linear(2 * vocab)")
    paid: list[int] = []
    pay = limits.Ration.pay
    monkeypatch.setattr(limits.Ration, "pay", lambda ration, steps: (paid.append(steps), pay(ration, steps))[1])
    before = check_text(text, "a.arch", trials=False)
    for most in (0, 500, 2_000, 5_000):
        paid.clear()
        assert search.tried(before, before[0].span.source, most=most) == before
        assert sum(paid) <= most + paid[-1] + limits.CLOCK
    paid.clear()
    found = search.tried(before, before[0].span.source, most=10_000)  # enough for one of two
    assert [f.title for f in found[0].fixes] == ["declare `[B, T, 22]`"]
    found = search.tried(before, before[0].span.source)
    assert [f.title for f in found[0].fixes] == ["replace by `vocab`", "declare `[B, T, 22]`"]


def test_a_far_name_is_offered_when_the_nearest_does_not_fit():
    d = only(USE + "model M(pd: int = 2)(x: [B, T, 4]) -> [B, T, 4] { return psd(x, [(0, 0), (0, 0), (0, 0)]) }\n")
    assert d.fixes[0].title == "replace by `pad`"


def test_two_items_without_a_comma():
    d = only("model M()(x: [B, T]) -> [B, T + 2] { return pad(x, [(0, 0) (1, 1)]) }\n")
    assert d.fixes[0].title == "insert `,`"


# ---------------------------------------------------------------- faults of several stages
FILE = USE + """
block One(n: int)(x: [B, d]) -> [B, d] {
  y = Linear(n, bias = true)(x) as up
  return y |> Linear(d) as down
}

block Two(n: int)(x: [B, d]) -> [B, d] {
  return x + Linear(d)(x) as map
}

model Net(d: int = 8, n: int = 4 in {2, 4})(x: [B, d]) -> [B, d] {
  return x |> One(n) as one |> Two(n) as two
}

variant deep of Net { n = 2 }
names other of Net { "a.*.*" <-> one.*.*  "b.*.*" <-> two.*.* }
"""
PLANTED = {
    "syntax": ("Linear(n, bias = true)(x)", "Linear(n bias = true)(x)"), "name": ("Linear(n, bias = true)(x)", "Linear(n, bais = true)(x)"),
    "shape": ("return x + Linear(d)(x)", "return x + Linear(d + 1)(x)"), "domain": ("n: int = 4 in", "n: int = 5 in"),
    "variant": ("of Net { n", "of Nett { n"), "names": ('of Net { "a', 'of Nte { "a'),
}


@pytest.mark.parametrize(("which", "codes"), [
    (("name", "shape", "variant"), ["A0202", "A0304", "A0401"]), (("syntax", "shape", "variant"), ["A0116", "A0304", "A0401"]),
    (("name", "domain", "names"), ["A0202", "A0407", "A0431"]), (("syntax", "domain", "names"), ["A0116", "A0407", "A0431"]),
])
def test_three_faults_of_different_stages_are_told_in_one_run(which: tuple[str, ...], codes: list[str]):
    assert check_text(FILE, "a.arch") == []
    text = FILE
    for kind in which:
        assert text.count(PLANTED[kind][0]) == 1, kind
        text = text.replace(*PLANTED[kind])
    found = check_text(text, "a.arch")
    assert [d.code for d in found if d.severity == "error"] == codes, [str(d.message) for d in found]
    assert all(text[d.span.start : d.span.end] == d.span.text for d in found)


MORE = {"claim": ("claim Net {", "claim Nett {"), "address": ("<-> two.*.*", "<-> twoo.*.*"), "word": ("params > 0", "parms > 0"),
        "names": ('of Net { "a', 'of Nett { "a')}


@pytest.mark.parametrize(("which", "codes"), [
    (("shape", "names"), ["A0304", "A0431"]), (("shape", "address"), ["A0304", "A0432"]), (("shape", "word"), ["A0304", "A0403"]),
    (("domain", "shape"), ["A0304", "A0407"]), (("variant", "address"), ["A0401", "A0432"]), (("claim", "address"), ["A0432", "A0401"]),
    (("address", "word"), ["A0432", "A0403"]), (("domain", "shape", "claim"), ["A0304", "A0407", "A0401"]),
])
def test_what_speaks_of_models_is_told_beside_a_fault_in_one(which: tuple[str, ...], codes: list[str]):
    text = FILE + "claim Net { params > 0 }\n"
    for kind in which:
        old, new = {**PLANTED, **MORE}[kind]
        assert text.count(old) == 1, kind
        text = text.replace(old, new)
    assert [d.code for d in check_text(text, "a.arch") if d.severity == "error"] == codes


def test_what_follows_from_a_misspelt_name_is_not_told():
    text = FILE.replace("y = Linear(n", "y = Liner(n")
    assert [d.code for d in check_text(text, "a.arch")] == ["A0201"]


# ---------------------------------------------------------------- what stands behind faults
@pytest.mark.parametrize(("edits", "codes"), [
    ([("|> Linear(d) as down", "|> Linear(d, true, 1, 2, 3) as down"), ("{ n = 2 }", "{ n = 2, d = false }")], ["A0204", "A0205"]),
    ([("one |> Two(n)", "one |> Two()"), ("{ n = 2 }", "{ n = [2] }")], ["A0203", "A0204"]),
    ([("Linear(n, bias = true)", "Linear(n bias = true)"), ("return x + Linear(d)(x)", "return x + Linear(2 * d)(x)"), ("two.*.*", "twoo.*.*")],
     ["A0116", "A0304", "A0432"]),
    ([("two.*.* }", "two.*.*"), ("n: int = 4 in", "n: int = 5 in"), ("{ n = 2 }", '{ n = "2" }')], ["A0109", "A0204", "A0407"]),
])
def test_faults_behind_faults_are_told_in_one_run(edits: list[tuple[str, str]], codes: list[str]):
    """A setting of a variant whose model has a fault of its own; what can be looked at only when two others are mended."""
    text = FILE
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    found = [d for d in check_text(text, "a.arch") if d.severity == "error"]
    assert sorted(d.code for d in found) == codes, [(d.code, d.message) for d in found]
    assert all(text[d.span.start : d.span.end] == d.span.text for d in found)


RULED = "block Half(k: int)(x: [B, d]) -> [B, d] {\n  require d % k == 0\n  return Linear(d)(x) as map\n}\n" \
    "model M(d: int = 8, k: int = 2, mode: str = \"ab\")(x: [B, d]) -> [B, d] {\n  return Half(k)(x) as part\n}\n" \
    "variant small { d = 12, k = 3 }\nvariant odd { d = 6, k = 2 }\n"


@pytest.mark.parametrize(("edits", "codes"), [
    ([("Half(k)(x)", "Half(k, mode)(x)"), ("d = 6, k = 2", "d = 6, k = 4")], [("A0205", "mode"), ("A0310", "4")]),  # the label is on the line above
    ([("Half(k)(x)", "Half(k, mode)(x)"), ("d = 6, k = 2", "d = 6, k = 4"), ("d = 12, k = 3", "d = 12, k = 5")], [("A0205", "mode")]),
    ([("Half(k: int)", "Half(k: int, kind: str)"), ("d = 6, k", "d = 6, kk")], [("A0203", "Half(k)"), ("A0215", "kk")]),
    ([("Half(k)(x)", "Half()(x)"), ("d = 6, k", "d = 6, kk")], [("A0203", "Half()")]),  # `k` or `d`
    ([("Half(k)(x)", "Half(kk)(x)"), ("d = 6, k = 2", "d = 6, k = 4")], [("A0201", "kk"), ("A0310", "4")]),
    ([("Half(k)(x)", "Half(k, mode)(x)"), ("require d %", "require 3 * d + 1 %")], [("A0205", "mode")]),  # nor is the rule right
])
def test_a_setting_of_one_variant_is_told_beside_a_fault_of_the_block_that_it_is_for(edits: list[tuple[str, str]], codes: list[tuple[str, str]]):
    text = USE + RULED
    assert check_text(text, "a.arch") == []
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch") if d.severity == "error"] == codes


def test_a_default_that_a_variant_replaces_hides_no_fault_of_the_variant():
    """With the variant's numbers it would take more steps than there are; by itself it is told."""
    text = USE + "fn letters(n: int) -> str {\n  out = \"\"\n  for i in range(n) { out = out + \"a\" }\n  return out\n}\n" \
        "model M(n: int = 2, kinds: str = letters(n))(x: [B, 8]) -> [B, 8] {\n  require len(kinds) == n\n" \
        "  layers: for k in kinds { x = Linear(8)(x) as map }\n  return x\n}\nvariant many { kinds = \"abc\", n = 100_000 }\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch", trials=False)] == [("A0310", '"abc"')]
    assert [d.code for d in check_text(text.replace("  require len(kinds) == n\n", ""), "a.arch", trials=False)] == ["A0602"]


def test_a_fault_of_the_model_is_not_told_of_its_variants_again():
    text = FILE.replace("return x + Linear(d)(x)", "return x + Linear(d + 1)(x)")
    text += "variant wide of Net { d = 16 }\nvariant wider of Net { d = 32 }\n"
    assert [d.code for d in check_text(text, "a.arch", trials=False)] == ["A0304"]


def test_a_domain_that_hangs_on_a_value_outside_of_its_own_is_not_told():
    text = "model M(d: int = 9 in {4, 8}, h: int = 16 in multiples(4, d, 2 * d))(x: [B, d]) -> [B, d] { return x }\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch")] == [("A0407", "9")]


def test_a_variant_may_leave_domains_that_hang_on_it():
    text = USE + "model M(d: int = 8, h: int = 8 in multiples(4, d, 2 * d), heads: int = 2)(x: [B, T, d]) -> [B, T, d] {\n" \
        "  return Attention(heads)(x) as a |> Linear(h) as b |> Linear(d) as c\n}\nvariant wide { d = 64, heads = 7 }\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch")] == [("A0303", "7")]


def test_of_two_numbers_that_do_not_divide_the_one_that_is_not_even_is_the_slip():
    text = USE + "model M(d: int = 128, heads: int = 8, kv: int = 4)(x: [B, T, d]) -> [B, T, d] { return Attention(heads, kv, 16)(x) as a }\n"
    d = only(text + "variant v { heads = 45, kv = 16 }\n")
    assert (d.code, d.span.text) == ("A0310", "45")


def test_a_literal_of_the_wrong_type_is_told_in_a_branch_that_is_not_taken():
    branches = "if tie { x } else { Linear(d, bias = 0)(x) as h }"
    d = only(USE + f"model M(d: int = 8, tie: bool = true)(x: [B, d]) -> [B, d] {{ return {branches} }}\n")
    assert (d.code, d.span.text, mended(d)[0].count("bias = false")) == ("A0204", "0", 1)


def test_names_that_are_equally_near_are_all_offered():
    text = FILE + "variant base7 of Net { n = 2 }\nvariant base1 of Net { n = 4 }\nclaim base2 { params > 0 }\n"
    assert [f.title for f in only(text).fixes] == ["replace by `base7`", "replace by `base1`"]


def test_a_misspelt_setting_is_told_alone():
    """What the variant, or one on top of it, would be is not known then."""
    text = USE + "model M(d: int = 6, heads: int = 3)(x: [B, T, d]) -> [B, T, d] { return Attention(heads)(x) as a }\n" \
        "variant wide { d = 16, heaads = 4 }\nvariant wider of wide { d = 64 }\n"
    assert (only(text).code, only(text).span.text) == ("A0215", "heaads")


def test_a_domain_behind_a_broken_body_is_not_told_either():
    text = USE + "model M(d: int = 50 in {24, 48}, hidden: int = 48 in multiples(4, d, 2 * d), heads: int = 4)(x: [B, T, d]) -> [B, T, d] {\n" \
        "  return Attention(heads)(x) as a |> Linear(hidden) as b |> Linear(d) as c\n}\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch")] == [("A0407", "50")]


def test_what_fails_in_several_variants_is_told_once():
    text = USE + "model M(d: int = 8, two: bool = false)(x: [B, T, d]) -> [B, _, _] {\n" \
        "  return if two { concat([x, x[:, 0]], axis = 1) } else { x }\n}\n" \
        "variant both { two = true }\nvariant wide of both { d = 16 }\nvariant wider of both { d = 32 }\n"
    assert [d.code for d in check_text(text, "a.arch")] == ["A0304"]


def test_an_exchange_is_told_where_it_is():
    text = USE + "block Two(n: int, m: int)(x: [B, d]) -> [B, d] { return x |> Linear(n) as one |> Linear(m) as two }\n" \
        "model M(d: int = 8, hidden: int = 20)(x: [B, d]) -> [B, d] {\n  return x |> Two(d, hidden) as feed_forward_with_a_long_name\n}\n"
    d = only(text)
    assert "exchange `d` and `hidden`" in [f.title for f in d.fixes]


def test_a_division_that_a_proposed_number_breaks_is_not_told():
    text = USE + "model M(d: int = 9 in {6, 7, 24}, heads: int = 12 in {12})(x: [B, T, d]) -> [B, T, d] { return Attention(heads)(x) as a }\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch")] == [("A0407", "9")]


def test_a_rule_that_numbers_of_several_variants_break_at_one_place_is_told_once():
    """The arguments are exchanged. Where the defaults fit, each number in a variant is told."""
    text = USE + "model M(d: int = 64, heads: int = 4, kv: int = 2)(x: [B, T, d]) -> [B, T, d] {\n" \
        "  return Attention(\n    heads,\n    kv,\n  )(x) as a\n}\nvariant two { heads = 8, kv = 4 }\n" \
        "variant three { heads = 16, kv = 8 }\nvariant one { heads = 4, kv = 2 }\n"
    assert not check_text(text, "a.arch")
    exchanged = text.replace("heads,\n    kv,", "kv,\n    heads,")
    assert [d.code for d in check_text(exchanged, "a.arch", trials=False)] == ["A0310"]
    slips = text.replace("kv = 4", "kv = 3").replace("kv = 8", "kv = 5")
    assert [(d.code, d.span.text) for d in check_text(slips, "a.arch")] == [("A0310", "3"), ("A0310", "5")]


def test_a_rule_that_variants_of_one_model_break_is_not_told_of_another_one():
    """Where the defaults break another rule, each number in a variant is told, whatever a variant of another model breaks at that place."""
    text = USE + "block Inner(heads: int, kv: int)(x: [B, T, d]) -> [B, T, d] { return Attention(heads, kv)(x) as a }\n" \
        "model M(d: int = 64, heads: int = 4, kv: int = 2, n: int = 5, m: int = 3)(x: [B, T, d]) -> [B, T, d] {\n" \
        "  k = n / m\n  return Inner(heads, kv)(x) as a\n}\n" \
        "variant two of M { kv = 3, n = 6 }\nvariant three of M { heads = 8, kv = 5, n = 6 }\n" \
        "model Other(d: int = 64, heads: int = 4, kv: int = 2)(x: [B, T, d]) -> [B, T, d] { return Inner(heads, kv)(x) as a }\n" \
        "variant four of Other { heads = 8, kv = 7 }\n"
    assert [(d.code, d.span.text) for d in check_text(text, "a.arch", trials=False)] == [
        ("A0303", "5"), ("A0310", "3"), ("A0310", "5"), ("A0310", "7")]


@pytest.mark.parametrize("body", [
    "stages: for w, i in enumerate(widths) { x = Linear(w)(x) as map |> dropout(rates[i]) }",
    "stages: for w, i in enumerate(widths) { if i > 0 { x = Linear(w)(x) as map } }\n  return x",
    "x = x * rates[1]\n  first = [rates[i] * w for w, i in enumerate(widths)]",
])
def test_the_items_of_enumerate_the_other_way_round(body: str):
    """One message, whose fix puts the position first."""
    text = USE + "model M(d: int = 8, widths: list[int] = [8, 16])(x: [B, T, d]) -> [B, T, widths[1]] {\n  rates = [0.1, 0.2]\n  " + body + \
        "\n  return x |> Linear(widths[1]) as last\n}\nvariant wide { widths = [16, 32] }\n"
    text = text.replace("return x\n  return x |>", "return x |>")
    d = only(text)
    assert "exchange `w` and `i`" in [f.title for f in d.fixes]


SHARED = USE.replace("Linear }", "Linear }\nuse std.embed { TokenEmbedding }") + """
model Net(vocab: int = 40, d: int = 8, heads: int = 4)(tokens: int[B, T] in 0..<vocab) -> y: [B, T, vocab] {
  share embed = TokenEmbedding(vocab, d)
  x = embed(tokens)
  x = x + Attention(heads)(x) as attn
  return linear(x, embed.weight)
}

variant wide { vocab = 80, d = 16 }
"""


def test_arguments_of_a_shared_block_are_exchanged_where_it_is_declared():
    """Once, though the defaults and a variant break."""
    assert check_text(SHARED, "a.arch") == []
    d = only(text := SHARED.replace("TokenEmbedding(vocab, d)", "TokenEmbedding(d, vocab)"))
    assert d.span.start == text.index("d, vocab)") and SHARED in mended(d)


def test_a_bracket_with_an_item_on_its_line_closes_there():
    sound = NET.replace("Attention(heads)(x) as attn", "Attention(\n      heads,\n      bias = max(1, depth) > 2,\n    )(x) as attn")
    assert check_text(sound, "a.arch") == []
    d = only(text := sound.replace("max(1, depth) > 2", "max(1, depth > 2"))
    assert d.code == "A0109" and text.count("\n", 0, d.span.start) == text[: text.index("max(")].count("\n") and sound in mended(d)


@pytest.mark.parametrize(("settings", "told"), [("d = 2, heads = 4", "2"), ("d = 61, heads = 4", "61"), ("d = 60, heads = 7", "7")])
def test_what_nothing_like_the_divisor_divides_is_told_itself(settings: str, told: str):
    assert planted("d = 32, depth = 5, heads = 16", settings).span.text == told


def test_one_axis_of_a_declared_shape_is_told():
    d = only(SHARED.replace("y: [B, T, vocab]", "y: [B, B, vocab]"))
    assert d.span.text == "B" and SHARED in mended(d)


def test_a_text_is_told_as_the_default_of_what_takes_none():
    """Though every caller gives another."""
    text = 'block A(act: block = "gelu")(x: [B, d]) -> [B, d] { return act(x) }\n'
    text += "model M(d: int = 8)(x: [B, d]) -> y: [B, d] { return x |> A(relu) }\n"
    d = only(text)
    assert (d.code, d.span.text) == ("A0204", '"gelu"') and mended(d) == [text.replace('"gelu"', "gelu")]


def test_a_size_of_three():
    """`ceildiv` takes two, whatever is tried."""
    d = only("model M(d: int = 8)(x: [B, d]) -> y: [B, d] {\n  param w: [ceildiv(d, 2, 3)] = zeros()\n  return x + w\n}\n")
    assert d.code == "A0301" and "`ceildiv` takes 2 sizes, not 3" in d.message


def test_an_exchange_in_a_domain_comes_before_other_values():
    """A number of the domain is always right, an exchange hardly by accident."""
    text = "model M(d: int = 24 in multiples(8, 16, 64))(x: [B, d]) -> y: [B, d] { return x }\n"
    assert check_text(text, "a.arch") == []
    d = only(text.replace("8, 16, 64", "16, 8, 64"))
    assert d.span.text == "16" and mended(d)[0] == text


def test_an_exchange_that_mends_variants_too_comes_first():
    """A number mends the defaults alone."""
    text = USE + """
model M(d: int = 16, heads: int = 8, kv: int = 2)(x: [B, T, d]) -> y: [B, T, d] { return x |> Attention(heads, kv) as attn }
variant tiny { d = 12, heads = 4, kv = 2 }
"""
    assert check_text(text, "a.arch") == []
    d = only(text.replace("(heads, kv)", "(kv, heads)"))
    assert mended(d)[0] == text


def test_what_a_require_with_a_misspelt_name_would_have_said_is_not_missed():
    text = """model M(side: int = 8)(x: [B, H, W]) -> y: [B, H, W] {
  require H == side and W == side
  param p: [side, side] = zeros()
  return x + p
}
"""
    assert check_text(text, "a.arch") == []
    d = only(text.replace("W == side", "W == sidd"))
    assert d.code == "A0201" and mended(d)[0] == text


def test_no_number_is_proposed_in_the_place_of_one_that_its_domain_has():
    def instead(domain: str, value: int) -> list[str]:
        module = parse(Source("a.arch", f"block B(d: int = {value} in {domain})(x: [B, d]) -> [B, d] {{ return x }}"))
        block = next(d for d in module.decls if isinstance(d, tree.Block))
        return _instead(block.params[0].domain, value)  # type: ignore[arg-type]

    assert instead("2..8", 8) == instead("2..8", 2) == instead("{2, 8}", 8) == instead("2..<8", 7) == []
    assert instead("2..8", 9) == ["8"] and instead("2..<8", 8) == ["2"] and instead("{2, 8}", 7) == ["8", "2"]
