"""Which block is which: renamed, moved, shifted, changed; every weight of both sides told once."""
from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from archdsl.diffing.model import weights
from archdsl.diffing.structure import Change, compare, folded
from archdsl.graph import Graph
from archdsl.spec import load, loads, shipped_files
from tests.reading import rows, unchecked

HEAD = """\
use std.channel { MLP, SwiGLU }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { Pre }

"""


def graph(body: str, params: str = "", blocks: str = "") -> Graph:
    return loads(f"{HEAD}{blocks}model Net({params})(x: [B = 2, T = 4, 16]) -> y: [B, T, 16] {{\n{body}\n}}\n").elaborate().graph


def told(a: str | Graph, b: str | Graph, blocks: str = "") -> list[tuple[str, str, str | None, str | None, tuple[str, ...]]]:
    """Everything that is not as it was, in order."""
    a, b = (x if isinstance(x, Graph) else graph(x, blocks=blocks) for x in (a, b))
    root = compare(a, b)
    conserved(a, b, root)
    return [(c.kind, c.place, c.before, c.after, tuple(map(str, c.notes))) for c in folded(root).walk() if not c.silent]


def conserved(a: Graph, b: Graph, root: Change) -> None:
    """Each weight of a is `before` once, each of b is `after` once, with the types that it has."""
    pairs = list(weights(root))
    for side, g in enumerate((a, b)):
        own = {name: str(p.type) for name, p in g.parameters()}
        found = [((p.before, p.after)[side], p.types[side]) for p in pairs if (p.before, p.after)[side] is not None]
        assert Counter(name for name, _ in found) == Counter(own.keys()) and dict(found) == own
    assert all(p.kind != "same" or p.types[0] == p.types[1] for p in pairs)


def variants():
    """Of the first model of each file; nothing is elaborated to list them."""
    firsts = {row["path"]: row["variants"] for row in reversed(rows())}
    for path in shipped_files():
        yield from ((path, a, b) for a, b in pairwise((None, *firsts[path][:3])))


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: p.rsplit("/", 1)[1])
def test_a_model_does_not_differ_from_itself(path):
    first, second = load(path).elaborate().graph, unchecked(path).elaborate().graph
    assert not {*map(id, first.definitions())} & {*map(id, second.definitions())}
    assert compare(first, second).silent


@pytest.mark.parametrize(("path", "a", "b"), list(variants()), ids=lambda v: str(v).rsplit("/", 1)[-1])
def test_every_weight_of_two_variants_is_told_once(path, a, b):
    spec = load(path)
    left, right = spec.elaborate(a).graph, spec.elaborate(b).graph
    root = compare(left, right)
    conserved(left, right, root)
    assert root.silent == (left.hash == right.hash)


@pytest.mark.parametrize(("x", "y"), list(pairwise(shipped_files())), ids=lambda v: str(v).rsplit("/", 1)[-1])
def test_every_weight_of_two_models_is_told_once(x, y):
    left, right = load(x).elaborate().graph, load(y).elaborate().graph
    conserved(left, right, compare(left, right))


# ---------------------------------------------------------------- one edit each
BASE = """\
  x = x |> Linear(16) as embed
  layers: for i in range(3) {
    x = Pre(RMSNorm(), Attention(2))(x) as attn
    x = Pre(RMSNorm(), MLP(32))(x) as mlp
  }
  return x |> RMSNorm() as norm |> Linear(16) as head
"""


def test_a_renamed_block():
    assert told(BASE, BASE.replace("as head", "as out")) == [
        ("changed", "kept", "", "", ()), ("same", "renamed", "head", "out", ())]


def test_a_renamed_block_that_changed():
    found = told(BASE, BASE.replace("MLP(32))(x) as mlp", "MLP(64))(x) as ffn"))
    assert ("changed", "renamed", "layers.0.mlp", "layers.0.ffn", ()) in found
    assert not [c for c in found if c[0] in ("removed", "added")]
    (up,) = [c for c in found if c[2] == "layers.0.mlp.up"]
    assert up[3] == "layers.0.ffn.up" and "param weight: [32, 16] → [64, 16]" in up[4]


