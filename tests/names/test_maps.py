"""What each kind of line makes of a model's weights: keys, shapes and values."""
from __future__ import annotations

import json

import pytest
import torch

import archdsl
from archdsl.names import own_shapes, weight_maps
from archdsl.weightmap import WeightMap

ATTENTION = """
use std.linear { Linear }
use std.norm { LayerNorm, RMSNorm }

block Attn(bias: bool = true)(x: [B, T, d]) -> [B, T, d] {
  default Linear(bias = bias)
  q = x |> Linear(d) as q
  k = x |> Linear(d / 2) as k
  v = x |> Linear(d / 2) as v
  return x + q + concat([k, v], axis = 2)
}

model Net(d: int = 8, depth: int = 2, bias: bool = true, plain: list[int] = [])(x: [B, T, d]) -> [B, T, d] {
  layers: for i in range(depth) { x = Attn(bias and i not in plain)(x) as attn }
  return x
}
"""
GAMMA = "model Net(d: int = 8, depth: int = 2)(x: [B, d]) -> [B, d] {\n  %s\n  return x\n}\n"
WEIGHTS = """
block Own(rows: int, cols: int)(x: [B, c]) -> [B, c] {
  param w: [rows, cols] = normal(std = 1)
  return x * reduce(w, [r, s] -> [], sum)
}
"""


def maps(text: str, variant: str | None = None, **knobs):
    """The names `n` of the first model with its own shapes; the text has passed every static check."""
    spec = archdsl.loads(text)
    made = spec.elaborate(variant, knobs)
    return weight_maps(spec.module, spec.name, made)["n"], own_shapes(made.graph)


def one(text: str, **knobs):
    """The foreign tensors, by key, of weights that count 0, 1, 2, … through the whole model; import gives the same weights back."""
    m, shapes = maps(text, **knobs)
    own, at = {}, 0
    for a, s in shapes.items():
        n = torch.Size(s).numel()
        own[a] = torch.arange(at, at + n, dtype=torch.float64).reshape(s)
        at += n
    foreign = dict(m.apply(own))
    assert {k: tuple(v.shape) for k, v in foreign.items()} == m.shapes(shapes)
    back = dict(m.invert().apply(foreign))
    assert set(back) == set(own) - {c.key for c in m.constants} and all(torch.equal(back[a], own[a]) for a in back)
    assert m.invert().invert() == m
    assert WeightMap.from_json(json.loads(json.dumps(m.to_json()))) == m
    return foreign, own


def names(*lines: str) -> str:
    return "names n of Net {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def test_indices_lists_and_wildcards():
    foreign, own = one(ATTENTION + names('"h.{i}.{query, key, value}.*" <-> layers.{i}.attn.{q, k, v}.*'))
    assert foreign["h.1.key.bias"] is own["layers.1.attn.k.bias"]
    assert len(foreign) == 12


def test_expressions_of_indices_and_arguments():
    foreign, own = one(ATTENTION + names('"h.{2 * i + 1}.{q, k}.*" <-> layers.{i}.attn.{q, k}.*',
                                         '"v.{depth - 1 - i}.{d}.*" <-> layers.{i}.attn.v.*'))
    assert foreign["h.3.q.weight"] is own["layers.1.attn.q.weight"]
    assert foreign["v.0.8.bias"] is own["layers.1.attn.v.bias"]


def test_expressions_in_addresses():
    foreign, own = one(ATTENTION + names('"even.{i}.{q, k, v}.*" <-> layers.{2 * i}.attn.{q, k, v}.*',
                                         '"odd.{i}.{q, k, v}.*" <-> layers.{2 * i + 1}.attn.{q, k, v}.*'),
                       depth=5)
    assert foreign["even.2.q.weight"] is own["layers.4.attn.q.weight"]
    assert foreign["odd.1.q.weight"] is own["layers.3.attn.q.weight"]


def test_numbers_in_lists():
    foreign, own = one(ATTENTION + names('"{first, second}.{q, k, v}.*" <-> layers.{0, 1}.attn.{q, k, v}.*'))
    assert foreign["second.v.bias"] is own["layers.1.attn.v.bias"]


def test_fused_by_concat_for_weight_and_bias():
    """The lists that read the same pair; the one that is left is joined."""
    foreign, own = one(ATTENTION + names('"h.{i}.qkv.{weight, bias}" <-> layers.{i}.attn.{q, k, v}.{weight, bias} concat'))
    assert torch.equal(foreign["h.1.qkv.weight"], torch.cat([own[f"layers.1.attn.{n}.weight"] for n in "qkv"]))
    assert foreign["h.0.qkv.bias"].shape == (16,)


