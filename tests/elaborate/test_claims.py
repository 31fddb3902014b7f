"""Claims: read by check, computed by verify."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from archdsl.claims import verify
from archdsl.spec import check_file, check_text, load

NET = """
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { Pre }

block Twice()(x: [..., d]) -> [..., d] { return x |> Linear(d, bias = false) as a |> Linear(d, bias = false) as b }

fn pairs(text: str) -> list[int] {
  require text != "bad", "no {text}"
  return [int(c) for c in text]
}

model Net(vocab: int = 11, d: int = 8, depth: int = 2, mask: mask = causal, tie: bool = false)(tokens: int[B = 1, T = 16] in 0..<vocab)
  -> (logits: [B, T, vocab], last: [B, T, d]) stream T {
  share embed = TokenEmbedding(vocab, d)
  x = embed(tokens)
  layers: for i in range(depth) {
    choose ff { twice => Twice()  skip => identity } = twice
    x = Pre(RMSNorm(), Attention(2, mask = mask, positions = Rope()))(x) as attn
    x = Pre(LayerNorm(), ff)(x) as mlp
    emit hidden = x
  }
  return if tie { linear(x, embed.weight) } else { Linear(vocab, bias = false)(x) as head }, x
}

/// Every position sees all others.
model Blind(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] stream T { return x + mean(x, axis = 1, keep = true) }
/// The output says nothing of the input.
model Deaf(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] stream T { return zeros_like(x) }
model Image(d: int = 3)(x: [B = 1, d, H = 8, W = 8]) -> y: [B, 4] {
  return x |> reduce([B, d, H, W] -> [B, d], mean) |> Linear(4) as head
}

variant wide { d = 16 }
variant tied { tie = true }
variant also_plain {}
variant flat { layers.*.ff = skip }
variant twice_image of Image { d = 6 }
"""


@pytest.fixture
def file(tmp_path):
    def make(claims: str) -> str:
        path = tmp_path / "net.arch"
        path.write_text(NET + textwrap.dedent(claims))
        return str(path)

    return make


def rows(path: str) -> list[dict]:
    return [row for s in load(path).models.values() for row in verify(s)]


TRUE = """
params == 2 * 11 * 8 + depth * (8 * 8 * 4 + 8 + 8 * 8 * 2 + 16)
params(tie = true) == params - 11 * 8
params(layers.0) == params(layers[1])
params(layers.0.attn) == 4 * d * d + d
params(depth = 3) - params == params(layers.0)
weight_bytes == 4 * params
weight_bytes(dtype = bf16) == 2 * params
macs(T = 32) > 2 * macs(T = 16)
macs(B = 2) == 2 * macs
macs == 16 * (11 * d + depth * (6 * d * d + 2 * 16 * d))
saved_bytes(T = 32) > saved_bytes
peak_bytes >= 4 * 16 * 11
count(linear) == 6 * depth + 1
count(rms_norm) == depth
count(layer_norm, depth = 5) == 5
count(Attention) == 2
count(Pre) == 2 * depth
count(Twice) == 2
count(LayerNorm) == depth
count(gelu) == 0
count(ff == twice) == depth
count(ff == skip) == 0
layers.0.ff == twice
shape(logits) == [1, 16, 11]
shape(logits, B = 3, T = 5) == [B * 3, 5, vocab]
shape(layers.0.hidden) == [1, 16, d]
shape(layers.0.attn.q.weight) == [d, d]
pairs("123") == [1, 2, 3]
fails(pairs("bad"))
fails(pairs("12")) == false
interchangeable(also_plain, Net)
causal(logits, tokens)
causal(last, tokens)
equal(also_plain) within 1e-12
forms(logits) within 1e-10
forms(last)
state_bytes(B = 3, T = 5) == 3 * (2 * 2 * 5 * d * 4 + 8) + 8
depth in {2, 3}
params < 10k and depth > 1
"""
FALSE = """
params == 1
params <= 10
macs == 1M within 0.5%
count(Attention) == 3
interchangeable(wide, Net)
causal(last, tokens, mask = full)
fails(pairs("12"))
layers.0.ff == skip
equal(flat) within 1e-6
constant_state(T)
state_bytes(B = 1) == 0
"""


@pytest.mark.parametrize("claim", TRUE.strip().splitlines())
def test_true_claims(file, claim):
    (row,) = rows(file(f"claim {{ {claim} }}"))
    assert row["passed"], row


@pytest.mark.parametrize("claim", FALSE.strip().splitlines())
def test_claims_that_do_not_hold(file, claim):
    (row,) = rows(file(f"claim {{ {claim} }}"))
    assert not row["passed"]


def test_what_cannot_be_verified_has_not_passed(file):
    found = rows(file("claim { active_params == 3;  equal(flat) within 1 }"))
    assert [r["passed"] for r in found] == [False] * 2
    assert all(r["actual"].startswith("not built yet: ") for r in found)


@pytest.mark.parametrize(
    ("claim", "passed", "actual"),
    [
        ("claim Blind { causal(y, x) }", False, "position 0 of `y` depends on position 7 of `x` (T = 8)"),
        ("claim Deaf { causal(y, x) }", False, "`y` does not depend on `x` at all"),
        ("claim { causal(logits, tokens) }", True, "holds at T = 16"),
    ],
)
def test_causality(file, claim, passed, actual):
    (row,) = rows(file(claim))
    assert (row["passed"], row["actual"]) == (passed, actual)


STREAM = "model M(d: int = 4)(x: [B = 1, T = 64, d]) -> y: [B, T, d] stream T {{ {} }}\nclaim {{ causal(y, x) }}"


@pytest.mark.parametrize(("body", "seen"), [
    ("return cumsum(x, axis = 1)", "holds at T = 64"),
    ("draw n: [B, T, d] = normal()\nreturn cumsum(x, axis = 1) + n", "holds at T = 64"),
    ("return take(cumsum(x, axis = 1), (iota(4) * 3 + 1) % 4, axis = 2)", "holds at T = 64"),
    ("return x * T", "position 0 of `y` depends on how many follow (T = 8 and 7)"),
    ("n = argmax(x[..., 0], axis = 1)\nreturn x * (1 + n)[:, none, none]", "position 0 of `y` depends on position 7 of `x` (T = 8)"),
    ("return x + 1e-9 * mean(x, axis = 1, keep = true)", "position 0 of `y` depends on position 7 of `x` (T = 8)"),
    ("far = where(index(T) >= 20, 1, 0)[:, none]\nreturn x + far * mean(x, axis = 1, keep = true)",
     "position 20 of `y` depends on position 63 of `x` (T = 64)"),
])
def test_ways_into_the_future(tmp_path, body, seen):
    path = tmp_path / "m.arch"
    path.write_text(STREAM.format(body))
    (row,) = rows(path)
    assert row["actual"] == seen and row["passed"] == seen.startswith("holds")


def test_equality_sees_tables_and_the_same_draws(tmp_path):
    """Tables that are computed when the model is built are part of what is compared; draws are the same in both models."""
    path = tmp_path / "m.arch"
    path.write_text("""