def test_a_renamed_list():
    assert told(BASE, BASE.replace("layers:", "blocks:")) == [
        ("changed", "kept", "", "", ()), ("same", "renamed", "layers.0", "blocks.0", ())]


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_inserted_layer_shifts_the_others(at):
    def layers(kinds: str) -> str:
        return f"""\
  layers: for kind in "{kinds}" {{
    x = match kind {{
      "a" => Pre(RMSNorm(), Attention(2))(x) as attn
      "m" => Pre(RMSNorm(), MLP(32))(x) as mlp
      "s" => Pre(RMSNorm(), SwiGLU(32))(x) as glu
    }}
  }}
  return x"""

    before = "ama"
    after = before[:at] + "s" + before[at:]
    found = told(layers(before), layers(after))
    assert [c[:4] for c in found if not c[3] or c[3].count(".") < 2][1:] == [("added", "kept", None, f"layers.{at}")]
    back = told(layers(after), layers(before))
    assert [c[:4] for c in back if not c[2] or c[2].count(".") < 2][1:] == [("removed", "kept", f"layers.{at}", None)]


def test_more_layers():
    found = told(BASE, BASE.replace("range(3)", "range(5)"))
    assert [c[:4] for c in found[:2]] == [("changed", "kept", "", ""), ("added", "kept", None, "layers.3")]
    root = folded(compare(graph(BASE), graph(BASE.replace("range(3)", "range(5)"))))
    (more,) = [c for c in root.below if c.kind == "added"]
    assert (more.count, more.last_after) == (2, "layers.4")


def test_a_block_that_moved_below_another():
    inner = "block Two(f: block)(x: [..., 16]) -> [..., 16] {\n  return x |> f as body |> Linear(16) as out\n}\n"
    found = told("  return x |> MLP(32) as mlp", "  return x |> Two(MLP(32)) as two", inner)
    assert ("same", "moved", "mlp", "two.body", ()) in found
    assert [c[:4] for c in found if c[0] in ("added", "removed")] == [("added", "kept", None, "two"), ("added", "kept", None, "two.out")]


def test_exchanged_names():
    a = "  return x |> MLP(32) as first |> SwiGLU(32) as second"
    found = told(a, "  return x |> MLP(32) as second |> SwiGLU(32) as first")
    assert [c[:4] for c in found] == [
        ("changed", "kept", "", ""), ("same", "renamed", "first", "second"), ("same", "renamed", "second", "first")]


def test_a_leaf_does_not_move_to_an_unrelated_place():
    """Linear maps of one size are everywhere: one that is gone here is not the one that is new there."""
    a = "  return (x |> Linear(16) as one) + (x |> MLP(32) as mlp)"
    b = "  return x |> Pre(LayerNorm(), Attention(2)) as attn"
    assert not [c for c in told(a, b) if c[1] == "moved"]


EDITS = [
    ("range(3)", "range(4)"), ("layers:", "blocks:"), ("as mlp", "as ffn"), ("as attn", "as mixer"), ("as head", "as out"), ("as norm", "as last"),
    ("as embed", "as stem"), ("MLP(32)", "MLP(48)"), ("MLP(32)", "SwiGLU(32)"), ("Attention(2)", "Attention(4)"), ("RMSNorm()", "LayerNorm()"),
    ("|> Linear(16) as head", ""), ("|> Linear(16) as embed", "|> MLP(32) as embed"), ("return x |>", "return x |> MLP(32) as mlp |>"),
]


@pytest.mark.parametrize("seed", range(60))
def test_any_edits_keep_every_weight(seed):
    pick = random.Random(seed)
    texts = [BASE, BASE]
    for old, new in pick.sample(EDITS, pick.randrange(1, 6)):
        side = pick.randrange(2)
        texts[side] = texts[side].replace(old, new)
    told(*texts)
    told(*reversed(texts))


def test_of_blocks_that_look_the_same_the_one_at_the_like_place():
    """A norm behind the branch is the later one of two, not the first."""
    one = "  return x |> Linear(16) as up |> Linear(16) as down |> RMSNorm() as norm"
    two = "  return x |> RMSNorm() as norm_in |> Linear(16) as up |> Linear(16) as down |> RMSNorm() as norm_out"
    assert [c[:4] for c in told(one, two)[1:]] == [("added", "kept", None, "norm_in"), ("same", "renamed", "norm", "norm_out")]


def test_layers_with_rates_of_their_own_are_one_change():
    body = "  layers: for rate in linspace({}, 4) {{\n    x = Pre(RMSNorm(), MLP(32), drop = rate)(x) as mlp\n  }}\n  return x"
    root = folded(compare(graph(body.format("0.1, 0.2")), graph(body.format("0.3, 0.7"))))
    (layers,) = root.below
    assert layers.count == 4 and not layers.resized
    notes = [n for c in layers.walk() for n in c.notes]
    assert {n.of(True) for n in notes} == {"drop_path: another rate in each"}
    assert "drop_path: rate 0.1 → 0.3" in {n.of(False) for n in notes}


