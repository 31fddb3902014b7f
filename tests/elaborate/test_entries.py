"""Entries: several functions over the weights of one model."""

from __future__ import annotations

import copy

import pytest
import torch

import archdsl
from archdsl.printer import print_graph

TEXT = """use std.channel { MLP }
use std.linear { Linear }

/// An autoencoder.
model Two(d: int = 8, code: int = 4) {
  share core = MLP(2 * d)
  param scale: [code] = 2 * ones()
  /// From x to its code.
  entry encode(x: [B, d]) -> z: [B, code] {
    return scale * (x |> core |> Linear(code, bias = false) as head)
  }
  entry decode(z: [B = 3, code]) -> y: [B, d] {
    return (z / scale) |> Linear(d, bias = false) as head |> core
  }
  entry double(x: [B, d]) -> y: [B, d] { return 2 * x * mean(scale) }
}
variant wide { code = 6 }
variant deep of Two.decode { d = 16 }
claim { params == 280 + 4 + 4 * 8 }
claim Two.decode { params == 280 + 4 + 8 * 4; shape(y, B = 2) == [2, 8] }
names other of Two.encode {
  "up.*" <-> core.up.*
  "down.*" <-> core.down.*
  "s" <-> scale
  "head" <-> encode.head.weight
}
"""


@pytest.fixture(scope="module")
def spec():
    return archdsl.loads(TEXT)


def weights(spec, name, **knobs):
    return [a for a, _ in spec.models[name].elaborate(**knobs).graph.parameters()]


def test_an_entry_is_a_model_of_its_own(spec):
    assert list(spec.models) == ["Two", "Two.encode", "Two.decode", "Two.double"]
    core = [f"core.{a}.{w}" for a in ("up", "down") for w in ("weight", "bias")]
    assert sorted(weights(spec, "Two.encode")) == sorted(["scale", *core, "encode.head.weight"])
    assert sorted(weights(spec, "Two.decode")) == sorted(["scale", *core, "decode.head.weight"])
    assert weights(spec, "Two.double") == ["scale"]


def test_the_name_alone_is_the_first_entry(spec):
    assert spec.name == "Two" and [i.name for i in spec.inputs] == ["x"]
    assert weights(spec, "Two") == weights(spec, "Two.encode")
    assert spec.models["Two.decode"].elaborate().sizes == {"B": 3}


def test_variants_of_the_model_are_those_of_each_entry(spec):
    assert list(spec.variants) == ["wide"] and list(spec.models["Two.decode"].variants) == ["wide", "deep"]
    assert spec.models["Two.decode"].cost("wide").params == 280 + 6 + 6 * 8


def test_claims_and_names_of_an_entry(spec):
    assert next(c.text for c in spec.models["Two.decode"].claims) == "params == 280 + 4 + 8 * 4"
    net = spec.models["Two.encode"].build()
    assert set(archdsl.export_weights(net, source="other")) == {"up.weight", "up.bias", "down.weight", "down.bias", "s", "head"}


def test_names_of_the_model_are_those_of_its_first_entry():
    """The others have weights of their own, which such names need not know."""
    text = TEXT.replace("names other of Two.encode", "names other of Two")
    models = archdsl.loads(text).models
    for name, known in (("Two", True), ("Two.encode", True), ("Two.decode", False), ("Two.double", False)):
        assert ("other" in models[name].build(device="meta").archdsl.names) is known
    with pytest.raises(archdsl.ArchError, match="A0438"):
        archdsl.loads(text + TEXT[TEXT.index("names other") :])


def test_sources_name_entries(spec, tmp_path):
    from archdsl.spec import resolve_source

    (tmp_path / "two.arch").write_text(TEXT)
    named = [("", "Two", None), (":Two", "Two", None), (":Two.decode", "Two.decode", None), (":Two.decode.deep", "Two.decode", "deep"),
             (":Two.wide", "Two", "wide"), (":wide", "Two", "wide"), (":deep", "Two.decode", "deep")]
    for source, model, variant in named:
        found, name = resolve_source(f"{tmp_path}/two.arch{source}")
        assert (found.name, name) == (model, variant)


