"""`ragged T` in a header: documents of different lengths behind each other, each as it is alone."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.streaming import in_form, source
from archdsl.syntax.fmt import format_module
from tests.cost import counted
from tests.streaming.forms import close, shaken

LENGTHS = [4, 1, 8]
USE = """use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm }
use std.recurrent { Bidirectional, DeltaNet, GatedLinearAttention }

block Leaky()(x: [B, T, d]) -> [B, T, d] {
  param rate: [d] = constant(0.8)
  param first: [d] = constant(0.3)
  scan x over T carry s: [B, d] = as_type(expand(first, [B, d]), x) {
    next s = rate * s + x
    yield rate * s + x
  }
}
"""
HYBRID = USE + """
model Net(d: int = 8)(x: [B = 1, ragged T = 12, d]) -> y: [B, T, d] {
  x = x + Attention(2, mask = causal)(LayerNorm()(x) as norm) as attn
  x = x + Attention(2)(x) as both
  x = x + Bidirectional(GatedLinearAttention(2), DeltaNet(2))(x) as mix
  return x + Leaky()(x) as scan
}
"""
LABELS = USE + """
block Head(n: int)(x: [B, d]) -> [B, n] {
  y = Linear(n)(x) as fc
  y = rearrange([B, (k w)] -> [B, w, k], k = 2)(y) |> rearrange([B, w, k] -> [B, (w k)])
  return y / sum(exp(y), axis = 1, keep = true)
}

block Pool()(x: [B, h, T, w]) -> [B, h, w] { return last(x, axis = 2) }

model Net(d: int = 8)(x: [B = 1, ragged T, d]) -> (label: [B, 6], y: [B, T, d]) {
  x = x + Attention(2)(x) as attn
  h = rearrange([B, T, (h w)] -> [B, h, T, w], h = 2)(x) |> Pool() as pool |> rearrange([B, h, w] -> [B, (h w)])
  h = phase { train => dropout(h, 0.5)  eval => h * 2 }
  return Head(6)(h) as head, x
}
"""


def both(text: str, **options: Any) -> tuple[Any, Any]:
    """The model as the header has it built, and each document alone, with the same weights."""
    spec = archdsl.loads(text)
    packed = shaken(spec.build(dtype=torch.float64, **options)).eval()
    alone = spec.build(dtype=torch.float64, form="parallel").eval()
    alone.load_state_dict(packed.state_dict())
    return packed, alone


@pytest.mark.parametrize("flat", [False, True])
def test_packed_is_separate(flat: bool):
    """Results, and gradients of the input and of every weight."""
    packed, alone = both(HYBRID, flat=flat)
    x = torch.randn(2, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    got = packed(x, torch.tensor(LENGTHS))
    expected = torch.cat([alone(d) for d in x.split(LENGTHS, 1)], 1)
    close(got, expected, 1e-10)
    close(packed(x, torch.tensor([sum(LENGTHS)])), alone(x), 1e-10)
    weight = torch.randn_like(got)
    here = torch.autograd.grad((got * weight).sum(), [x, *packed.parameters()])
    there = torch.autograd.grad((expected * weight).sum(), [x, *alone.parameters()])
    largest = max(g.abs().max() for g in there)
    for a, b in zip(here, there):
        close(a / largest, b / largest, 1e-10)


@pytest.mark.parametrize("flat", [False, True])
def test_last_gives_a_row_for_each_document(flat: bool):
    packed, alone = both(LABELS, flat=flat)
    x = torch.randn(2, sum(LENGTHS), 8, dtype=torch.float64)
    label, y = packed(x, torch.tensor(LENGTHS))
    parts = [alone(d) for d in x.split(LENGTHS, 1)]
    close(label, torch.stack([p[0] for p in parts], 1).flatten(0, 1), 1e-12)
    close(y, torch.cat([p[1] for p in parts], 1), 1e-12)


def test_training():
    """Dropped weights of attention and dropped states stay within documents; buffers are updated."""
    text = USE + """