# ---------------------------------------------------------------- what differs in a block
@pytest.mark.parametrize(("old", "new", "note"), [
    ("  return relu(x)", "  return gelu(x)", "relu → gelu"),
    ("  return x", "  return relu(x)", "with relu"),
    ("  return relu(x)", "  return x", "without relu"),
    ("  return softmax(x, axis = 1)", "  return softmax(x, axis = 2)", "softmax: axis 1 → 2"),
    ("  return x * 2", "  return x * 3", "mul: operand 2 2 → 3"),
    ("  y = relu(x)\n  z = exp(x)\n  return y - z", "  y = relu(x)\n  z = exp(x)\n  return z - y", "connected in another way"),
    ("  return x |> Linear(16) as a", "  return x |> Linear(16, bias = false) as a", "param bias: [16] removed"),
    ("  param s: [16] = ones\n  return x * s", "  param s: [16] = zeros\n  return x * s", "param s: init ones → zeros"),
    ("  param s: [16] = ones\n  return x * s", "  param t: [16] = ones\n  return x * t", "param s → t"),
    ("  param s: [16] = ones\n  return x * s", "  frozen param s: [16] = ones\n  return x * s", "param s: param → frozen"),
    ("  return x", "  require T % 2 == 0\n  return x", "requires"),
    ("  return x |> RMSNorm(eps = 1e-5) as n", "  return x |> RMSNorm(eps = 1e-6) as n", "rms_norm: eps 1e-05 → 1e-06"),
    ("  return x |> Attention(2) as a", "  return x |> Attention(2, mask = causal) as a", "full → causal"),
    ("  return x * x[:, :, :1]", "  return x * x[:, :, 3:4]", "slice: [:, :, :1] → [:, :, 3:4]"),
    ("  return gelu(exp(relu(exp(x))))", "  return gelu(relu(x))", "without exp  × 2"),
    ("  return x * 0.123456789", "  return x * 0.5", "mul: operand 2 0.123457 → 0.5"),
    ("  return rearrange(x, [B, T, (g h w)] -> [B, T, (h g w)], g = 2, h = 2)",
     "  return rearrange(x, [B, T, (g h w)] -> [B, T, (w h g)], g = 2, h = 2)",
     "rearrange: [a, b, (c d e)] -> [a, b, (d c e)] → [a, b, (c d e)] -> [a, b, (e d c)]"),
])
def test_notes(old, new, note):
    found = [n for c in told(old, new) for n in c[4]]
    assert [n for n in found if note in n], found
    assert told(old, old) == []


def test_a_difference_always_says_something():
    """No block is called changed without a note on it or on one below."""
    texts = [BASE, BASE.replace("Attention(2)", "Attention(4)"), BASE.replace("MLP(32)", "SwiGLU(32)"), BASE.replace("RMSNorm()", "LayerNorm()")]
    for a in texts:
        for b in texts:
            for c in compare(graph(a), graph(b)).walk():
                assert c.kind != "changed" or any(d.notes or d.kind in ("added", "removed") or d.place in ("renamed", "moved") for d in c.walk())


def test_sizes_alone():
    root = folded(compare(graph(BASE), graph(BASE.replace("MLP(32)", "MLP(64)"))))
    (layers,) = [c for c in root.below if c.kind == "changed"]
    assert layers.resized and layers.count == 3
    depthwise = "  return x |> Linear({0}) as up |> rearrange([B, T, c] -> [B, c, T, 1]) |> Conv({0}, 1, groups = {1}) as conv |> reduce(" \
        "[B, c, T, U] -> [B, T, U], mean) |> Linear(16) as down"
    (a, b, c) = (loads(HEAD + "use std.vision { Conv }\n" + f"model Net()(x: [B = 2, T = 4, 16]) -> y: [B, T, 16] {{\n{depthwise.format(*n)}\n}}\n")
                 .elaborate().graph for n in ((8, 8), (32, 32), (32, 4)))
    assert [c.resized for c in compare(a, b).below if c.before == "conv"] == [True]  # as many groups as channels: they follow
    assert [c.resized for c in compare(a, c).below if c.before == "conv"] == [False]
    other = compare(graph(BASE), graph(BASE.replace("MLP(32)", "SwiGLU(64)")))
    assert not any(c.resized for c in other.below)


def test_equal_numbers_are_no_difference():
    from fractions import Fraction

    from archdsl.diffing.notes import _same

    assert _same(0, 0.0) and _same(Fraction(1, 2), 0.5) and not _same(0, False) and not _same(1, 2.0) and _same("a", "a")