def test_the_printed_graph_is_the_same(spec):
    for name in spec.models:
        made = spec.models[name].elaborate()
        assert archdsl.loads(print_graph(made)).elaborate().graph.hash == made.graph.hash


def test_tied_entries_train_as_one(spec):
    encode, decode = (spec.models[f"Two.{n}"].build(seed=i, dtype=torch.float64) for i, n in enumerate(("encode", "decode")))
    alone = copy.deepcopy(decode)
    tied = archdsl.tie(decode, encode)
    assert sorted(tied) == sorted(["scale", *(f"core.{a}.{w}" for a in ("up", "down") for w in ("weight", "bias"))])
    x = torch.randn(5, 8, dtype=torch.float64)
    decode(encode(x)).square().sum().backward()
    assert all(p.grad is not None for p in (*encode.parameters(), *decode.parameters()))
    ours = encode.core.up.weight.grad
    # the same by hand: both uses of the shared weights, one leaf
    twin = spec.models["Two.decode"].build(dtype=torch.float64)
    twin.load_state_dict({**alone.state_dict(), **{k: v for k, v in encode.state_dict().items() if k in tied}})
    again = spec.models["Two.encode"].build(dtype=torch.float64)
    again.load_state_dict(encode.state_dict())
    twin(again(x)).square().sum().backward()
    assert torch.allclose(ours, again.core.up.weight.grad + twin.core.up.weight.grad, rtol=1e-12)
    assert encode.core.up.weight is decode.core.up.weight and alone.core.up.weight is not encode.core.up.weight


def test_what_cannot_be_tied(spec):
    wide, plain, double = spec.models["Two.encode"].build("wide"), spec.models["Two.decode"].build(), spec.models["Two.double"].build()
    before = plain.scale
    with pytest.raises(archdsl.ArchError, match="differ in kind, shape or type") as caught:
        archdsl.tie(plain, wide)
    assert caught.value.diagnostics[0].code == "A0545" and plain.scale is before
    with pytest.raises(TypeError, match="tie takes two models that archdsl built, not Linear"):
        archdsl.tie(double, torch.nn.Linear(2, 2))
    with pytest.raises(archdsl.ArchError, match="come from two files"):
        archdsl.tie(plain, archdsl.loads("model N()(x: [B, 4]) -> y: [B, 4] { param scale: [4] = ones()\nreturn x * scale }", "other").build())
    with pytest.raises(archdsl.ArchError, match="no weights in common"):
        archdsl.tie(double, archdsl.loads("model Two()(x: [B, 8]) -> y: [B, 8] { return x }").build())


@pytest.mark.parametrize("other", ["buffer w: [8] = ones()", "frozen param w: [8] = ones()"])
def test_kinds_of_weights_are_not_mixed(other):
    text = "".join(f"model {name}()(x: [N, 8]) -> y: [N, 8] {{ {w}\nreturn x * w }}\n" for name, w in (("A", "param w: [8] = ones()"), ("B", other)))
    models = archdsl.loads(text).models
    with pytest.raises(archdsl.ArchError, match="differ in kind"):
        archdsl.tie(models["A"].build(), models["B"].build())


@pytest.mark.parametrize(("text", "code"), [
    ("model M(d: int = 8) { x = 3 }", "A0228"),
    ("entry a(x: [B, 8]) -> [B, 8] { return x }", "A0228"),
    ("block F()(x: [B, d]) -> [B, d] { entry a(x: [B, d]) -> [B, d] { return x }\nreturn x }", "A0228"),
    ("model M(d: int = 8)(x: [B, d]) -> [B, d] { entry a(x: [B, d]) -> [B, d] { return x }\nreturn x }", "A0228"),
    ("model M() { entry a(x: [B, 8]) -> [B, 8] { return x } entry a(y: [B, 8]) -> [B, 8] { return y } }", "A0208"),
    ("model M() { y = x\nentry a(x: [B, 8]) -> [B, 8] { return x } }", "A0201"),
    ("model M() { entry a(x: [B, 8]) -> [B, 8] { return y } }", "A0201"),
    ("model M() { entry a(x: [B, 8]) -> [B, 8] { return x } }\nvariant v { a.p = 3 }", "A0215"),
])
def test_entries_that_are_none(text, code):
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(text)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_setting_or_default_may_be_meant_for_another_entry():
    text = """use std.linear { Linear }
block P(k: int = 3 in {3, 5})(x: [B, d]) -> [B, d] { return x * k }
model M(d: int = 8) {
  default Linear(bias = false)
  entry a(x: [B, d]) -> [B, d] { return P()(x) as p }
  entry b(x: [B, d]) -> [B, d] { return Linear(d)(x) as q }
}
variant v { a.p.k = 5 }"""
    spec = archdsl.loads(text)
    assert spec.models["M.a"].elaborate("v").knobs["a.p.k"].value == 5 and weights(spec, "M.b", variant="v") == ["b.q.weight"]