model M(k: int = 1)(x: [B = 1, T = 6, 4]) -> y: [B, T, 4] {
  draw n: [B, T, 4] = normal()
  return take(x, (iota(4) * 3 + k) % 4, axis = 2) + n
}
variant other { k = 2 }
variant same { k = 5 }
claim { equal(other) within 1e-10; equal(same) within 1e-10 }
""")
    other, same = rows(path)
    assert not other["passed"] and same["passed"]


def test_causality_looks_past_windows(file):
    """A block that looks ahead within 20 positions is seen, although a shorter run than that would not differ."""
    (row,) = rows(file("claim { causal(logits, tokens, mask = own_block(20)) }"))
    assert not row["passed"] and "(T = 42)" in row["actual"]


def test_causality_through_a_second_stream(tmp_path):
    """The future comes in through the second carried value, one layer later."""
    path = tmp_path / "late.arch"
    path.write_text("""
use std.linear { Linear }
block Late()(x: [B, T, d], late: [B, T, d]) -> ([B, T, d], [B, T, d]) {
  return Linear(d)(x + late) as now, mean(x, axis = 1, keep = true) + Linear(d)(x) as later
}
model M(d: int = 4, depth: int = 6)(x: [B, T, d]) -> y: [B, T, d] stream T {
  late = zeros_like(x)
  layers: for i in range(depth) { x, late = Late()(x, late) }
  return x
}
claim { causal(y, x) }
claim { causal(y, x, depth = 1) }
""")
    assert [r["passed"] for r in rows(str(path))] == [False, True]


def test_targets_and_values(file):
    found = rows(
        file("""
        claim wide { params(layers.0.attn.q) == 256 }
        claim Net.tied { count(linear) == 13 }
        claim Image { macs == 12;  shape(y, B = 2) == [2, 4];  params == 16 from "by hand" }
        claim twice_image { params == 28;  macs == 5 when d == 3 }
        variant inner of wide { claim { params(head) == 16 * 11 } }
    """)
    )
    assert [(r["variant"], r["passed"], r["expected"], r["actual"]) for r in found] == [
        ("wide", True, 256, 256),
        ("tied", True, 13, 13),
        ("inner", True, 176, 176),
        ("Image", True, 12, 12),
        ("Image", True, [2, 4], [2, 4]),
        ("Image", True, 16, 16),
        ("twice_image", True, 28, 28),
    ]
    assert found[0]["claim"] == "params(layers.0.attn.q) == 256" and found[0]["path"].endswith("net.arch")


def test_claims_are_listed(file):
    spec = load(file('claim wide { params == 3 from "the paper" }\nclaim Image { params == 4 }'))
    (claim,) = spec.claims
    assert (claim.model, claim.variant, claim.text, claim.source) == ("Net", "wide", 'params == 3 from "the paper"', "the paper")


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("claim nobody { params == 1 }", "A0401 `nobody` is neither a model nor a variant of this file"),
        ("claim Image.wide { params == 1 }", "A0401 `Image.wide` is neither a model nor a variant of this file"),
        ("claim { parms == 1 }", "A0403 `parms` is nothing that a claim can speak of"),
        ("claim { count(linaer) == 1 }", "A0403 there is no op or block `linaer` to count"),
        ("claim { macs(X = 3) == 1 }", "A0404 `Net` has neither a knob nor a run-time size `X`"),
        ("claim { params(T = 3) == 1 }", "A0404 `params` does not depend on the size `T`"),
        ("claim { params(layers.7) == 1 }", "A0404 `Net` has no weights at `layers.7`"),
        ("claim { shape(logit) == [1] }", "A0404 `Net` has no output, input or address `logit`"),
        ("claim { causal(logits) }", "A0404 `causal` cannot be asked so"),
        ("claim { causal(logit, tokens) }", "A0404 `Net` has no output `logit`"),
        ("claim Image { causal(y, x) }", "A0404 `causal` speaks of an order in time"),
        ("claim { weight_bytes(dtype = f8) == 1 }", "A0404 `f8` is no float type"),
        ("claim { interchangeable(wide) }", "A0404 `interchangeable` cannot be asked so: it takes 2 variants"),
        ("claim { interchangeable(wide, thin) }", "A0401 this file has no variant `thin`"),
        ("claim { interchangeable(wide, twice_image) }", "A0401 `twice_image` is a variant of another model"),
        ("claim { params }", "A0405 this claim says neither yes nor no: `params` is a value"),
        ("claim { params + 3 }", "A0405 this claim says neither yes nor no: `params + 3` is a value"),
        ("claim { params <= 3 within 2% }", "A0406 `within` gives `==` a tolerance"),
        ("claim { params == 3 when not q }", "A0403 `q` is nothing that a claim can speak of"),
        ("claim { pairs(1, 2) == [] }", "A0205 `pairs` takes 1 argument, not 2"),
    ],
)
def test_mistakes_in_claims(file, claim, expected):
    (found,) = check_file(file(claim))
    assert f"{found.code} {found.message}".startswith(expected)


def test_check_needs_no_torch(file):
    path = file("claim { causal(logits, tokens);  macs == 3;  equal(also_plain) within 1 }")
    code = f"import sys; from archdsl.spec import check_file; assert check_file({path!r}) == []; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_weights_share_their_numbers(monkeypatch):
    from archdsl.claims import run

    monkeypatch.setattr(run, "PERIOD", 401)
    import torch

    shapes = [(64, 32), (40, 32), (8, 32), (32,)]
    windows = run._Windows(shapes, seed=0)
    made = [windows.weight(shape, 3 * i + 7) for i, shape in enumerate(shapes)]
    assert [tuple(w.shape) for w in made] == shapes
    assert made[0].untyped_storage().data_ptr() == made[1].untyped_storage().data_ptr() != made[2].untyped_storage().data_ptr()
    assert torch.linalg.matrix_rank(made[0]) == 32 and len(made[0].unique(dim=0)) == 64
    assert abs(float(made[0].std()) * 32**0.5 - 1) < 0.2
    assert torch.equal(run._Windows(shapes[1:], seed=0).weight(shapes[1], 10), made[1]), "they do not depend on the other weights"


# ---------------------------------------------------------------- streaming
MEMORY = """
use std.linear { Linear }
model Memory(d: int = 6, depth: int = 2, reach: int? = none, looks: bool = true)(x: [B, T = 150, d]) -> (y: [B, T, d], end: [B, d]) stream T {
  layers: for i in range(depth) {
    q = Linear(d)(x) as q
    x = x + linear_attention(q, q, x, log(sigmoid(q[..., 0]))) + shift(x)
  }
  q = rearrange(x, [B, T, d] -> [B, 1, T, d])
  near = if reach is some { causal & window(reach) } else { causal }
  a = if looks { rearrange(attention(q, q, q, mask = near), [B, 1, T, d] -> [B, T, d]) } else { x }
  return x + a, last(x)
}
variant recurrent { looks = false }
variant near { reach = 5 }
"""


def streamed(claims: str) -> list[tuple[bool, object, object]]:
    return [(r["passed"], r["expected"], r["actual"]) for r in verify(_loaded(MEMORY + claims))]


def _loaded(text: str):
    from archdsl.spec import loads

    return loads(text)


def test_bytes_of_the_state():
    """By hand: a memory of d² float32 numbers and a position of d for each layer, keys and values of d for each position there is room for, and the
    position, and where it begins for each row, of 8 bytes."""
    layers = 2 * (36 * 4 + 6 * 4)
    attended = 12 * 4
    whole = f"state_bytes(B = 3, T = 100) == {3 * (layers + 100 * attended + 8) + 8}; state_bytes(T = 101, B = 1) == {layers + 101 * attended + 16}"
    assert all(passed for passed, *_ in streamed(f"claim {{ {whole} }}"))
    recurrent = f"state_bytes(B = 3, T = 9) == {3 * layers}; state_bytes(B = 1) == {layers}; state_bytes(B = 1, dtype = bf16) == 312"
    assert all(passed for passed, *_ in streamed(f"claim recurrent {{ {recurrent} }}"))


def test_states_that_do_not_grow():
    for variant, good in (("recurrent", True), ("near", True), ("Memory", False)):
        (row,) = streamed(f"claim {variant} {{ constant_state(T) }}")
        assert row[0] is good and ("Length" in str(row[2])) is not good


def test_forms_agree_as_claimed():
    """At a length of several chunks; for an output of all positions and for one of the last."""
    for row in streamed("claim { forms(y) within 1e-10; forms(end) } claim recurrent { forms(y) } claim near { forms(y) }"):
        assert row[0] is True and str(row[2]).endswith("T = 150")


def test_forms_that_do_not_agree(monkeypatch):
    """A wrong step shows."""
    from archdsl.ops.recurrent import RECURRENCES
    from archdsl.ops.registry import load as load_ops

    load_ops()
    shift = RECURRENCES["shift"]
    monkeypatch.setattr(shift, "_step", lambda x, before: (before * 1.5, x))
    (row,) = verify(_loaded(MEMORY.replace("d: int = 6", "d: int = 7") + "claim recurrent { forms(y) within 1e-4 }"))
    row = row["passed"], None, row["actual"]
    assert row[0] is False and str(row[2]).startswith("differ by ")


@pytest.mark.parametrize(("claim", "told"), [
    ("forms(z)", "`Memory` has no output `z`"), ("forms(1)", "it takes an output by its name"), ("constant_state(B)", "`B` is not the axis of time"),
    ("constant_state()", "it takes the axis of time"), ("constant_state(T) within 3", "nothing is compared"), ("state_bytes(3) == 3", "by name"),
    ("forms(y, end)", "it takes an output"), ("state_bytes(B = 1)", "says neither yes nor no"),
])
def test_wrong_claims_about_streams(claim, told):
    with pytest.raises(Exception, match=told):
        streamed(f"claim {{ {claim} }}")


def test_claims_about_models_without_a_stream():
    text = "model M()(x: [B, T, 4]) -> y: [B, T, 4] { return x }\n"
    for claim in ("forms(y)", "constant_state(T)", "state_bytes(B = 1) == 1"):
        with pytest.raises(Exception, match="does not say which axis that is"):
            _loaded(f"{text}claim {{ {claim} }}")
    whole = "model M()(x: [B, T = 4, 4]) -> y: [B, T, 4] stream T { return x - mean(x, axis = 1, keep = true) }\n"
    assert all(not r["passed"] and "A0501" in r["actual"] for r in verify(_loaded(whole + "claim { forms(y); constant_state(T) }")))
    drawn = "model M()(x: [B, T = 4, 4]) -> y: [B, T, 4] stream T { return x + random_normal([4]) }\nclaim { forms(y) }"
    (row,) = verify(_loaded(drawn))
    assert not row["passed"] and "draws random numbers" in row["actual"]


def test_claims_on_a_variant_that_could_not_be_read_say_nothing_more():
    text = "model M(d: int = 8)(x: [B, d]) -> [B, d] { return x }\n\nvariant small { d: 64 }\n"
    text += "claim small { params == 0 }\nclaim M.small { params == 0 }\n"
    assert [d.code for d in check_text(text, "a.arch")] == ["A0101"]
    assert [d.code for d in check_text(text + "claim other { params == 0 }\n", "a.arch")] == ["A0101", "A0401"]