block Count()(x: [B, T, d]) -> [B, T, d] {
  buffer seen: [] = zeros()
  update seen = seen + 1
  return x + seen
}

model Net(d: int = 8)(x: [B = 1, ragged T = 12, d]) -> y: [B, T, d] {
  x = x + Attention(2, drop = 0.5)(x) as attn
  x = phase { train => dropout(flip(x, axes = 1), 0.3)  eval => flip(x, axes = 1) }
  return Count()(x) as count
}
"""
    packed, alone = both(text)
    x = torch.randn(2, sum(LENGTHS), 8, dtype=torch.float64)
    close(packed(x, torch.tensor(LENGTHS)), torch.cat([alone(d) for d in x.split(LENGTHS, 1)], 1), 1e-12)
    other = torch.cat([x[:, :4], torch.randn_like(x[:, 4:])], 1)
    found = []
    for given in (x, other):
        packed.train().load_state_dict(alone.state_dict())
        torch.manual_seed(0)
        found.append(packed(given, torch.tensor(LENGTHS)))
    assert torch.equal(found[0][:, :4], found[1][:, :4])
    assert not torch.equal(found[0][:, :4], packed.eval()(x, torch.tensor(LENGTHS))[:, :4])
    assert packed.get_buffer("count.seen") == 1


def test_other_forms_by_name():
    spec = archdsl.loads(USE + "model Net(d: int = 8)(x: [B = 1, ragged T = 12, d]) -> y: [B, T, d] {\n  return GatedLinearAttention(2)(x) as mix\n}")
    whole, onwards = (spec.build(form=f, dtype=torch.float64).eval() for f in ("parallel", "extend"))
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    a, state = onwards(x[:, :4], onwards.init_state(1))
    b, _ = onwards(x[:, 4:], state)
    close(torch.cat([a, b], 1), whole(x), 1e-10)


# ---------------------------------------------------------------- text and graph
@pytest.mark.parametrize("text", [HYBRID, LABELS])
def test_printed_graph(text: str):
    made = archdsl.loads(text).elaborate()
    again = archdsl.loads(print_graph(made)).elaborate()
    assert (again.ragged, again.stream, again.form, again.sizes) == (True, "T", "packed", made.sizes)
    assert again.graph.hash == made.graph.hash


def test_of_several_inputs_one_says_it():
    text = "model Net()(a: int[B, T], b: int[B, ragged T = 5], c: int[T]) -> y: int[B, T] { return a + b + c }\n"
    made = archdsl.loads(text).elaborate()
    assert (made.ragged, made.sizes) == (True, {"T": 5})
    printed = print_graph(made)
    assert printed.count("ragged") == 1
    assert archdsl.loads(printed).elaborate().graph.hash == made.graph.hash


def test_with_stream():
    """`stream T` beside it says the same."""
    text = "model Net()(x: [B, ragged T]) -> y: [B, T] stream T { return x }\n"
    assert archdsl.loads(text).elaborate().form == "packed"


def test_formatted():
    text = "model Net()(x: [B, ragged   T=4*8]) -> y: [B, T] { return x }\n"
    once = format_module(Source("a.arch", text))
    assert once == "model Net()(x: [B, ragged T = 4 * 8]) -> y: [B, T] { return x }\n"
    assert format_module(Source("a.arch", once)) == once


# ---------------------------------------------------------------- cost
def test_cost():
    """Packed unless another form is asked for; products and kept bytes as counted."""
    spec = archdsl.loads(LABELS)
    found = spec.cost(at={"B": 2, "T": 13, "Documents": 3})
    assert (found.form, found.sizes) == ("packed", {"B": 2, "Documents": 3, "T": 13})
    model = spec.build().eval()
    inputs = (torch.randn(2, 13, 8), torch.tensor(LENGTHS))
    assert found.macs == counted.macs(model, inputs)
    assert found.saved_bytes == counted.saved_bytes(model, inputs)
    # two products of attention, four maps of it, the head
    assert str(found.formulas["macs"]) == "16*B*T**2 + 48*B*Documents + 256*B*T"
    assert str(spec.cost(form="parallel").formulas["macs"]) == "16*B*T**2 + 256*B*T + 48*B"


def test_compiled_folder(tmp_path):
    from archdsl.store import compile_to

    spec = archdsl.loads(LABELS)
    assert compile_to(tmp_path / "out", spec, export=True).form == "packed"
    x, lengths = torch.randn(2, 13, 8), torch.tensor(LENGTHS)
    model = archdsl.open(tmp_path / "out").eval()
    expected = model(x, lengths)[0]
    close(spec.build().eval()(x, lengths)[0], expected, 1e-6)
    written: dict[str, Any] = {}
    exec(compile((tmp_path / "out" / "model.py").read_text(), "model.py", "exec", dont_inherit=True), written)
    other = written["Net"]().eval()
    other.load_state_dict(model.state_dict())
    close(other(x, lengths)[0], expected, 1e-6)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    close(program(x, lengths)[0], expected, 1e-6)


# ---------------------------------------------------------------- what cannot be
@pytest.mark.parametrize(("header", "body", "code", "place", "message"), [
    ("x: [B, ragged T], y: [B, ragged S]) -> [B, T]", "x", "A0309", "ragged S", "one axis"),
    ("x: [B, ragged T, S]) -> [B, T, S] stream S", "x", "A0309", "ragged T", "streams along `S`"),
    ("x: [B, ragged t]) -> [B, t]", "x", "A0309", "ragged t", "nothing binds"),
    ("x: [B, ragged T = 0]) -> [B, T]", "x", "A0309", "ragged T = 0", "whole number"),
    ("x: [B, ragged T = 4]) -> [B, T]", "static", "A0309", "ragged T = 4", "varies from call to call"),
    ("x: [B, ragged T], y: [B, T = 3], z: [B, ragged T = 4]) -> [B, T]", "x", "A0309", "ragged T = 4", "two example sizes"),
    ("x: [B, ragged T]) -> [B, T]", "x - mean(x, axis = 1, keep = true)", "A0501", "mean(x, axis = 1, keep = true)", "all positions at once"),
    ("x: [B, ragged T]) -> [B, T]", "roll(x, 1, axes = 1)", "A0501", "roll(x, 1, axes = 1)", "all positions"),
    ("x: [B, ragged T]) -> [B, T]", "x + last(x, axis = 1)[:, none]", "A0501", "x + last(x, axis = 1)[:, none]", "something of the last"),
    ("x: [ragged T, 3]) -> [3]", "last(x, axis = 0)", "A0501", "last(x, axis = 0)", "not the batch's"),
    ("x: [B, ragged T], y: [B]) -> [B]", "last(x, axis = 1) + y", "A0501", "last(x, axis = 1) + y", "joins a row for each document"),
])
def test_refused(header: str, body: str, code: str, place: str, message: str):
    body = "static T\n  return x" if body == "static" else f"return {body}"
    with pytest.raises(archdsl.ArchError) as e:
        archdsl.loads(f"model Net()({header} {{\n  {body}\n}}\n")
    (d,) = e.value.diagnostics
    assert (d.code, d.span.text) == (code, place)
    assert message in d.message


def test_in_a_block():
    with pytest.raises(archdsl.ArchError, match="stands at an input of a model"):
        archdsl.loads("block F()(x: [B, ragged T]) -> [B, T] { return x }\nmodel Net()(x: [B, T]) -> y: [B, T] { return F()(x) }")


def test_weights_of_pairs():
    """Those of attention may be dropped and read; whatever else would tell one document of another."""
    text = "model Net()(q: [B, 2, ragged T, 3]) -> y: [B, 2, T, 3] {{\n  a = attention_weights(q, q)\n  return attend({}, q)\n}}"
    in_form(source(archdsl.loads(text.format("dropout(a, 0.1)")).elaborate()), "packed")
    with pytest.raises(archdsl.ArchError, match="two documents"):
        archdsl.loads(text.format("a + 1"))