def test_settings_of_other_entries_are_for_the_text_alone():
    text = """block P(k: int = 3 in {3, 5})(x: [B, d]) -> [B, d] { return x * k }
model M(d: int = 8) {
  entry a(x: [B, d]) -> [B, d] { return P()(x) as p }
  entry b(x: [B, d], m: [B, d]?) -> [B, d] { return m ?? x }
}
variant v { a.p.k = 5, m = none }"""
    spec = archdsl.loads(text)
    assert [i.name for i in spec.models["M.b"].elaborate("v").inputs] == ["x"]
    with pytest.raises(archdsl.ArchError, match="nothing can be set"):
        spec.models["M.a"].build(knobs={"b.typo": 5})


def test_many_entries_stay_cheap():
    entries = " ".join(f"entry e{i}(x: [B, d]) -> [B, d] {{ return {i} * x }}" for i in range(300))
    spec = archdsl.loads(f"model M(d: int = 8) {{ {entries} }}\nvariant v {{ d = 4 }}")
    assert len(spec.models) == 301 and spec.session.steps < 200_000


AE = """use std.channel { MLP }
use std.linear { Linear }
model AE(code: int = CODE) {
  share core = MLP(16)
  entry encode(x: [B, 8]) -> z: [B, _] { return x |> core |> Linear(code) as out }
  entry decode(z: [B, code]) -> y: [B, _] { return z |> core |> Linear(3) as out }
}
"""


@pytest.mark.parametrize("odd", [AE.replace("CODE", "4"), AE.replace("CODE", "8") + "variant small { code = 4 }\n"])
def test_entries_that_use_shared_weights_at_two_widths_are_told_at_check(odd):
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(odd)
    d, = caught.value.diagnostics
    assert d.code == "A0213"
    assert d.message == "the entries of `AE` share `core.up.weight` and would need two of it: [16, 8] in `encode`, [16, 4] in `decode`"
    assert (d.span.text, d.labels[0].span.text) == ("core", "core")
    assert d.labels[0].span.start < d.span.start


def test_what_entries_own_stands_below_their_names_and_may_differ():
    assert sorted(archdsl.loads(AE.replace("CODE", "8")).models) == ["AE", "AE.decode", "AE.encode"]


IDLE = """use std.linear { Linear }
use std.norm { LayerNorm, RMSNorm }

model Two(d: int = 8, wide: bool = true) {
  default RMSNorm(eps = 0.5)
  if wide { default LayerNorm(eps = 0.25) }
  entry one(x: [B, d]) -> y: [B, d] { return x |> LayerNorm() as norm }
  entry two(x: [B, d]) -> y: [B, d] { return x |> Linear(d) as map }
}
variant narrow { wide = false }
"""


def test_a_default_that_reaches_nothing_in_any_entry():
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(IDLE)
    assert [(d.code, d.span.text) for d in caught.value.diagnostics] == [("A0214", "default RMSNorm(eps = 0.5)")]


def test_a_default_that_reaches_something_in_the_last_entry():
    spec = archdsl.loads(IDLE.replace("Linear(d) as map", "Linear(d) as map |> RMSNorm() as norm"))
    assert list(spec.models) == ["Two", "Two.one", "Two.two"]


def test_a_default_of_one_entry_that_reaches_nothing_there():
    text = IDLE.replace("  default RMSNorm(eps = 0.5)\n", "").replace("{ return x |> Linear", "{ default LayerNorm(eps = 1) return x |> Linear")
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(text)
    assert [(d.code, d.span.text) for d in caught.value.diagnostics] == [("A0214", "default LayerNorm(eps = 1)")]