def test_the_same_with_a_wildcard():
    foreign, _ = one(ATTENTION + names('"h.{i}.qkv.*" <-> layers.{i}.attn.{q, k, v}.* concat'))
    assert sorted(foreign) == ["h.0.qkv.bias", "h.0.qkv.weight", "h.1.qkv.bias", "h.1.qkv.weight"]


def test_concat_then_transpose_as_gpt2_stores_it():
    foreign, own = one(ATTENTION + names('"h.{i}.c_attn.weight" <-> layers.{i}.attn.{q, k, v}.weight concat transpose',
                                         '"h.{i}.c_attn.bias" <-> layers.{i}.attn.{q, k, v}.bias concat'))
    assert torch.equal(foreign["h.0.c_attn.weight"], torch.cat([own[f"layers.0.attn.{n}.weight"] for n in "qkv"]).T)


def test_transpose_then_concat_along_the_other_axis_is_the_same():
    a, _ = one(ATTENTION + names('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight transpose concat(axis = 1)',
                                 '"b.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.bias'))
    b, _ = one(ATTENTION + names('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight concat transpose(0, 1)',
                                 '"b.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.bias'))
    c, _ = one(ATTENTION + names('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight transpose concat(axis = -1)',
                                 '"b.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.bias'))
    assert all(torch.equal(a[k], b[k]) and torch.equal(a[k], c[k]) for k in a)


def test_concat_then_rearrange_by_heads():
    """Rows (three, heads, w) of the joined matrix against (heads, three, w), as GPT-NeoX and Megatron store them."""
    text = ATTENTION.replace("d / 2", "d").replace("q + concat([k, v], axis = 2)", "q + k + v")
    by_head = "concat rearrange([(three heads w), ...] -> [(heads three w), ...], three = 3, heads = 2)"
    foreign, own = one(text + names(f'"h.{{i}}.qkv.*" <-> layers.{{i}}.attn.{{q, k, v}}.* {by_head}'))
    q, k, v = (own[f"layers.0.attn.{n}.weight"] for n in "qkv")
    assert torch.equal(foreign["h.0.qkv.weight"], torch.cat([q[:4], k[:4], v[:4], q[4:], k[4:], v[4:]]))


def test_rotary_rows_interleaved_as_meta_stores_them():
    """Ours are (heads, half, pair), Meta's (heads, pair, half); transformers' own conversion is the witness."""
    rows = "rearrange([(n two w), d] -> [(n w two), d], two = 2, w = d / 4)"
    foreign, own = one(ATTENTION + names(f'"h.{{i}}.{{wq, wk}}" <-> layers.{{i}}.attn.{{q, k}}.weight {rows}',
                                         '"h.{i}.wv" <-> layers.{i}.attn.v.weight', '"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.bias'))
    theirs, heads = foreign["h.0.wq"], 2
    converted = theirs.view(heads, 8 // heads // 2, 2, 8).transpose(1, 2).reshape(8, 8)  # convert_llama_weights_to_hf.permute
    assert torch.equal(converted, own["layers.0.attn.q.weight"])
    assert not torch.equal(theirs, converted)


def test_rearrange_adds_and_removes_axes_of_size_one():
    text = GAMMA % "param gamma: [d] = normal(std = 1)  param token: [1, d] = normal(std = 1)  x = x * gamma + token"
    foreign, own = one(text + names('"scale" <-> gamma rearrange([c] -> [c, 1, 1])', '"token" <-> token rearrange([one, d] -> [d])'))
    assert foreign["scale"].shape == (8, 1, 1) and foreign["token"].shape == (8,)
    assert torch.equal(foreign["scale"].flatten(), own["gamma"])


def test_rearrange_that_changes_nothing():
    text = GAMMA % "param gamma: [d] = normal(std = 1)  x = x * gamma"
    foreign, _ = one(text + names('"scale" <-> gamma rearrange([c] -> [c])'))
    assert foreign["scale"].shape == (8,)


def test_affine_maps_as_gemma_stores_its_norms():
    text = GAMMA % "param gamma: [d] = ones()  x = x * gamma"
    foreign, own = one(text + names('"weight" <-> gamma add(-1)'))
    assert torch.equal(foreign["weight"], own["gamma"] - 1)
    foreign, own = one(text + names('"weight" <-> gamma scale(0.125) add(3)'))
    assert torch.equal(foreign["weight"], own["gamma"] / 8 + 3)


def test_a_list_of_tensors_is_stacked():
    foreign, own = one(ATTENTION + names('"stacked.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.* stack'), depth=3)
    assert foreign["stacked.q.weight"].shape == (3, 8, 8) and foreign["stacked.q.bias"].shape == (3, 8)
    assert torch.equal(foreign["stacked.q.weight"][2], own["layers.2.attn.q.weight"])


def test_more_than_ten_indices_are_stacked_in_the_order_of_numbers():
    foreign, own = one(ATTENTION + names('"stacked.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.* stack(axis = 1)'), depth=12)
    assert torch.equal(foreign["stacked.q.weight"][:, 10], own["layers.10.attn.q.weight"])


def test_two_lists_two_joins_the_innermost_first():
    text = ATTENTION.replace("d / 2", "d").replace("q + concat([k, v], axis = 2)", "q + k + v")
    foreign, own = one(text + names('"all.{weight, bias}" <-> layers.{i}.attn.{q, k, v}.{weight, bias} concat stack'), depth=3)
    assert foreign["all.weight"].shape == (3, 24, 8)
    assert torch.equal(foreign["all.weight"][1, 8:16], own["layers.1.attn.k.weight"])


def test_a_list_on_the_foreign_side_splits_one_weight():
    text = WEIGHTS + GAMMA % "x = Own(12, 4)(x) as own"
    foreign, own = one(text + names('"{a, b, c}" <-> own.w concat'))
    assert torch.equal(foreign["b"], own["own.w"][4:8])
    foreign, own = one(text + names('"{a, b, c}" <-> own.w concat(sizes = [6, 4, 2])'))
    assert torch.equal(foreign["c"], own["own.w"][10:])
    foreign, own = one(text + names('"{a, b}" <-> own.w concat(axis = 1)'))
    assert torch.equal(foreign["b"], own["own.w"][:, 2:])


def test_a_bank_of_experts_falls_into_numbered_keys():
    """How many there are is read off the axis; the list beside them splits each one."""
    text = WEIGHTS + GAMMA % "x = Own(6, 4)(x) as own"
    foreign, own = one(text + names('"experts.{e}.w" <-> own.w stack'))
    assert list(foreign) == [f"experts.{e}.w" for e in range(6)] and torch.equal(foreign["experts.5.w"], own["own.w"][5])
    foreign, own = one(text + names('"experts.{e}.{gate, up}" <-> own.w stack concat'))
    assert list(foreign)[:3] == ["experts.0.gate", "experts.0.up", "experts.1.gate"] and torch.equal(foreign["experts.3.up"], own["own.w"][3, 2:])


def test_operations_may_mention_the_index():
    text = GAMMA % "layers: for i in range(depth) { param gamma: [d] = ones()  x = x * gamma }"
    foreign, own = one(text + names('"g.{i}" <-> layers.{i}.gamma scale(i + 1)'))
    assert torch.equal(foreign["g.1"], own["layers.1.gamma"] * 2)


def test_when_of_arguments_and_of_indices():
    lines = names('"h.{i}.qkv.weight" <-> layers.{i}.attn.{q, k, v}.weight concat',
                  '"h.{i}.qkv.bias" <-> layers.{i}.attn.{q, k, v}.bias concat when bias and i not in plain',
                  'ignore "h.{i}.qkv.bias" when not bias')
    for knobs, biases in (({}, 3), ({"plain": [1]}, 2), ({"bias": False}, 0)):
        foreign, _ = one(ATTENTION + lines, depth=3, **knobs)
        assert sum(k.endswith("bias") for k in foreign) == biases


def test_lines_told_apart_by_when():
    lines = names('"a.{i}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.* when i == 0',
                  '"b.{i - 1}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.* when i > 0')
    foreign, own = one(ATTENTION + lines)
    assert foreign["b.0.q.bias"] is own["layers.1.attn.q.bias"] and "a.0.q.bias" in foreign


def test_alias_drop_ignore_and_buffers():
    weights = "param gamma: [d] = ones()  param beta: [d] = zeros()  buffer seen: [d] = zeros()"
    text = GAMMA % f"{weights}  update seen = seen + 1  x = x * gamma + beta + seen"
    m, shapes = maps(text + names('"gamma" <-> gamma', 'alias "gamma_too" <-> gamma', 'drop "beta" = 0.5', '"seen" <-> seen', 'ignore "**.inv_freq"',
                                  'ignore "layers.{i}.mask"', 'ignore "*.*.*.*.{a, b}_*"'))
    assert m.targets() == ["gamma", "seen"] and m.sources() == ["gamma", "seen"]
    (c,) = m.constants
    assert c.key == "beta" and c.value == 0.5
    fit = m.fit(shapes, {"gamma": (8,), "gamma_too": (8,), "seen": (8,), "a.b.inv_freq": (4,), "layers.3.mask": (1,), "layers.x.mask": (1,),
                         "1.2.3.4.b_x": ()})
    assert fit.aliases == ("gamma_too",) and fit.ignored == ("a.b.inv_freq", "layers.3.mask", "1.2.3.4.b_x") and fit.unexpected == ("layers.x.mask",)
    assert m.fit(shapes, {"gamma_too": (8,), "seen": (8,)}).perfect, "an alias stands in for what it repeats"


SHARED = ATTENTION.replace("  layers: for i in range(depth) { x = Attn(bias and i not in plain)(x) as attn }", """
  layers: for i in range(depth) {
    share attn = Attn(bias and i not in plain)
    x = attn(attn(x))
  }""")


def test_an_alias_takes_operations():
    """A layer that runs twice stands twice in the file, each time with its weights joined, transposed or split as the lines say."""
    lines = names('"h.{2 * i}.qkv.{weight, bias}" <-> layers.{i}.attn.{q, k, v}.{weight, bias} concat',
                  'alias "h.{2 * i + 1}.qkv.bias" <-> layers.{i}.attn.{q, k, v}.bias concat when bias',
                  'alias "h.{2 * i + 1}.qkv" <-> layers.{i}.attn.{q, k, v}.weight concat transpose',
                  'alias "keys" <-> layers.{i}.attn.k.weight stack scale(2)',
                  'alias "h.{i}.halves.{left, right}" <-> layers.{i}.attn.q.weight concat(axis = 1)')
    foreign, own = one(SHARED + lines)
    q, k, v = (own[f"layers.1.attn.{w}.weight"] for w in "qkv")
    assert torch.equal(foreign["h.3.qkv"], torch.cat([q, k, v]).T) and torch.equal(foreign["h.3.qkv"].T, foreign["h.2.qkv.weight"])
    assert torch.equal(foreign["h.3.qkv.bias"], torch.cat([own[f"layers.1.attn.{w}.bias"] for w in "qkv"]))
    assert torch.equal(foreign["keys"], 2 * torch.stack([own["layers.0.attn.k.weight"], k]))
    assert torch.equal(foreign["h.1.halves.right"], q[:, 4:]) and len(foreign) == 2 * 2 + 2 * 2 + 1 + 2 * 2
    assert "h.1.qkv.bias" not in one(SHARED + lines, bias=False)[0]


def test_an_alias_with_operations_may_stand_in_or_be_absent():
    lines = names('"h.{i}.qkv.{weight, bias}" <-> layers.{i}.attn.{q, k, v}.{weight, bias} concat',
                  'alias "again.{i}.{weight, bias}" <-> layers.{i}.attn.{q, k, v}.{weight, bias} concat')
    m, shapes = maps(SHARED + lines)
    theirs = m.shapes(shapes)
    for half in "ha":
        assert m.fit(shapes, {k: s for k, s in theirs.items() if k[0] == half}).perfect
    del theirs["h.1.qkv.bias"], theirs["again.1.bias"]
    assert m.fit(shapes, theirs).missing == {"h.1.qkv.bias": (16,)}
    assert m.fit(shapes, {**theirs, "h.1.qkv.bias": (16,), "again.1.bias": (8,)}).mis_shaped == {"again.1.bias": ((16,), (8,))}


def test_consts_are_not_saved_and_not_mapped():
    text = GAMMA % "const table = iota(d) * 2  param gamma: [d] = ones()  x = x * gamma + table"
    foreign, _ = one(text + names('"gamma" <-> gamma'))
    assert list(foreign) == ["gamma"]


def test_fit_says_what_is_missing_unexpected_and_mis_shaped():
    m, shapes = maps(ATTENTION + names('"h.{i}.qkv.*" <-> layers.{i}.attn.{q, k, v}.* concat'))
    theirs = dict(m.shapes(shapes))
    del theirs["h.0.qkv.bias"]
    theirs["h.1.qkv.weight"] = (8, 16)
    theirs["other"] = ()
    fit = m.fit(shapes, theirs)
    assert fit.missing == {"h.0.qkv.bias": (16,)} and fit.unexpected == ("other",) and fit.mis_shaped == {"h.1.qkv.weight": ((16, 8), (8, 16))}
    assert not fit.perfect and fit.faults == 3


def test_lists_of_one_length_pair_with_what_reads_the_same():
    text = ATTENTION.replace("d / 2", "d").replace("q + concat([k, v], axis = 2)", "q + k + v")
    foreign, own = one(text + names('"h.{i}.qk.{weight, bias}" <-> layers.{i}.attn.{q, k}.{weight, bias} concat',
                                    '"h.{i}.v.*" <-> layers.{i}.attn.v.*'))
    assert torch.equal(foreign["h.0.qk.bias"], torch.cat([own["layers.0.attn.q.bias"], own["layers.0.attn.k.bias"]]))


@pytest.mark.parametrize("data", [{}, {"entries": [{"source": ["a"], "target": ["b"], "steps": [["melt", []]]}], "aliases": [], "constants": [],
                                       "ignored": []}])
def test_data_that_no_map_wrote(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        WeightMap.from_json(data)
